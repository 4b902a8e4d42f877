//! Whether a batch goes on where an agent's stored chain ends: what is known of the chain and a batch enter, what is to be
//! stored leaves, or why nothing is. The same for every store.
//!
//! Hashes within a batch are reckoned when the batch comes, on the thread of its stream; here only its beginning is held
//! against what is stored, so that agents do not wait for each other's hashes.

use guard_common::audit::{
    chain::{ChainError, HASH_LEN, Hash, Head, digest},
    checkpoint::PublicKey,
    v1::{Checkpoint, ControlEvent, KeyChange, SealedRecord},
};

use super::{
    Batch,
    row::{Mark, Row, kind},
};

/// What the store knows of an agent's chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its end.
    pub head: Head,
    /// The key that signs it.
    pub key: Option<PublicKey>,
    /// The last record that a checkpoint of that key covers.
    pub signed: u64,
    /// A key has begun to sign that nothing vouches for.
    pub key_alarm: Option<String>,
}

/// Records that the agent's journal had to delete before they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// The hash of the last one, as the record behind it names it.
    pub previous: Hash,
}

impl Hole {
    /// How many records it is.
    pub fn records(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// A batch that fits.
#[derive(Debug)]
pub struct Fitting<'a> {
    /// What is not stored yet.
    pub new: &'a [Row],
    /// Before the first of them.
    pub hole: Option<Hole>,
    /// What is known afterwards.
    pub after: Known,
    /// Gap records, and the hole.
    pub gaps: u64,
    /// Records that this version cannot decode.
    pub malformed: u64,
    /// What the control plane's own chain should say of it.
    pub events: Vec<ControlEvent>,
}

/// Why a batch is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The first record that does not fit.
    pub sequence: u64,
    /// Why.
    pub reason: String,
    /// The word for it in the control plane's own chain.
    pub event: &'static str,
}

impl Refused {
    /// By the chain.
    pub fn chain(sequence: u64, reason: impl ToString) -> Self {
        Self { sequence, reason: reason.to_string(), event: "chain-broken" }
    }
}

/// The first row of a batch that does not follow from the one before, or not from its own content.
pub fn first_broken(rows: &[Row]) -> Option<(usize, ChainError)> {
    let mut before: Option<Head> = None;
    for (at, row) in rows.iter().enumerate() {
        match follows(before, &row.sealed) {
            Ok(head) => before = Some(head),
            Err(error) => return Some((at, error)),
        }
    }
    None
}

/// The chain's end behind `record`, if that follows `before`, or anything at all where there is nothing before.
fn follows(before: Option<Head>, record: &SealedRecord) -> Result<Head, ChainError> {
    let sequence = record.sequence;
    let malformed = || ChainError::Malformed { sequence };
    let Some(mut head) = before else {
        let previous: Hash = record.previous[..].try_into().map_err(|_| malformed())?;
        let hash: Hash = record.hash[..].try_into().map_err(|_| malformed())?;
        if digest(sequence, &previous, &record.payload) != hash {
            return Err(ChainError::Changed { sequence });
        }
        return Ok(Head { sequence, hash });
    };
    head.accept(record)?;
    Ok(head)
}

/// Looks whether the part of `batch` behind what is stored goes on there. The caller has seen to the part before it.
pub fn fit<'a>(known: &Known, batch: &'a Batch) -> Result<Fitting<'a>, Refused> {
    let from = batch.repeated(known.head.sequence).len();
    let new = &batch.rows[from..];
    let mut fitting =
        Fitting { new, hole: None, after: known.clone(), gaps: 0, malformed: 0, events: Vec::new() };
    let Some(first) = new.first().map(|row| &row.sealed) else { return Ok(fitting) };
    fitting.hole = hole(known.head.sequence, batch.oldest, first);
    if let Some(hole) = fitting.hole {
        fitting.after.head = Head { sequence: hole.last, hash: hole.previous };
        fitting.gaps += 1;
    }
    links(&fitting.after.head, first).map_err(|error| Refused::chain(first.sequence, error))?;
    if let Some((at, error)) = batch.broken.as_ref().filter(|(at, _)| *at >= from) {
        return Err(Refused::chain(batch.rows[*at].sealed.sequence, error));
    }
    for row in new {
        fitting.take(row, &batch.agent_id)?;
    }
    Ok(fitting)
}

fn links(head: &Head, record: &SealedRecord) -> Result<(), ChainError> {
    let (sequence, expected) = (record.sequence, head.sequence.saturating_add(1));
    if sequence != expected {
        return Err(ChainError::Sequence { expected, found: sequence });
    }
    if record.previous.len() != HASH_LEN {
        return Err(ChainError::Malformed { sequence });
    }
    if record.previous[..] != head.hash {
        return Err(ChainError::Broken { sequence, before: head.sequence });
    }
    Ok(())
}

/// The hole that the agent has announced, if `first` is the record behind it.
fn hole(stored: u64, oldest: u64, first: &SealedRecord) -> Option<Hole> {
    let expected = stored.saturating_add(1);
    let previous = first.previous[..].try_into().ok()?;
    (first.sequence == oldest && oldest > expected).then(|| Hole {
        first: expected,
        last: oldest - 1,
        previous,
    })
}

impl Fitting<'_> {
    fn take(&mut self, row: &Row, agent_id: &str) -> Result<(), Refused> {
        let before = self.after.head;
        match row.mark.as_deref() {
            Some(Mark::Checkpoint(checkpoint)) => self.checkpoint(&before, checkpoint, agent_id)?,
            Some(Mark::KeyChange(change)) => self.key_change(row.sealed.sequence, change, agent_id),
            None => {}
        }
        let sequence = row.sealed.sequence;
        // INVARIANT: its length was looked at with its content.
        let hash = row.sealed.hash[..]
            .try_into()
            .map_err(|_| Refused::chain(sequence, ChainError::Malformed { sequence }))?;
        self.after.head = Head { sequence, hash };
        self.gaps += u64::from(row.columns.kind == kind::GAP);
        self.malformed += u64::from(row.columns.malformed);
        Ok(())
    }

    /// A checkpoint of the known key must hold. One of a key that nothing vouches for proves nothing, and the alarm of its
    /// key stands already.
    fn checkpoint(&mut self, before: &Head, checkpoint: &Checkpoint, agent: &str) -> Result<(), Refused> {
        let Some(key) = self.after.key.filter(|key| key.id() == checkpoint.key_id) else { return Ok(()) };
        if checkpoint.agent_id != agent || !key.vouches(checkpoint, before) {
            return Err(Refused {
                sequence: before.sequence + 1,
                reason:
                    "the checkpoint's signature does not hold for the agent's known key and its stored chain"
                        .to_owned(),
                event: "signature-wrong",
            });
        }
        self.after.signed = checkpoint.sequence;
        Ok(())
    }

    fn key_change(&mut self, sequence: u64, change: &KeyChange, agent_id: &str) {
        let Ok(key) = PublicKey::from_bytes(&change.public_key) else {
            return self.alarm(sequence, agent_id, "it announces a key that is none".to_owned());
        };
        match self.after.key {
            Some(known) if known == key => {}
            Some(known) if !known.hands_over(change, agent_id) => {
                let key = key.id();
                let problem = format!(
                    "key {key} begins to sign, and the known key {} has not handed over to it: if it is right, \
                     `guard-control agents trust-key {agent_id} ..`",
                    known.id()
                );
                self.alarm(sequence, agent_id, problem);
            }
            // The first key that is seen, or one that the key before vouches for.
            _ => {
                self.after.key = Some(key);
                self.after.key_alarm = None;
            }
        }
    }

    fn alarm(&mut self, sequence: u64, agent_id: &str, problem: String) {
        let text = format!("record {sequence}: {problem}");
        // Told once, however often the agent starts with that key.
        if self.after.key_alarm.is_none() {
            self.events.push(ControlEvent {
                event: "key-unknown".to_owned(),
                agent_id: agent_id.to_owned(),
                sequence,
                detail: problem,
                ..ControlEvent::default()
            });
        }
        self.after.key_alarm = Some(text);
    }
}
