//! Who runs: captured at exec, fork and connect, since short-lived processes are gone before /proc is read.

use super::EventHeader;

/// Bytes of an executable's path that are kept.
pub const PATH_LEN: usize = 512;
/// Longest name of a file that the kernel takes, with its final zero byte.
pub const NAME_LEN: usize = 256;
/// Bytes of the argument vector that are kept.
pub const ARGV_LEN: usize = 1024;
/// `TASK_COMM_LEN` of the kernel.
pub const COMM_LEN: usize = 16;
/// Value of a login uid or session that was never set.
pub const UNSET: u32 = u32::MAX;

/// One process as the kernel saw it at that moment. Fields that this kernel cannot give are 0 or [`UNSET`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct TaskInfo {
    /// Nanoseconds after boot (suspend included) at which the thread group's leader started.
    pub start_ns: u64,
    /// The same of the parent.
    pub parent_start_ns: u64,
    /// Id of the cgroup in the v2 hierarchy.
    pub cgroup_id: u64,
    /// Counts the images of this process and of those that it was forked from; 0 where the kernel does not tell.
    pub exec_id: u64,
    /// Thread group id: what userspace calls pid.
    pub pid: u32,
    /// Thread group id of the parent.
    pub parent_pid: u32,
    /// Real user id, in the initial user namespace.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective user id.
    pub euid: u32,
    /// The audit login uid, or [`UNSET`].
    pub login_uid: u32,
    /// The audit session, or [`UNSET`].
    pub session: u32,
    /// Inode number of the pid namespace.
    pub pid_namespace: u32,
    /// Inode number of the mount namespace.
    pub mount_namespace: u32,
    /// Inode number of the network namespace.
    pub net_namespace: u32,
    /// `comm`, padded with zero bytes.
    pub comm: [u8; COMM_LEN],
}

impl TaskInfo {
    /// What names one image of one process with its ids: all that a decision about it can depend on. Nothing where
    /// the kernel side could not read it. The parent is left out: another may take over its children.
    pub const fn identity(&self) -> Option<Self> {
        if self.pid == 0 || self.start_ns == 0 || self.exec_id == 0 || self.net_namespace == 0 {
            return None;
        }
        Some(Self { parent_pid: 0, parent_start_ns: 0, ..*self })
    }
}

/// A new program image.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ExecEvent {
    /// Kind [`super::EventKind::Exec`].
    pub header: EventHeader,
    /// The process, after the exec.
    pub task: TaskInfo,
    /// True length of the argument vector in bytes; [`ExecEvent::argv`] may hold less.
    pub argv_bytes: u32,
    /// Bytes of [`ExecEvent::argv`] that are filled.
    pub argv_kept: u32,
    /// Bytes of [`ExecEvent::path`] that are filled.
    pub path_kept: u32,
    /// 1 where names are missing between the root and the last one in [`ExecEvent::path`].
    pub path_truncated: u32,
    /// Inode number of the program file.
    pub inode: u64,
    /// Names on the way from the program file up to the root, each ended by a zero byte; for scripts, of the
    /// interpreter. Read from the file that was opened, so that no link can be changed behind it.
    pub path: [u8; PATH_LEN],
    /// Arguments, each ended by a zero byte.
    pub argv: [u8; ARGV_LEN],
}

/// A new process (not a thread).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ForkEvent {
    /// Kind [`super::EventKind::Fork`].
    pub header: EventHeader,
    /// The child.
    pub task: TaskInfo,
}

/// A thread group's leader has ended.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ExitEvent {
    /// Kind [`super::EventKind::Exit`].
    pub header: EventHeader,
    /// Its [`TaskInfo::start_ns`].
    pub start_ns: u64,
    /// Its pid.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
}
