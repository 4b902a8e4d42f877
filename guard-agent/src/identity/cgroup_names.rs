//! Names of cgroups by id: told by the kernel when they are made, looked up otherwise.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::procfs;

/// Cgroups that are remembered. Ids are never used again while the host is up, so none goes stale.
const LIMIT: usize = 16_384;

/// Paths of cgroups in the v2 hierarchy.
#[derive(Debug)]
pub struct CgroupNames {
    root: Option<PathBuf>,
    /// With how it is known.
    paths: HashMap<u64, (String, &'static str)>,
    order: VecDeque<u64>,
}

impl CgroupNames {
    /// Knows none, but where to look.
    pub fn new() -> Self {
        Self { root: crate::sensor::cgroup_root(), paths: HashMap::new(), order: VecDeque::new() }
    }

    /// The kernel has told that the cgroup `id` was made at that path, from the root of the hierarchy.
    pub fn learn(&mut self, id: u64, path: String) {
        self.keep(id, path, "mkdir");
    }

    fn keep(&mut self, id: u64, path: String, how: &'static str) {
        if id != 0 && self.paths.insert(id, (path, how)).is_none() {
            self.order.push_back(id);
        }
    }

    /// Keeps to the limit; the oldest go.
    pub fn tidy(&mut self) {
        while self.order.len() > LIMIT {
            if let Some(oldest) = self.order.pop_front() {
                self.paths.remove(&oldest);
            }
        }
    }

    /// The path of cgroup `id`. Where processes are only grouped in the older hierarchies, the path that systemd
    /// gave the live process `pid` there. With how it is known: `mkdir`, `cgroupfs`, `procfs`.
    pub fn path(&mut self, id: u64, pid: u32) -> (String, &'static str) {
        if let Some((known, how)) = self.paths.get(&id)
            && known != "/"
        {
            return (known.clone(), how);
        }
        if id != 0
            && let Some(path) = self.root.as_deref().and_then(|root| path_by_id(root, id))
        {
            self.keep(id, path.clone(), "cgroupfs");
            if path != "/" {
                return (path, "cgroupfs");
            }
        }
        match from_process(pid) {
            Some(path) => (path, "procfs"),
            None if id == 0 => (String::new(), ""),
            None => ("/".to_owned(), "cgroupfs"),
        }
    }
}

fn from_process(pid: u32) -> Option<String> {
    let cgroups = procfs::cgroups(pid);
    let of = |name: &str| cgroups.iter().find(|(controllers, _)| controllers == name).map(|(_, path)| path);
    let path = of("").filter(|path| *path != "/").or_else(|| of("name=systemd")).or_else(|| of(""));
    path.cloned()
}

/// Opens the cgroup by its kernfs handle, as the kernel's documentation of `bpf_get_current_cgroup_id` tells.
fn path_by_id(root: &Path, id: u64) -> Option<String> {
    /// `FILEID_KERNFS` of the kernel's `exportfs.h`.
    const KERNFS: i32 = 0xfe;
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: u64,
    }
    let mut handle = Handle { bytes: 8, kind: KERNFS, id };
    let mount = fs::File::open(root).ok()?;
    // SAFETY: the handle is laid out as `struct file_handle` with eight bytes, and lives through the call.
    let fd = unsafe {
        let pointer = (&raw mut handle).cast();
        libc::open_by_handle_at(mount.as_raw_fd(), pointer, libc::O_PATH | libc::O_CLOEXEC)
    };
    if fd < 0 {
        return None;
    }
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    let folder = unsafe { OwnedFd::from_raw_fd(fd) };
    let absolute = fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).ok()?;
    let relative = absolute.strip_prefix(root).ok()?.to_str()?;
    Some(format!("/{relative}"))
}

#[cfg(test)]
mod tests {
    use super::{CgroupNames, LIMIT};

    #[test]
    fn the_limit_holds() {
        let mut names = CgroupNames::new();
        for id in 1..=(LIMIT as u64 + 100) {
            names.learn(id, format!("/{id}"));
        }
        names.tidy();
        assert_eq!(names.paths.len(), LIMIT);
        assert_eq!(names.path(LIMIT as u64 + 100, 0), (format!("/{}", LIMIT + 100), "mkdir"));
    }
}
