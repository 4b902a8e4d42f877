//! The journal's writer: queued records enter, sealed durable records leave.
//!
//! One thread. It outlives every I/O error: what could not be written is counted, whoever waits is told, and the
//! first thing that is written afterwards says how much is missing.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use guard_common::audit::{
    chain::Head,
    timestamp,
    v1::{Gap, Record, Tombstone, record::Body},
};
use prost::Message;

use super::{
    AuditError,
    grave::Grave,
    journal::{Journal, Oldest, SyncFailed},
    literals::Keeper,
    queue::{Content, Item, Loss, Queue, Waiter},
    segment::{MAX_FRAME, write_frame},
    shared::Shared,
    signing::Signer,
    statement::{self, Encoder},
};
use crate::config::Sync;

/// One write holds about this many bytes.
const CHUNK: usize = 1024 * 1024;
/// Largest record; the rest of a frame is its seal.
const MAX_RECORD: usize = MAX_FRAME - 256;
/// How long a record that nobody waits for may stay in the page cache.
const SYNC_AFTER: Duration = Duration::from_millis(200);
/// The same where commits need not reach the disk. Only records that did are shipped.
const LAZY_SYNC_AFTER: Duration = Duration::from_secs(1);
/// How often a gap record is tried while the disk refuses.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often it is looked for records that are too old, at the most and at the least.
const LOOK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_hours(1));

/// The writer's state.
#[derive(Debug)]
pub struct Writer {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    journal: Journal,
    sync: Sync,
    encoder: Encoder,
    /// One record's bytes.
    payload: Vec<u8>,
    buffer: Vec<u8>,
    /// Written, but not durable yet.
    pending: Vec<Waiter>,
    dirty_since: Option<Instant>,
    gaps: Gaps,
    grave: Grave,
    /// The last record that was given up, whether the control plane has it or not.
    missed: u64,
    /// When it is looked for records that are too old; nothing where none gets too old.
    look: Option<Instant>,
    /// `None`: nothing is signed.
    signer: Option<Signer>,
}

/// What is missing and not yet in a gap record.
#[derive(Debug, Default)]
struct Gaps {
    queue: Option<Loss>,
    disk: Option<Loss>,
    /// Ready-made ones: from the start, from deleted segments.
    made: Vec<Gap>,
}

impl Gaps {
    fn is_empty(&self) -> bool {
        self.queue.is_none() && self.disk.is_none() && self.made.is_empty()
    }

    fn records(&self) -> impl Iterator<Item = Gap> {
        let lost = |source: &str, loss: &Loss, detail: &str| Gap {
            source: source.to_owned(),
            lost: loss.lost,
            since: Some(timestamp(loss.since)),
            until: Some(timestamp(loss.until)),
            detail: detail.to_owned(),
            losses: Vec::new(),
        };
        let disk = self.disk.map(|loss| lost("journal-disk", &loss, "the journal could not be written"));
        let queue = self.queue.map(|loss| lost("audit-queue", &loss, "more records than the queue takes"));
        disk.into_iter().chain(queue).chain(self.made.iter().cloned())
    }

    /// Puts back what could not be written.
    fn restore(&mut self, unwritten: Self) {
        Loss::merge(&mut self.queue, unwritten.queue);
        Loss::merge(&mut self.disk, unwritten.disk);
        self.made.splice(0..0, unwritten.made);
    }
}

/// Frames in the buffer, and who cares for them.
#[derive(Debug)]
struct Chunk {
    head: Head,
    waiters: Vec<Waiter>,
    gaps: Gaps,
    loss: Option<Loss>,
    /// It says what was deleted.
    tombstone: bool,
}

impl Writer {
    /// A writer for `journal`, whose deletions go through `grave`, that begins with `gaps`.
    pub fn new(
        (queue, shared): (Arc<Queue>, Arc<Shared>),
        (journal, grave): (Journal, Grave),
        sync: Sync,
        gaps: Vec<Gap>,
    ) -> Self {
        let gaps = Gaps { made: gaps, ..Gaps::default() };
        let look = journal.turn().map(|_| Instant::now());
        Self {
            queue,
            shared,
            journal,
            sync,
            encoder: Encoder::default(),
            payload: Vec::new(),
            buffer: Vec::new(),
            pending: Vec::new(),
            dirty_since: None,
            gaps,
            grave,
            missed: 0,
            look,
            signer: None,
        }
    }

    /// Signs the chain with `signer`.
    #[must_use]
    pub fn signing(mut self, signer: Option<Signer>) -> Self {
        self.signer = signer;
        self
    }

    /// Records literals as `literals` says.
    #[must_use]
    pub fn keeping(mut self, literals: Arc<Keeper>) -> Self {
        self.encoder = Encoder::new(literals);
        self
    }

    /// Writes until the queue is closed and empty.
    pub fn run(mut self) {
        self.publish();
        // A gap found at start must not wait for the first record.
        self.write(Vec::new());
        loop {
            let taken = self.queue.take(self.deadline());
            self.shared.add_lost(taken.loss.map_or(0, |loss| loss.lost));
            Loss::merge(&mut self.gaps.queue, taken.loss);
            self.write(taken.items);
            self.sign(taken.closed);
            self.settle(taken.closed);
            self.retire();
            self.publish();
            if taken.closed {
                return;
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let sync = self.dirty_since.map(|since| since + self.sync_after());
        let untold = !self.gaps.is_empty() || self.grave.untold().is_some();
        let retry = untold.then(|| Instant::now() + RETRY_AFTER);
        let sign = self.signer.as_ref().and_then(Signer::deadline);
        sync.into_iter().chain(retry).chain(sign).chain(self.look).min()
    }

    /// Vouches for what was written, where that is due.
    fn sign(&mut self, closing: bool) {
        let head = self.journal.head();
        if self.signer.as_mut().is_some_and(|signer| signer.due(&head, closing))
            && let Err(error) = self.vouch()
        {
            self.signer.iter_mut().for_each(Signer::postpone);
            self.report(&error);
        }
    }

    fn vouch(&mut self) -> io::Result<()> {
        if let Some(change) = self.signer.as_mut().and_then(Signer::key_change) {
            self.append(change)?;
            // What is signed by a key that the chain does not know of, after a power cut, is worth nothing.
            if let Err(failed) = self.journal.sync() {
                self.taken_back(failed.lost, &failed.error);
                return Err(failed.error);
            }
            self.signer.as_mut().map_or(Ok(()), Signer::key_changed).map_err(io::Error::other)?;
        }
        let Some(signer) = &self.signer else { return Ok(()) };
        self.append(signer.checkpoint(&self.journal.head()))?;
        let last = self.journal.head().sequence;
        if let Some(signer) = &mut self.signer {
            signer.signed(last);
        }
        Ok(())
    }

    /// Seals and writes one record of the journal's own.
    fn append(&mut self, body: Body) -> io::Result<()> {
        let mut head = self.journal.head();
        self.buffer.clear();
        write_frame(&Record::now(body).encode_to_vec(), &mut head, &mut self.buffer);
        self.store(head)?;
        self.dirty_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn sync_after(&self) -> Duration {
        match self.sync {
            Sync::Disk => SYNC_AFTER,
            Sync::Os => LAZY_SYNC_AFTER,
        }
    }

    fn write(&mut self, items: Vec<Item>) {
        let mut items = items.into_iter();
        loop {
            let chunk = self.fill(&mut items);
            if self.buffer.is_empty() {
                return;
            }
            match self.store(chunk.head) {
                Ok(()) => {
                    self.shared.set_error(None);
                    if chunk.tombstone {
                        self.grave.told();
                    }
                    self.dirty_since.get_or_insert_with(Instant::now);
                    self.written(chunk.waiters);
                }
                Err(error) => {
                    let whole = items.len() == 0;
                    self.failed(chunk, &error);
                    if whole {
                        return;
                    }
                }
            }
        }
    }

    /// Seals gaps and then items until the chunk is full. An empty buffer afterwards: there was nothing to do.
    fn fill(&mut self, items: &mut impl Iterator<Item = Item>) -> Chunk {
        self.buffer.clear();
        let mut chunk = Chunk {
            head: self.journal.head(),
            waiters: Vec::new(),
            gaps: std::mem::take(&mut self.gaps),
            loss: None,
            tombstone: false,
        };
        for gap in chunk.gaps.records() {
            let gap = Record::now(Body::Gap(gap)).encode_to_vec();
            write_frame(&gap, &mut chunk.head, &mut self.buffer);
        }
        if let Some(tombstone) = self.grave.untold() {
            let tombstone = Record::now(Body::Tombstone(tombstone.clone())).encode_to_vec();
            write_frame(&tombstone, &mut chunk.head, &mut self.buffer);
            chunk.tombstone = true;
        }
        while self.buffer.len() < CHUNK {
            let Some(Item { at, content, waiter }) = items.next() else { break };
            self.payload.clear();
            encode(&mut self.encoder, content, at, &mut self.payload);
            let length = self.payload.len();
            if length <= MAX_RECORD {
                write_frame(&self.payload, &mut chunk.head, &mut self.buffer);
                Loss::add(&mut chunk.loss, 1, at);
                chunk.waiters.extend(waiter);
            } else {
                tracing::error!(bytes = length, "a record could not be sealed");
                self.shared.add_lost(1);
                Loss::add(&mut self.gaps.queue, 1, at);
                let reason = format!("a record of {length} bytes, at most {MAX_RECORD} are taken");
                answer(waiter.into_iter().collect(), &Err(AuditError::Write(reason)));
            }
            // One huge record must not keep its memory.
            self.payload.shrink_to(CHUNK);
        }
        chunk
    }

    /// Writes the buffer, in a new segment where it does not fit, making room where the disk is full.
    fn store(&mut self, head: Head) -> io::Result<()> {
        if self.journal.is_full_for(self.buffer.len()) {
            self.retry_with_room(|journal, _| journal.rotate())?;
            self.shrink();
        }
        self.retry_with_room(|journal, buffer| {
            journal.append(buffer, head).map_err(|error| SyncFailed { lost: 0, error })
        })
    }

    fn retry_with_room(
        &mut self,
        mut step: impl FnMut(&mut Journal, &[u8]) -> Result<(), SyncFailed>,
    ) -> io::Result<()> {
        loop {
            let Err(failed) = step(&mut self.journal, &self.buffer) else { return Ok(()) };
            if failed.lost > 0 {
                self.taken_back(failed.lost, &failed.error);
                return Err(failed.error);
            }
            let full =
                matches!(failed.error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let acknowledged = self.journal.acknowledged(self.shared.acknowledged().unwrap_or(0));
            if !full || acknowledged == 0 {
                return Err(failed.error);
            }
            self.bury(acknowledged, "disk-full")?;
        }
    }

    fn shrink(&mut self) {
        self.forget(self.journal.oversize(), "size");
    }

    /// Deletes what is older than records are kept.
    fn retire(&mut self) {
        let (Some(turn), Some(look)) = (self.journal.turn(), self.look) else { return };
        let now = Instant::now();
        if now < look {
            return;
        }
        self.look = Some(now + (turn / 4).clamp(LOOK.0, LOOK.1));
        if self.journal.is_stale()
            && let Err(failed) = self.journal.rotate()
        {
            match failed.lost {
                0 => self.report(&failed.error),
                lost => self.taken_back(lost, &failed.error),
            }
        }
        self.forget(self.journal.aged(), "age");
        self.write(Vec::new());
    }

    fn forget(&mut self, segments: usize, reason: &str) {
        if segments > 0
            && let Err(error) = self.bury(segments, reason)
        {
            tracing::error!(%error, "old journal segments cannot be deleted");
        }
    }

    /// Deletes the oldest segments, one at least, behind a tombstone.
    fn bury(&mut self, segments: usize, reason: &str) -> io::Result<()> {
        let oldest = self.journal.oldest_of(segments)?;
        let mut tombstone = Tombstone {
            first: oldest.first,
            last: oldest.last,
            hash: oldest.hash.to_vec(),
            reason: reason.to_owned(),
            since: oldest.since,
            until: oldest.until,
            agent_id: self.shared.agent_id.to_string(),
            signed_at: timestamp(SystemTime::now()).seconds,
            ..Tombstone::default()
        };
        // What the chain does not say yet goes into the same one.
        if let Some(pending) = self.grave.pending().filter(|pending| pending.first <= oldest.first) {
            (tombstone.first, tombstone.since) = (pending.first, pending.since);
        }
        if let Some(signer) = &self.signer {
            signer.bury(&mut tombstone);
        }
        self.grave.dig(tombstone)?;
        // Told once, whether deleting comes to its end at once or is tried again.
        let told = self.shared.acknowledged().map(|acknowledged| acknowledged.max(self.missed));
        self.gaps.made.extend(unshipped(&oldest, told, reason));
        self.missed = self.missed.max(oldest.last);
        self.journal.delete(&oldest)
    }

    fn written(&mut self, waiters: Vec<Waiter>) {
        // Before the answer: who hears of a record may look for it at once.
        self.publish();
        match self.sync {
            Sync::Disk => self.pending.extend(waiters),
            Sync::Os => answer(waiters, &Ok(())),
        }
    }

    fn failed(&mut self, chunk: Chunk, error: &io::Error) {
        self.gaps.restore(chunk.gaps);
        self.shared.add_lost(chunk.loss.map_or(0, |loss| loss.lost));
        Loss::merge(&mut self.gaps.disk, chunk.loss);
        self.report(error);
        answer(chunk.waiters, &Err(AuditError::Write(error.to_string())));
    }

    fn report(&self, error: &io::Error) {
        if self.shared.set_error(Some(error.to_string())) {
            tracing::error!(%error, "the audit journal cannot be written: records are being lost and counted");
        }
    }

    /// Syncs if someone waits for it or it is due.
    fn settle(&mut self, now: bool) {
        let due = self.dirty_since.is_some_and(|since| since.elapsed() >= self.sync_after());
        if !now && !due && self.pending.is_empty() {
            return;
        }
        self.dirty_since = None;
        match self.journal.sync() {
            Ok(()) => {
                self.grave.durable();
                self.publish();
                answer(std::mem::take(&mut self.pending), &Ok(()));
            }
            Err(failed) => self.taken_back(failed.lost, &failed.error),
        }
    }

    /// Records that had been written are gone again.
    fn taken_back(&mut self, lost: u64, error: &io::Error) {
        self.dirty_since = None;
        self.grave.taken_back();
        self.shared.add_lost(lost);
        Loss::add(&mut self.gaps.disk, lost, SystemTime::now());
        self.report(error);
        answer(std::mem::take(&mut self.pending), &Err(AuditError::Write(error.to_string())));
    }

    fn publish(&self) {
        self.shared.publish(&self.journal);
    }
}

/// Appends the bytes of the record that `content` makes.
pub fn encode(encoder: &mut Encoder, content: Content, at: SystemTime, buffer: &mut Vec<u8>) {
    let body = match content {
        Content::Statement(entry) => return encoder.statement(&entry, at, buffer),
        Content::Outcomes(session, batch) => return statement::outcomes(&session, &batch, at, buffer),
        Content::Body(body) => *body,
        #[cfg(test)]
        Content::Deferred(make) => make(),
    };
    let record = Record { at: Some(timestamp(at)), ..Record::now(body) };
    record.encode_raw(buffer);
}

/// Gives each waiter the answer, and its place in the queue back.
fn answer(waiters: Vec<Waiter>, result: &Result<(), AuditError>) {
    for Waiter { done, slot } in waiters {
        // Whoever has stopped waiting does not mind.
        let _ = done.send(result.clone());
        drop(slot);
    }
}

/// The gap record for deleted segments, if a control plane should have had them first; up to `told` it has them, or a gap
/// was told.
fn unshipped(oldest: &Oldest, told: Option<u64>, reason: &str) -> Option<Gap> {
    let first = oldest.first.max(told?.saturating_add(1));
    let reached = if reason == "age" { "journal.keep_days" } else { "journal.max_mib" };
    (first <= oldest.last).then(|| Gap {
        losses: Vec::new(),
        source: "uplink".to_owned(),
        lost: oldest.last - first + 1,
        since: oldest.since,
        until: oldest.until,
        detail: format!(
            "records {first} to {} were deleted before the control plane had them: `{reached}` was reached",
            oldest.last
        ),
    })
}
