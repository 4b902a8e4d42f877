//! Arrays of any dimensions, in both formats: the elements are rewritten, the form stays.
//!
//! Layouts: `array_out` and `array_send` in
//! <https://github.com/postgres/postgres/blob/REL_17_0/src/backend/utils/adt/arrayfuncs.c>.

use super::{
    Base, Detector, Format, ValueType,
    engine::{Engine, Job, Outcome},
    quoting::{self, Literal, Part},
};

/// Dimensions that the server allows.
const MAX_DIMENSIONS: usize = 6;

/// What stands before and after elements. Only `box` has another separator, and is not taken apart.
const MARKS: &[u8] = b"{},";

impl<'a, D: Detector> Engine<'a, D> {
    pub(super) fn array(
        &mut self,
        element: &'a ValueType,
        format: Format,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        if matches!(element.base, Base::Unknown) {
            return self.whole(job, value);
        }
        match format {
            Format::Text => self.array_text(element, job, value, out),
            Format::Binary => self.array_binary(element, job, value, out),
        }
    }

    fn array_text(
        &mut self,
        element: &'a ValueType,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        let (mut from, mut depth) = (0, 0_usize);
        let mut outcome = Outcome::Same;
        // `[0:2]={..}`: bounds that do not begin with 1.
        let mut at = value.iter().position(|byte| *byte == b'{')?;
        while let Some(byte) = value.get(at) {
            match byte {
                b'{' => {
                    depth += 1;
                    if depth > MAX_DIMENSIONS {
                        return None;
                    }
                    at += 1;
                }
                b'}' => {
                    depth = depth.checked_sub(1)?;
                    at += 1;
                    if depth == 0 {
                        break;
                    }
                }
                b',' => at += 1,
                _ => {
                    let part = quoting::part(value, at, MARKS)?;
                    let is_null = !part.quoted && part.raw.eq_ignore_ascii_case(b"NULL");
                    let place = (part, Literal::Array, &value[from..at]);
                    if !is_null && self.part(element, job, place, out) {
                        outcome = Outcome::Written;
                        from = part.end;
                    }
                    at = part.end;
                }
            }
        }
        if depth != 0 || at != value.len() {
            return None;
        }
        if outcome == Outcome::Written {
            out.extend_from_slice(&value[from..]);
        }
        Some(outcome)
    }

    /// Rewrites a part of a literal: true where it changes. Then what stood `before` it and what takes its place are
    /// written.
    pub(super) fn part(
        &mut self,
        value_type: &'a ValueType,
        job: Job<'a>,
        (part, literal, before): (Part<'_>, Literal, &[u8]),
        out: &mut Vec<u8>,
    ) -> bool {
        let mut rewritten = self.buffer();
        let outcome = if quoting::is_plain(part.raw) {
            self.value(value_type, Format::Text, job, part.raw, &mut rewritten)
        } else {
            let mut plain = self.buffer();
            quoting::unquote(part.raw, &mut plain);
            let outcome = self.value(value_type, Format::Text, job, &plain, &mut rewritten);
            self.done(plain);
            outcome
        };
        if outcome != Outcome::Same {
            out.extend_from_slice(before);
        }
        match outcome {
            Outcome::Same => {}
            Outcome::Written => literal.write(&rewritten, out),
            Outcome::Null => out.extend_from_slice(literal.null()),
        }
        self.done(rewritten);
        outcome != Outcome::Same
    }

    fn array_binary(
        &mut self,
        element: &'a ValueType,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        let start = out.len();
        let word = |at: usize| {
            let bytes = value.get(at..at + 4)?;
            Some(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        let dimensions = usize::try_from(word(0)?).ok().filter(|dimensions| *dimensions <= MAX_DIMENSIONS)?;
        let mut elements = usize::from(dimensions > 0);
        for dimension in 0..dimensions {
            elements = elements.checked_mul(usize::try_from(word(12 + 8 * dimension)?).ok()?)?;
        }
        let head = 12 + 8 * dimensions;
        // Each has a length at least: the count cannot be made up.
        if value.len() < head || (value.len() - head) / 4 < elements {
            return None;
        }
        let mut fields = Fields { value, at: head };
        let (mut from, mut nulls) = (0, false);
        for _ in 0..elements {
            nulls |= self.field(element, Format::Binary, job, (&mut fields, &mut from), out)?;
        }
        if fields.at != value.len() {
            return None;
        }
        if from == 0 {
            return Some(Outcome::Same);
        }
        out.extend_from_slice(&value[from..]);
        if nulls {
            // The flag that says that there are NULLs.
            out.get_mut(start + 4..start + 8)?.copy_from_slice(&[0, 0, 0, 1]);
        }
        Some(Outcome::Written)
    }

    /// Rewrites the next of `fields`: one that does not stay is written after all that stands from `from` on. True
    /// where it became NULL; `None` for a length that does not fit.
    pub(super) fn field(
        &mut self,
        value_type: &'a ValueType,
        format: Format,
        job: Job<'a>,
        (fields, from): (&mut Fields<'_>, &mut usize),
        out: &mut Vec<u8>,
    ) -> Option<bool> {
        let at = fields.at;
        let Some(field) = fields.next()? else {
            return Some(false);
        };
        let mut rewritten = self.buffer();
        let outcome = self.value(value_type, format, job, field, &mut rewritten);
        if outcome != Outcome::Same {
            out.extend_from_slice(&fields.value[*from..at]);
            *from = fields.at;
        }
        match outcome {
            Outcome::Same => {}
            Outcome::Written => {
                out.extend_from_slice(&i32::try_from(rewritten.len()).ok()?.to_be_bytes());
                out.extend_from_slice(&rewritten);
            }
            Outcome::Null => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
        self.done(rewritten);
        Some(outcome == Outcome::Null)
    }
}

/// Values with their lengths before them; -1 is NULL.
pub(super) struct Fields<'v> {
    pub(super) value: &'v [u8],
    pub(super) at: usize,
}

impl<'v> Fields<'v> {
    /// The next value, `Some(None)` for NULL; `None` where the length does not fit.
    pub(super) fn next(&mut self) -> Option<Option<&'v [u8]>> {
        let length = self.value.get(self.at..)?.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))?;
        let start = self.at + 4;
        if length == -1 {
            self.at = start;
            return Some(None);
        }
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        let field = self.value.get(start..end)?;
        self.at = end;
        Some(Some(field))
    }
}
