//! Sealing for the holder of a private key, who need not be on this host.
//!
//! A content key is derived by HPKE (RFC 9180: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, export only) for the public key of
//! the configuration, kept in memory alone and changed every hour; each statement is sealed with it by AES-256-GCM. What
//! is sealed carries all that opening takes but the private key, so that any one record can be opened alone.

use std::{
    fmt,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use guard_common::audit::v1::{AsSent, SealedLiterals};
use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable, aead::ExportOnlyAead, kdf::HkdfSha256,
    kem::X25519HkdfSha256,
};
use prost::Message;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// Keeps these keys apart from every other use of the recipient's.
const INFO: &[u8] = b"guard.audit.literals.v1";
const EXPORT: &[u8] = b"content key";
const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 12;
/// How long, and for how many statements, one content key is used.
const KEY_AGE: Duration = Duration::from_hours(1);
const KEY_USES: u64 = 1 << 24;

type Recipient = <X25519HkdfSha256 as Kem>::PublicKey;
type Secret = <X25519HkdfSha256 as Kem>::PrivateKey;
type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;

/// The public key that literals are sealed for: X25519, 64 hex digits.
#[derive(Clone, PartialEq, Eq)]
pub struct LiteralsKey(Recipient);

/// The private key that opens them, as the file of `audit literals-key` holds it.
pub struct Opener(Secret);

/// What a private key is not.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a key for literals: it has {} hex digits", 2 * KEY_LEN)]
pub struct NoLiteralsKey;

/// Why sealed literals cannot be opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotOpened {
    /// They are for another key.
    #[error("it is sealed for key {0}: give that one's private key")]
    OtherKey(String),
    /// They are not what was sealed.
    #[error("it is not what was sealed: changed, or taken from another record")]
    Changed,
}

impl LiteralsKey {
    /// What names it in records: the first 16 hex digits of SHA-256 over it.
    pub fn id(&self) -> String {
        hex::encode(&Sha256::digest(self.0.to_bytes())[..8])
    }
}

impl FromStr for LiteralsKey {
    type Err = NoLiteralsKey;

    fn from_str(text: &str) -> Result<Self, NoLiteralsKey> {
        Recipient::from_bytes(&bytes(text)?).map(Self).map_err(|_| NoLiteralsKey)
    }
}

impl fmt::Display for LiteralsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0.to_bytes()))
    }
}

impl fmt::Debug for LiteralsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiteralsKey({self})")
    }
}

impl Serialize for LiteralsKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LiteralsKey {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|error| {
            de::Error::custom(format!("{error}; `guard-agent audit literals-key` makes a pair"))
        })
    }
}

impl Opener {
    /// A new pair.
    pub fn generate() -> Self {
        Self(X25519HkdfSha256::gen_keypair().0)
    }

    /// Its public half.
    pub fn public(&self) -> LiteralsKey {
        LiteralsKey(X25519HkdfSha256::sk_to_pk(&self.0))
    }

    /// As its file holds it: hex, one line.
    pub fn to_file(&self) -> String {
        hex::encode(self.0.to_bytes()) + "\n"
    }

    /// What was sealed into the record of a statement with this fingerprint.
    pub fn open(&self, sealed: &SealedLiterals, fingerprint: &str) -> Result<AsSent, NotOpened> {
        if sealed.key_id != self.public().id() {
            return Err(NotOpened::OtherKey(sealed.key_id.clone()));
        }
        let plain = self.plain(sealed, fingerprint).ok_or(NotOpened::Changed)?;
        AsSent::decode(&*plain).map_err(|_| NotOpened::Changed)
    }

    fn plain(&self, sealed: &SealedLiterals, fingerprint: &str) -> Option<Vec<u8>> {
        let encapsulated = Encapsulated::from_bytes(&sealed.encapsulated).ok()?;
        let context = hpke::setup_receiver::<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.0,
            &encapsulated,
            INFO,
        );
        let mut key = [0; KEY_LEN];
        context.ok()?.export(EXPORT, &mut key).ok()?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok()?);
        let nonce = Nonce::try_assume_unique_for_key(&sealed.nonce).ok()?;
        let mut bytes = sealed.ciphertext.clone();
        let length = key.open_in_place(nonce, Aad::from(fingerprint.as_bytes()), &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }
}

impl FromStr for Opener {
    type Err = NoLiteralsKey;

    fn from_str(text: &str) -> Result<Self, NoLiteralsKey> {
        Secret::from_bytes(&bytes(text)?).map(Self).map_err(|_| NoLiteralsKey)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("of", &self.public()).finish()
    }
}

fn bytes(text: &str) -> Result<[u8; KEY_LEN], NoLiteralsKey> {
    let mut bytes = [0; KEY_LEN];
    hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| NoLiteralsKey)?;
    Ok(bytes)
}

/// Seals for one public key.
pub(super) struct Sealer {
    recipient: LiteralsKey,
    id: String,
    current: Mutex<Option<Content>>,
}

/// A content key.
struct Content {
    encapsulated: Vec<u8>,
    key: LessSafeKey,
    used: u64,
    since: Instant,
}

impl Sealer {
    pub(super) fn new(recipient: LiteralsKey) -> Self {
        Self { id: recipient.id(), recipient, current: Mutex::default() }
    }

    /// Seals `plain` for a statement with this fingerprint. `None`: there is no key to be had.
    pub(super) fn seal(&self, plain: &[u8], fingerprint: &[u8]) -> Option<SealedLiterals> {
        // A key that was half made is not there.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |content: &Content| content.used < KEY_USES && content.since.elapsed() < KEY_AGE;
        if !current.as_ref().is_some_and(fresh) {
            *current = self.content();
        }
        let content = current.as_mut()?;
        // INVARIANT: no nonce comes twice under one key.
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&content.used.to_be_bytes());
        content.used += 1;
        let mut ciphertext = plain.to_vec();
        let aad = Aad::from(fingerprint);
        let unique = Nonce::assume_unique_for_key(nonce);
        content.key.seal_in_place_append_tag(unique, aad, &mut ciphertext).ok()?;
        Some(SealedLiterals {
            key_id: self.id.clone(),
            encapsulated: content.encapsulated.clone(),
            nonce: nonce.to_vec(),
            ciphertext,
        })
    }

    fn content(&self) -> Option<Content> {
        let (encapsulated, context) = hpke::setup_sender::<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &self.recipient.0,
            INFO,
        )
        .ok()?;
        let mut key = [0; KEY_LEN];
        context.export(EXPORT, &mut key).ok()?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok()?);
        Some(Content { encapsulated: encapsulated.to_bytes().to_vec(), key, used: 0, since: Instant::now() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &str) -> AsSent {
        AsSent { text: text.to_owned(), text_bytes: text.len() as u64, ..AsSent::default() }
    }

    #[test]
    fn only_the_private_key_opens_and_only_what_was_sealed() {
        let opener = Opener::generate();
        let sealer = Sealer::new(opener.public());
        let seal = |text: &str| sealer.seal(&sent(text).encode_to_vec(), b"f").unwrap();
        let (one, two) = (seal("select 1"), seal("select 2"));
        assert_eq!(one.encapsulated, two.encapsulated, "one content key for many");
        assert_ne!(one.nonce, two.nonce);
        assert_eq!(opener.open(&two, "f").unwrap(), sent("select 2"));
        assert_eq!(opener.open(&one, "f").unwrap(), sent("select 1"), "in any order");
        assert_eq!(opener.open(&one, "g"), Err(NotOpened::Changed), "of another statement");
        let other = Opener::generate();
        assert_eq!(other.open(&one, "f"), Err(NotOpened::OtherKey(opener.public().id())));
        let posing = SealedLiterals { key_id: other.public().id(), ..one.clone() };
        assert_eq!(other.open(&posing, "f"), Err(NotOpened::Changed));
        for flip in 0..one.ciphertext.len() {
            let mut changed = one.clone();
            changed.ciphertext[flip] ^= 1;
            assert_eq!(opener.open(&changed, "f"), Err(NotOpened::Changed), "{flip}");
        }
        for lengths in [(0, 12), (31, 12), (32, 11), (32, 0)] {
            let mut cut = one.clone();
            cut.encapsulated.truncate(lengths.0);
            cut.nonce.truncate(lengths.1);
            assert_eq!(opener.open(&cut, "f"), Err(NotOpened::Changed));
        }
    }

    #[test]
    fn a_content_key_ends() {
        let sealer = Sealer::new(Opener::generate().public());
        let first = sealer.seal(b"x", b"").unwrap();
        sealer.current.lock().unwrap().as_mut().unwrap().used = KEY_USES;
        let second = sealer.seal(b"x", b"").unwrap();
        assert_ne!(first.encapsulated, second.encapsulated);
        assert_eq!(second.nonce, [0; NONCE_LEN]);
    }

    #[test]
    fn keys_read_back_and_what_is_none_is_refused() {
        let opener = Opener::generate();
        let again: Opener = opener.to_file().parse().unwrap();
        assert_eq!(again.public(), opener.public());
        assert_eq!(opener.public().to_string().parse(), Ok(opener.public()));
        assert!(!format!("{opener:?}").contains(opener.to_file().trim()));
        for wrong in ["", "ab", "zz", &"a".repeat(63), &"a".repeat(66)] {
            assert_eq!(wrong.parse::<LiteralsKey>(), Err(NoLiteralsKey));
        }
    }
}
