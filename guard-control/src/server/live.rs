//! What is being recorded, for whoever is looking: stored batches enter, their decisions leave.
//!
//! Costs nothing while nobody looks. Who reads too slowly misses some, and is told how many; ingestion never waits.

use std::sync::Arc;

use guard_common::{
    api::control::{StoredDecision, stored_decision::Subject},
    audit::v1::{Record, SealedRecord, record::Body},
};
use prost::Message;
use tokio::sync::broadcast;

/// Batches that a reader may be behind.
const BEHIND: usize = 256;
/// Decisions of one batch that are shown; the others are counted.
const SHOWN: usize = 100;

/// What one batch brought.
#[derive(Debug, Default)]
pub struct Seen {
    /// In the order of the record.
    pub decisions: Vec<StoredDecision>,
    /// Decisions beyond these.
    pub more: usize,
}

/// The decisions of all agents as they come.
#[derive(Clone, Debug)]
pub struct Live {
    sender: broadcast::Sender<Arc<Seen>>,
}

impl Default for Live {
    fn default() -> Self {
        Self { sender: broadcast::channel(BEHIND).0 }
    }
}

impl Live {
    /// Batches from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Seen>> {
        self.sender.subscribe()
    }

    /// The decisions in a batch that is about to be stored; nothing while nobody looks.
    pub fn glimpse(&self, records: &[SealedRecord]) -> Option<Seen> {
        if self.sender.receiver_count() == 0 {
            return None;
        }
        let mut seen = Seen::default();
        for record in records {
            let decoded = Record::decode(&*record.payload).unwrap_or_default();
            let subject = match decoded.body {
                Some(Body::ConnectionOpened(connection)) => Subject::Connection(connection),
                Some(Body::Statement(statement)) => Subject::Statement(statement.shown()),
                _ => continue,
            };
            if seen.decisions.len() == SHOWN {
                seen.more += 1;
                continue;
            }
            seen.decisions.push(StoredDecision {
                sequence: record.sequence,
                at: decoded.at,
                subject: Some(subject),
                ..StoredDecision::default()
            });
        }
        (!seen.decisions.is_empty()).then_some(seen)
    }

    /// They are stored now.
    pub fn tell(&self, agent_id: &str, host: &str, seen: Option<Seen>) {
        let Some(mut seen) = seen else { return };
        for decision in &mut seen.decisions {
            agent_id.clone_into(&mut decision.agent_id);
            host.clone_into(&mut decision.host);
        }
        // The last reader may have gone meanwhile.
        let _ = self.sender.send(Arc::new(seen));
    }
}

#[cfg(test)]
mod tests {
    use guard_common::audit::v1::Statement;

    use super::*;

    #[test]
    fn nothing_is_decoded_unless_somebody_looks_and_the_rest_of_a_large_batch_is_counted() {
        let live = Live::default();
        let body = Body::Statement(Statement::default());
        let record = SealedRecord { payload: Record::now(body).encode_to_vec().into(), ..Default::default() };
        let records = vec![record; SHOWN + 3];
        assert!(live.glimpse(&records).is_none());
        let mut reader = live.follow();
        live.tell("a", "db1", live.glimpse(&records));
        let seen = reader.try_recv().unwrap();
        assert_eq!((seen.decisions.len(), seen.more), (SHOWN, 3));
        assert_eq!(seen.decisions[0].host, "db1");
    }
}
