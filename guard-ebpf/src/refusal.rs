//! Refuses connections before they exist, by verdicts that the agent has made beforehand.
//!
//! Nothing is decided here: what has no verdict of this epoch goes on, and the agent decides on it where the server
//! accepts. Every refusal is reported. A place counts only where it is certain that it is the server's own: the same
//! address or path may be another server's in another namespace.

mod listener;

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_NO_PREALLOC, sk_action::SK_DROP, sk_action::SK_PASS},
    helpers::generated::{bpf_get_current_task, bpf_ktime_get_ns},
    macros::{cgroup_sock_addr, map, sk_lookup},
    maps::{Array, HashMap, LruHashMap},
    programs::{SkLookupContext, SockAddrContext},
};
use guard_common::kernel::{
    EventKind, UNIX_PATH_LEN,
    process::TaskInfo,
    refusal::{Peer, PeerVerdict, Place, RefusedEvent, SERVERS, UnixPlace, Verdict, way},
    socket::FlowKey,
    unix::UnixPath,
};

use crate::{
    events::{header, reserve},
    read::{current_task_info, member, member_or, offset, read_name},
    socket::{AF_INET, AF_INET6, bytes, client_of, is_loopback, mapped},
};

const IPPROTO_TCP: u32 = 6;
const IPPROTO_MPTCP: u32 = 262;
/// A peer's attempts are reported this often at most, in nanoseconds.
const PEER_REPORT_NS: u64 = 100_000_000;
/// Mounts that may lie over each other on the way to the root of a mount namespace.
const ROOT_MOUNTS: usize = 4;

/// The epoch of verdicts in force.
#[map]
static EPOCH: Array<u64> = Array::with_max_entries(1, 0);

/// What local processes may not connect to.
#[map]
static VERDICTS: HashMap<TaskInfo, Verdict> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Where servers are reached over TCP.
#[map]
static PLACES: HashMap<Place, u32> = HashMap::with_max_entries(8_192, BPF_F_NO_PREALLOC);

/// Where servers are reached over unix sockets.
#[map]
static UNIX_PLACES: HashMap<UnixPath, UnixPlace> = HashMap::with_max_entries(256, BPF_F_NO_PREALLOC);

/// Peers on other hosts that may not connect.
#[map]
static PEERS: LruHashMap<Peer, PeerVerdict> = LruHashMap::with_max_entries(16_384, 0);

/// Whether `task` may not connect to that address. Reports it.
#[inline(always)]
pub fn refuses_connect(ctx: &SockAddrContext, task: &TaskInfo, address: [u8; 16], port: u16) -> bool {
    // SAFETY: a field of the program's own context.
    let protocol = unsafe { (*ctx.sock_addr).protocol };
    let epoch = epoch();
    if epoch == 0 || (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP) {
        return false;
    }
    let Some(namespace) = socket_namespace(ctx.as_ptr() as u64) else { return false };
    let Some(server) = server_at(address, port, namespace) else { return false };
    let Some(verdict) = verdict_on(task, epoch) else { return false };
    if verdict.tcp & bit(server) == 0 {
        return false;
    }
    let about = About { server, way: way::CONNECT, path: 0, attempts: 1 };
    report(ctx, about, Some(task), ([0; 16], 0), (address, port));
    true
}

/// A local process connects on a unix socket. Declared as what the loader knows, loaded by the agent as what it is:
/// `BPF_CGROUP_UNIX_CONNECT`.
#[cgroup_sock_addr(connect4)]
pub fn connect_unix(ctx: SockAddrContext) -> i32 {
    if refuses_unix(&ctx).is_some() { 0 } else { 1 }
}

#[inline(always)]
fn refuses_unix(ctx: &SockAddrContext) -> Option<()> {
    let epoch = epoch();
    if epoch == 0 {
        return None;
    }
    let (place, is_abstract) = asked_place(ctx.as_ptr() as u64)?;
    let task = current_task_info();
    let certain = if is_abstract {
        socket_namespace(ctx.as_ptr() as u64)? == place.namespace
    } else {
        task.mount_namespace == place.namespace && sees_whole_namespace()?
    };
    let verdict = verdict_on(&task, epoch)?;
    if !certain || verdict.unix & bit(place.server) == 0 {
        return None;
    }
    let about = About { server: place.server, way: way::CONNECT_UNIX, path: place.path, attempts: 1 };
    report(ctx, about, Some(&task), ([0; 16], 0), ([0; 16], 0));
    Some(())
}

/// A SYN looks for the socket that listens for it. Clients of this host are known by both ends of their connection,
/// others by their address.
#[sk_lookup]
pub fn refuse_peer(ctx: SkLookupContext) -> u32 {
    if refuses_peer(&ctx).is_some() { SK_DROP } else { SK_PASS }
}

#[inline(always)]
fn refuses_peer(ctx: &SkLookupContext) -> Option<()> {
    let epoch = epoch();
    // SAFETY: fields of the program's own context, each loaded once and as wide as it is.
    let (family, protocol, remote4, local4, remote_port, local_port, remote6, local6) = unsafe {
        let lookup = ctx.lookup;
        (
            read_volatile(&raw const (*lookup).family),
            read_volatile(&raw const (*lookup).protocol),
            read_volatile(&raw const (*lookup).remote_ip4),
            read_volatile(&raw const (*lookup).local_ip4),
            u16::from_be(read_volatile(&raw const (*lookup).remote_port)),
            read_volatile(&raw const (*lookup).local_port) as u16,
            crate::socket::words(&raw const (*lookup).remote_ip6),
            crate::socket::words(&raw const (*lookup).local_ip6),
        )
    };
    if epoch == 0 || protocol != IPPROTO_TCP {
        return None;
    }
    let (client, address) = match family {
        AF_INET => (mapped(remote4), mapped(local4)),
        AF_INET6 => (bytes(remote6), bytes(local6)),
        _ => return None,
    };
    // Loopback addresses are the same in every namespace: connect4 and connect6 have looked at them.
    if is_loopback(&client) || is_loopback(&address) {
        return None;
    }
    let server = server_at(address, local_port, 0)?;
    let flow = FlowKey {
        client,
        server: address,
        namespace: 0,
        client_port: remote_port,
        server_port: local_port,
        reserved: 0,
    };
    let mut about = About { server, way: way::LISTENER, path: 0, attempts: 1 };
    if let Some(task) = client_of(&flow) {
        let verdict = verdict_on(&task, epoch)?;
        if verdict.tcp & bit(server) == 0 {
            return None;
        }
        report(ctx, about, Some(&task), (client, remote_port), (address, local_port));
        return Some(());
    }
    about.attempts = attempts_of(&Peer { address: client, server }, epoch)?;
    if about.attempts > 0 {
        report(ctx, about, None, (client, remote_port), (address, local_port));
    }
    Some(())
}

/// Attempts of that peer that are to be reported now; nothing where it may connect.
#[inline(always)]
fn attempts_of(peer: &Peer, epoch: u64) -> Option<u32> {
    let verdict = PEERS.get_ptr_mut(peer)?;
    // SAFETY: the entry stays while the program runs; counts of two CPUs at once may lose one.
    let verdict = unsafe { &mut *verdict };
    if verdict.epoch != epoch {
        return None;
    }
    verdict.attempts += 1;
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if now - verdict.reported_ns < PEER_REPORT_NS {
        return Some(0);
    }
    verdict.reported_ns = now;
    let attempts = verdict.attempts;
    verdict.attempts = 0;
    Some(attempts)
}

#[inline(always)]
fn epoch() -> u64 {
    EPOCH.get(0).copied().unwrap_or(0)
}

#[inline(always)]
fn bit(server: u32) -> u64 {
    1 << (server & (SERVERS as u32 - 1))
}

#[inline(always)]
fn verdict_on(task: &TaskInfo, epoch: u64) -> Option<Verdict> {
    let identity = task.identity()?;
    // SAFETY: the entry is copied at once.
    let verdict = *unsafe { VERDICTS.get(&identity) }?;
    (verdict.epoch == epoch).then_some(verdict)
}

/// The number of the server that is reached at that address from that namespace.
#[inline(always)]
fn server_at(address: [u8; 16], port: u16, namespace: u32) -> Option<u32> {
    // SAFETY: the same size, and every bit pattern is valid.
    let mut words: [u32; 4] = unsafe { core::mem::transmute(address) };
    let v4 = words[0] == 0 && words[1] == 0 && words[2] == 0xffff_u32.to_be();
    if words[3] == 0 && words[0] == 0 && words[1] == 0 && (v4 || words[2] == 0) {
        // No address at all is this host itself.
        words[3] = if v4 { 0x7f00_0001_u32.to_be() } else { 1_u32.to_be() };
    }
    let mut place = Place { address: bytes(words), namespace, port, reserved: 0 };
    // SAFETY: four bytes, copied at once.
    if let Some(server) = unsafe { PLACES.get(&place) } {
        return Some(*server);
    }
    if !v4 || place.address[12] != 127 {
        return None;
    }
    words[3] = 0x7f00_0000_u32.to_be();
    place.address = bytes(words);
    // SAFETY: as above.
    unsafe { PLACES.get(&place) }.copied()
}

/// Inode number of the network namespace of the socket that connects: it need not be its process's.
#[inline(always)]
fn socket_namespace(context: u64) -> Option<u32> {
    let sock: u64 = member(context, offset!(sock_addr_sk))?;
    let net: u64 = member(sock, offset!(sock_net))?;
    let inner = net + u64::from(offset!(net_ns));
    member(inner, offset!(ns_common_inum))
}

/// What is known of the path or name that connect was given, as the kernel has copied it; true for a name.
#[inline(always)]
fn asked_place(context: u64) -> Option<(UnixPlace, bool)> {
    let address: u64 = member(context, offset!(sock_addr_uaddr))?;
    let length: u32 = member(context, offset!(sock_addr_length))?;
    if length <= 2 || length > 2 + UNIX_PATH_LEN as u32 {
        return None;
    }
    let mut path = UnixPath { bytes: [0; UNIX_PATH_LEN] };
    // A path ends at its first zero byte, whatever follows; an abstract name at its length.
    let is_abstract = read_name((&raw mut path).cast(), address + 2, length as i32 - 2)?;
    // SAFETY: the entry is copied at once.
    let place = *unsafe { UNIX_PLACES.get(&path) }?;
    Some((place, is_abstract))
}

/// Whether the root folder of the process is that of its mount namespace: in a chroot the same path is another file.
#[inline(always)]
fn sees_whole_namespace() -> Option<bool> {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let fs: u64 = member(task, offset!(task_fs))?;
    if offset!(fs_root) == guard_common::kernel::layout::ABSENT {
        return None;
    }
    let root = fs + u64::from(offset!(fs_root));
    let mut mount: u64 = member(root, offset!(path_mnt))?;
    let mut dentry: u64 = member(root, offset!(path_dentry))?;
    for _ in 0..ROOT_MOUNTS {
        if dentry != member_or(mount, offset!(vfsmount_root), 0) {
            return Some(false);
        }
        let inner = mount.wrapping_sub(u64::from(offset!(mount_mnt)));
        let parent: u64 = member(inner, offset!(mount_parent))?;
        if parent == inner {
            return Some(true);
        }
        dentry = member(inner, offset!(mount_mountpoint))?;
        mount = parent + u64::from(offset!(mount_mnt));
    }
    Some(false)
}

/// What a report says beside who and where.
#[derive(Clone, Copy)]
struct About {
    server: u32,
    way: u32,
    path: u32,
    attempts: u32,
}

#[inline(always)]
fn report<C: EbpfContext>(
    ctx: &C,
    about: About,
    client: Option<&TaskInfo>,
    peer: ([u8; 16], u16),
    place: ([u8; 16], u16),
) {
    let Some(mut entry) = reserve::<RefusedEvent>(EventKind::Refused) else { return };
    let event = entry.as_mut_ptr();
    // SAFETY: the ring buffer's entry is as large as the event; every field is written.
    unsafe {
        (&raw mut (*event).header).write(header(EventKind::Refused));
        match client {
            Some(task) => (&raw mut (*event).client).write(*task),
            None => (&raw mut (*event).client).write(TaskInfo::default()),
        }
        (&raw mut (*event).peer).write(peer.0);
        (&raw mut (*event).address).write(place.0);
        (&raw mut (*event).server).write(about.server);
        (&raw mut (*event).way).write(about.way);
        (&raw mut (*event).path).write(about.path);
        (&raw mut (*event).attempts).write(about.attempts);
        (&raw mut (*event).port).write(place.1);
        (&raw mut (*event).peer_port).write(peer.1);
        (&raw mut (*event).reserved).write(0);
    }
    entry.submit(ctx);
}
