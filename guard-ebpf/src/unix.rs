//! What a database accepts on its unix sockets, seen in the server when accept returns.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_task},
    macros::{map, tracepoint},
    maps::HashMap,
    programs::TracePointContext,
};
use guard_common::kernel::{
    EventKind, UNIX_PATH_LEN,
    layout::ABSENT,
    process::UNSET,
    unix::{UnixAcceptedEvent, UnixPath},
};

use crate::{
    events::{header, reserve},
    read::{member, member_or, offset},
};

const AF_UNIX: u16 = 1;
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// Where the return value is in the context of every `sys_exit_*` tracepoint.
const RETURN_VALUE: usize = 16;

/// Paths of database sockets.
#[map]
static WATCHED_PATHS: HashMap<UnixPath, u8> = HashMap::with_max_entries(256, 0);

/// accept has returned.
#[tracepoint(category = "syscalls", name = "sys_exit_accept")]
pub fn accept(ctx: TracePointContext) -> u32 {
    accepted(&ctx);
    0
}

/// accept4 has returned.
#[tracepoint(category = "syscalls", name = "sys_exit_accept4")]
pub fn accept4(ctx: TracePointContext) -> u32 {
    accepted(&ctx);
    0
}

#[inline(always)]
fn accepted(ctx: &TracePointContext) -> Option<()> {
    // SAFETY: within the tracepoint's record.
    let descriptor: i64 = unsafe { ctx.read_at(RETURN_VALUE) }.ok()?;
    if descriptor < 0 {
        return None;
    }
    let file = file_of(descriptor as u64)?;
    let inode: u64 = member(file, offset!(file_inode))?;
    let mode: u16 = member(inode, offset!(inode_mode))?;
    if mode & S_IFMT != S_IFSOCK {
        return None; // Another thread has replaced the descriptor.
    }
    let socket: u64 = member(file, offset!(file_private_data))?;
    let sock: u64 = member(socket, offset!(socket_sk))?;
    let family: u16 = member(sock, offset!(sock_family))?;
    if family != AF_UNIX {
        return None;
    }
    let path = bound_path(sock)?;
    // SAFETY: one byte, only its presence matters.
    unsafe { WATCHED_PATHS.get(&path) }?;
    report(sock, member_or(inode, offset!(inode_number), 0), path);
    Some(())
}

/// The open file of the current process with that descriptor.
#[inline(always)]
pub fn file_of(descriptor: u64) -> Option<u64> {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let files: u64 = member(task, offset!(task_files))?;
    let table: u64 = member(files, offset!(files_fdt))?;
    let open: u64 = member(table, offset!(fdtable_fd))?;
    if open == 0 {
        return None;
    }
    let slot = open + descriptor * 8;
    member(slot, 0).filter(|file: &u64| *file != 0)
}

/// The address to which the listening socket was bound; an accepted socket shares it.
#[inline(always)]
fn bound_path(sock: u64) -> Option<UnixPath> {
    let address: u64 = member(sock, offset!(unix_addr))?;
    let length: i32 = member(address, offset!(unix_address_len))?;
    // Family first, then the path; a path's final zero byte counts, an abstract name has none.
    if length <= 2 || length > 2 + UNIX_PATH_LEN as i32 {
        return None;
    }
    let mut path: UnixPath = member(address, offset!(unix_address_name) + 2)?;
    let length = length as usize - 2;
    // What follows the name in memory is not part of it.
    let mut index = 0;
    while index < UNIX_PATH_LEN {
        if index >= length {
            path.bytes[index] = 0;
        }
        index += 1;
    }
    Some(path)
}

#[inline(always)]
fn report(sock: u64, inode: u64, path: UnixPath) {
    let Some(mut entry) = reserve::<UnixAcceptedEvent>(EventKind::UnixAccepted) else { return };
    let credentials: u64 = member_or(sock, offset!(sock_peer_cred), 0);
    entry.write(UnixAcceptedEvent {
        header: header(EventKind::UnixAccepted),
        inode,
        peer_inode: peer_inode(sock),
        server_pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        client_pid: peer_pid(sock),
        client_uid: member_or(credentials, offset!(cred_euid), UNSET),
        client_gid: member_or(credentials, offset!(cred_egid), UNSET),
        path,
        reserved: 0,
    });
    entry.submit(0);
}

/// The pid in the initial namespace of whoever connected.
#[inline(always)]
fn peer_pid(sock: u64) -> u32 {
    let pid: u64 = member_or(sock, offset!(sock_peer_pid), 0);
    if pid == 0 {
        return 0;
    }
    member_or(pid + u64::from(offset!(pid_numbers)), offset!(upid_nr), 0)
}

/// Inode number of the client's socket; it is gone when the client has closed it already.
#[inline(always)]
fn peer_inode(sock: u64) -> u64 {
    let peer: u64 = member_or(sock, offset!(unix_peer), 0);
    let socket: u64 = member_or(peer, offset!(sock_socket), 0);
    let (inner, inode) = (offset!(socket_alloc_socket), offset!(socket_alloc_inode));
    if socket == 0 || inner == ABSENT || inode == ABSENT {
        return 0;
    }
    // A socket and its inode are two members of one `struct socket_alloc`.
    member_or(socket - u64::from(inner) + u64::from(inode), offset!(inode_number), 0)
}
