//! The agent's record: what happened enters, a durable hash-chained journal leaves.
//!
//! It must never block a session that only reads, never lose a record without a gap record, and never hold a
//! password, nor a literal in another form than the configuration says.

mod folder;
mod grave;
mod journal;
mod literals;
mod queue;
mod reader;
mod recovery;
mod segment;
mod shared;
mod signing;
mod statement;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::{fmt, io, path::Path, sync::Arc, thread::JoinHandle, time::Duration};

use guard_common::{
    api::agent::JournalStatus,
    audit::{
        timestamp,
        v1::{Gap, Record, record::Body},
    },
};
use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

pub use self::{
    folder::{acknowledged, agent_id, claim_agent_id},
    journal::JournalOpenError,
    literals::{Keeper, LiteralsKey, NoLiteralsKey, NotOpened, Opener},
    reader::{ReadError, Reader},
    segment::{HeaderError, MAX_FRAME},
    signing::{ask_for_new_key, public_key},
    statement::{OutcomeBatch, OutcomeFields, SessionStamp, StatementEntry},
    verify::{Fault, Verified, Wrong, verify},
};
use self::{
    grave::Grave,
    journal::{Journal, Limits},
    queue::{Content, Queue},
    recovery::Recovered,
    shared::Shared,
    signing::Signer,
    statement::Encoder,
    writer::Writer,
};
pub(crate) use self::{
    literals::{SECRET_TAG, is_secret_kind, names_secret},
    statement::effect_record,
};
use crate::config::JournalConfig;

/// About what a record takes in memory, beside its statement.
const RECORD_BYTES: usize = 512;

/// Why a record could not be made durable. The caller must not go on with what it wanted to record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The journal could not be written: disk full, I/O error.
    #[error("the audit journal cannot be written: {0}")]
    Write(String),
    /// The journal has ended.
    #[error("the audit journal is closed")]
    Closed,
}

/// A handle on the journal; cheap to clone.
#[derive(Clone)]
pub struct AuditLog {
    sink: Sink,
    literals: Arc<Keeper>,
}

#[derive(Clone)]
enum Sink {
    Journal { queue: Arc<Queue>, shared: Arc<Shared> },
    Queue(mpsc::Sender<Entry>),
}

/// One record on its way to a test's queue.
#[derive(Debug)]
pub struct Entry {
    /// What happened.
    pub record: Record,
    /// Told when the record is on disk.
    pub durable: Option<oneshot::Sender<Result<(), AuditError>>>,
}

impl AuditLog {
    /// Opens the journal in `dir`, making it if need be, and starts its writer. Mends what a crash left; what can't
    /// be mended is kept aside and told in a gap record.
    pub fn open(config: &JournalConfig, dir: &Path) -> Result<(Self, JournalHandle), JournalOpenError> {
        Self::open_within(limits(config), config, dir)
    }

    fn open_within(
        limits: Limits,
        config: &JournalConfig,
        dir: &Path,
    ) -> Result<(Self, JournalHandle), JournalOpenError> {
        let at_dir = |error| JournalOpenError::Io { path: dir.to_owned(), error };
        folder::prepare(dir).map_err(at_dir)?;
        let lock = folder::Lock::take(dir)?;
        let (journal, recovered) = Journal::open(dir, limits)?;
        let agent_id = chain_owner(dir, &recovered, journal.head().sequence).map_err(at_dir)?;
        report(&recovered, dir);
        let signer = Signer::open(config, dir, agent_id)?;
        let shared = Arc::new(Shared::new(dir, agent_id, &journal));
        let queue = Arc::new(Queue::new(config.queue));
        let gaps = damage_gap(&recovered).into_iter().collect();
        let kept = (journal, Grave::open(dir));
        let literals = Arc::new(Keeper::new(config));
        let writer = Writer::new((queue.clone(), shared.clone()), kept, config.sync, gaps)
            .signing(signer)
            .keeping(Arc::clone(&literals));
        let run = move || {
            writer.run();
            drop(lock);
        };
        let thread =
            std::thread::Builder::new().name("guard-journal".to_owned()).spawn(run).map_err(at_dir)?;
        let log = Self { sink: Sink::Journal { queue: queue.clone(), shared: shared.clone() }, literals };
        Ok((log, JournalHandle { queue, shared, thread: Some(thread) }))
    }

    /// A log whose records go to the returned queue: for tests of the parts that write records.
    pub fn to_queue(capacity: usize) -> (Self, mpsc::Receiver<Entry>) {
        let (queue, entries) = mpsc::channel(capacity);
        (Self { sink: Sink::Queue(queue), literals: Arc::default() }, entries)
    }

    /// What is done with literals of statements.
    pub fn literals(&self) -> &Keeper {
        &self.literals
    }

    /// Records `body` without waiting. A full queue counts the loss, and a gap record follows.
    pub fn record(&self, body: Body) {
        self.push(Content::Body(Box::new(body)), RECORD_BYTES);
    }

    /// Records a statement without waiting.
    pub fn record_statement(&self, entry: StatementEntry) {
        // It holds the statement until it is written: the queue is bounded in bytes as well.
        let bytes = entry.size();
        self.push(Content::Statement(entry), bytes);
    }

    /// Records how statements of one session ended, without waiting.
    pub fn record_outcomes(&self, session: &Arc<SessionStamp>, outcomes: OutcomeBatch) {
        self.push(Content::Outcomes(Arc::clone(session), outcomes), 2 * RECORD_BYTES);
    }

    #[cfg(test)]
    fn record_with(&self, make: impl FnOnce() -> Body + Send + 'static) {
        self.push(Content::Deferred(Box::new(make)), RECORD_BYTES);
    }

    fn push(&self, content: Content, bytes: usize) {
        match &self.sink {
            // A loss is counted there.
            Sink::Journal { queue, .. } => _ = queue.push(content, bytes),
            Sink::Queue(queue) => {
                let _ = queue.try_send(Entry { record: self.as_read(content), durable: None });
            }
        }
    }

    /// Records `body` and returns when it is durable. The caller may stop waiting; the record is written all the same.
    pub async fn commit(&self, body: Body) -> Result<(), AuditError> {
        self.commit_content(Content::Body(Box::new(body)), RECORD_BYTES).await
    }

    /// Records a statement and returns when the record is durable.
    pub async fn commit_statement(&self, entry: StatementEntry) -> Result<(), AuditError> {
        let bytes = entry.size();
        self.commit_content(Content::Statement(entry), bytes).await
    }

    async fn commit_content(&self, content: Content, bytes: usize) -> Result<(), AuditError> {
        let answer = match &self.sink {
            Sink::Journal { queue, .. } => queue.push_durable(content, bytes).await?,
            Sink::Queue(queue) => {
                let (durable, answer) = oneshot::channel();
                let entry = Entry { record: self.as_read(content), durable: Some(durable) };
                queue.send(entry).await.map_err(|_| AuditError::Closed)?;
                answer
            }
        };
        answer.await.map_err(|_| AuditError::Closed)?
    }

    /// The record as whoever reads the journal finds it.
    fn as_read(&self, content: Content) -> Record {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(Arc::clone(&self.literals));
        writer::encode(&mut encoder, content, std::time::SystemTime::now(), &mut bytes);
        // INVARIANT: what was encoded just now can be decoded.
        Record::decode(&*bytes).unwrap_or_default()
    }

    fn shared(&self) -> Option<&Shared> {
        match &self.sink {
            Sink::Journal { shared, .. } => Some(shared),
            Sink::Queue(_) => None,
        }
    }

    /// Where the journal is and how it is.
    pub fn status(&self) -> JournalStatus {
        self.shared().map(Shared::status).unwrap_or_default()
    }

    /// Whose chain this is: made with the journal, and as old as it.
    pub fn agent_id(&self) -> Uuid {
        self.shared().map_or(Uuid::nil(), |shared| shared.agent_id)
    }

    /// The journal's folder; empty for a test's queue.
    pub fn dir(&self) -> &Path {
        self.shared().map_or(Path::new(""), |shared| &shared.dir)
    }

    /// The last record that was written: other programs see it, a power cut may take it back.
    pub fn written(&self) -> watch::Receiver<u64> {
        self.shared().map_or_else(|| watch::channel(0).1, |shared| shared.written.subscribe())
    }

    /// The last record that is on disk. Only these may leave the host: what a power cut takes back must not be
    /// known elsewhere, or the chain would fork.
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.shared().map_or_else(|| watch::channel(0).1, |shared| shared.durable.subscribe())
    }

    /// The oldest record that the journal holds.
    pub fn oldest(&self) -> u64 {
        self.shared().map_or(1, Shared::oldest)
    }

    /// The last record that the control plane has; nothing where no control plane is configured.
    pub fn acknowledged(&self) -> Option<u64> {
        self.shared().and_then(Shared::acknowledged)
    }

    /// Tells that the control plane has everything up to `sequence`. From the first call on, deleting a record that
    /// it does not have is a gap.
    pub fn set_acknowledged(&self, sequence: u64) {
        if let Some(shared) = self.shared() {
            shared.set_acknowledged(sequence);
        }
    }

    /// Writes down what the control plane has acknowledged, for the next start.
    pub fn save_acknowledged(&self) -> io::Result<()> {
        match self.shared() {
            Some(shared) => match shared.acknowledged() {
                Some(sequence) => folder::set_acknowledged(&shared.dir, sequence),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog").field("dir", &self.dir()).finish_non_exhaustive()
    }
}

/// Keeps the journal's writer. Dropped, it closes the journal and waits for the last write.
#[derive(Debug)]
pub struct JournalHandle {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl JournalHandle {
    /// Takes no more records, writes what is queued, makes it durable and ends the writer.
    pub async fn close(mut self) -> Result<(), AuditError> {
        let shared = self.shared.clone();
        // The disk may be slow: not on a thread that serves sessions.
        let ended = tokio::task::spawn_blocking(move || self.finish()).await;
        match (ended, shared.error()) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(error)) => Err(AuditError::Write(error)),
            (Err(_), _) => Err(AuditError::Closed),
        }
    }

    fn finish(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the audit journal's writer ended in a panic");
        }
    }
}

impl Drop for JournalHandle {
    fn drop(&mut self) {
        self.finish();
    }
}

fn limits(config: &JournalConfig) -> Limits {
    const MIB: u64 = 1024 * 1024;
    const DAY: u64 = 86_400;
    let segment = config.segment_mib.clamp(1, 256) * MIB;
    let keep = (config.keep_days > 0).then(|| Duration::from_secs(u64::from(config.keep_days) * DAY));
    Limits { segment, total: config.max_mib.saturating_mul(MIB).max(2 * segment), keep }
}

/// The agent's id, made anew where a new chain begins.
fn chain_owner(dir: &Path, recovered: &Recovered, last: u64) -> io::Result<Uuid> {
    let known = folder::agent_id(dir)?;
    match known {
        Some(id) if !recovered.new_chain => Ok(id),
        _ => {
            if known.is_none() && last > 0 {
                tracing::warn!(
                    "the journal has lost its agent id and gets a new one: the control plane will take it for \
                     another agent"
                );
            }
            folder::forget_acknowledged(dir)?;
            grave::forget(dir)?;
            folder::new_agent_id(dir)
        }
    }
}

fn report(recovered: &Recovered, dir: &Path) {
    if recovered.unfinished > 0 {
        tracing::info!(bytes = recovered.unfinished, "cut an unfinished write off the journal");
    }
    if recovered.damaged > 0 {
        tracing::error!(
            journal = %dir.display(),
            records = recovered.damaged,
            kept = ?recovered.set_aside,
            "the journal is damaged: the bytes are kept aside, the chain goes on behind the last whole record"
        );
    }
}

fn damage_gap(recovered: &Recovered) -> Option<Gap> {
    (recovered.damaged > 0).then(|| Gap {
        losses: Vec::new(),
        source: "journal-disk".to_owned(),
        lost: recovered.damaged,
        since: None,
        until: Some(timestamp(std::time::SystemTime::now())),
        detail: format!(
            "at least this many records were damaged on disk after record {}; their bytes are kept in {}",
            recovered.head.sequence,
            recovered
                .set_aside
                .iter()
                .filter_map(|path| path.file_name()?.to_str())
                .collect::<Vec<_>>()
                .join(", ")
        ),
    })
}
