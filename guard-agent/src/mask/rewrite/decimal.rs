//! Rules on decimal numbers, as digits: the same for integers, numeric, floating point and numbers in JSON.

use guard_policy::vocabulary::DataKind;

use super::Rule;

/// A number as it is written: digits before the point, without leading zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal<'a> {
    pub(super) negative: bool,
    pub(super) whole: &'a [u8],
    pub(super) fraction: &'a [u8],
}

impl<'a> Decimal<'a> {
    /// Reads `-12.50`; `None` for exponents, NaN, infinity and what is no number.
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix(b"-") {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let point = digits.iter().position(|byte| *byte == b'.');
        let (whole, fraction) = match point {
            Some(at) => (&digits[..at], &digits[at + 1..]),
            None => (digits, &digits[..0]),
        };
        let are_digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
        if whole.is_empty() && fraction.is_empty() || !are_digits(whole) || !are_digits(fraction) {
            return None;
        }
        let zeros = whole.iter().position(|digit| *digit != b'0').unwrap_or(whole.len());
        Some(Self { negative, whole: &whole[zeros..], fraction })
    }

    /// Its value, where it is a whole number that fits.
    pub(super) fn integer(self) -> Option<i64> {
        if self.fraction.iter().any(|digit| *digit != b'0') || self.whole.len() > 19 {
            return None;
        }
        let value = self.whole.iter().fold(0_i128, |value, digit| value * 10 + i128::from(digit - b'0'));
        i64::try_from(if self.negative { -value } else { value }).ok()
    }

    /// The form that is hashed: no zeros at its ends, no point without a fraction.
    fn canonical(self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        out.extend_from_slice(if self.whole.is_empty() { b"0" } else { self.whole });
        let end = self.fraction.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        if end > 0 {
            out.push(b'.');
            out.extend_from_slice(&self.fraction[..end]);
        }
    }
}

/// What a number becomes: a whole number that is not negative. `most`: digits that its type holds.
///
/// `None`: NULL. A number that could not be read is masked as if by `Full`, for a hash of it would mean nothing.
pub(super) fn masked(kind: DataKind, rule: &Rule, number: Option<Decimal<'_>>, most: usize) -> Option<u64> {
    let most = most.min(18);
    let limit = 10_u64.pow(u32::try_from(most).unwrap_or(18));
    let value = match (rule, number) {
        (Rule::Null, _) => return None,
        (Rule::Full, _) | (Rule::Partial | Rule::Hash(_), None) => 0,
        (Rule::Fixed(text), _) => Decimal::read(text.as_bytes())
            .and_then(Decimal::integer)
            .and_then(|value| u64::try_from(value).ok())
            .unwrap_or(0),
        (Rule::Partial, Some(number)) => partial(kind, number.whole),
        (Rule::Hash(key), Some(number)) => {
            let mut canonical = Vec::with_capacity(number.whole.len() + number.fraction.len() + 2);
            number.canonical(&mut canonical);
            let hash = key.number(&canonical);
            // Numbers that fit an integer give one, so that columns of both types join.
            match number.integer().map(i32::try_from) {
                Some(Ok(_)) => hash & 0x7fff_ffff,
                _ => hash,
            }
        }
    };
    Some(if value < limit { value } else { value % limit })
}

/// What is left of a number by its kind.
fn partial(kind: DataKind, whole: &[u8]) -> u64 {
    let value =
        |digits: &[u8]| digits.iter().fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0'));
    let leading = |digits: &[u8]| match (digits.first(), u32::try_from(digits.len())) {
        (Some(first), Ok(length @ 2..=18)) => u64::from(first - b'0') * 10_u64.pow(length - 1),
        _ => 0,
    };
    match kind {
        DataKind::Phone
        | DataKind::PaymentCard
        | DataKind::Iban
        | DataKind::BankAccount
        | DataKind::NationalId
        | DataKind::Document
        | DataKind::Device
            if whole.len() >= 8 =>
        {
            value(&whole[whole.len() - 4..])
        }
        DataKind::Income if whole.len() >= 3 => leading(whole),
        // 19850312; an age.
        DataKind::BirthDate if whole.len() == 8 => value(&whole[..4]) * 10_000 + 101,
        DataKind::BirthDate if whole.len() == 2 => leading(whole),
        DataKind::Location if whole.len() <= 3 => value(whole),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::HashKey;
    use super::*;

    #[test]
    fn numbers_are_read() {
        let number = Decimal::read(b"-0012.50").unwrap();
        assert_eq!((number.negative, number.whole, number.fraction), (true, &b"12"[..], &b"50"[..]));
        assert_eq!(Decimal::read(b"4111111111111111.00").unwrap().integer(), Some(4_111_111_111_111_111));
        assert_eq!(Decimal::read(b"-9223372036854775808").unwrap().integer(), Some(i64::MIN));
        assert_eq!(Decimal::read(b"9223372036854775808").unwrap().integer(), None);
        assert_eq!(Decimal::read(b"1.5").unwrap().integer(), None);
        for none in ["", "-", ".", "1e5", "NaN", "Infinity", "1.2.3", "--1", "+1"] {
            assert_eq!(Decimal::read(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn rules_fit_their_type() {
        let mask =
            |kind, rule: &Rule, text: &str, most| masked(kind, rule, Decimal::read(text.as_bytes()), most);
        assert_eq!(mask(DataKind::PaymentCard, &Rule::Partial, "4111111111111234", 18), Some(1234));
        assert_eq!(mask(DataKind::PaymentCard, &Rule::Partial, "41111", 18), Some(0));
        assert_eq!(mask(DataKind::Income, &Rule::Partial, "-52340.17", 18), Some(50_000));
        assert_eq!(mask(DataKind::BirthDate, &Rule::Partial, "19850312", 18), Some(19_850_101));
        assert_eq!(mask(DataKind::BirthDate, &Rule::Partial, "37", 4), Some(30));
        assert_eq!(mask(DataKind::Tagged, &Rule::Fixed("77".into()), "1", 18), Some(77));
        assert_eq!(mask(DataKind::Tagged, &Rule::Fixed("none".into()), "1", 18), Some(0));
        let hash = Rule::Hash(HashKey::new(b"k"));
        let of = |text, most| mask(DataKind::Tagged, &hash, text, most).unwrap();
        assert_eq!(of("5", 18), of("5.00", 18));
        assert_ne!(of("5", 18), of("-5", 18));
        assert!(of("5", 18) <= 0x7fff_ffff && of("5", 4) < 10_000);
        assert!(of("99999999999", 18) < 10_u64.pow(18));
    }
}
