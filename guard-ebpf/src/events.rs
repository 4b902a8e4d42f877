//! The ring buffer, and the count of what did not fit into it.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns,
    macros::map,
    maps::{PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};
use guard_common::kernel::{EventHeader, EventKind};

/// All events. The agent sets its size before loading.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4 * 1024 * 1024, 0);

/// Events that found the ring buffer full, by kind.
#[map]
static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(EventKind::ALL.len() as u32, 0);

/// 1 where the programs are to log; set by the agent before loading. Frozen, so that the verifier drops what is off.
#[unsafe(no_mangle)]
static LOGGING: u32 = 0;

/// Whether to log, for debugging.
#[inline(always)]
pub fn logging() -> bool {
    // SAFETY: a constant of this object; volatile, since the agent changes it before loading.
    unsafe { core::ptr::read_volatile(&raw const LOGGING) != 0 }
}

/// Room for one event, or a counted loss.
#[inline(always)]
pub fn reserve<T: 'static>(kind: EventKind) -> Option<RingBufEntry<T>> {
    match EVENTS.reserve::<T>(0) {
        Some(entry) => Some(entry),
        None => {
            lost(kind);
            None
        }
    }
}

/// Counts an event that found no room.
#[inline(always)]
pub fn lost(kind: EventKind) {
    if let Some(count) = DROPS.get_ptr_mut(kind as u32) {
        // SAFETY: the slot belongs to this CPU and programs are not preempted by themselves.
        unsafe { *count += 1 };
    }
}

/// The header of an event that happens now.
#[inline(always)]
pub fn header(kind: EventKind) -> EventHeader {
    // SAFETY: a helper without arguments.
    EventHeader { kind: kind as u32, reserved: 0, at_ns: unsafe { bpf_ktime_get_ns() } }
}
