//! Reads processes from /proc: what runs before the kernel side does, and what it missed.

use std::{fs, io::Read, os::unix::fs::MetadataExt, path::Path};

use guard_common::kernel::process::{ARGV_LEN, COMM_LEN, TaskInfo, UNSET};
use procfs::process::Process;

use super::image::{Image, arguments};

/// /proc counts in clock ticks of 10 ms.
pub const NS_PER_TICK: u64 = 10_000_000;

/// A process as /proc shows it. Its start time is rounded down to a tick.
#[derive(Debug)]
pub struct Found {
    /// Ids; the cgroup is not known.
    pub task: TaskInfo,
    /// What it runs.
    pub image: Image,
}

/// Every process of this pid namespace.
pub fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// When that process started, in nanoseconds after boot, rounded down to a tick.
pub fn start_ns(pid: u32) -> Option<u64> {
    Some(open(pid)?.stat().ok()?.starttime.saturating_mul(NS_PER_TICK))
}

/// Everything about a process; nothing where it is gone.
pub fn read(pid: u32, cgroup_root: Option<&Path>) -> Option<Found> {
    let process = open(pid)?;
    let stat = process.stat().ok()?;
    let status = process.status().ok()?;
    let namespace = |name: &str| {
        let file = fs::metadata(format!("/proc/{pid}/ns/{name}")).ok();
        file.and_then(|file| u32::try_from(file.ino()).ok()).unwrap_or_default()
    };
    let mut comm = [0; COMM_LEN];
    let name = stat.comm.as_bytes();
    let length = name.len().min(COMM_LEN);
    comm[..length].copy_from_slice(&name[..length]);
    let task = TaskInfo {
        exec_id: 0,
        start_ns: stat.starttime.saturating_mul(NS_PER_TICK),
        parent_start_ns: 0,
        cgroup_id: cgroup_root.and_then(|root| cgroup_id(pid, root)).unwrap_or(0),
        pid,
        parent_pid: u32::try_from(stat.ppid).unwrap_or(0),
        uid: status.ruid,
        gid: status.rgid,
        euid: status.euid,
        login_uid: number(pid, "loginuid").unwrap_or(UNSET),
        session: number(pid, "sessionid").unwrap_or(UNSET),
        comm,
        pid_namespace: namespace("pid"),
        mount_namespace: namespace("mnt"),
        net_namespace: namespace("net"),
    };
    Some(Found { task, image: image(pid, stat.comm) })
}

fn open(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

fn image(pid: u32, comm: String) -> Image {
    let executable = fs::read_link(format!("/proc/{pid}/exe"))
        .map(|path| {
            let path = path.to_string_lossy().into_owned();
            // The file was replaced, for example by an upgrade.
            path.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(path)
        })
        .unwrap_or_default();
    let argv = bounded(Path::new(&format!("/proc/{pid}/cmdline")), ARGV_LEN + 1);
    let kept = argv.len().min(ARGV_LEN);
    let inode = fs::metadata(format!("/proc/{pid}/exe")).map(|file| file.ino()).unwrap_or_default();
    Image { executable, argv: arguments(&argv[..kept]), argv_truncated: argv.len() > ARGV_LEN, comm, inode }
}

fn number(pid: u32, file: &str) -> Option<u32> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?.trim().parse().ok()
}

fn bounded(path: &Path, limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(limit as u64).read_to_end(&mut bytes);
    }
    bytes
}

/// Lines of `/proc/PID/cgroup` as (controllers, path); the v2 hierarchy has no controllers.
pub fn cgroups(pid: u32) -> Vec<(String, String)> {
    let bytes = bounded(Path::new(&format!("/proc/{pid}/cgroup")), 64 * 1024);
    String::from_utf8_lossy(&bytes)
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
        })
        .collect()
}

/// The id of a process's cgroup in the v2 hierarchy: the inode number of its folder.
fn cgroup_id(pid: u32, root: &Path) -> Option<u64> {
    let (_, path) = cgroups(pid).into_iter().find(|(controllers, _)| controllers.is_empty())?;
    Some(fs::metadata(root.join(path.trim_start_matches('/'))).ok()?.ino())
}

#[cfg(test)]
mod tests {
    use super::{pids, read, start_ns};

    #[test]
    fn reads_itself() {
        let pid = std::process::id();
        assert!(pids().contains(&pid));
        let found = read(pid, None).expect("this process exists");
        assert_eq!(found.task.pid, pid);
        assert_eq!(found.image.executable, std::env::current_exe().unwrap().to_string_lossy());
        assert_eq!(Some(found.task.start_ns), start_ns(pid));
        assert!(!found.image.argv.is_empty());
    }

    #[test]
    fn a_process_that_is_gone_is_nothing() {
        assert!(read(4_000_000, None).is_none());
    }
}
