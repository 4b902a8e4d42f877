//! Verifies one agent's chain with public keys alone.
//!
//! Enters: sealed records in order. Leaves: how far the chain is whole and how far it is signed, or the first thing that
//! is wrong. Whoever verifies says which keys they trust; without any, the chain's own first key is taken and said so.

use prost::Message;

use super::{
    chain::{ChainError, Head},
    checkpoint::{NoKey, PublicKey},
    v1::{Checkpoint, KeyChange, Record, SealedRecord, Tombstone, record::Body},
};

/// The first thing that is wrong.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    /// The hash chain is broken.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The record is none.
    #[error("record {0} is not a record: its content cannot be read")]
    Unreadable(u64),
    /// A signature does not hold.
    #[error(
        "record {0}: the checkpoint's signature does not hold: the chain before it was replaced, or the key is another"
    )]
    Signature(u64),
    /// A tombstone that its key has not signed.
    #[error("record {0}: the tombstone's signature does not hold")]
    Tombstone(u64),
    /// The record that is left does not follow what the tombstone names as the last one that went.
    #[error(
        "record {sequence}: the records that went before record {first} are not those that the chain goes on from"
    )]
    Replaced {
        /// The tombstone.
        sequence: u64,
        /// The first record that is left.
        first: u64,
    },
    /// A checkpoint by a key that nothing vouches for.
    #[error(
        "record {sequence}: signed by key {key_id}, which is not trusted: name it with --key if it should be"
    )]
    Untrusted {
        /// The checkpoint.
        sequence: u64,
        /// The key that it names.
        key_id: String,
    },
    /// A key that the key before does not vouch for.
    #[error(
        "record {sequence}: key {key_id} begins to sign, and the key before has not handed over to it: name it with --key if it is known"
    )]
    Handover {
        /// The key change.
        sequence: u64,
        /// The new key.
        key_id: String,
    },
    /// No public key in a key change.
    #[error("record {0}: {NoKey}")]
    Key(u64),
    /// A chain with two owners.
    #[error("record {sequence}: signed for agent {found}, the chain is that of agent {expected}")]
    Agent {
        /// The checkpoint.
        sequence: u64,
        /// Whose the chain is.
        expected: String,
        /// Whom the checkpoint names.
        found: String,
    },
    /// Not one of the trusted keys has signed anything.
    #[error("none of the given keys has signed any of these records")]
    Unsigned,
}

/// The last checkpoint that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The last record that it covers.
    pub sequence: u64,
    /// The key.
    pub key: PublicKey,
    /// When, in seconds since 1970.
    pub at: i64,
}

/// What is before the first record that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// Nothing: it is the chain's first, or there is none.
    Nothing,
    /// Records that the agent deleted, as it says itself.
    Deleted(Box<Tombstone>),
    /// Records of which nothing is known.
    Unknown,
}

/// What holds of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The first record that was looked at; 0 where there was none.
    pub first: u64,
    /// What is before it.
    pub before: Before,
    /// The end of the chain.
    pub head: Head,
    /// How far it is signed. Records behind it are chained, and not signed yet.
    pub signed: Option<Signed>,
    /// Checkpoints that hold.
    pub checkpoints: u64,
    /// Whose chain it is, as signed.
    pub agent_id: Option<String>,
    /// False where the chain's own first key was believed, since no key was given.
    pub by_given_key: bool,
}

impl Verdict {
    /// What became of the records before the first one, in words; nothing where there were none.
    pub fn before_first(&self) -> Option<String> {
        let last = self.first.saturating_sub(1);
        match &self.before {
            Before::Nothing => None,
            Before::Unknown => Some(format!(
                "records 1 to {last} are not here, and no tombstone here says that they were deleted"
            )),
            Before::Deleted(tombstone) => {
                let why = match tombstone.reason.as_str() {
                    "size" => "for the journal's size",
                    "age" => "for their age",
                    "disk-full" => "for room on the disk",
                    _ => "for another reason",
                };
                let word = if tombstone.key_id.is_empty() { "unsigned tombstone" } else { "tombstone" };
                let at = moment(tombstone.signed_at);
                Some(format!(
                    "records 1 to {last} were deleted, the last of them {why} at {at}, says a {word}"
                ))
            }
        }
    }

    /// How far the chain is signed, in words for whoever verifies.
    pub fn signed_until(&self) -> String {
        let Some(signed) = &self.signed else {
            return "nothing here is signed by a known key: the chain holds, whoever made it".to_owned();
        };
        let at = moment(signed.at);
        let behind = self.head.sequence.saturating_sub(signed.sequence);
        // The checkpoint itself is always behind.
        let tail = match behind {
            0 | 1 => String::new(),
            behind => format!(", the last {behind} not yet"),
        };
        let word = match self.by_given_key {
            true => String::new(),
            false => {
                "\nthat key is the chain's own word: a key that you kept, by --key, proves it".to_owned()
            }
        };
        format!("signed up to record {} by key {} at {at}{tail}{word}", signed.sequence, signed.key.id())
    }
}

/// Seconds since 1970 as people read it.
fn moment(seconds: i64) -> String {
    let at = serde_json::to_value(pbjson_types::Timestamp { seconds, nanos: 0 }).ok();
    at.as_ref().and_then(serde_json::Value::as_str).unwrap_or("an unknown time").to_owned()
}

/// Takes the records of one chain in order.
#[derive(Clone, Debug)]
pub struct Verifier {
    trusted: Vec<PublicKey>,
    given: bool,
    /// The key that signs at this place of the chain.
    current: Option<PublicKey>,
    agent_id: Option<String>,
    head: Option<Head>,
    first: u64,
    /// What the first record follows.
    start: Head,
    /// Says that what is before the first record was deleted.
    tombstone: Option<Box<Tombstone>>,
    signed: Option<Signed>,
    checkpoints: u64,
}

impl Verifier {
    /// Trusts these keys and those that they hand over to; with none of them, the first key that the chain names.
    pub fn new(keys: Vec<PublicKey>) -> Self {
        Self {
            given: !keys.is_empty(),
            trusted: keys,
            current: None,
            agent_id: None,
            head: None,
            first: 0,
            start: Head::default(),
            tombstone: None,
            signed: None,
            checkpoints: 0,
        }
    }

    /// The first record must follow `head`, which something else vouches for.
    pub fn begin_after(&mut self, head: Head) {
        (self.head, self.start) = (Some(head), head);
    }

    /// The next record; leads to the new end of the chain. The first may stand anywhere in a chain: what comes before it
    /// was deleted, or not exported.
    pub fn accept(&mut self, sealed: &SealedRecord) -> Result<Head, Fault> {
        let sequence = sealed.sequence;
        let mut head = match self.head {
            Some(head) => head,
            None => before(sealed)?,
        };
        let previous = head;
        head.accept(sealed)?;
        let record = Record::decode(sealed.payload.clone()).map_err(|_| Fault::Unreadable(sequence))?;
        if self.first == 0 {
            (self.first, self.start) = (sequence, previous);
        }
        match record.body {
            Some(Body::Checkpoint(checkpoint)) => self.on_checkpoint(sequence, &checkpoint, &previous)?,
            Some(Body::KeyChange(change)) => self.on_key_change(sequence, &change)?,
            Some(Body::Tombstone(tombstone)) => self.on_tombstone(sequence, tombstone)?,
            _ => {}
        }
        self.head = Some(head);
        Ok(head)
    }

    /// What holds of all that was accepted.
    pub fn verdict(&self) -> Result<Verdict, Fault> {
        if self.given && self.checkpoints == 0 && self.first > 0 {
            return Err(Fault::Unsigned);
        }
        Ok(Verdict {
            first: self.first,
            before: match &self.tombstone {
                _ if self.start.sequence == 0 => Before::Nothing,
                Some(tombstone) => Before::Deleted(tombstone.clone()),
                None => Before::Unknown,
            },
            head: self.head.unwrap_or_default(),
            signed: self.signed.clone(),
            checkpoints: self.checkpoints,
            agent_id: self.agent_id.clone(),
            by_given_key: self.given,
        })
    }

    fn on_checkpoint(&mut self, sequence: u64, checkpoint: &Checkpoint, head: &Head) -> Result<(), Fault> {
        let key_id = &checkpoint.key_id;
        let current = self.current.filter(|key| key.id() == *key_id);
        // The first of a part of a chain: the key change that names its key may have come before.
        let key = current.or_else(|| self.trusted.iter().copied().find(|key| key.id() == *key_id));
        let Some(key) = key else {
            // Before the first key that is trusted nothing can be said of others: neither proved nor wrong. What a
            // trusted key signs later covers all that came before it.
            if self.current.is_none() {
                return Ok(());
            }
            return Err(Fault::Untrusted { sequence, key_id: key_id.clone() });
        };
        if !key.vouches(checkpoint, head) {
            return Err(Fault::Signature(sequence));
        }
        match &self.agent_id {
            Some(expected) if *expected != checkpoint.agent_id => {
                return Err(Fault::Agent {
                    sequence,
                    expected: expected.clone(),
                    found: checkpoint.agent_id.clone(),
                });
            }
            Some(_) => {}
            None => self.agent_id = Some(checkpoint.agent_id.clone()),
        }
        self.current = Some(key);
        self.checkpoints += 1;
        self.signed = Some(Signed { sequence: checkpoint.sequence, key, at: checkpoint.signed_at });
        Ok(())
    }

    /// A tombstone that belongs to the chain: behind it, or as record `sequence` in it. Records may be left that it names,
    /// where an agent was stopped while it deleted them.
    pub fn on_tombstone(&mut self, sequence: u64, tombstone: Tombstone) -> Result<(), Fault> {
        let key_id = &tombstone.key_id;
        let known = self.current.into_iter().chain(self.trusted.iter().copied());
        match known.into_iter().find(|key| key.id() == *key_id) {
            Some(key) if !key.buried(&tombstone) => return Err(Fault::Tombstone(sequence)),
            None if self.current.is_some() && !key_id.is_empty() => {
                return Err(Fault::Untrusted { sequence, key_id: key_id.clone() });
            }
            // As with checkpoints: what a trusted key signs later covers it.
            _ => {}
        }
        if let Some(expected) = self.agent_id.as_ref().filter(|expected| **expected != tombstone.agent_id) {
            let (expected, found) = (expected.clone(), tombstone.agent_id);
            return Err(Fault::Agent { sequence, expected, found });
        }
        if tombstone.last < self.start.sequence {
            return Ok(());
        }
        if tombstone.last == self.start.sequence && tombstone.hash[..] != self.start.hash {
            return Err(Fault::Replaced { sequence, first: self.first });
        }
        self.tombstone = Some(Box::new(tombstone));
        Ok(())
    }

    fn on_key_change(&mut self, sequence: u64, change: &KeyChange) -> Result<(), Fault> {
        let key = PublicKey::from_bytes(&change.public_key).map_err(|_| Fault::Key(sequence))?;
        let handed_over = match (&self.current, &self.agent_id) {
            (Some(current), Some(agent_id)) => current.hands_over(change, agent_id),
            _ => false,
        };
        let first = !self.given && self.current.is_none();
        let before_trust = self.given && self.current.is_none();
        // An agent that starts says once more which key signs.
        let same = self.current == Some(key);
        if handed_over || first || same || self.trusted.contains(&key) {
            self.current = Some(key);
        } else if !before_trust {
            return Err(Fault::Handover { sequence, key_id: key.id() });
        }
        Ok(())
    }
}

/// The head that the first record of a part of a chain claims to follow.
fn before(sealed: &SealedRecord) -> Result<Head, Fault> {
    let sequence = sealed.sequence;
    let malformed = ChainError::Malformed { sequence };
    let hash = sealed.previous[..].try_into().map_err(|_| malformed)?;
    let head = Head { sequence: sequence.saturating_sub(1), hash };
    // INVARIANT: the very first record follows nothing.
    if sequence == 1 && head != Head::default() {
        return Err(ChainError::Broken { sequence, before: 0 }.into());
    }
    Ok(head)
}

#[cfg(test)]
mod tests;
