//! A cgroup of a service: what systemd makes of a unit, without systemd.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

/// `system.slice/<unit>` in the cgroup v2 hierarchy. Dropping it removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    unit: String,
    /// The slice, where this value made it.
    slice: Option<PathBuf>,
}

impl Cgroup {
    /// Makes the cgroup of the service `unit`, such as `orders.service`. It must not exist.
    pub fn service(unit: &str) -> Result<Self> {
        let slice = root()?.join("system.slice");
        let made_slice = !slice.exists();
        fs::create_dir_all(&slice).with_context(|| format!("cannot make the cgroup {}", slice.display()))?;
        let path = slice.join(unit);
        fs::create_dir(&path).with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(Self { path, unit: unit.to_owned(), slice: made_slice.then_some(slice) })
    }

    /// Its unit's name.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Where it is in the file system.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets `command` run in it, from its first instruction on.
    pub fn apply(&self, command: &mut Command) -> Result<()> {
        let procs = File::options().write(true).open(self.path.join("cgroup.procs"))?;
        // SAFETY: the closure makes one system call on a file that it owns, and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                // 0 stands for the writing process.
                match libc::write(procs.as_raw_fd(), b"0".as_ptr().cast(), 1) {
                    1 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has just ended may still be counted for a moment.
        for _ in 0..50 {
            match fs::remove_dir(&self.path) {
                Ok(()) => break,
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
        if let Some(slice) = &self.slice {
            // Another test may have put its own cgroup there by now: then it stays.
            let _ = fs::remove_dir(slice);
        }
    }
}

/// Where cgroup v2 is mounted.
pub fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    mount_of_cgroup2(&mounts).context("no cgroup v2 hierarchy is mounted")
}

fn mount_of_cgroup2(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_on_pure_and_hybrid_hosts() {
        let hybrid =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_of_cgroup2(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(
            mount_of_cgroup2("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"),
            Some("/sys/fs/cgroup".into())
        );
        assert_eq!(mount_of_cgroup2("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"), None);
    }
}
