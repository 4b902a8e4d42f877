//! Reading kernel structures at offsets that the agent resolved from this kernel's BTF.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_probe_read_kernel,
    generated::{self, bpf_get_current_cgroup_id, bpf_get_current_task},
};
use guard_common::kernel::{
    UNIX_PATH_LEN, helper,
    layout::{ABSENT, Layout},
    process::{TaskInfo, UNSET},
};

/// Filled in by the agent before loading, and frozen: the verifier sees constants.
#[unsafe(no_mangle)]
static LAYOUT: Layout = Layout::UNKNOWN;

/// Bits of [`helper`]: what this kernel lets the programs call. Filled in and frozen as well.
#[unsafe(no_mangle)]
static HELPERS: u32 = 0;

/// What this kernel lets the programs call.
#[inline(always)]
pub fn helpers() -> u32 {
    load(&raw const HELPERS)
}

/// One offset of [`LAYOUT`]: a volatile read, or the compiler would take the value of this file for the truth.
macro_rules! offset {
    ($field:ident) => {
        $crate::read::load(&raw const $crate::read::layout().$field)
    };
}
pub(crate) use offset;

#[inline(always)]
pub fn layout() -> &'static Layout {
    &LAYOUT
}

#[inline(always)]
pub fn load(offset: *const u32) -> u32 {
    // SAFETY: always a field of LAYOUT, or another constant of this object.
    unsafe { core::ptr::read_volatile(offset) }
}

/// The member at `offset` of the kernel structure at `base`; nothing where either is missing.
#[inline(always)]
pub fn member<T: Copy>(base: u64, offset: u32) -> Option<T> {
    if base == 0 || offset == ABSENT {
        return None;
    }
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// The same, with what stands for an absent member.
#[inline(always)]
pub fn member_or<T: Copy>(base: u64, offset: u32, absent: T) -> T {
    member(base, offset).unwrap_or(absent)
}

/// The member at `offset`, all zero where it is missing: the helper clears what it cannot fill. Without a branch, since
/// older verifiers (Linux 5.10) follow both ways of each through all that comes after.
#[inline(always)]
pub fn cleared<T: Copy>(base: u64, offset: u32) -> T {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    let to = value.as_mut_ptr();
    if offset == ABSENT {
        // SAFETY: room for one value; only integers and arrays of them are read.
        unsafe { to.write_bytes(0, 1) };
    } else {
        let from = base + u64::from(offset);
        // SAFETY: room for one value, which the helper fills or clears; it checks the source.
        unsafe { generated::bpf_probe_read_kernel(to.cast(), size_of::<T>() as u32, from as *const _) };
    }
    // SAFETY: written on both ways; every bit pattern of an integer is valid.
    unsafe { value.assume_init() }
}

/// A user or group, or a number of the audit system: [`UNSET`] where it is missing, for zero is root. Without a branch, too.
#[inline(always)]
pub fn number_of(base: u64, offset: u32) -> u32 {
    if offset == ABSENT {
        return UNSET;
    }
    let mut value = 0_u32;
    let from = base + u64::from(offset);
    // SAFETY: a variable of this function, which the helper fills or clears; it checks the source.
    let failed = unsafe { generated::bpf_probe_read_kernel((&raw mut value).cast(), 4, from as *const _) };
    // All ones for an error, which is negative.
    value | (failed >> 63) as u32
}

/// Reads the name of a unix socket from where the kernel has it, `length` bytes at most; true for an abstract one. `to` has to
/// be all zero. By helpers, without a loop: a verifier follows every way through one.
#[inline(always)]
pub fn read_name(to: *mut u8, source: u64, length: i32) -> Option<bool> {
    const MOST: u32 = UNIX_PATH_LEN as u32;
    let first: u8 = member(source, 0)?;
    // Of a path, one more: for the zero byte that is put behind it.
    let wanted = length as u32 + u32::from(first != 0);
    let wanted = if wanted > MOST { MOST } else { wanted };
    // The verifier takes a size whose bounds it has seen: the compiler would leave out what it knows itself.
    // SAFETY: a variable of this function.
    let size = unsafe { core::ptr::read_volatile(&raw const wanted) } & 127;
    if length <= 0 || size == 0 || size > MOST {
        return None;
    }
    if first == 0 {
        // SAFETY: the caller has room for the longest name; the helper checks the source.
        let read = unsafe { generated::bpf_probe_read_kernel(to.cast(), size, source as *const _) };
        return (read == 0).then_some(true);
    }
    // SAFETY: as above.
    let read = unsafe { generated::bpf_probe_read_kernel_str(to.cast(), size, source as *const _) };
    // A path of all bytes, without a zero byte behind it, is none that guard knows.
    let last = u64::from(MOST) - 1;
    if read <= 0 || (read == i64::from(MOST) && member::<u8>(source + last, 0)? != 0) {
        return None;
    }
    Some(false)
}

/// Everything about the process of `task`, which may be any of its threads.
#[inline(always)]
pub fn task_info(task: u64) -> TaskInfo {
    let leader: u64 = cleared(task, offset!(task_group_leader));
    // The parent of a thread is that of its leader; a thread may be its child's real parent.
    let parent: u64 = cleared(leader, offset!(task_real_parent));
    let parent_leader: u64 = cleared(parent, offset!(task_group_leader));
    let cred: u64 = cleared(task, offset!(task_cred));
    let nsproxy: u64 = cleared(task, offset!(task_nsproxy));
    TaskInfo {
        start_ns: cleared(leader, offset!(task_start_boottime)),
        parent_start_ns: cleared(parent_leader, offset!(task_start_boottime)),
        cgroup_id: cgroup_id(task),
        exec_id: exec_id(leader),
        pid: cleared(task, offset!(task_tgid)),
        parent_pid: cleared(parent, offset!(task_tgid)),
        uid: number_of(cred, offset!(cred_uid)),
        gid: number_of(cred, offset!(cred_gid)),
        euid: number_of(cred, offset!(cred_euid)),
        login_uid: number_of(task, offset!(task_login_uid)),
        session: number_of(task, offset!(task_session)),
        pid_namespace: pid_namespace(task),
        mount_namespace: namespace(nsproxy, offset!(nsproxy_mnt), offset!(mnt_namespace_ns)),
        net_namespace: namespace(nsproxy, offset!(nsproxy_net), offset!(net_ns)),
        comm: cleared(leader, offset!(task_comm)),
    }
}

/// The process that runs right now, for programs on cgroups; where they cannot read it, what helpers tell.
#[inline(always)]
pub fn current_task_info() -> TaskInfo {
    if offset!(known) == 1 && helpers() & helper::CGROUP_READS != 0 {
        // SAFETY: a helper without arguments.
        return task_info(unsafe { bpf_get_current_task() });
    }
    identified()
}

/// The same for tracing programs, which can read on every kernel with BTF.
#[inline(always)]
pub fn traced_task_info() -> TaskInfo {
    if offset!(known) == 1 {
        // SAFETY: a helper without arguments.
        return task_info(unsafe { bpf_get_current_task() });
    }
    identified()
}

/// What helpers tell of the process that runs right now.
#[inline(always)]
fn identified() -> TaskInfo {
    let ids = bpf_get_current_uid_gid();
    TaskInfo {
        pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        uid: ids as u32,
        gid: (ids >> 32) as u32,
        euid: UNSET,
        login_uid: UNSET,
        session: UNSET,
        // SAFETY: a helper without arguments.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        ..TaskInfo::default()
    }
}

/// It was 32 bits wide until Linux 5.7; the member after it makes no difference to an equality.
#[inline(always)]
fn exec_id(leader: u64) -> u64 {
    cleared(leader, offset!(task_exec_id))
}

#[inline(always)]
fn cgroup_id(task: u64) -> u64 {
    let set: u64 = cleared(task, offset!(task_cgroups));
    let cgroup: u64 = cleared(set, offset!(css_set_dfl_cgrp));
    kernfs_id(cgroup)
}

/// Inode number of the network namespace of a `struct sock`.
#[inline(always)]
pub fn net_of_sock(sock: u64) -> u32 {
    namespace(sock, offset!(sock_net), offset!(net_ns))
}

/// Inode number of the network namespace of the process that runs right now.
#[inline(always)]
pub fn current_net_namespace() -> u32 {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let nsproxy: u64 = cleared(task, offset!(task_nsproxy));
    namespace(nsproxy, offset!(nsproxy_net), offset!(net_ns))
}

/// Inode number of the mount namespace of a process; 0 where it cannot be told.
#[inline(always)]
pub fn mount_namespace_of(task: u64) -> u32 {
    let nsproxy: u64 = cleared(task, offset!(task_nsproxy));
    namespace(nsproxy, offset!(nsproxy_mnt), offset!(mnt_namespace_ns))
}

/// The process that a `struct pid` names as thread group; nothing where it has ended.
#[inline(always)]
pub fn task_of_pid(pid: u64) -> Option<u64> {
    /// `PIDTYPE_TGID` of the kernel's `enum pid_type`; lists are one pointer, links are two.
    const THREAD_GROUP: u64 = 1;
    let (tasks, links) = (offset!(pid_tasks), offset!(task_pid_links));
    if tasks == ABSENT || links == ABSENT || pid == 0 {
        return None;
    }
    let first: u64 = member(pid + u64::from(tasks) + THREAD_GROUP * 8, 0)?;
    if first == 0 {
        return None;
    }
    Some(first - u64::from(links) - THREAD_GROUP * 16)
}

/// The id of a `struct cgroup`.
#[inline(always)]
pub fn kernfs_id(cgroup: u64) -> u64 {
    let node: u64 = cleared(cgroup, offset!(cgroup_kn));
    cleared(node, offset!(kernfs_node_id))
}

#[inline(always)]
fn namespace(holder: u64, which: u32, common: u32) -> u32 {
    if common == ABSENT {
        return 0;
    }
    // Where there is none, there is nothing to read below either.
    let namespace: u64 = cleared(holder, which);
    cleared(namespace + u64::from(common), offset!(ns_common_inum))
}

/// The pid namespace in which the process runs: that of the deepest of its numbers.
#[inline(always)]
fn pid_namespace(task: u64) -> u32 {
    let pid: u64 = cleared(task, offset!(task_thread_pid));
    let level: u32 = cleared(pid, offset!(pid_level));
    let (numbers, common) = (offset!(pid_numbers), offset!(pid_namespace_ns));
    if numbers == ABSENT || common == ABSENT {
        return 0;
    }
    // `struct upid` is an int, its padding and a pointer on every 64-bit kernel; namespaces nest no deeper than 32.
    let number = pid + u64::from(numbers) + u64::from(level & 63) * 16;
    namespace(number, offset!(upid_ns), common)
}
