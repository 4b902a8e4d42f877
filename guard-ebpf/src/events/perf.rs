//! Events by a perf event array, for kernels without the ring buffer (before 5.8): one buffer for each CPU, which the
//! agent brings back into one order. Events are larger than a program's stack: they are made in a scratch space.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_F_CURRENT_CPU,
    helpers::generated::bpf_perf_event_output,
    macros::map,
    maps::{PerCpuArray, PerfEventArray},
};
use guard_common::kernel::EventKind;

/// Bytes of the largest event.
const LARGEST: usize = 8 * 1024;

/// All events.
#[map]
static EVENTS: PerfEventArray<u8> = PerfEventArray::new(0);

/// Room for one event of each kind. Programs of one kind do not interrupt each other, those of different kinds do: a
/// connection is accepted in the middle of another process's exec.
#[map]
static SCRATCH: PerCpuArray<[u64; LARGEST / 8]> =
    PerCpuArray::with_max_entries(EventKind::ALL.len() as u32, 0);

/// Room for one event.
pub struct Entry<T: 'static> {
    kind: EventKind,
    event: *mut T,
}

/// Room for one event.
#[inline(always)]
pub fn reserve<T: 'static>(kind: EventKind) -> Option<Entry<T>> {
    const { assert!(size_of::<T>() <= LARGEST, "the scratch space is too small for this event") };
    SCRATCH.get_ptr_mut(kind as u32).map(|slot| Entry { kind, event: slot.cast() })
}

impl<T> Entry<T> {
    /// Where the event is written.
    #[inline(always)]
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.event
    }

    /// Writes the whole event.
    #[inline(always)]
    pub fn write(&mut self, event: T) {
        // SAFETY: the slot is large enough, and belongs to this CPU and this kind.
        unsafe { self.event.write(event) };
    }

    /// Hands it to the agent, or counts it as lost.
    #[inline(always)]
    pub fn submit<C: EbpfContext>(self, context: &C) {
        let (map, flags) = ((&raw const EVENTS).cast_mut().cast(), u64::from(BPF_F_CURRENT_CPU as u32));
        // SAFETY: the program's own context, a map of this object, and as many bytes as the event has.
        let result = unsafe {
            bpf_perf_event_output(context.as_ptr(), map, flags, self.event.cast(), size_of::<T>() as u64)
        };
        if result != 0 {
            super::lost(self.kind);
        }
    }
}

/// All events are made in the scratch space here.
pub use self::{Entry as Draft, reserve as draft};
