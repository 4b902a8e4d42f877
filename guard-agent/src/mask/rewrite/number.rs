//! Integers, floating point, money and bool, in both formats.

use super::{
    Base, Detector, Format, Rule,
    decimal::{self, Decimal},
    engine::{Engine, Job, Outcome},
};

/// Bytes of what stands before or after an amount of money: symbol, sign and blanks.
const MAX_SYMBOL: usize = 12;

impl<'a, D: Detector> Engine<'a, D> {
    pub(super) fn number(
        &mut self,
        base: &Base,
        format: Format,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        match base {
            Base::Bool => return self.bool(format, job, value, out),
            Base::Float4 | Base::Float8 => return self.float(base, format, job, value, out),
            Base::Money if format == Format::Text => return self.money_text(job, value, out),
            _ => {}
        }
        let number = match format {
            Format::Text => Decimal::read(value)?.integer()?,
            Format::Binary => match *base {
                Base::Int2 => i16::from_be_bytes(value.try_into().ok()?).into(),
                Base::Int4 => i32::from_be_bytes(value.try_into().ok()?).into(),
                _ => i64::from_be_bytes(value.try_into().ok()?),
            },
        };
        let Some((kind, rule)) = self.rule_of_integer(job, number) else {
            return Some(Outcome::Same);
        };
        self.count(kind);
        let digits = Digits::of(number);
        let most = match *base {
            Base::Int2 => 4,
            Base::Int4 => 10,
            _ => 18,
        };
        let Some(mut masked) = decimal::masked(kind, rule, Decimal::read(digits.as_bytes()), most) else {
            return Some(Outcome::Null);
        };
        if matches!(base, Base::Int4) && i32::try_from(masked).is_err() {
            masked = 0;
        }
        match (format, base) {
            (Format::Text, _) => out.extend_from_slice(Digits::of(i64::try_from(masked).ok()?).as_bytes()),
            (Format::Binary, Base::Int2) => out.extend_from_slice(&u16::try_from(masked).ok()?.to_be_bytes()),
            (Format::Binary, Base::Int4) => out.extend_from_slice(&u32::try_from(masked).ok()?.to_be_bytes()),
            (Format::Binary, _) => out.extend_from_slice(&masked.to_be_bytes()),
        }
        Some(Outcome::Written)
    }

    /// What to do with a whole number; `None`: it stays.
    pub(super) fn rule_of_integer(
        &self,
        job: Job<'a>,
        number: i64,
    ) -> Option<(guard_policy::vocabulary::DataKind, &'a Rule)> {
        match job {
            Job::Pass => None,
            Job::Mask(kind, rule) => Some((kind, rule)),
            Job::Scan(hint) => {
                let kind = self.detector.scan_integer(number, hint)?;
                Some((kind, self.rules.rule(kind)?))
            }
        }
    }

    fn bool(&mut self, format: Format, job: Job<'a>, value: &[u8], out: &mut Vec<u8>) -> Option<Outcome> {
        let Job::Mask(kind, rule) = job else {
            return Some(Outcome::Same);
        };
        self.count(kind);
        let fixed = matches!(rule, Rule::Fixed(text) if matches!(&**text, "t" | "true" | "on" | "yes" | "1"));
        match (format, value) {
            (Format::Text, _) => out.push(if fixed { b't' } else { b'f' }),
            (Format::Binary, [_]) => out.push(fixed.into()),
            (Format::Binary, _) => return None,
        }
        Some(Outcome::Written)
    }

    fn float(
        &mut self,
        base: &Base,
        format: Format,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        let single = matches!(base, Base::Float4);
        let number: f64 = match format {
            Format::Text => std::str::from_utf8(value).ok()?.parse().ok()?,
            Format::Binary if single => f32::from_be_bytes(value.try_into().ok()?).into(),
            Format::Binary => f64::from_be_bytes(value.try_into().ok()?),
        };
        // Digits of more than 2^53 are no longer those of the value.
        let whole = number.is_finite() && number.abs() < 9.0e15;
        let (kind, rule) = match job {
            Job::Pass => return Some(Outcome::Same),
            Job::Mask(kind, rule) => (kind, rule),
            Job::Scan(_) => {
                if !whole || number.fract() != 0.0 {
                    return Some(Outcome::Same);
                }
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "it has no fraction and lies within 2^53"
                )]
                let Some(found) = self.rule_of_integer(job, number as i64) else {
                    return Some(Outcome::Same);
                };
                found
            }
        };
        self.count(kind);
        // In the shortest form that reads back, as the canonical form of all numbers.
        let text = if whole { number.to_string() } else { String::new() };
        let most = if single { 6 } else { 15 };
        let Some(masked) = decimal::masked(kind, rule, Decimal::read(text.as_bytes()), most) else {
            return Some(Outcome::Null);
        };
        let masked = i64::try_from(masked).ok()?;
        #[expect(
            clippy::cast_precision_loss,
            reason = "it has at most 15 digits, 6 where the type is single"
        )]
        match format {
            Format::Text => out.extend_from_slice(Digits::of(masked).as_bytes()),
            Format::Binary if single => out.extend_from_slice(&(masked as f32).to_be_bytes()),
            Format::Binary => out.extend_from_slice(&(masked as f64).to_be_bytes()),
        }
        Some(Outcome::Written)
    }

    /// money as text is in the form of `lc_monetary`: what stands around its digits stays, and its last two digits are
    /// taken for a fraction where a separator stands before them.
    fn money_text(&mut self, job: Job<'a>, value: &[u8], out: &mut Vec<u8>) -> Option<Outcome> {
        let Job::Mask(kind, rule) = job else {
            return Some(Outcome::Same);
        };
        self.count(kind);
        let first = value.iter().position(u8::is_ascii_digit)?;
        let last = value.iter().rposition(u8::is_ascii_digit)?;
        let amount = &value[first..=last];
        if first > MAX_SYMBOL || value.len() - last - 1 > MAX_SYMBOL {
            return None;
        }
        let fraction = amount.len() > 3 && !amount[amount.len() - 3].is_ascii_digit();
        let digits: Vec<u8> = amount.iter().copied().filter(u8::is_ascii_digit).collect();
        // In the smallest unit, as the binary format has it.
        let Some(masked) = decimal::masked(kind, rule, Decimal::read(&digits), 17) else {
            return Some(Outcome::Null);
        };
        let sign = |byte: &&u8| !matches!(byte, b'-' | b'(' | b')');
        out.extend(value[..first].iter().filter(sign));
        if fraction {
            let separator = amount[amount.len() - 3];
            out.extend_from_slice(Digits::of(i64::try_from(masked / 100).ok()?).as_bytes());
            out.push(separator);
            out.extend([masked / 10 % 10, masked % 10].map(|digit| b'0' + u8::try_from(digit).unwrap_or(0)));
        } else {
            out.extend_from_slice(Digits::of(i64::try_from(masked).ok()?).as_bytes());
        }
        out.extend(value[last + 1..].iter().filter(sign));
        Some(Outcome::Written)
    }
}

/// An integer in decimal digits, in place.
pub(super) struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    pub(super) fn of(value: i64) -> Self {
        let mut digits = Self { bytes: [0; 20], start: 20 };
        let mut left = value.unsigned_abs();
        loop {
            digits.start -= 1;
            digits.bytes[digits.start] = b'0' + u8::try_from(left % 10).unwrap_or(0);
            left /= 10;
            if left == 0 {
                break;
            }
        }
        if value < 0 {
            digits.start -= 1;
            digits.bytes[digits.start] = b'-';
        }
        digits
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_number() {
        for value in [0, 7, -7, 10, i64::MAX, i64::MIN] {
            assert_eq!(Digits::of(value).as_bytes(), value.to_string().as_bytes());
        }
    }
}
