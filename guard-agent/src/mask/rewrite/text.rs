//! Texts: text, varchar(n), char(n), name, citext, and bytea as the text that its bytes may be.

use guard_policy::vocabulary::DataKind;

use super::{
    Detector, Format, Hint, Rule, canonical,
    engine::{Engine, Job, Outcome},
    hashed,
    shape::{self, FULL},
};

/// Bytes that a name holds.
const NAME_BYTES: usize = 63;

impl<'a, D: Detector> Engine<'a, D> {
    /// A text of at most `limit` characters.
    pub(super) fn text(
        &mut self,
        limit: Option<usize>,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        let start = out.len();
        let outcome = self.document(job, value, out).unwrap_or_else(|| self.any_text(job, value, out));
        if let (Outcome::Written, Some(limit)) = (outcome, limit) {
            shorten(out, start, limit);
        }
        Some(outcome)
    }

    pub(super) fn name(&mut self, job: Job<'a>, value: &[u8], out: &mut Vec<u8>) -> Option<Outcome> {
        let start = out.len();
        let outcome = self.any_text(job, value, out);
        if out.len() > start + NAME_BYTES {
            shorten_bytes(out, start, NAME_BYTES);
        }
        Some(outcome)
    }

    /// char(n) comes padded with blanks, which are no part of its value.
    pub(super) fn bpchar(
        &mut self,
        limit: Option<usize>,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        let start = out.len();
        let outcome = self.any_text(job, value.trim_ascii_end(), out);
        if let (Outcome::Written, Some(limit)) = (outcome, limit) {
            shorten(out, start, limit);
            let missing = limit.saturating_sub(characters(&out[start..]));
            // INVARIANT: what comes was padded as well, so a lie about `n` costs no more than the row did.
            out.resize(out.len() + missing.min(value.len()), b' ');
        }
        Some(outcome)
    }

    /// bytea: what its bytes are as a text.
    pub(super) fn bytea(
        &mut self,
        format: Format,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        if format == Format::Binary {
            return Some(self.any_text(job, value, out));
        }
        let mut bytes = self.buffer();
        let mut rewritten = self.buffer();
        let outcome = if value.starts_with(b"\\x") {
            unhex(&value[2..], &mut bytes).map(|()| self.any_text(job, &bytes, &mut rewritten))
        } else {
            unescape_bytea(value, &mut bytes).map(|()| self.any_text(job, &bytes, &mut rewritten))
        };
        if outcome == Some(Outcome::Written) {
            // Both output forms are understood by whoever understands one: the hexadecimal one is the default.
            out.extend_from_slice(b"\\x");
            let at = out.len();
            out.resize(at + 2 * rewritten.len(), 0);
            hex::encode_to_slice(&rewritten, &mut out[at..]).ok()?;
        }
        self.done(bytes);
        self.done(rewritten);
        outcome
    }

    /// A text of any length.
    pub(super) fn any_text(&mut self, job: Job<'a>, value: &[u8], out: &mut Vec<u8>) -> Outcome {
        match job {
            Job::Pass => Outcome::Same,
            Job::Mask(kind, rule) => {
                self.masked_text(kind, rule, value, out);
                Outcome::Written
            }
            Job::Scan(hint) => self.scanned_text(hint, value, out),
        }
    }

    /// A text that may be a JSON document: then it is one afterwards.
    fn document(&mut self, job: Job<'a>, value: &[u8], out: &mut Vec<u8>) -> Option<Outcome> {
        if !matches!(job, Job::Scan(_)) {
            return None;
        }
        let first = value.iter().find(|byte| !byte.is_ascii_whitespace())?;
        if !matches!(first, b'{' | b'[') || !self.settings.ascii_is_ascii() {
            return None;
        }
        let start = out.len();
        let outcome = self.json(job, value, out);
        if outcome.is_none() {
            out.truncate(start);
        }
        outcome
    }

    /// Rewrites what is found in `value`; the rest stays.
    fn scanned_text(&mut self, hint: Hint, value: &[u8], out: &mut Vec<u8>) -> Outcome {
        let hits = self.scan(hint, value);
        let mut from = 0;
        let mut outcome = Outcome::Same;
        for hit in &hits {
            let Some(rule) = self.rules.rule(hit.kind) else { continue };
            let (Some(found), Some(before)) = (value.get(hit.start..hit.end), value.get(from..hit.start))
            else {
                outcome = Outcome::Null;
                break;
            };
            if matches!(rule, Rule::Null) && found.len() == value.trim_ascii().len()
                || !self.settings.ascii_is_ascii()
            {
                self.count(hit.kind);
                outcome = Outcome::Null;
                break;
            }
            out.extend_from_slice(before);
            self.masked_text(hit.kind, rule, found, out);
            from = hit.end;
            outcome = Outcome::Written;
        }
        if outcome == Outcome::Written {
            out.extend_from_slice(&value[from..]);
        }
        self.scanned(hits);
        outcome
    }

    /// Writes what takes the place of the text `value`.
    pub(super) fn masked_text(&mut self, kind: DataKind, rule: &Rule, value: &[u8], out: &mut Vec<u8>) {
        self.count(kind);
        match rule {
            Rule::Partial if self.settings.ascii_is_ascii() => shape::partial(kind, value, out),
            // A text of the server holds no NUL, and nothing that its encoding has not.
            Rule::Fixed(text) if (self.settings.utf8 || text.is_ascii()) && !text.contains('\0') => {
                out.extend_from_slice(text.as_bytes());
            }
            Rule::Full | Rule::Partial | Rule::Null | Rule::Fixed(_) => out.extend_from_slice(FULL),
            Rule::Hash(key) => {
                let mut canonical = self.buffer();
                canonical::canonical(kind, value, &mut canonical);
                let digest = key.digest(&canonical);
                self.done(canonical);
                let at = out.len();
                out.resize(at + hashed::DIGITS, b'0');
                hashed::write(&digest, out, at);
            }
        }
    }
}

/// Letters of `text`; of what is no UTF-8, bytes.
fn characters(text: &[u8]) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    std::str::from_utf8(text).map_or(text.len(), |text| text.chars().count())
}

/// Cuts what stands in `out` from `start` on to `limit` characters.
fn shorten(out: &mut Vec<u8>, start: usize, limit: usize) {
    let text = &out[start..];
    if text.len() <= limit {
        return;
    }
    let end = match std::str::from_utf8(text) {
        Ok(text) => text.char_indices().nth(limit).map_or(text.len(), |(at, _)| at),
        Err(_) => limit,
    };
    out.truncate(start + end);
}

fn shorten_bytes(out: &mut Vec<u8>, start: usize, limit: usize) {
    let text = &out[start..];
    let end = std::str::from_utf8(text).map_or(limit.min(text.len()), |text| text.floor_char_boundary(limit));
    out.truncate(start + end);
}

fn unhex(digits: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    bytes.resize(digits.len() / 2, 0);
    hex::decode_to_slice(digits, bytes).ok()
}

/// The escape form: `\\` is a backslash, `\ooo` an octal byte.
fn unescape_bytea(mut text: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    while let Some((first, rest)) = text.split_first() {
        (text, _) = match (first, rest) {
            (b'\\', [b'\\', rest @ ..]) => (rest, bytes.push(b'\\')),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..]) => {
                (rest, bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')))
            }
            (b'\\', _) => return None,
            (other, rest) => (rest, bytes.push(*other)),
        };
    }
    Some(())
}
