//! The rules by which values are rewritten, with what they need: the fixed text, the key of the hash.

use std::{fmt, sync::Arc};

use guard_policy::vocabulary::DataKind;

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

/// The key of the hash rule: BLAKE3 in its keyed mode, a pseudorandom function as HMAC is, in a third of the time for what
/// is as short as values are. Who has it can try values; it is not shown.
#[derive(Clone)]
pub struct HashKey(Arc<[u8; 32]>);

/// What the secret is used for: the same secret used for something else gives another key.
const PURPOSE: &str = "guard 2026-11-22 masking rule hash";

impl HashKey {
    /// A key made of `secret`, of any length: 32 random bytes are right.
    pub fn new(secret: &[u8]) -> Self {
        Self(Arc::new(blake3::derive_key(PURPOSE, secret)))
    }

    /// The keyed hash of `value`, which is written in its canonical form.
    pub(super) fn digest(&self, value: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, value).as_bytes()
    }

    /// The key itself.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether it is the same as `other`.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
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
    fn the_hash_depends_on_every_bit_of_value_and_key() {
        let digest = |secret: &[u8], value: &[u8]| HashKey::new(secret).digest(value);
        let known = digest(b"secret", b"ana@example.com");
        assert_eq!(known, digest(b"secret", b"ana@example.com"));
        // What it was from the first day on: another one would no longer join with what has been exported.
        assert_eq!(hex::encode(&known[..16]), "855ad111de7b5bd5ff276050574146eb");
        for (secret, value) in
            [(&b"Secret"[..], &b"ana@example.com"[..]), (b"secret", b"ana@example.con"), (b"secret", b"")]
        {
            let other = digest(secret, value);
            let differ: u32 = known.iter().zip(other).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert!((64..192).contains(&differ), "{differ} of 256 bits");
        }
    }
}
