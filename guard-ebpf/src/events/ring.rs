//! Events in the one ring buffer of all CPUs, in the order in which they were reserved.

use aya_ebpf::{
    EbpfContext,
    macros::map,
    maps::{RingBuf, ring_buf::RingBufEntry},
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
