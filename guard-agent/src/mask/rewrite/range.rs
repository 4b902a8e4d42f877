//! Ranges and multiranges. A masked one is empty: two rewritten bounds need not be in order.

use super::{
    Detector, Format, ValueType,
    engine::{Engine, Job, Outcome},
    quoting::{self, Literal},
};

/// The flag of an empty range in binary.
const EMPTY: u8 = 1;
/// Flags of bounds that are infinite.
const LOWER_INFINITE: u8 = 8;
const UPPER_INFINITE: u8 = 16;

impl<'a, D: Detector> Engine<'a, D> {
    pub(super) fn range(
        &mut self,
        (element, several): (&'a ValueType, bool),
        format: Format,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        match job {
            Job::Pass => return Some(Outcome::Same),
            Job::Mask(kind, _) => self.count(kind),
            Job::Scan(_) => {
                let found = match format {
                    Format::Text => self.finds_in_text(element, job, value)?,
                    Format::Binary => self.finds_in_binary(element, several, job, value)?,
                };
                if !found {
                    return Some(Outcome::Same);
                }
            }
        }
        out.extend_from_slice(match (format, several) {
            (Format::Text, false) => b"empty",
            (Format::Text, true) => b"{}",
            (Format::Binary, false) => &[EMPTY],
            (Format::Binary, true) => &[0; 4],
        });
        Some(Outcome::Written)
    }

    fn finds_in_text(&mut self, element: &'a ValueType, job: Job<'a>, value: &[u8]) -> Option<bool> {
        let mut at = 0;
        while let Some(byte) = value.get(at) {
            if b"[](){},".contains(byte) {
                at += 1;
                continue;
            }
            let part = quoting::part(value, at, b"[](){},")?;
            let mut before = self.buffer();
            let found = self.part(element, job, (part, Literal::Row, b""), &mut before);
            self.done(before);
            if found && part.raw != b"empty" {
                return Some(true);
            }
            at = part.end;
        }
        Some(false)
    }

    fn finds_in_binary(
        &mut self,
        element: &'a ValueType,
        several: bool,
        job: Job<'a>,
        value: &[u8],
    ) -> Option<bool> {
        let word = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        if several {
            let mut rest = value.get(4..)?;
            for _ in 0..word(value)? {
                let length = usize::try_from(word(rest)?).ok()?;
                let range = rest.get(4..)?.get(..length)?;
                if self.finds_in_binary(element, false, job, range)? {
                    return Some(true);
                }
                rest = &rest[4 + length..];
            }
            return rest.is_empty().then_some(false);
        }
        let (flags, mut rest) = value.split_first()?;
        for infinite in [LOWER_INFINITE, UPPER_INFINITE] {
            if flags & (EMPTY | infinite) != 0 {
                continue;
            }
            let length = usize::try_from(word(rest)?).ok()?;
            let bound = rest.get(4..)?.get(..length)?;
            let mut rewritten = self.buffer();
            let outcome = self.value(element, Format::Binary, job, bound, &mut rewritten);
            self.done(rewritten);
            if outcome != Outcome::Same {
                return Some(true);
            }
            rest = &rest[4 + length..];
        }
        rest.is_empty().then_some(false)
    }
}
