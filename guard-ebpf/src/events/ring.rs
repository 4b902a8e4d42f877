//! Events in the one ring buffer of all CPUs, in the order in which they were reserved.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_ringbuf_output,
    macros::map,
    maps::{PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};
use guard_common::kernel::EventKind;

/// All events. The agent sets its size before loading.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4 * 1024 * 1024, 0);

/// Room for one event. It has to be submitted.
pub struct Entry<T: 'static>(RingBufEntry<T>);

/// Room for one event, or a counted loss.
#[inline(always)]
pub fn reserve<T: 'static>(kind: EventKind) -> Option<Entry<T>> {
    match EVENTS.reserve::<T>(0) {
        Some(entry) => Some(Entry(entry)),
        None => {
            super::lost(kind);
            None
        }
    }
}

impl<T> Entry<T> {
    /// Where the event is written.
    #[inline(always)]
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.0.as_mut_ptr()
    }

    /// Writes the whole event.
    #[inline(always)]
    pub fn write(&mut self, event: T) {
        self.0.write(event);
    }

    /// Hands it to the agent. The context is what the perf event array takes.
    #[inline(always)]
    pub fn submit<C: EbpfContext>(self, _context: &C) {
        self.0.submit(0);
    }
}

/// Bytes of the largest event that is drafted.
const LARGEST: usize = 2 * 1024;

/// Room for one draft.
#[map]
static DRAFT: PerCpuArray<[u64; LARGEST / 8]> = PerCpuArray::with_max_entries(1, 0);

/// An event that is made elsewhere and copied when it is complete.
///
/// While a program holds an [`Entry`], verifiers up to Linux 6.1 take no two ways through it for the same: a loop is
/// followed in every combination of its branches, and refused. INVARIANT: for one program alone, on a raw tracepoint,
/// where nothing else of this kind can run on the same CPU in the middle of it.
pub struct Draft<T: 'static> {
    kind: EventKind,
    event: *mut T,
}

/// Room for a draft.
#[inline(always)]
pub fn draft<T: 'static>(kind: EventKind) -> Option<Draft<T>> {
    const { assert!(size_of::<T>() <= LARGEST, "there is too little room for this event") };
    DRAFT.get_ptr_mut(0).map(|slot| Draft { kind, event: slot.cast() })
}

impl<T> Draft<T> {
    /// Where the event is written.
    #[inline(always)]
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.event
    }

    /// Hands it to the agent, or counts it as lost. The context is what the perf event array takes.
    #[inline(always)]
    pub fn submit<C: EbpfContext>(self, _context: &C) {
        let map = (&raw const EVENTS).cast_mut().cast();
        // SAFETY: a map of this object, and as many bytes as the event has.
        let result = unsafe { bpf_ringbuf_output(map, self.event.cast(), size_of::<T>() as u64, 0) };
        if result != 0 {
            super::lost(self.kind);
        }
    }
}
