//! Events as the kernel side hands them over: by one ring buffer, or by a perf event array where there is none. Bytes
//! leave, in the order in which things happened.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
};

use aya::{
    Ebpf,
    maps::{
        Map, MapData, MapError, PerfEventArray, RingBuf,
        perf::{PerfBufferError, PerfEvent, PerfEventArrayBuffer},
    },
    util::online_cpus,
};
use guard_common::kernel::maps;

/// Why events cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The map is not what it should be.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A CPU's buffer cannot be made.
    #[error(transparent)]
    Buffer(#[from] PerfBufferError),
    /// The CPUs are not known.
    #[error("{path}: {error}")]
    Cpus {
        /// Where they are listed.
        path: &'static str,
        /// Why not.
        error: io::Error,
    },
}

/// The reading end.
pub enum EventStream {
    /// One buffer, in order.
    Ring(RingBuf<MapData>),
    /// One for each CPU.
    Perf(PerfStream),
}

impl EventStream {
    /// Takes the map of what was loaded. `kib` is the room that perf buffers may take together.
    pub fn of(ebpf: &mut Ebpf, kib: u32) -> Result<Self, StreamError> {
        let missing = || MapError::InvalidName { name: maps::EVENTS.to_owned() };
        let map = ebpf.take_map(maps::EVENTS).ok_or_else(missing)?;
        match map {
            Map::RingBuf(_) => Ok(Self::Ring(RingBuf::try_from(map)?)),
            _ => Ok(Self::Perf(PerfStream::new(PerfEventArray::try_from(map)?, kib)?)),
        }
    }

    /// Readable when there are events.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Ring(ring) => vec![ring.as_fd()],
            Self::Perf(perf) => perf.buffers.iter().map(AsFd::as_fd).collect(),
        }
    }

    /// Hands the next event to `take`; false where there is none.
    pub fn next(&mut self, take: impl FnOnce(&[u8])) -> bool {
        match self {
            Self::Ring(ring) => ring.next().map(|item| take(&item)).is_some(),
            Self::Perf(perf) => perf.next().map(|event| take(&event)).is_some(),
        }
    }
}

/// The buffers of a perf event array, brought back into one order.
pub struct PerfStream {
    buffers: Vec<PerfEventArrayBuffer<MapData>>,
    waiting: VecDeque<Vec<u8>>,
}

impl PerfStream {
    fn new(mut array: PerfEventArray<MapData>, kib: u32) -> Result<Self, StreamError> {
        let cpus = online_cpus().map_err(|(path, error)| StreamError::Cpus { path, error })?;
        let pages = pages_of_each(kib, cpus.len());
        let buffers =
            cpus.into_iter().map(|cpu| array.open(cpu, Some(pages))).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { buffers, waiting: VecDeque::new() })
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.waiting.is_empty() {
            let mut events = Vec::new();
            self.read(&mut events);
            if !events.is_empty() {
                // What another CPU was in the middle of writing belongs between these.
                self.read(&mut events);
                self.waiting = in_order(events);
            }
        }
        self.waiting.pop_front()
    }

    /// What was lost is counted by the programs themselves, by kind.
    fn read(&mut self, events: &mut Vec<Vec<u8>>) {
        for buffer in &mut self.buffers {
            buffer.for_each(|event| {
                if let PerfEvent::Sample { head, tail } = event {
                    events.push([head, tail].concat());
                }
            });
        }
    }
}

/// By the time in their header; those of one CPU are in order already, and stay so.
fn in_order(mut events: Vec<Vec<u8>>) -> VecDeque<Vec<u8>> {
    let at = |event: &Vec<u8>| {
        event.get(8..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
    };
    events.sort_by_key(at);
    events.into()
}

/// The kernel takes powers of two.
fn pages_of_each(kib: u32, cpus: usize) -> usize {
    const PAGE_KIB: usize = 4;
    const LEAST: usize = 16;
    let share = kib as usize / PAGE_KIB / cpus.max(1);
    let rounded = share.checked_next_power_of_two().map_or(LEAST, |up| if up > share { up / 2 } else { up });
    rounded.max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::{in_order, pages_of_each};

    #[test]
    fn events_of_several_cpus_come_in_the_order_of_their_time() {
        let event = |at: u64, tag: u8| [&[0; 8][..], &at.to_ne_bytes(), &[tag]].concat();
        let sorted = in_order(vec![event(5, 1), event(9, 2), event(3, 3), event(5, 4)]);
        assert_eq!(sorted.iter().map(|event| event[16]).collect::<Vec<_>>(), [3, 1, 4, 2]);
        assert_eq!(in_order(vec![vec![1], Vec::new()]).len(), 2);
    }

    #[test]
    fn every_cpu_gets_a_power_of_two() {
        assert_eq!(pages_of_each(4096, 2), 512);
        assert_eq!(pages_of_each(4096, 3), 256);
        assert_eq!(pages_of_each(64, 64), 16);
    }
}
