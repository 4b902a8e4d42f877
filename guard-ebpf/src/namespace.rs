//! Which network namespace a TCP socket is in: loopback addresses are not unique on a host.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_probe_read_kernel, generated::bpf_get_netns_cookie},
    programs::SockOpsContext,
};
use guard_common::kernel::{helper, layout::ABSENT};

use crate::read::{helpers, member_or, offset};

/// Bytes at the start of `struct sock` that are looked at.
const HEAD: usize = 96;

/// A number that two sockets of this host share where they are in one namespace: its cookie, its inode number on
/// kernels whose sock_ops have no cookie, 0 where neither can be had.
#[inline(always)]
pub fn of(ctx: &SockOpsContext) -> u64 {
    if helpers() & helper::NETNS_COOKIE != 0 {
        // SAFETY: the helper takes the program's own context.
        return unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    }
    if helpers() & helper::SOCKET_READS != 0 { inode_number(ctx) } else { 0 }
}

#[inline(always)]
fn inode_number(ctx: &SockOpsContext) -> u64 {
    // SAFETY: a field of the program's own context.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    let offset = offset!(sock_net);
    if socket.is_null() || offset == ABSENT || offset as usize > HEAD - 8 {
        return 0;
    }
    // Nothing may be added to a socket's pointer, so its head is copied and looked at there.
    // SAFETY: the helper checks the address and fails on a bad one.
    let Ok(head) = (unsafe { bpf_probe_read_kernel(socket.cast::<[u8; HEAD]>()) }) else { return 0 };
    // SAFETY: within the copy, by the check above.
    let net: u64 = unsafe { head.as_ptr().add(offset as usize).cast::<u64>().read_unaligned() };
    let common = offset!(net_ns);
    if net == 0 || common == ABSENT {
        return 0;
    }
    member_or::<u32>(net + u64::from(common), offset!(ns_common_inum), 0).into()
}
