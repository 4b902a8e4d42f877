//! Refuses connects to unix sockets at the check that the kernel makes of each, `security_unix_stream_connect`: for kernels
//! without a hook on cgroups for them (before Linux 6.7).
//!
//! The listening socket is what is looked at, by whatever way the client came to it: the name to which it is bound, and
//! the namespace of who listens. Declared as what the loader knows; the agent loads it as what this kernel takes.

use aya_ebpf::{helpers::bpf_probe_read_kernel, macros::raw_tracepoint, programs::RawTracePointContext};
use guard_common::kernel::{
    UNIX_PATH_LEN,
    layout::ABSENT,
    refusal::{UnixPlace, way},
    unix::UnixPath,
};

use super::{About, UNIX_PLACES, bit, epoch, report, verdict_on};
use crate::read::{
    current_task_info, member, mount_namespace_of, net_of_sock, offset, read_name, task_of_pid,
};

/// `security_unix_stream_connect(struct sock *sock, struct sock *other, struct sock *newsk)`. What is not 0 is what connect
/// fails with.
#[raw_tracepoint(tracepoint = "unix_stream_connect")]
pub fn unix_stream_connect(ctx: RawTracePointContext) -> i32 {
    const EPERM: i32 = 1;
    if refuses(&ctx).is_some() { -EPERM } else { 0 }
}

#[inline(always)]
fn refuses(ctx: &RawTracePointContext) -> Option<()> {
    let epoch = epoch();
    if epoch == 0 {
        return None;
    }
    let listener = number(ctx.arg(1));
    let (place, is_abstract) = bound_place(listener)?;
    let namespace = if is_abstract { net_of_sock(listener) } else { namespace_of_listener(listener)? };
    let task = current_task_info();
    let verdict = verdict_on(&task, epoch)?;
    if namespace != place.namespace || verdict.unix & bit(place.server) == 0 {
        return None;
    }
    let about = About { server: place.server, way: way::CONNECT_UNIX, path: place.path, attempts: 1 };
    report(ctx, about, Some(&task), ([0; 16], 0), ([0; 16], 0));
    Some(())
}

/// The verifier knows the argument as a socket and lets nobody reckon with it: a copy through memory is a number.
#[inline(always)]
fn number(socket: u64) -> u64 {
    // SAFETY: reads the program's own stack.
    unsafe { bpf_probe_read_kernel(&raw const socket) }.unwrap_or(0)
}

/// What is known of the name to which a socket is bound; true for an abstract one.
#[inline(always)]
fn bound_place(sock: u64) -> Option<(UnixPlace, bool)> {
    let address: u64 = member(sock, offset!(unix_addr))?;
    let length: i32 = member(address, offset!(unix_address_len))?;
    if length <= 2 || length > 2 + UNIX_PATH_LEN as i32 || offset!(unix_address_name) == ABSENT {
        return None;
    }
    let mut path = UnixPath { bytes: [0; UNIX_PATH_LEN] };
    let source = address + u64::from(offset!(unix_address_name)) + 2;
    let is_abstract = read_name((&raw mut path).cast(), source, length - 2)?;
    // SAFETY: the entry is copied at once.
    let place = *unsafe { UNIX_PLACES.get(&path) }?;
    Some((place, is_abstract))
}

/// Inode number of the mount namespace of the process that called listen; nothing where it has ended.
#[inline(always)]
fn namespace_of_listener(sock: u64) -> Option<u32> {
    let pid: u64 = member(sock, offset!(sock_peer_pid))?;
    match mount_namespace_of(task_of_pid(pid)?) {
        0 => None,
        namespace => Some(namespace),
    }
}
