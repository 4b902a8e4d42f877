//! The hash chain of one agent's records.
//!
//! Enters: a payload, or sealed records in order. Leaves: the sealed record, or the first thing that is wrong.

use prost::bytes::Bytes;
use sha2::{Digest, Sha256};

use super::v1::SealedRecord;

/// Length of a SHA-256 digest in bytes.
pub const HASH_LEN: usize = 32;

/// A link of the chain.
pub type Hash = [u8; HASH_LEN];

/// What stands before the first record.
pub const GENESIS: Hash = [0; HASH_LEN];

/// Keeps these hashes apart from every other use of SHA-256.
const DOMAIN: &[u8] = b"guard.audit.v1\0";

/// Why a record does not follow the one before.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChainError {
    /// A record is missing, repeated or out of order.
    #[error("expected record {expected}, found {found}")]
    Sequence {
        /// The sequence number that had to come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// The record names another predecessor.
    #[error("record {sequence} does not follow record {before}: its `previous` is another hash")]
    Broken {
        /// The record that does not fit.
        sequence: u64,
        /// The record before it.
        before: u64,
    },
    /// The record's content does not give its hash.
    #[error("record {sequence} was changed: its content does not give its hash")]
    Changed {
        /// The record that was changed.
        sequence: u64,
    },
    /// The hashes have a wrong length.
    #[error("record {sequence} is malformed: a hash has {HASH_LEN} bytes")]
    Malformed {
        /// The malformed record.
        sequence: u64,
    },
}

/// The end of a chain: what the next record has to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Sequence number of the last record; 0 before the first.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Default for Head {
    fn default() -> Self {
        Self { sequence: 0, hash: GENESIS }
    }
}

impl Head {
    /// Seals `payload` as the next record and moves on to it.
    pub fn seal(&mut self, payload: Bytes) -> SealedRecord {
        let previous = Bytes::copy_from_slice(&self.hash);
        self.follow(&payload);
        SealedRecord { sequence: self.sequence, previous, hash: Bytes::copy_from_slice(&self.hash), payload }
    }

    /// Moves on to the record that `payload` makes, for whoever writes its [`SealedRecord`] themselves.
    pub fn follow(&mut self, payload: &[u8]) {
        let sequence = self.sequence + 1;
        *self = Self { sequence, hash: digest(sequence, &self.hash, payload) };
    }

    /// Moves on to `record` if it is what follows.
    pub fn accept(&mut self, record: &SealedRecord) -> Result<(), ChainError> {
        let sequence = record.sequence;
        let expected = self.sequence.saturating_add(1);
        if sequence != expected {
            return Err(ChainError::Sequence { expected, found: sequence });
        }
        let hash: Hash = record.hash[..].try_into().map_err(|_| ChainError::Malformed { sequence })?;
        if record.previous.len() != HASH_LEN {
            return Err(ChainError::Malformed { sequence });
        }
        if record.previous[..] != self.hash {
            return Err(ChainError::Broken { sequence, before: self.sequence });
        }
        if digest(sequence, &self.hash, &record.payload) != hash {
            return Err(ChainError::Changed { sequence });
        }
        *self = Self { sequence, hash };
        Ok(())
    }
}

/// The hash of one record: SHA-256 over domain, sequence (big endian), previous hash and payload.
pub fn digest(sequence: u64, previous: &Hash, payload: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(DOMAIN);
    hasher.update(sequence.to_be_bytes());
    hasher.update(previous);
    hasher.update(payload);
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(count: usize) -> Vec<SealedRecord> {
        let mut head = Head::default();
        (0..count).map(|n| head.seal(Bytes::from(format!("record {n}")))).collect()
    }

    fn verify(records: &[SealedRecord]) -> Result<(), ChainError> {
        let mut head = Head::default();
        records.iter().try_for_each(|record| head.accept(record))
    }

    #[test]
    fn sealed_records_verify() {
        assert_eq!(verify(&chain(10)), Ok(()));
    }

    #[test]
    fn any_flipped_byte_is_found() {
        let good = chain(3);
        for victim in 0..good.len() {
            for at in 0..good[victim].payload.len() {
                let mut records = good.clone();
                let mut payload = records[victim].payload.to_vec();
                payload[at] ^= 1;
                records[victim].payload = payload.into();
                assert_eq!(verify(&records), Err(ChainError::Changed { sequence: victim as u64 + 1 }));
            }
        }
    }

    #[test]
    fn dropped_swapped_and_rehashed_records_are_found() {
        let good = chain(4);
        let mut dropped = good.clone();
        dropped.remove(1);
        assert_eq!(verify(&dropped), Err(ChainError::Sequence { expected: 2, found: 3 }));
        let mut swapped = good.clone();
        swapped.swap(1, 2);
        assert_eq!(verify(&swapped), Err(ChainError::Sequence { expected: 2, found: 3 }));
        let mut forged = good;
        let previous: Hash = forged[1].previous[..].try_into().unwrap();
        forged[1].payload = Bytes::from_static(b"forged");
        forged[1].hash = Bytes::copy_from_slice(&digest(2, &previous, b"forged"));
        assert_eq!(verify(&forged), Err(ChainError::Broken { sequence: 3, before: 2 }));
    }
}
