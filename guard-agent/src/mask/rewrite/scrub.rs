//! Errors, notices and notifications enter; they leave without the values that they quote and the client may not see.
//!
//! What the server says is localised: values are found by their place among the message's fields, by quotes of any
//! language, by parentheses and by what the detectors find, not by words. Names of objects stay; a value stays where the
//! client has sent it itself. Where the statement reads what is hidden (`strict`), everything quoted goes.

mod quotes;

use std::sync::Arc;

use super::{
    Detector, Hint, Named, RewriteError, Rewritten, Rules, Settings, Tally,
    engine::{Engine, State},
    shape::FULL,
};
use crate::wire::postgres::cstring;

/// Bytes of the shortest part of a text that counts as sent by the client: shorter ones stand in any text.
const MIN_SENT: usize = 3;

/// Longest text of a field that is taken apart; a longer one is cut there.
const MAX_FIELD: usize = 64 * 1024;

/// What is known of the statement that a message is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// What the client sent: the statement's text, its parameters as text.
    pub sent: &'a [&'a [u8]],
    /// The statement reads what the client may not see, or nobody knows what it reads.
    pub strict: bool,
    /// The table that it names has nothing to hide in any column.
    pub plain_table: bool,
}

/// The fields of an error or a notice that say what kind it is.
#[derive(Clone, Copy, Default)]
struct Kind<'a> {
    code: &'a [u8],
    file: &'a [u8],
    /// It has a query that the client did not send.
    internal_query: bool,
    /// It points into what the client sent: the parser says so, what runs later does not.
    position: bool,
    /// Schema, table, column, type and constraint.
    names: [&'a [u8]; 5],
}

impl<'a> Kind<'a> {
    fn read(body: &'a [u8]) -> Result<Self, RewriteError> {
        let mut kind = Self::default();
        for field in fields(body) {
            let (tag, text) = field?;
            match tag {
                b'C' => kind.code = text,
                b'F' => kind.file = text,
                b'q' => kind.internal_query = true,
                b'P' => kind.position = true,
                b's' => kind.names[0] = text,
                b't' => kind.names[1] = text,
                b'c' => kind.names[2] = text,
                b'd' => kind.names[3] = text,
                b'n' => kind.names[4] = text,
                _ => {}
            }
        }
        Ok(kind)
    }

    /// RAISE and its like: code has put the text together, of whatever it read.
    fn raised(&self) -> bool {
        self.file.starts_with(b"pl") || self.code.starts_with(b"P0") || self.code.starts_with(b"38")
    }

    /// Its detail shows a row, without the names of its columns: NOT NULL, CHECK, WITH CHECK OPTION.
    fn shows_row(&self) -> bool {
        matches!(self.code, b"23502" | b"23514" | b"44000")
    }

    /// What is wrong is a value.
    fn of_value(&self) -> bool {
        self.code.starts_with(b"22")
    }

    /// What is wrong are names, or the text as a whole. They may also have been made of values: `x::regclass`.
    fn of_names(&self) -> bool {
        self.code.starts_with(b"42") && !self.internal_query && !self.raised()
    }

    /// What is wrong is the client's own text: what is quoted are words of it.
    fn of_syntax(&self) -> bool {
        self.of_names() && self.position
    }

    /// The numbers in it are those of a type: `character varying(20)`.
    fn tells_a_type(&self) -> bool {
        self.code == b"22001"
    }
}

/// The fields of the body of an ErrorResponse or a NoticeResponse.
fn fields(mut body: &[u8]) -> impl Iterator<Item = Result<(u8, &[u8]), RewriteError>> {
    let mut ended = false;
    std::iter::from_fn(move || {
        let malformed = Err(RewriteError::Malformed);
        match body.split_first() {
            _ if ended => None,
            Some((0, rest)) => {
                ended = true;
                (!rest.is_empty()).then_some(malformed)
            }
            Some((tag, rest)) => Some(match cstring(rest) {
                Some((text, rest)) => {
                    body = rest;
                    Ok((*tag, text))
                }
                None => {
                    ended = true;
                    malformed
                }
            }),
            None => {
                ended = true;
                Some(malformed)
            }
        }
    })
}

/// Takes values out of what a server says beside its rows.
#[derive(Debug)]
pub struct Scrubber<D> {
    rules: Arc<Rules>,
    settings: Settings,
    detector: D,
    state: State,
}

impl<D: Detector> Scrubber<D> {
    /// A scrubber for a client to whom `rules` apply.
    pub fn new(rules: Arc<Rules>, settings: Settings, detector: D) -> Self {
        Self { rules, settings, detector, state: State::default() }
    }

    /// Takes the counts of what was rewritten, and begins to count anew. All of it stands under column 0.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.state.tally)
    }

    /// Scrubs the body of an ErrorResponse (`tag` E) or a NoticeResponse (N): appends the whole message to `out` where
    /// it changes.
    ///
    /// # Errors
    /// Where the body has not the form of one.
    pub fn message(
        &mut self,
        tag: u8,
        body: &[u8],
        about: About<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Rewritten, RewriteError> {
        let kind = Kind::read(body)?;
        if self.rules.all_clear() && !about.strict {
            return Ok(Rewritten::Untouched);
        }
        let start = out.len();
        out.extend_from_slice(&[tag, 0, 0, 0, 0]);
        let mut changed = false;
        for field in fields(body) {
            let (field, text) = field?;
            out.push(field);
            changed |= self.field(field, text, &kind, about, out);
            out.push(0);
        }
        out.push(0);
        finish(changed, start, out)
    }

    /// Scrubs the body of a NotificationResponse, whose payload another session has written.
    ///
    /// # Errors
    /// Where the body has not the form of one.
    pub fn notification(
        &mut self,
        body: &[u8],
        whole: bool,
        out: &mut Vec<u8>,
    ) -> Result<Rewritten, RewriteError> {
        let (channel, payload) = body.get(4..).and_then(cstring).ok_or(RewriteError::Malformed)?;
        let (payload, _) = cstring(payload).ok_or(RewriteError::Malformed)?;
        let start = out.len();
        out.extend_from_slice(&[b'A', 0, 0, 0, 0]);
        out.extend_from_slice(&body[..4]);
        out.extend_from_slice(channel);
        out.push(0);
        let changed = if whole && !payload.is_empty() {
            out.extend_from_slice(FULL);
            payload != FULL
        } else {
            self.found(payload, &[], out)
        };
        out.push(0);
        finish(changed, start, out)
    }

    /// Writes what takes the place of a field's text; true where that is another.
    fn field(
        &mut self,
        field: u8,
        text: &[u8],
        kind: &Kind<'_>,
        about: About<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        // Severity, code, positions, names and places in the server's source.
        if !matches!(field, b'M' | b'D' | b'H' | b'W' | b'q') || text.is_empty() {
            out.extend_from_slice(text);
            return false;
        }
        let cut = &text[..text.len().min(MAX_FIELD)];
        let whole = about.strict
            && match field {
                b'M' | b'H' => kind.raised(),
                b'D' => kind.raised() || kind.of_value(),
                b'q' => true,
                _ => false,
            };
        if whole {
            out.extend_from_slice(FULL);
            return text != FULL;
        }
        let mut scrubbed = std::mem::take(&mut self.state.text);
        scrubbed.clear();
        scrubbed.extend_from_slice(cut);
        if field == b'D' {
            self.key_or_row(kind, about, &mut scrubbed);
        }
        if about.strict && !(kind.of_syntax() && field == b'M') {
            let after_colon = kind.of_value() || field == b'W';
            let words = if kind.of_names() { about.sent } else { &[] };
            quotes::take_out(&mut scrubbed, quotes::Known { names: &kind.names, words }, after_colon);
            if !kind.tells_a_type() {
                quotes::take_out_numbers(&mut scrubbed, about.sent);
            }
        }
        let found = self.found(&scrubbed, about.sent, out);
        let changed = found || scrubbed != text;
        self.state.text = scrubbed;
        changed
    }

    /// `Key (a, b)=(1, x) ..` and `.. row contains (1, x).`
    fn key_or_row(&mut self, kind: &Kind<'_>, about: About<'_>, text: &mut Vec<u8>) {
        let Some(last) = text.iter().rposition(|byte| *byte == b')') else {
            return;
        };
        let first = match memchr::memmem::find(text, b")=(") {
            Some(key) => {
                let Some(values) = text.get(key + 3..last) else {
                    return;
                };
                if !about.strict && !self.hides_key(&text[..key], values, about.sent) {
                    return;
                }
                key + 3
            }
            // What is found in the row by its form is masked all the same.
            None if kind.shows_row() && about.plain_table && !about.strict => return,
            None if kind.shows_row() => text.iter().position(|byte| *byte == b'(').map_or(last, |at| at + 1),
            None => return,
        };
        if first < last {
            text.splice(first..last, FULL.iter().copied());
        }
    }

    /// True where the names of a key's columns, at the end of `before`, say that its values are hidden.
    fn hides_key(&mut self, before: &[u8], values: &[u8], sent: &[&[u8]]) -> bool {
        let names = before.iter().position(|byte| *byte == b'(').map_or(before, |at| &before[at + 1..]);
        let hidden = names.split(|byte| *byte == b',').any(|name| {
            let name = name.trim_ascii().trim_ascii_start();
            // An expression of an index: what it reads is not known.
            let plain =
                name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii());
            !plain
                || match self.detector.by_key(name, false, true, &mut self.state.keys) {
                    Named::Sensitive(kind) => self.rules.rule(kind).is_some(),
                    Named::Hint(_) | Named::Plain => false,
                }
        });
        hidden && !was_sent(values, sent)
    }

    /// Writes `text` with what the detectors find in it rewritten, unless the client sent it; true where it changes.
    fn found(&mut self, text: &[u8], sent: &[&[u8]], out: &mut Vec<u8>) -> bool {
        let mut engine = Engine {
            detector: &self.detector,
            rules: &self.rules,
            settings: self.settings,
            state: &mut self.state,
        };
        let hits = engine.scan(Hint::default(), text);
        let mut from = 0;
        for hit in &hits {
            let Some(rule) = self.rules.rule(hit.kind) else { continue };
            let (Some(value), Some(before)) = (text.get(hit.start..hit.end), text.get(from..hit.start))
            else {
                continue;
            };
            if was_sent(value, sent) {
                continue;
            }
            out.extend_from_slice(before);
            engine.masked_text(hit.kind, rule, value, out);
            from = hit.end;
        }
        engine.scanned(hits);
        out.extend_from_slice(&text[from..]);
        from > 0
    }
}

/// True where the client has sent this itself.
fn was_sent(value: &[u8], sent: &[&[u8]]) -> bool {
    value.len() >= MIN_SENT && sent.iter().any(|sent| memchr::memmem::find(sent, value).is_some())
}

/// Gives the message that begins at `start` its length, or takes it back where nothing changes.
fn finish(changed: bool, start: usize, out: &mut Vec<u8>) -> Result<Rewritten, RewriteError> {
    if !changed {
        out.truncate(start);
        return Ok(Rewritten::Untouched);
    }
    // A NUL ends a field: a fixed text of a rule has none, for it stands in a policy.
    let length = u32::try_from(out.len() - start - 1).map_err(|_| RewriteError::Malformed)?;
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
    Ok(Rewritten::Changed)
}
