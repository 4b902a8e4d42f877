//! TCP by its changes of state, where nothing can be attached to cgroups: who connects to a watched port, and what a
//! database's sockets accept and close. The context is the tracepoint's own, described by tracefs: no BTF is needed.
//!
//! A connect begins in the client, when its port is not known yet; the socket's address ties that to the moment at
//! which the connection stands, and both ends of it to the server's side of a local connection.

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_probe_read_kernel,
        generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    },
    macros::{map, tracepoint},
    maps::LruHashMap,
    programs::TracePointContext,
};
use guard_common::kernel::{
    EventKind,
    process::TaskInfo,
    socket::{AcceptedEvent, ClosedEvent, FlowKey, watch},
    state::StateLayout,
};

use crate::{
    events::{header, reserve},
    read::{load, member, net_of_sock, offset, traced_task_info},
    socket::{CLIENTS, accepted_client, report_connected, watched},
};

const TCP: u16 = 6;
const ESTABLISHED: u32 = 1;
const SYN_SENT: u32 = 2;
const SYN_RECV: u32 = 3;
const CLOSE: u32 = 7;

/// Filled in by the agent before loading, and frozen.
#[unsafe(no_mangle)]
static STATE: StateLayout = StateLayout {
    skaddr: 0,
    oldstate: 0,
    newstate: 0,
    sport: 0,
    dport: 0,
    protocol: 0,
    protocol_bytes: 0,
    saddr_v6: 0,
    daddr_v6: 0,
};

/// Client of a socket that connects, by the socket's address.
#[map]
static DIALLING: LruHashMap<u64, TaskInfo> = LruHashMap::with_max_entries(8192, 0);

/// Sockets that were reported as accepted, by their address, and the number under which they were.
#[map]
static ACCEPTED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(131_072, 0);

/// One field of the tracepoint's record.
macro_rules! field {
    ($ctx:expr, $field:ident) => {
        read($ctx, load(&raw const STATE.$field))
    };
}

/// A TCP socket is about to be in another state.
#[tracepoint(category = "sock", name = "inet_sock_set_state")]
pub fn socket_state(ctx: TracePointContext) -> u32 {
    let _ = changed(&ctx);
    0
}

#[inline(always)]
fn changed(ctx: &TracePointContext) -> Option<()> {
    let protocol: u16 = field!(ctx, protocol)?;
    let protocol = if load(&raw const STATE.protocol_bytes) == 1 { protocol & 0xff } else { protocol };
    if protocol != TCP {
        return None;
    }
    let socket: u64 = field!(ctx, skaddr)?;
    let (old, new): (u32, u32) = (field!(ctx, oldstate)?, field!(ctx, newstate)?);
    match (old, new) {
        (CLOSE, SYN_SENT) => dials(ctx, socket),
        (SYN_SENT, ESTABLISHED) => connected(ctx, socket),
        (SYN_RECV, ESTABLISHED) => accepted(ctx, socket),
        (_, CLOSE) => closed(ctx, socket, old),
        _ => None,
    }
}

/// In the client.
#[inline(always)]
fn dials(ctx: &TracePointContext, socket: u64) -> Option<()> {
    if watched(field!(ctx, dport)?) == 0 {
        return None;
    }
    let _ = DIALLING.insert(&socket, &traced_task_info(), 0);
    Some(())
}

/// In whatever context the answer arrives: its port is known now.
#[inline(always)]
fn connected(ctx: &TracePointContext, socket: u64) -> Option<()> {
    // SAFETY: the entry is copied at once, and only this socket writes it.
    let task = unsafe { DIALLING.get(&socket) }?;
    let flow = FlowKey {
        client: field!(ctx, saddr_v6)?,
        server: field!(ctx, daddr_v6)?,
        namespace: 0,
        client_port: field!(ctx, sport)?,
        server_port: field!(ctx, dport)?,
        reserved: 0,
    };
    let watched = watched(flow.server_port);
    if watched & (watch::DATABASE | watch::PROXY) != 0 {
        let _ = CLIENTS.insert(&flow, task, 0);
    }
    if watched & watch::ELSEWHERE != 0 {
        report_connected(ctx, &flow, task);
    }
    let _ = DIALLING.remove(&socket);
    Some(())
}

/// At the server's side: the current task says nothing.
#[inline(always)]
fn accepted(ctx: &TracePointContext, socket: u64) -> Option<()> {
    let port: u16 = field!(ctx, sport)?;
    if watched(port) & watch::DATABASE == 0 {
        return None;
    }
    let flow = FlowKey {
        client: field!(ctx, daddr_v6)?,
        server: field!(ctx, saddr_v6)?,
        namespace: 0,
        client_port: field!(ctx, dport)?,
        server_port: port,
        reserved: 0,
    };
    // A kernel address is nothing for a record, and is used again: a number that never is stands for it.
    // SAFETY: helpers without arguments.
    let number = unsafe { (bpf_ktime_get_ns() << 8) | u64::from(bpf_get_smp_processor_id() & 0xff) };
    let _ = ACCEPTED.insert(&socket, &number, 0);
    let client = accepted_client(&flow);
    let mut entry = reserve::<AcceptedEvent>(EventKind::Accepted)?;
    entry.write(AcceptedEvent {
        header: header(EventKind::Accepted),
        cookie: number,
        namespace: 0,
        flow,
        client,
        net_namespace: net_of_sock(socket),
        reserved: 0,
    });
    entry.submit(ctx);
    Some(())
}

#[inline(always)]
fn closed(ctx: &TracePointContext, socket: u64, previous_state: u32) -> Option<()> {
    // SAFETY: the entry is copied at once, and only this socket writes it.
    let number = *unsafe { ACCEPTED.get(&socket) }?;
    let _ = ACCEPTED.remove(&socket);
    let received = member(socket, offset!(tcp_bytes_received));
    let acked = member(socket, offset!(tcp_bytes_acked));
    let mut entry = reserve::<ClosedEvent>(EventKind::Closed)?;
    entry.write(ClosedEvent {
        header: header(EventKind::Closed),
        cookie: number,
        received: received.unwrap_or(ClosedEvent::UNCOUNTED),
        acked: acked.unwrap_or(ClosedEvent::UNCOUNTED),
        previous_state,
        flags: 0,
    });
    entry.submit(ctx);
    Some(())
}

/// A value in the tracepoint's record. The record is no memory that the verifier lets a program read at an offset that
/// the compiler does not know, so the helper does it.
#[inline(always)]
fn read<T: Copy>(ctx: &TracePointContext, offset: u32) -> Option<T> {
    // SAFETY: within the tracepoint's record, by its description.
    unsafe { bpf_probe_read_kernel(ctx.as_ptr().cast::<u8>().add(offset as usize).cast::<T>().cast_const()) }
        .ok()
}
