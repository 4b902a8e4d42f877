//! What the server still has to answer, in the order in which it was sent.
//!
//! The answers say which Parse took effect, which statement ended how, and which error is the answer to a statement that
//! guard replaced.

use std::{collections::VecDeque, time::Instant};

use crate::wire::postgres::CloseKind;

/// Requests under way at which the client is no longer read.
pub(super) const MAX_PENDING: usize = 16_384;

/// A statement under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) ordinal: u64,
    pub(super) since: Instant,
    pub(super) rows: u64,
    pub(super) tag: String,
    pub(super) failure: String,
    pub(super) ended: bool,
}

impl Running {
    pub(super) fn new(ordinal: u64) -> Self {
        let (tag, failure) = (String::new(), String::new());
        Self { ordinal, since: Instant::now(), rows: 0, tag, failure, ended: false }
    }
}

/// One request and what its answer will change.
#[derive(Debug)]
pub(super) enum Awaited {
    /// Answered up to ReadyForQuery. `None`: it was replaced, and its error is ours.
    Query(Option<Running>),
    Parse {
        name: Box<[u8]>,
        sequence: u64,
    },
    /// A Parse that guard put in the place of what it refused.
    Refusal(u64),
    Bind {
        portal: Box<[u8]>,
        sequence: u64,
    },
    Describe,
    Close {
        kind: CloseKind,
        name: Box<[u8]>,
    },
    /// `None`: it goes on with a portal that has run.
    Execute(Option<Running>),
    FunctionCall(Option<Running>),
    Sync,
    /// The client ended a COPY; there is no answer of its own.
    CopyEnd,
}

/// The requests under way, in order.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<Awaited>,
    /// The server takes COPY data for an Execute and ignores Sync meanwhile.
    copying_in: bool,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn push(&mut self, awaited: Awaited) {
        match awaited {
            // Ignored by the server.
            Awaited::Sync if self.copying_in => {}
            Awaited::CopyEnd => {
                self.copying_in = false;
                // Outside of a COPY the server ignores it too.
                if !self.queue.is_empty() {
                    self.queue.push_back(Awaited::CopyEnd);
                }
            }
            other => self.queue.push_back(other),
        }
    }

    pub(super) fn front(&mut self) -> Option<&mut Awaited> {
        while matches!(self.queue.front(), Some(Awaited::CopyEnd)) {
            self.queue.pop_front();
        }
        self.queue.front_mut()
    }

    pub(super) fn pop(&mut self) -> Option<Awaited> {
        self.front();
        self.queue.pop_front()
    }

    /// The server asks for COPY data. A Sync that it reads before the data's end gets no answer.
    pub(super) fn copy_in_began(&mut self) {
        if !matches!(self.front(), Some(Awaited::Execute(_))) {
            return;
        }
        let end = self.queue.iter().position(|awaited| matches!(awaited, Awaited::CopyEnd));
        self.copying_in = end.is_none();
        let mut at = 0;
        self.queue.retain(|awaited| {
            let before_end = end.is_none_or(|end| at < end);
            at += 1;
            !(before_end && matches!(awaited, Awaited::Sync))
        });
    }

    /// The extended query failed: the server skips to the next Sync. What it skips comes back.
    pub(super) fn skip_to_sync(&mut self) -> Vec<Awaited> {
        self.copying_in = false;
        let sync = self.queue.iter().position(|awaited| matches!(awaited, Awaited::Sync));
        self.queue.drain(..sync.unwrap_or(self.queue.len())).collect()
    }

    /// Whatever is left, when the connection ends.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Awaited> {
        self.queue.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execute() -> Awaited {
        Awaited::Execute(Some(Running::new(1)))
    }

    #[test]
    fn syncs_that_the_server_reads_during_copy_get_no_answer() {
        let mut pending = Pending::default();
        pending.push(execute());
        pending.push(Awaited::Sync);
        pending.copy_in_began();
        pending.push(Awaited::Sync);
        assert_eq!(pending.len(), 1);
        pending.push(Awaited::CopyEnd);
        pending.push(Awaited::Sync);
        assert!(matches!(pending.pop(), Some(Awaited::Execute(_))));
        assert!(matches!(pending.pop(), Some(Awaited::Sync)));
        assert!(pending.is_empty());
    }

    #[test]
    fn a_copy_that_was_sent_whole_keeps_the_sync_behind_it() {
        let mut pending = Pending::default();
        pending.push(execute());
        pending.push(Awaited::CopyEnd);
        pending.push(Awaited::Sync);
        pending.copy_in_began();
        pending.pop();
        assert!(matches!(pending.front(), Some(Awaited::Sync)));
    }

    #[test]
    fn a_failure_skips_to_the_next_sync() {
        let mut pending = Pending::default();
        for awaited in [Awaited::Describe, execute(), Awaited::Sync, Awaited::Describe] {
            pending.push(awaited);
        }
        assert_eq!(pending.skip_to_sync().len(), 2);
        assert!(matches!(pending.pop(), Some(Awaited::Sync)));
        assert_eq!(pending.len(), 1);
    }
}
