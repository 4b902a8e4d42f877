//! Steering: which socket takes a new TCP connection to a server's own address.
//!
//! Runs for each connection request that reaches a network namespace to which it is attached, before the kernel looks
//! for a listening socket itself. Connections of other ports, and the proxy's own, pass untouched. It stays attached
//! when the agent is gone, and does then what the rule says.
#![no_std]
#![no_main]

use core::{mem::transmute, ptr::read_volatile};

use aya_ebpf::{
    bindings::{
        BPF_F_NO_PREALLOC,
        sk_action::{SK_DROP, SK_PASS},
    },
    macros::{map, sk_lookup},
    maps::{HashMap, PerCpuArray, SockMap},
    programs::SkLookupContext,
};
use guard_common::kernel::steer::{BY_LOOPBACK, OwnConnection, SteeredAddress, SteeringCount, SteeringRule};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const IPPROTO_TCP: u32 = 6;
/// Every network namespace numbers its loopback device so.
const LOOPBACK: u32 = 1;

#[map]
static RULES: HashMap<SteeredAddress, SteeringRule> = HashMap::with_max_entries(1024, 0);

#[map]
static LISTENERS: SockMap = SockMap::with_max_entries(256, 0);

#[map]
static OWN: HashMap<OwnConnection, u8> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(SteeringCount::ALL, 0);

/// 1 where the context tells by which device a packet came (Linux 5.17). Set by the agent before loading, and frozen:
/// the verifier drops what is off, and older kernels never see the access.
#[unsafe(no_mangle)]
static KNOWS_DEVICE: u32 = 1;

/// A TCP connection request, or a datagram, that is to be delivered here.
#[sk_lookup]
pub fn steer(ctx: SkLookupContext) -> u32 {
    // All before any choice, and volatile: a load whose place in the context depends on a condition is refused.
    // SAFETY: fields of the program's own context.
    let (family, protocol, port, remote_port) = unsafe {
        (
            read_volatile(&raw const (*ctx.lookup).family),
            read_volatile(&raw const (*ctx.lookup).protocol),
            read_volatile(&raw const (*ctx.lookup).local_port),
            u16::from_be(read_volatile(&raw const (*ctx.lookup).remote_port)),
        )
    };
    let (local, remote) = addresses(&ctx);
    if protocol != IPPROTO_TCP {
        return SK_PASS;
    }
    let any = match family {
        AF_INET => [0, 0, 0xffff_u32.to_be(), 0],
        AF_INET6 => [0; 4],
        _ => return SK_PASS,
    };
    let Some(rule) = rule(local, port).or_else(|| rule(any, port)) else { return SK_PASS };
    let own = OwnConnection { source: bytes(remote), source_port: remote_port, server_port: port as u16 };
    // SAFETY: one byte, copied at once.
    let by = unsafe { OWN.get(&own) }.copied();
    if by.is_some_and(|by| by != BY_LOOPBACK || by_loopback(&ctx)) {
        count(SteeringCount::Own);
        return SK_PASS;
    }
    if LISTENERS.redirect_sk_lookup(&ctx, rule.listener, 0).is_ok() {
        count(SteeringCount::Steered);
        SK_PASS
    } else if rule.refuse != 0 {
        count(SteeringCount::Refused);
        SK_DROP
    } else {
        count(SteeringCount::Passed);
        SK_PASS
    }
}

#[inline(always)]
fn rule(address: [u32; 4], port: u32) -> Option<SteeringRule> {
    let key = SteeredAddress { address: bytes(address), port };
    // SAFETY: copied at once; the agent replaces whole values.
    unsafe { RULES.get(&key) }.copied()
}

/// Whether the request came by the loopback device: who sends from elsewhere under a client's address does not.
#[inline(always)]
fn by_loopback(ctx: &SkLookupContext) -> bool {
    // SAFETY: a constant of this object; volatile, since the agent changes it before loading.
    if unsafe { read_volatile(&raw const KNOWS_DEVICE) } == 0 {
        return true;
    }
    // SAFETY: a field of the program's own context.
    unsafe { read_volatile(&raw const (*ctx.lookup).ingress_ifindex) == LOOPBACK }
}

/// Local and remote address, IPv4 in its IPv6 form.
#[inline(always)]
fn addresses(ctx: &SkLookupContext) -> ([u32; 4], [u32; 4]) {
    // SAFETY: fields of the program's own context, one load for each word.
    let (family, local4, remote4, local6, remote6) = unsafe {
        (
            read_volatile(&raw const (*ctx.lookup).family),
            read_volatile(&raw const (*ctx.lookup).local_ip4),
            read_volatile(&raw const (*ctx.lookup).remote_ip4),
            words((&raw const (*ctx.lookup).local_ip6).cast()),
            words((&raw const (*ctx.lookup).remote_ip6).cast()),
        )
    };
    let mapped = |ip: u32| [0, 0, 0xffff_u32.to_be(), ip];
    if family == AF_INET { (mapped(local4), mapped(remote4)) } else { (local6, remote6) }
}

/// # Safety
/// `first` must be the first of four words of the program's own context.
#[inline(always)]
unsafe fn words(first: *const u32) -> [u32; 4] {
    // SAFETY: as above.
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
fn bytes(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: the same size, and every bit pattern is valid.
    unsafe { transmute(words) }
}

#[inline(always)]
fn count(what: SteeringCount) {
    if let Some(count) = COUNTS.get_ptr_mut(what as u32) {
        // SAFETY: the slot belongs to this CPU and programs are not preempted by themselves.
        unsafe { *count += 1 };
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: never reached: the program has no panicking operation, or the verifier would refuse it.
    unsafe { core::hint::unreachable_unchecked() }
}

/// The kernel lends the helpers only to GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
