//! What the server still has to answer, in the order in which it was sent.
//!
//! The answers say which Parse took effect, which statement ended how, and which error is the answer to a statement that
//! guard replaced.

use std::{collections::VecDeque, rc::Rc, time::Instant};

use super::{
    masking::{Portal, Reading, Results},
    prepared::Forget,
    short::Short,
};

/// Requests under way at which the client is no longer read.
pub(super) const MAX_PENDING: usize = 16_384;

/// Bytes of a command tag that are kept: the server's own are shorter than 64.
const TAG_BYTES: usize = 47;

/// A SQLSTATE as the server gave it.
pub(super) type Sqlstate = Short<5>;

/// A statement under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) ordinal: u64,
    pub(super) since: Instant,
    pub(super) rows: u64,
    pub(super) tag: Short<TAG_BYTES>,
    /// The SQLSTATE of its failure.
    pub(super) failure: Sqlstate,
    pub(super) ended: bool,
    /// The prepared statements that it deallocates.
    pub(super) forget: Option<Box<Forget>>,
    /// What its rows are made of.
    pub(super) results: Results,
}

/// What a Describe is about.
#[derive(Debug)]
pub(super) enum Described {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal(Rc<Portal>),
    /// A portal, and it is guard that asks.
    Own(Rc<Portal>),
}

impl Running {
    pub(super) fn new(ordinal: u64) -> Self {
        Self {
            ordinal,
            since: Instant::now(),
            rows: 0,
            tag: Short::default(),
            failure: Short::default(),
            ended: false,
            forget: None,
            results: Results::default(),
        }
    }
}

/// One request and what its answer will change.
#[derive(Debug)]
pub(super) enum Awaited {
    /// Answered up to ReadyForQuery.
    Query(Running),
    /// A Query that guard put in the place of what it refused.
    RefusedQuery(u64),
    Parse {
        name: Box<[u8]>,
        sequence: u64,
    },
    /// Of a name that is not followed.
    UnfollowedParse,
    /// A Parse that guard put in the place of what it refused.
    Refusal(u64),
    Bind {
        portal: Box<[u8]>,
        sequence: u64,
    },
    /// Of a portal that is not followed.
    UnfollowedBind,
    Describe(Described),
    CloseStatement(Forget),
    ClosePortal(Box<[u8]>),
    /// `None`: it goes on with a portal that has run.
    Execute(Option<Running>),
    FunctionCall(Running),
    Sync,
    /// The client ended a COPY; there is no answer of its own.
    CopyEnd,
    /// Guard reads the catalog: nothing of it is the client's.
    Catalog(Reading),
}

/// The requests under way, in order.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<Awaited>,
    /// The server takes COPY data and ignores Sync meanwhile.
    copying_in: bool,
    /// The extended query failed and no Sync has been sent since: the server skips what comes.
    failed: bool,
    /// Syncs counted as ignored during COPY. If the COPY failed before the server read them, they are answered after all.
    ignored_syncs: usize,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// True while the server skips whatever comes before the next Sync.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// A request was sent that the server will read.
    pub(super) fn push(&mut self, awaited: Awaited) {
        match awaited {
            Awaited::Sync if self.copying_in => self.ignored_syncs += 1,
            Awaited::Sync => {
                self.failed = false;
                self.queue.push_back(Awaited::Sync);
            }
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
        if !matches!(self.front(), Some(Awaited::Execute(_) | Awaited::Query(_))) {
            return;
        }
        let end = self.queue.iter().position(|awaited| matches!(awaited, Awaited::CopyEnd));
        self.copying_in = end.is_none();
        let before = self.queue.len();
        let mut at = 0;
        self.queue.retain(|awaited| {
            let before_end = end.is_none_or(|end| at < end);
            at += 1;
            !(before_end && matches!(awaited, Awaited::Sync))
        });
        self.ignored_syncs = before - self.queue.len();
    }

    /// The server is ready: the request that this answers, or `None` where nobody waits for it.
    pub(super) fn ready(&mut self) -> Option<Awaited> {
        self.copying_in = false;
        if let Some(Awaited::Sync | Awaited::Query(_) | Awaited::RefusedQuery(_) | Awaited::FunctionCall(_)) =
            self.front()
        {
            return self.queue.pop_front();
        }
        self.ignored_syncs = self.ignored_syncs.checked_sub(1)?;
        Some(Awaited::Sync)
    }

    /// The extended query failed: the server skips to the next Sync. What it skips comes back.
    pub(super) fn skip_to_sync(&mut self) -> Vec<Awaited> {
        self.copying_in = false;
        let sync = self.queue.iter().position(|awaited| matches!(awaited, Awaited::Sync));
        self.failed = sync.is_none();
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
        for awaited in [
            Awaited::Describe(Described::Statement),
            execute(),
            Awaited::Sync,
            Awaited::Describe(Described::Statement),
        ] {
            pending.push(awaited);
        }
        assert_eq!(pending.skip_to_sync().len(), 2);
        assert!(matches!(pending.pop(), Some(Awaited::Sync)));
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn a_failure_lasts_until_a_sync_is_sent() {
        let mut pending = Pending::default();
        pending.push(execute());
        assert_eq!(pending.skip_to_sync().len(), 1);
        assert!(pending.failed());
        pending.push(Awaited::Sync);
        assert!(!pending.failed());
        assert!(matches!(pending.ready(), Some(Awaited::Sync)));
        pending.push(execute());
        pending.push(Awaited::Sync);
        pending.skip_to_sync();
        assert!(!pending.failed(), "the Sync is already on its way");
    }

    #[test]
    fn a_sync_that_a_failed_copy_did_not_read_is_answered_after_all() {
        let mut pending = Pending::default();
        pending.push(execute());
        pending.push(Awaited::Sync);
        pending.copy_in_began();
        pending.skip_to_sync();
        assert!(matches!(pending.ready(), Some(Awaited::Sync)));
        assert!(pending.ready().is_none(), "once only");
    }
}
