//! What the journal's writer tells everybody else.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use guard_common::api::agent::JournalStatus;
use tokio::sync::watch;
use uuid::Uuid;

use super::journal::Journal;

/// No control plane has said how far it is, and none is expected to.
const NOBODY: u64 = u64::MAX;

/// The writer's side of the truth. Each value is right by itself; together they may be a moment apart.
#[derive(Debug)]
pub struct Shared {
    pub(super) dir: PathBuf,
    pub(super) agent_id: Uuid,
    pub(super) written: watch::Sender<u64>,
    pub(super) durable: watch::Sender<u64>,
    oldest: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    acknowledged: AtomicU64,
    error: Mutex<Option<String>>,
}

impl Shared {
    /// For the journal of `dir`, as it was opened.
    pub fn new(dir: &Path, agent_id: Uuid, journal: &Journal) -> Self {
        let shared = Self {
            dir: dir.to_owned(),
            agent_id,
            written: watch::Sender::new(0),
            durable: watch::Sender::new(0),
            oldest: AtomicU64::new(1),
            bytes: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            acknowledged: AtomicU64::new(NOBODY),
            error: Mutex::default(),
        };
        shared.publish(journal);
        shared
    }

    /// Tells where the journal is now.
    pub fn publish(&self, journal: &Journal) {
        self.bytes.store(journal.bytes(), Ordering::Relaxed);
        self.oldest.store(journal.oldest(), Ordering::Relaxed);
        for (watch, now) in [(&self.written, journal.head()), (&self.durable, journal.durable())] {
            watch.send_if_modified(|last| std::mem::replace(last, now.sequence) != now.sequence);
        }
    }

    /// The oldest record that the journal holds.
    pub fn oldest(&self) -> u64 {
        self.oldest.load(Ordering::Relaxed)
    }

    /// Counts records that did not get into the journal.
    pub fn add_lost(&self, lost: u64) {
        self.lost.fetch_add(lost, Ordering::Relaxed);
    }

    /// The last record that the control plane has; nothing where there is no control plane.
    pub fn acknowledged(&self) -> Option<u64> {
        Some(self.acknowledged.load(Ordering::Relaxed)).filter(|sequence| *sequence != NOBODY)
    }

    /// Takes what the control plane says.
    pub fn set_acknowledged(&self, sequence: u64) {
        self.acknowledged.store(sequence.min(NOBODY - 1), Ordering::Relaxed);
    }

    /// Sets or clears why the journal can't be written. True if this is news.
    pub fn set_error(&self, error: Option<String>) -> bool {
        let mut last = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        let news = last.is_some() != error.is_some();
        if news && error.is_none() {
            tracing::info!("the audit journal can be written again");
        }
        *last = error;
        news
    }

    /// The last error, while it stands.
    pub fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For the command line.
    pub fn status(&self) -> JournalStatus {
        JournalStatus {
            last_sequence: *self.written.borrow(),
            bytes: self.bytes.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            error: self.error().unwrap_or_default(),
            directory: self.dir.display().to_string(),
        }
    }
}
