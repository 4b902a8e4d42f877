//! A file system of a few KiB, to fill up. Unmounted when dropped.

use std::{io, path::Path};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::skip::{self, Need};

/// A small tmpfs in a folder of its own.
#[derive(Debug)]
pub struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// Mounts one of `kib` KiB. `None`, said loudly, where this process may not mount.
    pub fn mount(kib: u32) -> io::Result<Option<Self>> {
        if skip::without(&[Need::Mounts]) {
            return Ok(None);
        }
        let dir = tempfile::tempdir()?;
        let size = format!("size={kib}k,mode=700");
        mount(Some("guard-test"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))?;
        Ok(Some(Self(dir)))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Detached even if a file is still open, so that nothing stays mounted.
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}
