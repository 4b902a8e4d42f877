//! The way of events to the agent, and the count of what did not fit.
//!
//! A ring buffer; in the object for kernels without one (feature `perf-array`) a perf event array. The programs are
//! the same: they reserve an entry, fill it in place and submit it with their context; what takes loops is drafted first.

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, macros::map, maps::PerCpuArray};
use guard_common::kernel::{EventHeader, EventKind};

#[cfg(feature = "perf-array")]
mod perf;
#[cfg(not(feature = "perf-array"))]
mod ring;

#[cfg(feature = "perf-array")]
pub use perf::{Draft, draft, reserve};
#[cfg(not(feature = "perf-array"))]
pub use ring::{Draft, draft, reserve};

/// Events that found no room, by kind.
#[map]
static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(EventKind::ALL.len() as u32, 0);

/// 1 where the programs are to log; set by the agent before loading. Frozen, so that the verifier drops what is off.
#[unsafe(no_mangle)]
static LOGGING: u32 = 0;

/// Whether to log, for debugging.
#[inline(always)]
#[cfg_attr(feature = "perf-array", expect(dead_code, reason = "the log itself takes a ring buffer"))]
pub fn logging() -> bool {
    // SAFETY: a constant of this object; volatile, since the agent changes it before loading.
    unsafe { core::ptr::read_volatile(&raw const LOGGING) != 0 }
}

/// Logs for debugging, where that is switched on. The log itself is a ring buffer.
macro_rules! log {
    ($($arguments:tt)+) => {{
        #[cfg(not(feature = "perf-array"))]
        if $crate::events::logging() {
            aya_log_ebpf::debug!($($arguments)+);
        }
    }};
}
pub(crate) use log;

/// Counts an event of that kind as lost.
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
