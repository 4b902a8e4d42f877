//! guard's eBPF programs. Kernel contexts enter, events and client identities leave.
//!
//! They observe and remember, and refuse what the agent has decided to refuse; nothing here parses what a peer wrote. One
//! file per hook; the structures are in `guard_common::kernel`, in files of the same names. Whatever does not reach the
//! agent is counted.
#![no_std]
#![no_main]

mod cgroup;
mod events;
#[cfg(not(feature = "perf-array"))]
#[path = "hold/hash.rs"]
mod hash;
mod process;
mod read;
mod refusal;
mod socket;
mod state;
#[cfg(not(feature = "perf-array"))]
mod statement;
mod unix;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: never reached: the programs have no panicking operation, or the verifier would refuse them.
    unsafe { core::hint::unreachable_unchecked() }
}

/// The kernel gives the helpers that these programs need only to GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
