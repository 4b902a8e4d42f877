//! TCP: who connects to a watched port, and what a database's sockets accept and close.
//!
//! connect4 and connect6 run in the client and know it; its port is chosen later. sock_ops then knows both ends,
//! and the server's side of a local connection finds the client by them.

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_F_NO_PREALLOC, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE,
    },
    helpers::{
        bpf_probe_read_kernel,
        generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    },
    macros::{cgroup_sock_addr, map, sock_ops},
    maps::{HashMap, LruHashMap},
    programs::{SockAddrContext, SockOpsContext},
};
use guard_common::kernel::{
    EventKind, helper,
    process::TaskInfo,
    socket::{AcceptedEvent, ClosedEvent, ConnectedEvent, FlowKey, ended, watch},
};

use crate::{
    events::{header, log, reserve},
    read::{current_task_info, helpers, member, net_of_sock, offset},
    refusal::refuses_connect,
};

pub const AF_INET: u32 = 2;
pub const AF_INET6: u32 = 10;

/// Port in host order to [`watch`] bits.
#[map]
static WATCHED_PORTS: HashMap<u16, u8> = HashMap::with_max_entries(1024, 0);

/// Client of a socket that connects but has no port yet, or no connection where that is reported, by socket cookie.
#[map]
static CONNECTING: LruHashMap<u64, TaskInfo> = LruHashMap::with_max_entries(8192, 0);

/// Local clients of watched ports. The agent reads it when its proxy accepts.
#[map]
pub static CLIENTS: LruHashMap<FlowKey, TaskInfo> = LruHashMap::with_max_entries(32_768, 0);

/// Cookies of the sockets that were reported as accepted: other programs may ask for the end of other sockets.
#[map]
static OPEN: HashMap<u64, u8> = HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// A local process connects over IPv4.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: a field of the program's own context.
    let address = mapped(unsafe { read_volatile(&raw const (*ctx.sock_addr).user_ip4) });
    on_asking(&ctx, address)
}

/// A local process connects over IPv6; libpq's `localhost` may be `::1`.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    // SAFETY: a field of the program's own context.
    let address = bytes(unsafe { words(&raw const (*ctx.sock_addr).user_ip6) });
    on_asking(&ctx, address)
}

/// Remembers who asks. 0, which lets connect fail with EPERM, for what a verdict refuses.
#[inline(always)]
fn on_asking(ctx: &SockAddrContext, address: [u8; 16]) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let port = u16::from_be(unsafe { (*ctx.sock_addr).user_port } as u16);
    let watched = watched(port);
    if watched == 0 {
        return 1;
    }
    let task = current_task_info();
    if watched & watch::DATABASE != 0 && refuses_connect(ctx, &task, address, port) {
        return 0;
    }
    // SAFETY: the helper takes the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let _ = CONNECTING.insert(&cookie, &task, 0);
    1
}

/// The local process at the client's end.
#[inline(always)]
pub fn client_of(flow: &FlowKey) -> Option<TaskInfo> {
    // SAFETY: the entry is copied at once.
    unsafe { CLIENTS.get(flow) }.copied()
}

/// The local process at the client's end of what a server accepts; nobody where there is none.
///
/// The kernel evicts first what nobody has looked for since it was put there. That would be whoever connects at this
/// very moment, with the table full of accepted ones: what was looked for is put there anew, so that the oldest goes.
#[inline(always)]
pub fn accepted_client(flow: &FlowKey) -> TaskInfo {
    let Some(task) = client_of(flow) else { return TaskInfo::default() };
    if CLIENTS.remove(flow).is_ok() {
        let _ = CLIENTS.insert(flow, &task, 0);
    }
    task
}

/// Called for every TCP socket of the host at a few points of its life.
#[sock_ops]
pub fn socket_ops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => on_connect(&ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => on_connected(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => on_accept(&ctx),
        BPF_SOCK_OPS_STATE_CB => on_state(&ctx),
        _ => {}
    }
    0
}

/// In the client: its port is known now.
#[inline(always)]
fn on_connect(ctx: &SockOpsContext) {
    let watched = watched(remote_port(ctx));
    if watched & (watch::DATABASE | watch::PROXY) == 0 {
        return;
    }
    // SAFETY: the helper takes the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: the entry is copied at once, and only this socket writes it.
    let Some(task) = (unsafe { CONNECTING.get(&cookie) }) else { return };
    let Some((local, remote)) = addresses(ctx) else { return };
    let flow = flow(ctx, (local, local_port(ctx)), (remote, remote_port(ctx)));
    let _ = CLIENTS.insert(&flow, task, 0);
    log!(ctx, "pid {} connects from port {} to port {}", task.pid, flow.client_port, flow.server_port);
    if watched & watch::ELSEWHERE == 0 {
        let _ = CONNECTING.remove(&cookie);
    }
}

/// Still for the client, in whatever context the answer arrived: the connection stands.
#[inline(always)]
fn on_connected(ctx: &SockOpsContext) {
    if watched(remote_port(ctx)) & watch::ELSEWHERE == 0 {
        return;
    }
    // SAFETY: the helper takes the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: the entry is copied at once, and only this socket writes it.
    let Some(task) = (unsafe { CONNECTING.get(&cookie) }) else { return };
    let Some((local, remote)) = addresses(ctx) else { return };
    let flow = flow(ctx, (local, local_port(ctx)), (remote, remote_port(ctx)));
    report_connected(ctx, &flow, task);
    let _ = CONNECTING.remove(&cookie);
}

/// Tells of a connection to another host. Part by part: a whole event has no room on the stack beside what is there.
#[inline(always)]
pub fn report_connected<C: EbpfContext>(ctx: &C, flow: &FlowKey, task: &TaskInfo) {
    let Some(mut entry) = reserve::<ConnectedEvent>(EventKind::Connected) else { return };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is as large as the event.
    unsafe {
        (&raw mut (*event).header).write(header(EventKind::Connected));
        core::ptr::copy_nonoverlapping(flow, &raw mut (*event).flow, 1);
        core::ptr::copy_nonoverlapping(task, &raw mut (*event).client, 1);
    }
    entry.submit(ctx);
}

/// At the server's side, in soft interrupt context: the current task says nothing.
#[inline(always)]
fn on_accept(ctx: &SockOpsContext) {
    if watched(local_port(ctx)) & watch::DATABASE == 0 {
        return;
    }
    let Some((local, remote)) = addresses(ctx) else { return };
    let flow = flow(ctx, (remote, remote_port(ctx)), (local, local_port(ctx)));
    let _ = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
    // SAFETY: the helper takes the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let _ = OPEN.insert(&cookie, &1, 0);
    let client = accepted_client(&flow);
    let Some(mut entry) = reserve::<AcceptedEvent>(EventKind::Accepted) else { return };
    entry.write(AcceptedEvent {
        header: header(EventKind::Accepted),
        cookie,
        namespace: namespace(ctx),
        flow,
        client,
        net_namespace: net_of_sock(sock_address(ctx)),
        reserved: 0,
    });
    entry.submit(ctx);
}

#[inline(always)]
fn on_state(ctx: &SockOpsContext) {
    if ctx.arg(1) != BPF_TCP_CLOSE {
        return;
    }
    // SAFETY: the helper takes the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if OPEN.remove(&cookie).is_err() {
        return;
    }
    // SAFETY: fields of the program's own context.
    let (received, acked) = unsafe { ((*ctx.ops).bytes_received, (*ctx.ops).bytes_acked) };
    let flags = how_it_ended(ctx);
    let Some(mut entry) = reserve::<ClosedEvent>(EventKind::Closed) else { return };
    entry.write(ClosedEvent {
        header: header(EventKind::Closed),
        cookie,
        received,
        acked,
        previous_state: ctx.arg(0),
        flags,
    });
    entry.submit(ctx);
}

/// [`ended`] bits of a socket that is about to close.
#[inline(always)]
fn how_it_ended(ctx: &SockOpsContext) -> u32 {
    /// `SOCK_DONE` of the kernel's `enum sock_flags`: set when the peer's FIN arrives, and by nothing else in TCP.
    const DONE: u64 = 1 << 1;
    let Some(socket_flags) = member::<u64>(sock_address(ctx), offset!(sock_flags)) else { return 0 };
    // SAFETY: fields of the program's own context.
    let (sent, unacked) = unsafe { ((*ctx.ops).snd_nxt, (*ctx.ops).snd_una) };
    let mut flags = ended::KNOWN;
    if socket_flags & DONE != 0 {
        flags |= ended::BY_CLIENT;
    }
    if sent == unacked {
        flags |= ended::ALL_ACKED;
    }
    flags
}

/// A number that two sockets of this host share where they are in one network namespace: its cookie, its inode number on
/// kernels whose sock_ops have no cookie, 0 where neither can be had.
#[inline(always)]
fn namespace(ctx: &SockOpsContext) -> u64 {
    if helpers() & helper::NETNS_COOKIE != 0 {
        // SAFETY: the helper takes the program's own context.
        return unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    }
    net_of_sock(sock_address(ctx)).into()
}

/// Where the kernel has this socket; 0 where there is none. The verifier knows it as a socket and lets nobody reckon
/// with it: a copy through memory is a number.
#[inline(always)]
fn sock_address(ctx: &SockOpsContext) -> u64 {
    if helpers() & helper::SOCKET_READS == 0 {
        return 0;
    }
    // SAFETY: a field of the program's own context.
    let socket = unsafe { read_volatile(&raw const (*ctx.ops).__bindgen_anon_2.sk) };
    // SAFETY: reads the program's own stack.
    unsafe { bpf_probe_read_kernel((&raw const socket).cast::<u64>()) }.unwrap_or(0)
}

#[inline(always)]
pub fn watched(port: u16) -> u8 {
    // SAFETY: one byte, copied at once.
    unsafe { WATCHED_PORTS.get(&port) }.copied().unwrap_or(0)
}

#[inline(always)]
fn local_port(ctx: &SockOpsContext) -> u16 {
    ctx.local_port() as u16
}

/// The context has the remote port in network order in the upper half (`bpf_sock_ops` in the kernel's UAPI).
#[inline(always)]
fn remote_port(ctx: &SockOpsContext) -> u16 {
    u32::from_be(ctx.remote_port()) as u16
}

/// Local and remote address, IPv4 in its IPv6 form: so a socket of either family gives the same key.
#[inline(always)]
fn addresses(ctx: &SockOpsContext) -> Option<([u8; 16], [u8; 16])> {
    // All of them before the choice, and volatile: a load whose place in the context depends on a condition is
    // refused by the verifier, and that is what the compiler would make of it.
    // SAFETY: fields of the program's own context.
    let (local4, remote4, local6, remote6) = unsafe {
        (
            read_volatile(&raw const (*ctx.ops).local_ip4),
            read_volatile(&raw const (*ctx.ops).remote_ip4),
            words(&raw const (*ctx.ops).local_ip6),
            words(&raw const (*ctx.ops).remote_ip6),
        )
    };
    match ctx.family() {
        AF_INET => Some((mapped(local4), mapped(remote4))),
        AF_INET6 => Some((bytes(local6), bytes(remote6))),
        _ => None,
    }
}

/// # Safety
/// `address` must be a field of the program's own context.
#[inline(always)]
pub unsafe fn words(address: *const [u32; 4]) -> [u32; 4] {
    let first: *const u32 = address.cast();
    // SAFETY: four words, by the field's type; one load each, since the context takes no wider ones.
    unsafe {
        [
            read_volatile(first),
            read_volatile(first.add(1)),
            read_volatile(first.add(2)),
            read_volatile(first.add(3)),
        ]
    }
}

#[inline(always)]
pub fn mapped(ip: u32) -> [u8; 16] {
    bytes([0, 0, 0xffff_u32.to_be(), ip])
}

#[inline(always)]
pub fn bytes(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: the same size, and every bit pattern is valid.
    unsafe { core::mem::transmute(words) }
}

#[inline(always)]
fn flow(ctx: &SockOpsContext, client: ([u8; 16], u16), server: ([u8; 16], u16)) -> FlowKey {
    let namespace = if is_loopback(&client.0) { namespace(ctx) } else { 0 };
    FlowKey {
        client: client.0,
        server: server.0,
        namespace,
        client_port: client.1,
        server_port: server.1,
        reserved: 0,
    }
}

#[inline(always)]
pub fn is_loopback(address: &[u8; 16]) -> bool {
    // SAFETY: the same size, and every bit pattern is valid.
    let words: [u32; 4] = unsafe { core::mem::transmute(*address) };
    if words[0] != 0 || words[1] != 0 {
        return false;
    }
    if words[2] == 0xffff_u32.to_be() {
        address[12] == 127
    } else {
        words[2] == 0 && words[3] == 1_u32.to_be()
    }
}
