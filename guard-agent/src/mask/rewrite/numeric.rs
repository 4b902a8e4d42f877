//! numeric: as text, and in binary as digits to the base of 10,000.
//!
//! Layout: `numeric_send` in <https://github.com/postgres/postgres/blob/REL_17_0/src/backend/utils/adt/numeric.c>.

use super::{
    Detector, Format,
    decimal::{self, Decimal},
    engine::{Engine, Job, Outcome},
    number::Digits,
};

/// Sign of a number below zero.
pub(super) const NEGATIVE: u16 = 0x4000;

/// Most digits after the point.
pub(super) const MAX_SCALE: u16 = 0x3fff;

/// Digits of 10,000 before and after the point that are read: more than any value that means something.
const MAX_GROUPS: i32 = 64;

impl<'a, D: Detector> Engine<'a, D> {
    /// A numeric of at most `whole_digits` digits before the point.
    pub(super) fn numeric(
        &mut self,
        whole_digits: Option<usize>,
        format: Format,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        let mut text = self.buffer();
        let scale = match format {
            Format::Text => {
                text.extend_from_slice(value);
                Decimal::read(value).map_or(0, |number| number.fraction.len())
            }
            Format::Binary => usize::from(read(value, &mut text)?),
        };
        let number = Decimal::read(&text);
        let outcome = self.numeric_value(whole_digits, format, job, (number, scale), out);
        self.done(text);
        outcome
    }

    fn numeric_value(
        &mut self,
        whole_digits: Option<usize>,
        format: Format,
        job: Job<'a>,
        (number, scale): (Option<Decimal<'_>>, usize),
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        let (kind, rule) = match (job, number.and_then(Decimal::integer)) {
            (Job::Mask(kind, rule), _) => (kind, rule),
            (Job::Scan(_), Some(integer)) => match self.rule_of_integer(job, integer) {
                Some(found) => found,
                None => return Some(Outcome::Same),
            },
            _ => return Some(Outcome::Same),
        };
        self.count(kind);
        let Some(masked) = decimal::masked(kind, rule, number, whole_digits.unwrap_or(18)) else {
            return Some(Outcome::Null);
        };
        match format {
            Format::Text => {
                out.extend_from_slice(Digits::of(i64::try_from(masked).ok()?).as_bytes());
                if scale > 0 {
                    out.push(b'.');
                    out.resize(out.len() + scale, b'0');
                }
            }
            Format::Binary => write(masked, u16::try_from(scale).ok()?, out),
        }
        Some(Outcome::Written)
    }
}

/// Writes a binary numeric as text; NaN, infinity and what is longer than [`MAX_GROUPS`] as nothing. Returns the digits
/// after its point; `None` for what is no numeric.
fn read(value: &[u8], out: &mut Vec<u8>) -> Option<u16> {
    let (head, groups) = value.split_at_checked(8)?;
    let field = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let (count, sign, scale) = (field(0), field(4), field(6));
    let weight = i32::from(field(2).cast_signed());
    if groups.len() != 2 * usize::from(count) || scale > MAX_SCALE {
        return None;
    }
    if !matches!(sign, 0 | NEGATIVE) || !(-MAX_GROUPS..MAX_GROUPS).contains(&weight) {
        return Some(scale);
    }
    if sign == NEGATIVE {
        out.push(b'-');
    }
    let group = |position: i32| {
        // INVARIANT: `weight` and `position` lie within the bounds checked above.
        let at = usize::try_from(weight - position).ok()?;
        let bytes = groups.get(2 * at..2 * at + 2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let push = |out: &mut Vec<u8>, group: u16| {
        out.extend(
            [group / 1000, group / 100 % 10, group / 10 % 10, group % 10].map(|digit| b'0' + digit as u8),
        );
    };
    for position in (0..=weight.max(0)).rev() {
        match group(position).unwrap_or(0) {
            group @ 0..10_000 => push(out, group),
            _ => return None,
        }
    }
    if scale > 0 {
        out.push(b'.');
        let start = out.len();
        let groups = i32::from(scale.div_ceil(4)).min(MAX_GROUPS);
        for position in 1..=groups {
            match group(-position).unwrap_or(0) {
                group @ 0..10_000 => push(out, group),
                _ => return None,
            }
        }
        out.truncate(start + usize::from(scale));
    }
    Some(scale)
}

/// Writes a whole number as a binary numeric of `scale` digits after the point.
fn write(value: u64, scale: u16, out: &mut Vec<u8>) {
    let mut groups = [0_u16; 5];
    let mut left = value;
    for group in groups.iter_mut().rev() {
        *group = u16::try_from(left % 10_000).unwrap_or(0);
        left /= 10_000;
    }
    let first = groups.iter().position(|group| *group != 0).unwrap_or(groups.len());
    let mut digits = &groups[first..];
    // Its weight is that of the first group that is not zero; zeros at the end are not sent.
    let weight = u16::try_from(digits.len().saturating_sub(1)).unwrap_or(0);
    while let Some((0, rest)) = digits.split_last() {
        digits = rest;
    }
    let count = u16::try_from(digits.len()).unwrap_or(0);
    for field in [count, weight, 0, scale] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    digits.iter().for_each(|group| out.extend_from_slice(&group.to_be_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &[u8]) -> Option<String> {
        let mut out = Vec::new();
        read(value, &mut out)?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn reads_what_the_server_sends() {
        // `numeric_send` of each, from a server.
        for (bytes, expected) in [
            ("0003000100000002007b10e114d2", "01234321.53"),
            ("00020000400000040001 1388", "-0001.5000"),
            ("0000000000000002", "0000.00"),
            ("00010002000000000001", "000100000000"),
            ("0001ffff00000004 0001", "0000.0001"),
            ("00000000c0000000", ""),
        ] {
            let bytes = hex::decode(bytes.replace(' ', "")).unwrap();
            assert_eq!(text(&bytes).unwrap(), expected);
        }
        for bytes in ["", "00", "0001000000000000", "00010000000000002711", "000000000000ffff"] {
            assert_eq!(text(&hex::decode(bytes).unwrap()), None, "{bytes}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for value in [0, 1, 9_999, 10_000, 1_234_567, 100_000_000, 10_u64.pow(18) - 1, u64::MAX] {
            let mut bytes = Vec::new();
            write(value, 2, &mut bytes);
            assert_eq!(
                text(&bytes).unwrap().trim_start_matches('0'),
                format!("{}.00", if value == 0 { String::new() } else { value.to_string() })
            );
        }
    }
}
