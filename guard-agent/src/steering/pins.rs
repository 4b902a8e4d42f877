//! What outlives the agent in the BPF file system: one folder per agent, `/sys/fs/bpf/guard/<instance>`.
//!
//! Other parts of guard that pin something do it in folders below it, so that `guard-agent detach` finds all of it.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// Where the BPF file system belongs.
const ROOT: &str = "/sys/fs/bpf";

/// The folder of one agent.
#[derive(Clone, Debug)]
pub struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// The folder of `instance`, made where it is missing, as is the file system under it.
    pub fn open(instance: &str) -> io::Result<Self> {
        if !is_mounted() {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("bpf"), ROOT, Some("bpf"), flags, Some("mode=0700"))?;
        }
        let folder = folder_of(instance);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder })
    }

    /// The folder of `instance`, if it is there.
    pub fn existing(instance: &str) -> Option<Self> {
        let folder = folder_of(instance);
        (is_mounted() && folder.is_dir()).then_some(Self { folder })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A new folder in it. The kernel takes no dots in names.
    pub fn subfolder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.folder.join(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }

    /// Folders in it whose names begin with `prefix`.
    pub fn subfolders(&self, prefix: &str) -> Vec<PathBuf> {
        let starts = |path: &PathBuf| {
            path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(prefix))
        };
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).filter(starts).collect()
    }

    /// Removes everything, the folder included; tells what was pinned.
    pub fn remove(self) -> (Vec<PathBuf>, Option<io::Error>) {
        let removed = remove_tree(&self.folder);
        if removed.1.is_none()
            && let Some(parent) = self.folder.parent()
        {
            // Other agents of this host may have theirs in it.
            let _ = fs::remove_dir(parent);
        }
        removed
    }
}

/// Whether the BPF file system is mounted where it belongs.
pub fn is_mounted() -> bool {
    statfs(ROOT).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// Removes a folder and what is pinned in it: links first, so that nothing acts with half of its parts.
pub fn remove_tree(folder: &Path) -> (Vec<PathBuf>, Option<io::Error>) {
    let (mut removed, mut failure) = (Vec::new(), None);
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort_by_key(|path| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        (!name.starts_with("link"), path.clone())
    });
    for path in entries {
        if path.is_dir() {
            let (inside, error) = remove_tree(&path);
            removed.extend(inside);
            failure = failure.or(error);
        } else {
            match fs::remove_file(&path) {
                Ok(()) => removed.push(path),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
    }
    if failure.is_none() {
        failure = fs::remove_dir(folder).err().filter(|error| error.kind() != io::ErrorKind::NotFound);
    }
    (removed, failure)
}

fn folder_of(instance: &str) -> PathBuf {
    Path::new(ROOT).join("guard").join(instance)
}
