//! Texts of a row that are hashed, several at once: values enter one by one, their hashes stand in the row at its end.
//!
//! INVARIANT: what is written is what [`Engine::masked_text`](super::engine::Engine::masked_text) writes for the same value.
//! Between [`Hashed::begin`] and [`Hashed::finish`] places are held by zeros.

use guard_policy::vocabulary::DataKind;

use super::{
    Base, Column, HashKey, Rule, Treatment, canonical,
    lanes::{HALF, LANES, Lanes},
};

/// Hexadecimal digits of a hash in a text.
pub(super) const DIGITS: usize = 2 * HALF;

/// Hashes that are on their way into one buffer.
#[derive(Debug)]
pub(super) struct Hashed {
    key: HashKey,
    lanes: Lanes,
    places: [usize; LANES],
    canonical: Vec<u8>,
}

/// The key by which the texts of a column are hashed, if they are, and if a whole hash fits.
pub(super) fn key_of(column: &Column) -> Option<&HashKey> {
    let fits = column.value_type.characters().is_none_or(|limit| limit >= DIGITS);
    match &column.treatment {
        Treatment::Mask { rule: Rule::Hash(key), .. }
            if matches!(column.value_type.base, Base::Text) && fits =>
        {
            Some(key)
        }
        _ => None,
    }
}

impl Hashed {
    /// For the columns of a result: those that are hashed by the key of the first. `None` where there is nothing to be
    /// won.
    pub(super) fn of(columns: &[Column]) -> Option<Box<Self>> {
        let key = columns.iter().find_map(key_of).filter(|_| Lanes::are_there())?.clone();
        Some(Box::new(Self { key, lanes: Lanes::default(), places: [0; LANES], canonical: Vec::new() }))
    }

    /// Whether the texts of `column` can be added.
    pub(super) fn takes(&self, column: &Column) -> bool {
        key_of(column).is_some_and(|key| key.is(&self.key))
    }

    /// A row begins: what an unfinished one has left is forgotten.
    pub(super) fn begin(&mut self) {
        self.lanes.clear();
    }

    /// Writes the hash of `value` to `out`, now or later.
    pub(super) fn add(&mut self, kind: DataKind, value: &[u8], out: &mut Vec<u8>) {
        let place = out.len();
        out.extend_from_slice(&[b'0'; DIGITS]);
        let lane = self.lanes.count() % LANES;
        if !self.lanes.add(|block| canonical::canonical_block(kind, value, block)) {
            self.canonical.clear();
            canonical::canonical(kind, value, &mut self.canonical);
            let digest = self.key.digest(&self.canonical);
            return write(&digest, out, place);
        }
        self.places[lane] = place;
        if self.lanes.count() == LANES {
            self.finish(out);
        }
    }

    /// Writes those that wait.
    pub(super) fn finish(&mut self, out: &mut [u8]) {
        let count = self.lanes.count();
        if count == 0 {
            return;
        }
        let digests = self.lanes.digests(self.key.bytes());
        for (digest, place) in digests.iter().zip(self.places).take(count) {
            write(digest, out, place);
        }
    }
}

/// Writes the first half of a digest to its place, in hexadecimal digits.
pub(super) fn write(digest: &[u8], out: &mut [u8], place: usize) {
    const PAIRS: [[u8; 2]; 256] = {
        let (digits, mut pairs, mut byte) = (b"0123456789abcdef", [[0; 2]; 256], 0);
        while byte < 256 {
            pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
            byte += 1;
        }
        pairs
    };
    let Some(place) = out.get_mut(place..place + DIGITS) else { return };
    for (pair, byte) in place.as_chunks_mut::<2>().0.iter_mut().zip(digest) {
        *pair = PAIRS[usize::from(*byte)];
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mask::rewrite::{Detectors, Format, Rewritten, RowRewriter, Rules, Settings, ValueType};

    fn hashed(kind: DataKind, key: &HashKey, modifier: i32) -> Column {
        let treatment = Treatment::Mask { kind, rule: Rule::Hash(key.clone()) };
        let value_type = ValueType { base: Base::Text, modifier };
        Column { treatment, value_type, format: Format::Text, computed: false }
    }

    /// The value of each column of a row, rewritten alone as COPY does, and together.
    #[test]
    fn together_or_alone_a_value_has_the_same_hash() {
        use DataKind as K;
        let (key, other) = (HashKey::new(b"one"), HashKey::new(b"other"));
        let long = "x".repeat(200);
        let cases = [
            (K::Email, "Ana@Example.com "),
            (K::Phone, "+49 (30) 12-34"),
            (K::PersonName, "Ana"),
            (K::Email, ""),
            (K::PaymentCard, "4111 1111 1111 1111"),
            (K::Tagged, &long),
            (K::PersonName, "Björk"),
            (K::Iban, "de89 é"),
            (K::Address, " \t"),
            (K::IpAddress, "FE80::1"),
            (K::Phone, &long[..64]),
            (K::Phone, &long[..65]),
        ];
        for count in 1..=cases.len() {
            for limit in [-1, 36, 35, 24] {
                let mut columns: Vec<_> =
                    cases[..count].iter().map(|(kind, _)| hashed(*kind, &key, limit)).collect();
                columns.push(hashed(K::Email, &other, -1));
                columns.push(Column::pass());
                let rules = Arc::new(Rules::new(|_| None));
                let mut rewriter = RowRewriter::new(columns, rules, Settings::default(), Detectors);
                let mut body = u16::try_from(count + 2).unwrap().to_be_bytes().to_vec();
                let values = cases[..count].iter().map(|(_, value)| value.as_bytes());
                let values: Vec<_> = values.chain([&b"a@b.de"[..], b"clear"]).collect();
                let mut expected = vec![b'D', 0, 0, 0, 0];
                expected.extend_from_slice(&body);
                for (number, value) in values.iter().enumerate() {
                    body.extend_from_slice(&i32::try_from(value.len()).unwrap().to_be_bytes());
                    body.extend_from_slice(value);
                    let mut alone = Vec::new();
                    rewriter.single(number, value, &mut alone);
                    let alone = if number > count { *value } else { &alone[..] };
                    expected.extend_from_slice(&i32::try_from(alone.len()).unwrap().to_be_bytes());
                    expected.extend_from_slice(alone);
                }
                let length = u32::try_from(expected.len() - 1).unwrap();
                expected[1..5].copy_from_slice(&length.to_be_bytes());
                let mut out = b"before".to_vec();
                // What a row leaves that lies does not touch the next one.
                assert!(rewriter.row(&body[..body.len() - 1], &mut out).is_err());
                assert_eq!(rewriter.row(&body, &mut out), Ok(Rewritten::Changed));
                assert_eq!(out, [b"before", &expected[..]].concat(), "{count} {limit}");
            }
        }
    }
}
