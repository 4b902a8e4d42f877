//! The rules by which values are rewritten, with what they need: the fixed text, the key of the hash.

use std::{fmt, sync::Arc};

use guard_policy::vocabulary::DataKind;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How a sensitive value is rewritten. Each leaves a value of the same type.
#[derive(Clone, Debug)]
pub enum Rule {
    /// Nothing of it is left.
    Full,
    /// Its shape is.
    Partial,
    /// The same for the same value, so that it joins.
    Hash(HashKey),
    /// NULL.
    Null,
    /// This text; where the type cannot take it, as `Full`.
    Fixed(Arc<str>),
}

/// The key of the hash rule: HMAC with SHA-256. Who has it can try values; it is not shown.
#[derive(Clone)]
pub struct HashKey(Arc<Hmac<Sha256>>);

impl HashKey {
    /// A key made of `secret`, of any length: 32 random bytes are right.
    pub fn new(secret: &[u8]) -> Self {
        Self(Arc::new(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length")))
    }

    /// The keyed hash of `value`, which is written in its canonical form.
    pub(super) fn digest(&self, value: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::clone(&self.0);
        mac.update(value);
        mac.finalize().into_bytes().into()
    }

    /// The first eight bytes of it as a number.
    pub(super) fn number(&self, value: &[u8]) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.digest(value);
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey")
    }
}

/// The rule of each kind of data: what one principal sees of what is found in values.
#[derive(Clone, Debug)]
pub struct Rules {
    /// By the number of the kind.
    by_kind: Box<[Option<Rule>]>,
}

impl Rules {
    /// What `rule` says of each kind; `None`: it may be seen in clear.
    pub fn new(rule: impl FnMut(DataKind) -> Option<Rule>) -> Self {
        Self { by_kind: DataKind::ALL.iter().copied().map(rule).collect() }
    }

    /// The rule of `kind`; `None`: it may be seen in clear.
    pub fn rule(&self, kind: DataKind) -> Option<&Rule> {
        self.by_kind.get(kind as usize)?.as_ref()
    }

    /// True where every kind may be seen in clear.
    pub fn all_clear(&self) -> bool {
        self.by_kind.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", Rule::Hash(HashKey::new(b"secret"))), "Hash(HashKey)");
    }

    #[test]
    fn every_kind_has_its_own_rule() {
        for wanted in DataKind::ALL {
            let rules = Rules::new(|kind| (kind == *wanted).then_some(Rule::Full));
            let found: Vec<_> = DataKind::ALL.iter().filter(|kind| rules.rule(**kind).is_some()).collect();
            assert_eq!(found, [wanted]);
        }
        assert!(Rules::new(|_| None).all_clear());
    }

    #[test]
    fn the_hash_is_hmac_sha_256() {
        // RFC 4231, test case 2.
        let digest = HashKey::new(b"Jefe").digest(b"what do ya want for nothing?");
        assert_eq!(hex::encode(digest), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
