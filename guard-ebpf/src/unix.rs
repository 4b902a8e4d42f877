//! What a database accepts on its unix sockets, seen in the server when accept returns.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_task},
    macros::{map, raw_tracepoint, tracepoint},
    maps::{HashMap, PerCpuArray},
    programs::{RawTracePointContext, TracePointContext},
};
use guard_common::kernel::{
    EventKind, UNIX_PATH_LEN,
    layout::ABSENT,
    process::TaskInfo,
    unix::{UnixAcceptedEvent, UnixBytes, UnixPath},
};

use crate::{
    events::{header, reserve},
    read::{cleared, current_net_namespace, member, number_of, offset, read_name, task_info, task_of_pid},
};

const AF_UNIX: u16 = 1;
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// Where the return value is in the context of every `sys_exit_*` tracepoint.
const RETURN_VALUE: usize = 16;

/// Paths of database sockets.
#[map]
static WATCHED_PATHS: HashMap<UnixPath, u8> = HashMap::with_max_entries(256, 0);

/// What was read from and written to the connections that were reported; the agent takes them out. With its memory from
/// the start: kernels before 6.1 warn in their log of tracing programs whose maps allocate.
#[map]
static UNIX_BYTES: HashMap<u64, UnixBytes> = HashMap::with_max_entries(65_536, 0);

/// How many messages of all sockets were looked at for that.
#[map]
static MESSAGES: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Where an address is read to.
#[map]
static BOUND: PerCpuArray<UnixPath> = PerCpuArray::with_max_entries(1, 0);

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
    let file = file_of(i32::try_from(descriptor).ok()?)?;
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
    unsafe { WATCHED_PATHS.get(path) }?;
    report(ctx, sock, cleared(inode, offset!(inode_number)), path);
    Some(())
}

/// The open file of the current process with that descriptor.
#[inline(always)]
pub fn file_of(descriptor: i32) -> Option<u64> {
    if descriptor < 0 {
        return None;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let files: u64 = cleared(task, offset!(task_files));
    let table: u64 = cleared(files, offset!(files_fdt));
    let open: u64 = cleared(table, offset!(fdtable_fd));
    let file: u64 = cleared(open + descriptor as u64 * 8, 0);
    (open != 0 && file != 0).then_some(file)
}

/// The address to which the listening socket was bound; an accepted socket shares it. It is kept outside of the stack,
/// which is too small for it and a process beside it.
#[inline(always)]
fn bound_path(sock: u64) -> Option<&'static UnixPath> {
    let address: u64 = member(sock, offset!(unix_addr))?;
    let length: i32 = member(address, offset!(unix_address_len))?;
    // Family first, then the path; a path's final zero byte counts, an abstract name has none.
    if length <= 2 || length > 2 + UNIX_PATH_LEN as i32 || offset!(unix_address_name) == ABSENT {
        return None;
    }
    let path = BOUND.get_ptr_mut(0)?;
    // SAFETY: the slot belongs to this CPU, and programs are not preempted by themselves.
    unsafe { path.write(UnixPath { bytes: [0; UNIX_PATH_LEN] }) };
    let source = address + u64::from(offset!(unix_address_name)) + 2;
    read_name(path.cast(), source, length - 2)?;
    // SAFETY: as above, and it was filled just now.
    Some(unsafe { &*path })
}

#[inline(always)]
fn report(ctx: &TracePointContext, sock: u64, inode: u64, path: &UnixPath) {
    let Some(mut entry) = reserve::<UnixAcceptedEvent>(EventKind::UnixAccepted) else { return };
    let credentials: u64 = cleared(sock, offset!(sock_peer_cred));
    let _ = UNIX_BYTES.insert(&sock, &UnixBytes { inode, received: 0, sent: 0 }, 0);
    let event = entry.as_mut_ptr();
    // Field by field: the whole of it does not fit the stack.
    // SAFETY: the ring buffer's entry is as large as the event, and every field of it is written.
    unsafe {
        (&raw mut (*event).header).write(header(EventKind::UnixAccepted));
        (&raw mut (*event).inode).write(inode);
        (&raw mut (*event).peer_inode).write(peer_inode(sock));
        (&raw mut (*event).key).write(sock);
        (&raw mut (*event).server_pid).write((bpf_get_current_pid_tgid() >> 32) as u32);
        (&raw mut (*event).client_pid).write(peer_pid(sock));
        (&raw mut (*event).client_uid).write(number_of(credentials, offset!(cred_euid)));
        (&raw mut (*event).client_gid).write(number_of(credentials, offset!(cred_egid)));
        (&raw mut (*event).path).write(*path);
        // The server's: the kernel makes its end of the connection in the namespace of whoever connects.
        (&raw mut (*event).net_namespace).write(current_net_namespace());
        match task_of_pid(cleared(sock, offset!(sock_peer_pid))) {
            Some(task) => (&raw mut (*event).client).write(task_info(task)),
            None => (&raw mut (*event).client).write(TaskInfo::default()),
        }
    }
    entry.submit(ctx);
}

/// The pid in the initial namespace of whoever connected.
#[inline(always)]
fn peer_pid(sock: u64) -> u32 {
    let pid: u64 = cleared(sock, offset!(sock_peer_pid));
    cleared(pid + u64::from(offset!(pid_numbers)), offset!(upid_nr))
}

/// `sock_send_length(struct sock *sk, int ret, int flags)`: after every send of any socket.
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn sock_sent(ctx: RawTracePointContext) -> i32 {
    count(&ctx, |bytes| &raw mut bytes.sent);
    0
}

/// `sock_recv_length`, likewise.
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn sock_received(ctx: RawTracePointContext) -> i32 {
    /// A look at what stays to be read.
    const MSG_PEEK: u64 = 2;
    if ctx.arg::<u64>(2) & MSG_PEEK == 0 {
        count(&ctx, |bytes| &raw mut bytes.received);
    }
    0
}

#[inline(always)]
fn count(ctx: &RawTracePointContext, counter: impl FnOnce(&mut UnixBytes) -> *mut u64) {
    let sock: u64 = ctx.arg(0);
    let length: i32 = ctx.arg(1);
    if length <= 0 {
        return;
    }
    if let Some(messages) = MESSAGES.get_ptr_mut(0) {
        // SAFETY: the slot belongs to this CPU; one that is counted twice or not at all does no harm.
        unsafe { *messages = (*messages).wrapping_add(1) };
    }
    // Most messages of a host are not for unix sockets: what they are costs less to read than to look for in the map.
    let family: u16 = cleared(sock, offset!(sock_family));
    if family != AF_UNIX {
        return;
    }
    let Some(bytes) = UNIX_BYTES.get_ptr_mut(&sock) else { return };
    // SAFETY: the entry lives for the program's run. This target has no atomic addition: a server's socket is one
    // process's, which reads or writes on one CPU at a time.
    unsafe {
        // The memory of a closed socket is another one's soon.
        if (*bytes).inode != own_inode(sock) {
            return;
        }
        *counter(&mut *bytes) += length as u64;
    }
}

/// Inode number of the client's socket; it is gone when the client has closed it already.
#[inline(always)]
fn peer_inode(sock: u64) -> u64 {
    own_inode(cleared(sock, offset!(unix_peer)))
}

/// Inode number of a socket.
#[inline(always)]
fn own_inode(sock: u64) -> u64 {
    let (inner, inode) = (offset!(socket_alloc_socket), offset!(socket_alloc_inode));
    if inner == ABSENT || inode == ABSENT {
        return 0;
    }
    // A socket and its inode are two members of one `struct socket_alloc`. Where there is no socket, nothing is there.
    let socket: u64 = cleared(sock, offset!(sock_socket));
    cleared(socket.wrapping_sub(u64::from(inner)).wrapping_add(u64::from(inode)), offset!(inode_number))
}
