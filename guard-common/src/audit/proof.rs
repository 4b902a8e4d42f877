//! Proofs of a control plane: that it holds a record, and that it has not forgotten or changed what it held before.
//!
//! Every agent's records are gathered into leaves, and the leaves into one tree, whose head the control plane signs. A proof
//! enters with the control plane's public key, and what it proves leaves; nothing else is needed, no control plane and no
//! agent.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    chain::{HASH_LEN, Hash, digest},
    checkpoint::PublicKey,
    merkle,
};

/// Keep these signatures and leaves apart from each other and from every other use.
const LEAF: &[u8] = b"guard.audit.leaf.v1\0";
const TREE: &[u8] = b"guard.audit.tree.v1\0";
/// The form of the files.
const FORM: u32 = 1;

/// Why a proof proves nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProofError {
    /// Another form.
    #[error("this proof has form {0}, and this program knows form {FORM}")]
    Form(u32),
    /// A hash has a wrong length, or is no hex.
    #[error("a hash of the proof is none")]
    Hash,
    /// The record's content does not give its hash.
    #[error("the record was changed: its content does not give its hash")]
    Record,
    /// The record is not in its leaf.
    #[error(
        "the record is not among those of its leaf: the proof's first path does not lead to the leaf's root"
    )]
    Leaf,
    /// The leaf is not in the tree.
    #[error("the leaf is not in the tree: the proof's second path does not lead to the signed root")]
    Tree,
    /// The tree head is not signed by the key.
    #[error("the tree head is not signed by key {0}: it is forged, or the key is another")]
    Signature(String),
    /// The later tree does not begin with the earlier one.
    #[error("the later tree does not begin with the earlier one: what the control plane held was changed")]
    Consistency,
}

/// What the control plane signs: all that it held at one time.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct TreeHead {
    /// Leaves of the tree.
    pub size: u64,
    /// Its root, hex.
    pub root: String,
    /// Seconds since 1970.
    pub at: i64,
    /// The key that has signed.
    pub key_id: String,
    /// Ed25519, hex.
    pub signature: String,
}

/// Records of one agent that were gathered together.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Leaf {
    /// Whose records they are.
    pub agent_id: String,
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// The hash of the last one, hex.
    pub head: String,
    /// The root of the tree over the hashes of all of them, hex.
    pub root: String,
}

/// A record as it was sealed.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Sealed {
    /// Its number in the agent's chain.
    pub sequence: u64,
    /// The hash of the record before it, hex.
    pub previous: String,
    /// Its own hash, hex.
    pub hash: String,
    /// What was recorded, base64.
    pub payload: String,
}

/// That the control plane held a record.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Inclusion {
    /// 1.
    pub guard_audit_proof: u32,
    /// The record.
    pub record: Sealed,
    /// The leaf that it is in.
    pub leaf: Leaf,
    /// Its place among the records of the leaf, and how many they are.
    pub record_at: (u64, u64),
    /// From the record to the leaf's root, hex.
    pub record_path: Vec<String>,
    /// The leaf's place in the tree.
    pub leaf_at: u64,
    /// From the leaf to the tree's root, hex.
    pub leaf_path: Vec<String>,
    /// The tree.
    pub tree_head: TreeHead,
}

/// That a later tree holds all that an earlier one held.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Consistency {
    /// 1.
    pub guard_audit_consistency: u32,
    /// The earlier one.
    pub from: TreeHead,
    /// The later one.
    pub to: TreeHead,
    /// Hex.
    pub path: Vec<String>,
}

impl TreeHead {
    /// What its signature covers: domain, size (8 bytes, big endian), root, seconds since 1970 (8, big endian).
    pub fn message(size: u64, root: &Hash, at: i64) -> Vec<u8> {
        [TREE, &size.to_be_bytes(), root, &at.to_be_bytes()].concat()
    }

    /// Its root, if `key` has signed it.
    pub fn verify(&self, key: &PublicKey) -> Result<Hash, ProofError> {
        let root = hash(&self.root)?;
        let signature = hex::decode(&self.signature).map_err(|_| ProofError::Hash)?;
        let signed =
            self.key_id == key.id() && key.signed(&Self::message(self.size, &root, self.at), &signature);
        if signed { Ok(root) } else { Err(ProofError::Signature(key.id())) }
    }
}

/// What the hash of a leaf covers: domain, agent id with its length (4 bytes, big endian), first and last record (8 each,
/// big endian), hash of the last record, root over the records.
pub fn leaf_bytes(agent_id: &str, records: (u64, u64), head: &Hash, root: &Hash) -> Vec<u8> {
    let length = u32::try_from(agent_id.len()).unwrap_or(u32::MAX).to_be_bytes();
    let (first, last) = (records.0.to_be_bytes(), records.1.to_be_bytes());
    [LEAF, &length[..], agent_id.as_bytes(), &first, &last, head, root].concat()
}

impl Inclusion {
    /// Proves it, against the control plane's public key.
    pub fn verify(&self, key: &PublicKey) -> Result<(), ProofError> {
        if self.guard_audit_proof != FORM {
            return Err(ProofError::Form(self.guard_audit_proof));
        }
        let (record, leaf) = (&self.record, &self.leaf);
        let payload = STANDARD.decode(&record.payload).map_err(|_| ProofError::Record)?;
        let own = hash(&record.hash)?;
        if digest(record.sequence, &hash(&record.previous)?, &payload) != own {
            return Err(ProofError::Record);
        }
        let within = (leaf.first..=leaf.last).contains(&record.sequence);
        let root = hash(&leaf.root)?;
        let path = hashes(&self.record_path)?;
        if !within || !merkle::includes(&merkle::leaf(&own), self.record_at, &path, &root) {
            return Err(ProofError::Leaf);
        }
        let bytes = leaf_bytes(&leaf.agent_id, (leaf.first, leaf.last), &hash(&leaf.head)?, &root);
        let tree = self.tree_head.verify(key)?;
        let place = (self.leaf_at, self.tree_head.size);
        match merkle::includes(&merkle::leaf(&bytes), place, &hashes(&self.leaf_path)?, &tree) {
            true => Ok(()),
            false => Err(ProofError::Tree),
        }
    }
}

impl Consistency {
    /// Proves it, against the control plane's public key.
    pub fn verify(&self, key: &PublicKey) -> Result<(), ProofError> {
        if self.guard_audit_consistency != FORM {
            return Err(ProofError::Form(self.guard_audit_consistency));
        }
        let (from, to) = (self.from.verify(key)?, self.to.verify(key)?);
        match merkle::extends((self.from.size, self.to.size), (&from, &to), &hashes(&self.path)?) {
            true => Ok(()),
            false => Err(ProofError::Consistency),
        }
    }
}

fn hash(text: &str) -> Result<Hash, ProofError> {
    let bytes = hex::decode(text).map_err(|_| ProofError::Hash)?;
    <[u8; HASH_LEN]>::try_from(bytes).map_err(|_| ProofError::Hash)
}

fn hashes(texts: &[String]) -> Result<Vec<Hash>, ProofError> {
    texts.iter().map(|text| hash(text)).collect()
}
