//! Random secrets, their hashes, and comparing them without telling how far they agree.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use sha2::{Digest, Sha256};

use super::PeopleError;

/// SHA-256 of a secret with full entropy: such a one needs no slow hash.
pub type Hash = [u8; 32];

/// 256 random bits, as text that needs no quoting anywhere.
pub fn random() -> Result<String, PeopleError> {
    Ok(URL_SAFE_NO_PAD.encode(random_bytes()?))
}

/// 256 random bits.
pub fn random_bytes() -> Result<[u8; 32], PeopleError> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| PeopleError::Random)?;
    Ok(bytes)
}

/// What is kept of a secret.
pub fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

/// Whether they are the same.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other)) == 0
}

/// A message's HMAC-SHA-256.
pub fn sign(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

/// What a form of this session has to repeat. It follows from the cookie, which no other site can read.
pub fn form_token(session: &str) -> String {
    URL_SAFE_NO_PAD.encode(sign(session.as_bytes(), b"guard console form"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_is_the_same() {
        assert!(same(b"abc", b"abc") && same(b"", b""));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"xbc", b"abc"));
    }

    #[test]
    fn two_secrets_differ_and_a_form_token_does_not_tell_its_session() {
        let (one, other) = (random().unwrap(), random().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 43);
        assert_ne!(form_token(&one), form_token(&other));
        assert!(!form_token(&one).contains(&one));
    }
}
