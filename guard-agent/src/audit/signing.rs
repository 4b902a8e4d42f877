//! The agent's signing key, and when it signs: the end of a chain enters, records that vouch for it leave.
//!
//! The secret key lies beside the journal, for its owner alone, and is never shown, logged or sent. Somebody who is root
//! on the host can read it: that is why the control plane, and whoever exports, keeps checkpoints elsewhere.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use guard_common::audit::{
    chain::Head,
    checkpoint::{PublicKey, checkpoint_message, key_change_message, tombstone_message},
    v1::{Checkpoint, KeyChange, Tombstone, record::Body},
};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use uuid::Uuid;

use super::folder;
use crate::config::JournalConfig;

/// PKCS#8, DER.
const KEY: &str = "signing-key";
/// The key that is about to follow.
const NEXT: &str = "signing-key.next";
/// The public half, in hex, for whoever verifies.
const PUBLIC: &str = "signing-key.pub";
/// Somebody asks for a new key.
const ASKED: &str = "signing-key.rotate";
/// Why a key is announced that the chain should know.
const RESTART: &str = "restart";
/// Longest key file in bytes: an Ed25519 key in PKCS#8 has 85.
const MAX_KEY_BYTES: u64 = 1_024;
/// Records after which a checkpoint does not wait for its time.
const AT_ONCE: u64 = 10_000;
/// How often an unsigned tail is tried again where the disk refused.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
#[error("the signing key `{}` cannot be used: {reason}", path.display())]
pub struct KeyError {
    path: PathBuf,
    reason: String,
}

impl KeyError {
    fn new(path: &Path, reason: impl ToString) -> Self {
        Self { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Signs one chain.
pub struct Signer {
    dir: PathBuf,
    agent_id: String,
    key: Ed25519KeyPair,
    /// What the chain has not been told yet: which key signs.
    announcement: Option<KeyChange>,
    after: Duration,
    max_age: Option<Duration>,
    /// The last record that needs no further signature.
    covered: u64,
    /// When the first record behind it was seen.
    since: Option<Instant>,
    not_before: Option<Instant>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Signer").field("key", &self.public().id()).finish_non_exhaustive()
    }
}

impl Signer {
    /// The signer of the chain in `dir`, with the key that lies there, or a new one. None where it is switched off.
    pub fn open(config: &JournalConfig, dir: &Path, agent_id: Uuid) -> Result<Option<Self>, KeyError> {
        if config.sign_seconds == 0 {
            return Ok(None);
        }
        let path = dir.join(KEY);
        let (key, reason) = match load(&path)? {
            Some(key) => (key, RESTART),
            None => (make(dir, KEY)?, "new"),
        };
        let mut signer = Self {
            dir: dir.to_owned(),
            agent_id: agent_id.to_string(),
            announcement: None,
            after: Duration::from_secs(config.sign_seconds),
            max_age: (config.key_days > 0).then(|| Duration::from_secs(u64::from(config.key_days) * 86_400)),
            covered: 0,
            since: None,
            not_before: None,
            key,
        };
        signer.publish()?;
        // A handover that was interrupted: whether the chain knows of it is not known, so it is told again.
        match load(&dir.join(NEXT))? {
            Some(next) => signer.announcement = Some(signer.handover(&next, "interrupted")),
            None => signer.announcement = Some(signer.announce(reason)),
        }
        Ok(Some(signer))
    }

    /// When to look again, where something waits to be signed.
    pub fn deadline(&self) -> Option<Instant> {
        let due = self.since? + self.after;
        Some(self.not_before.map_or(due, |not_before| due.max(not_before)))
    }

    /// What has to be recorded now, behind `head`, in this order. `closing`: nothing will come any more.
    pub fn due(&mut self, head: &Head, closing: bool) -> bool {
        // What could not be made durable was taken back.
        self.covered = self.covered.min(head.sequence);
        if head.sequence == self.covered {
            self.since = None;
            return false;
        }
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let many = head.sequence - self.covered >= AT_ONCE;
        let waits = self.not_before.is_some_and(|not_before| now < not_before);
        closing || ((many || now.duration_since(since) >= self.after) && !waits)
    }

    /// The key change that the chain has to know before the next checkpoint, where there is one.
    pub fn key_change(&mut self) -> Option<Body> {
        // A restart's announcement may be left out: the chain knows the key that hands over.
        let replaceable = self.announcement.as_ref().is_none_or(|change| change.reason == RESTART);
        if replaceable
            && !self.dir.join(NEXT).exists()
            && let Some(reason) = self.wants_new_key()
        {
            match make(&self.dir, NEXT) {
                Ok(next) => self.announcement = Some(self.handover(&next, reason)),
                Err(error) => tracing::error!("the signing key stays: {error}"),
            }
        }
        self.announcement.clone().map(Body::KeyChange)
    }

    /// The key change is durable: the next checkpoint is signed by the new key.
    pub fn key_changed(&mut self) -> Result<(), KeyError> {
        self.announcement = None;
        let next = self.dir.join(NEXT);
        let Some(key) = load(&next)? else { return Ok(()) };
        fs::rename(&next, self.dir.join(KEY)).map_err(|error| KeyError::new(&next, error))?;
        folder::sync(&self.dir).map_err(|error| KeyError::new(&next, error))?;
        let _ = fs::remove_file(self.dir.join(ASKED));
        self.key = key;
        self.publish()?;
        tracing::info!(key = self.public().id(), "checkpoints are signed by a new key");
        Ok(())
    }

    /// The checkpoint of a chain that ends with `head`.
    pub fn checkpoint(&self, head: &Head) -> Body {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signed_at = i64::try_from(at).unwrap_or(i64::MAX);
        let signature = self.key.sign(&checkpoint_message(&self.agent_id, head, signed_at));
        Body::Checkpoint(Checkpoint {
            sequence: head.sequence,
            hash: head.hash.to_vec(),
            agent_id: self.agent_id.clone(),
            key_id: self.public().id(),
            signed_at,
            signature: signature.as_ref().to_vec(),
        })
    }

    /// Vouches for what a tombstone says.
    pub fn bury(&self, tombstone: &mut Tombstone) {
        tombstone.key_id = self.public().id();
        tombstone.signature = self.key.sign(&tombstone_message(tombstone)).as_ref().to_vec();
    }

    /// The chain up to its checkpoint `sequence` is signed.
    pub fn signed(&mut self, sequence: u64) {
        self.covered = sequence;
        self.since = None;
        self.not_before = None;
    }

    /// The checkpoint could not be written: not at once again.
    pub fn postpone(&mut self) {
        self.not_before = Some(Instant::now() + RETRY_AFTER);
    }

    fn public(&self) -> PublicKey {
        public(&self.key)
    }

    fn announce(&self, reason: &str) -> KeyChange {
        let key = self.public();
        KeyChange {
            public_key: key.as_bytes().to_vec(),
            key_id: key.id(),
            reason: reason.to_owned(),
            ..KeyChange::default()
        }
    }

    fn handover(&self, next: &Ed25519KeyPair, reason: &str) -> KeyChange {
        let next = public(next);
        let signature = self.key.sign(&key_change_message(&self.agent_id, next.as_bytes()));
        KeyChange {
            public_key: next.as_bytes().to_vec(),
            key_id: next.id(),
            previous_key_id: self.public().id(),
            signature: signature.as_ref().to_vec(),
            reason: reason.to_owned(),
        }
    }

    fn wants_new_key(&self) -> Option<&'static str> {
        if self.dir.join(ASKED).exists() {
            return Some("asked");
        }
        let made = fs::metadata(self.dir.join(KEY)).and_then(|file| file.modified()).ok()?;
        let age = SystemTime::now().duration_since(made).ok()?;
        self.max_age.is_some_and(|limit| age >= limit).then_some("age")
    }

    fn publish(&self) -> Result<(), KeyError> {
        folder::replace(&self.dir, PUBLIC, &format!("{}\n", self.public()), false)
            .map_err(|error| KeyError::new(&self.dir.join(PUBLIC), error))
    }
}

/// The public key that lies beside the journal of `dir`.
pub fn public_key(dir: &Path) -> io::Result<PublicKey> {
    let mut text = String::new();
    fs::File::open(dir.join(PUBLIC))?.take(MAX_KEY_BYTES).read_to_string(&mut text)?;
    text.parse().map_err(io::Error::other)
}

/// Asks the agent that writes the journal of `dir` for a new key. It follows with the next checkpoint.
pub fn ask_for_new_key(dir: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(dir.join(ASKED)).map(drop)
}

fn public(key: &Ed25519KeyPair) -> PublicKey {
    // INVARIANT: an Ed25519 public key has 32 bytes (RFC 8032).
    PublicKey::from_bytes(key.public_key().as_ref()).unwrap_or_else(|_| unreachable!("an Ed25519 key"))
}

fn load(path: &Path) -> Result<Option<Ed25519KeyPair>, KeyError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(KeyError::new(path, error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_KEY_BYTES).read_to_end(&mut bytes).map_err(|error| KeyError::new(path, error))?;
    let key = Ed25519KeyPair::from_pkcs8(&bytes);
    key.map(Some).map_err(|error| {
        KeyError::new(
            path,
            format!("it holds no Ed25519 key ({error}): put it back, or remove it for a new one"),
        )
    })
}

/// A new key in the file `name` of `dir`, whole or not at all.
fn make(dir: &Path, name: &str) -> Result<Ed25519KeyPair, KeyError> {
    let path = dir.join(name);
    let failed = |error: &dyn ToString| KeyError::new(&path, error.to_string());
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|error| failed(&error))?;
    let temporary = path.with_extension("new");
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(document.as_ref())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        folder::sync(dir)
    };
    write().map_err(|error: io::Error| failed(&error))?;
    Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|error| failed(&error))
}
