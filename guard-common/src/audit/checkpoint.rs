//! Signatures over a chain: what is signed, by which key, and whether it holds.
//!
//! Enters: the end of a chain and a public key. Leaves: the bytes that a signature covers, or whether one holds. It
//! knows no secret key: only the agent does.

use std::fmt;

use ring::signature::{ED25519, UnparsedPublicKey};
use sha2::{Digest, Sha256};

use super::{
    chain::{HASH_LEN, Head},
    v1::{Checkpoint, KeyChange, Tombstone},
};

/// Length of an Ed25519 public key in bytes (RFC 8032).
pub const PUBLIC_KEY_LEN: usize = 32;

/// Keep these signatures apart from each other and from every other use of the key.
const CHECKPOINT: &[u8] = b"guard.audit.checkpoint.v1\0";
const KEY_CHANGE: &[u8] = b"guard.audit.key.v1\0";
const TOMBSTONE: &[u8] = b"guard.audit.tombstone.v1\0";

/// The key that a chain is verified with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; PUBLIC_KEY_LEN]);

/// What is no public key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a public key: {PUBLIC_KEY_LEN} bytes, written as {} hex digits", 2 * PUBLIC_KEY_LEN)]
pub struct NoKey;

impl PublicKey {
    /// A key of exactly [`PUBLIC_KEY_LEN`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoKey> {
        bytes.try_into().map(Self).map_err(|_| NoKey)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; PUBLIC_KEY_LEN] {
        &self.0
    }

    /// What names it in records: the first 16 hex digits of SHA-256 over it.
    pub fn id(&self) -> String {
        hex::encode(&Sha256::digest(self.0)[..8])
    }

    /// Whether `signature` over `message` is by this key. The message says what it is for.
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }

    /// Whether `checkpoint` vouches for a chain that ends with `head`, by this key.
    pub fn vouches(&self, checkpoint: &Checkpoint, head: &Head) -> bool {
        checkpoint.sequence == head.sequence
            && checkpoint.hash[..] == head.hash
            && checkpoint.key_id == self.id()
            && self.signed(
                &checkpoint_message(&checkpoint.agent_id, head, checkpoint.signed_at),
                &checkpoint.signature,
            )
    }

    /// Whether this key has signed that records were deleted.
    pub fn buried(&self, tombstone: &Tombstone) -> bool {
        tombstone.key_id == self.id() && self.signed(&tombstone_message(tombstone), &tombstone.signature)
    }

    /// Whether this key has handed over to the one in `change`.
    pub fn hands_over(&self, change: &KeyChange, agent_id: &str) -> bool {
        change.previous_key_id == self.id()
            && self.signed(&key_change_message(agent_id, &change.public_key), &change.signature)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({self})")
    }
}

impl std::str::FromStr for PublicKey {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        hex::decode(text.trim()).map_err(|_| NoKey).and_then(|bytes| Self::from_bytes(&bytes))
    }
}

/// What the signature of a checkpoint covers: domain, agent id with its length (4 bytes, big endian), sequence (8,
/// big endian), hash, seconds since 1970 (8, big endian).
pub fn checkpoint_message(agent_id: &str, head: &Head, signed_at: i64) -> Vec<u8> {
    let mut message = Vec::with_capacity(CHECKPOINT.len() + agent_id.len() + HASH_LEN + 20);
    message.extend_from_slice(CHECKPOINT);
    put(&mut message, agent_id.as_bytes());
    message.extend_from_slice(&head.sequence.to_be_bytes());
    message.extend_from_slice(&head.hash);
    message.extend_from_slice(&signed_at.to_be_bytes());
    message
}

/// What the signature of a key change covers: domain, agent id with its length (4 bytes, big endian), the new key.
pub fn key_change_message(agent_id: &str, public_key: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(KEY_CHANGE.len() + agent_id.len() + public_key.len() + 4);
    message.extend_from_slice(KEY_CHANGE);
    put(&mut message, agent_id.as_bytes());
    message.extend_from_slice(public_key);
    message
}

/// What the signature of a tombstone covers: domain, agent id with its length (4 bytes, big endian), first and last
/// record (8 each, big endian), the last one's hash and the reason with their lengths, seconds since 1970 (8, big endian).
pub fn tombstone_message(tombstone: &Tombstone) -> Vec<u8> {
    let Tombstone { first, last, hash, reason, agent_id, signed_at, .. } = tombstone;
    let mut message = Vec::with_capacity(TOMBSTONE.len() + agent_id.len() + reason.len() + HASH_LEN + 36);
    message.extend_from_slice(TOMBSTONE);
    put(&mut message, agent_id.as_bytes());
    message.extend_from_slice(&first.to_be_bytes());
    message.extend_from_slice(&last.to_be_bytes());
    put(&mut message, hash);
    put(&mut message, reason.as_bytes());
    message.extend_from_slice(&signed_at.to_be_bytes());
    message
}

/// With its length: no two pairs of texts give the same bytes.
fn put(message: &mut Vec<u8>, text: &[u8]) {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(text);
}
