//! Rows in which nothing is found: those at the beginning of what came are told without being taken apart further.
//!
//! INVARIANT: a row that is passed here is one that [`RowRewriter::row`] would have left untouched. A row whose counts or
//! lengths lie is never passed: the exact way says what is wrong with it.

use guard_policy::vocabulary::DataKind;
use smallvec::SmallVec;

use super::{
    Base, Column, Detector, Format, Hint, RowRewriter, Seen, Treatment,
    array::Fields,
    hashed::Hashed,
    numeric::{MAX_SCALE, NEGATIVE},
    row::passes,
};
use crate::wire::postgres::{HEADER_BYTES, Header};

/// How it is told that a value stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It does in any case.
    Pass,
    /// By its bytes: what is found in it is found in them.
    Bytes,
    /// The same, where nothing says what it is: then a short number is nothing.
    Text,
    /// The same, where nothing at all is known of it: what it is may be told by the same look at its bytes.
    Open,
    /// By its digits: it is a bigint, as text.
    Digits,
    /// A numeric.
    Decimal,
    /// A bigint in binary.
    Integer,
    /// A numeric.
    Numeric,
    /// It does not: all of it is hashed, together with others of its row.
    Hash(DataKind),
    /// Only by taking it apart.
    Exact,
}

impl Look {
    fn of(column: &Column, hashed: Option<&Hashed>) -> Self {
        if passes(column) {
            return Self::Pass;
        }
        let hint = match column.treatment {
            Treatment::Scan(hint) => hint,
            Treatment::Mask { kind, .. } if hashed.is_some_and(|hashed| hashed.takes(column)) => {
                return Self::Hash(kind);
            }
            _ => return Self::Exact,
        };
        match (&column.value_type.base, column.format, hint) {
            // Nothing is looked for in them.
            (Base::Uuid | Base::Enum, ..) => Self::Pass,
            (Base::Bytea, Format::Binary, _) => Self::Bytes,
            (Base::Text, ..) if hint == Hint::default() && column.value_type.characters().is_none() => {
                Self::Open
            }
            (Base::Text, _, Hint { kind: None, .. }) => Self::Text,
            (Base::Text | Base::Bpchar | Base::Name | Base::Unknown, ..) => Self::Bytes,
            (Base::Int8, Format::Text, Hint { kind: None, .. }) => Self::Digits,
            (Base::Numeric, Format::Text, Hint { kind: None, .. }) => Self::Decimal,
            (Base::Int8, Format::Binary, Hint { kind: None, .. }) => Self::Integer,
            (Base::Numeric, Format::Binary, Hint { kind: None, .. }) => Self::Numeric,
            _ => Self::Exact,
        }
    }

    /// How it is told of each column.
    pub(super) fn of_all(columns: &[Column], hashed: Option<&Hashed>) -> SmallVec<[Self; 16]> {
        columns.iter().map(|column| Self::of(column, hashed)).collect()
    }

    /// True where the value that ends with `bytes` and begins at `start` in it stays as it is. False says nothing.
    #[inline]
    pub(super) fn is_clean(self, detector: &impl Detector, bytes: &[u8], start: usize) -> bool {
        let value = bytes.get(start..).unwrap_or_default();
        let digits = match self {
            Self::Pass => return true,
            Self::Bytes => return detector.is_clean(bytes, start),
            Self::Open => return detector.look(bytes, start) == Seen::Nothing,
            Self::Text if detector.is_clean(bytes, start) => return true,
            Self::Text => {
                return value.len() <= detector.short_digits() && value.iter().all(u8::is_ascii_digit);
            }
            Self::Digits => whole_digits(value, false),
            Self::Decimal => whole_digits(value, true),
            Self::Integer => integer_digits(value),
            Self::Numeric => numeric_digits(value),
            Self::Hash(_) | Self::Exact => None,
        };
        digits.is_some_and(|digits| digits <= detector.small_digits())
    }
}

/// Digits before the point of a number in text, signs not counted. `None`: it is written in another way.
fn whole_digits(value: &[u8], fraction: bool) -> Option<usize> {
    let number = value.strip_prefix(b"-").unwrap_or(value);
    let whole = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = number.get(whole..)?;
    let digits = |digits: &[u8]| fraction && digits.iter().all(u8::is_ascii_digit);
    let good = whole > 0 && (rest.is_empty() || rest.strip_prefix(b".").is_some_and(digits));
    good.then_some(whole)
}

/// Digits of a bigint in binary, at most.
fn integer_digits(value: &[u8]) -> Option<usize> {
    let number = i64::from_be_bytes(value.try_into().ok()?);
    Some(number.unsigned_abs().checked_ilog10().map_or(1, |zeros| zeros as usize + 1))
}

/// Digits before the point of a numeric in binary, at most. `None`: it is none, or no number.
fn numeric_digits(value: &[u8]) -> Option<usize> {
    let (head, groups) = value.split_first_chunk::<8>()?;
    let [count, weight, sign, scale] = [0, 2, 4, 6].map(|at| u16::from_be_bytes([head[at], head[at + 1]]));
    let good = groups.len() == 2 * usize::from(count)
        && matches!(sign, 0 | NEGATIVE)
        && scale <= MAX_SCALE
        && groups.as_chunks::<2>().0.iter().all(|group| u16::from_be_bytes(*group) < 10_000);
    // The weight is that of the first group; below zero there is nothing before the point.
    let groups = usize::try_from(i32::from(weight.cast_signed()) + 1).unwrap_or(0);
    good.then_some(4 * groups)
}

/// Rows that stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clean {
    /// How many.
    pub rows: u64,
    /// Bytes of their messages.
    pub bytes: usize,
}

impl<D: Detector> RowRewriter<D> {
    /// The DataRow messages at the beginning of `bytes` in which nothing is found, whole ones of at most `limit` bytes.
    /// They count as looked at. The row behind them is to be rewritten: it may be clean as well.
    pub fn clean_rows(&mut self, bytes: &[u8], limit: usize) -> Clean {
        let mut clean = Clean::default();
        while let Some(length) = self.clean_row(bytes, clean.bytes, limit) {
            clean.rows += 1;
            clean.bytes += length;
        }
        self.state.tally.clean_rows(clean.rows);
        clean
    }

    /// The length of the message at `at`, if nothing is found in it.
    fn clean_row(&self, bytes: &[u8], at: usize, limit: usize) -> Option<usize> {
        let header = Header::read(bytes.get(at..)?, limit).ok()??;
        let body = at + HEADER_BYTES;
        let end = at + header.total();
        if header.tag != b'D'
            || usize::from(u16::from_be_bytes(*bytes.get(body..end)?.first_chunk()?)) != self.looks.len()
        {
            return None;
        }
        // All that came before belongs to it: short values are looked at together with what stands before them.
        let mut fields = Fields { value: &bytes[..end], at: body + 2 };
        for look in &self.looks {
            let start = fields.at + 4;
            let value = fields.next()?;
            if value.is_some() && !look.is_clean(&self.detector, &bytes[..fields.at], start) {
                return None;
            }
        }
        (fields.at == end).then_some(header.total())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use guard_policy::vocabulary::DataKind;

    use super::*;
    use crate::mask::rewrite::{Detectors, Rewritten, Rule, Rules, Settings, ValueType};

    fn scanned(base: Base, hint: Hint) -> Column {
        let treatment = Treatment::Scan(hint);
        Column { treatment, value_type: ValueType::new(base), format: Format::Text, computed: false }
    }

    fn rewriter(columns: Vec<Column>) -> RowRewriter<Detectors> {
        let rules = Arc::new(Rules::new(|_| Some(Rule::Full)));
        RowRewriter::new(columns, rules, Settings::default(), Detectors)
    }

    fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
        for value in values {
            let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(value.unwrap_or_default());
        }
        let length = u32::try_from(body.len() + 4).unwrap();
        [&b"D"[..], &length.to_be_bytes(), &body].concat()
    }

    #[test]
    fn rows_pass_up_to_one_in_which_something_may_be() {
        let mut rewriter = rewriter(vec![
            Column::pass(),
            scanned(Base::Int8, Hint::default()),
            scanned(Base::Text, Hint::default()),
        ]);
        let clean = row(&[Some(b"a@b.de"), Some(b"-1234567890123"), Some(b"nothing is in it")]);
        let nulls = row(&[None, None, None]);
        let mail = row(&[None, None, Some(b"mail a@b.de")]);
        let card = row(&[None, Some(b"4111111111111111"), None]);
        for stop in [&mail[..], &card, b"C\0\0\0\x09SELECT", &clean[..clean.len() - 1], b"D\0\0", b""] {
            let bytes = [&clean[..], &nulls, &clean, stop].concat();
            let expected = Clean { rows: 3, bytes: bytes.len() - stop.len() };
            assert_eq!(rewriter.clean_rows(&bytes, 1 << 20), expected, "{stop:?}");
        }
        assert_eq!(rewriter.tally().rows(), 18);
        let none = Clean::default();
        assert_eq!(rewriter.clean_rows(&clean, clean.len() - 6), none, "longer than the limit");
        rewriter.expect(1, DataKind::Phone);
        assert_eq!(rewriter.clean_rows(&clean, 1 << 20), none, "numbers of a known kind");
    }

    #[test]
    fn numbers_in_binary_are_told_by_their_digits() {
        let numeric = |groups: &[u16], weight: i16, scale: u16| {
            let head = [u16::try_from(groups.len()).unwrap(), weight.cast_unsigned(), 0, scale];
            head.iter().chain(groups).flat_map(|field| field.to_be_bytes()).collect::<Vec<u8>>()
        };
        for (base, value, passes) in [
            (Base::Int8, 9_999_999_999_999_i64.to_be_bytes().to_vec(), true),
            (Base::Int8, 10_000_000_000_000_i64.to_be_bytes().to_vec(), false),
            (Base::Int8, i64::MIN.to_be_bytes().to_vec(), false),
            (Base::Int8, vec![0; 8], true),
            (Base::Int8, vec![0; 4], false),
            (Base::Numeric, numeric(&[1234, 5600], 0, 2), true),
            (Base::Numeric, numeric(&[], -9, 2), true),
            (Base::Numeric, numeric(&[1, 2, 3], 2, 0), true),
            (Base::Numeric, numeric(&[4111, 1111, 1111, 1111], 3, 0), false),
            (Base::Numeric, numeric(&[10_000], 0, 0), false),
            (Base::Numeric, vec![0; 7], false),
            (Base::Numeric, [numeric(&[1], 0, 0), vec![0]].concat(), false),
        ] {
            let column = Column { format: Format::Binary, ..scanned(base.clone(), Hint::default()) };
            let mut rewriter = rewriter(vec![column]);
            let bytes = row(&[Some(&value)]);
            assert_eq!(rewriter.clean_rows(&bytes, 1 << 20).rows == 1, passes, "{base:?} {value:?}");
            if passes {
                rewriter.looks = smallvec::smallvec![Look::Exact];
                assert_eq!(rewriter.row(&bytes[HEADER_BYTES..], &mut Vec::new()), Ok(Rewritten::Untouched));
            }
        }
        assert_eq!(whole_digits(b"1.5", false), None);
        for (text, digits) in [
            ("12", Some(2)),
            ("-1.50", Some(1)),
            ("", None),
            ("-", None),
            ("1e5", None),
            ("1.2.3", None),
            ("NaN", None),
        ] {
            assert_eq!(whole_digits(text.as_bytes(), true), digits, "{text}");
        }
    }

    #[test]
    fn lies_about_lengths_do_not_pass() {
        let mut rewriter = rewriter(vec![scanned(Base::Text, Hint::default()), Column::pass()]);
        let good = row(&[Some(b"abc"), Some(b"def")]);
        assert_eq!(rewriter.clean_rows(&good, 1 << 20).rows, 1);
        for at in 1..good.len() - 3 {
            for other in [0, 1, 2, 4, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = other;
                if bytes == good || (11..14).contains(&at) {
                    continue;
                }
                let (clean, body) = (rewriter.clean_rows(&bytes, 1 << 20), &bytes[5..]);
                rewriter.looks = smallvec::smallvec![Look::Exact, Look::Pass];
                let exact = rewriter.row(body, &mut Vec::new());
                rewriter.looks = smallvec::smallvec![Look::Text, Look::Pass];
                let passes = exact == Ok(Rewritten::Untouched) && clean.bytes == bytes.len();
                assert!(clean.rows == 0 || passes, "{bytes:?} {exact:?}");
            }
        }
    }

    /// Values in which something is found, with what may hide it around them, cut anywhere: what passes would have been
    /// left untouched.
    #[test]
    fn what_passes_would_have_been_left_untouched() {
        let mut hidden = 0;
        let bases =
            [Base::Text, Base::Bpchar, Base::Name, Base::Int8, Base::Numeric, Base::Unknown, Base::Enum];
        for base in bases {
            for kind in [None, Some(DataKind::Phone), Some(DataKind::PersonName), Some(DataKind::BirthDate)] {
                let hint = Hint { kind, ..Hint::default() };
                let mut rewriter = rewriter(vec![scanned(base.clone(), hint)]);
                let mut closely = self::rewriter(vec![scanned(base.clone(), hint)]);
                closely.looks = smallvec::smallvec![Look::Exact];
                for text in crate::mask::detect::telling() {
                    for end in 0..=text.len() {
                        let bytes = row(&[Some(&text[..end])]);
                        let clean = rewriter.clean_rows(&bytes, 1 << 20).rows == 1;
                        let exact = closely.row(&bytes[HEADER_BYTES..], &mut Vec::new());
                        let untouched = exact == Ok(Rewritten::Untouched);
                        assert!(untouched || !clean, "{base:?} {kind:?} {:?}", &text[..end]);
                        hidden += usize::from(untouched && clean);
                    }
                }
            }
        }
        assert!(hidden > 1_000, "it tells something: {hidden}");
    }
}
