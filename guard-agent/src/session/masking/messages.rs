//! Texts of the server that may quote values: errors, notices, notifications, settings, results of function calls.
//!
//! What is found in them is masked like values. Of a statement that has to do with masked columns nothing is left of what
//! a text quotes, since a name or a part of a value cannot be found by its form.

use super::super::{SessionError, pending::Awaited, relay::Relay};
use super::{Masking, rows::Step};
use crate::{
    mask::{
        detector::Finder,
        rewrite::{Base, Column, Format, Hint, Rewritten, RowRewriter, Treatment, ValueType},
    },
    wire::postgres::{Backend, HEADER_BYTES, Header, cstring, parameter_status},
};

/// What stands for what was masked.
const MASKED: &[u8] = b"***";

/// Settings whose values are words of the server's own.
const PLAIN_SETTINGS: [&[u8]; 14] = [
    b"client_encoding",
    b"DateStyle",
    b"default_transaction_read_only",
    b"in_hot_standby",
    b"integer_datetimes",
    b"IntervalStyle",
    b"is_superuser",
    b"scram_iterations",
    b"search_path",
    b"server_encoding",
    b"server_version",
    b"session_authorization",
    b"standard_conforming_strings",
    b"TimeZone",
];

impl Relay<'_> {
    /// Masks what a message that is no row quotes.
    pub(super) fn mask_message(
        &mut self,
        kind: Backend,
        header: Header,
        at: usize,
    ) -> Result<Step, SessionError> {
        // A long error is a long quotation.
        if !self.is_here(header, at)? {
            return Ok(Step::Waits);
        }
        let strict = match self.pending.front() {
            Some(
                Awaited::Query(running) | Awaited::Execute(Some(running)) | Awaited::FunctionCall(running),
            ) => running.results.touches(),
            Some(Awaited::Bind { .. } | Awaited::UnfollowedBind) => true,
            _ => false,
        };
        let body = &self.pipe.answers.unread()[at + HEADER_BYTES..at + header.total()];
        let Some(masking) = self.masking.as_deref() else { return Ok(Step::Pass) };
        let mut texts = Texts::new(self, masking, strict);
        let new = match kind {
            Backend::ErrorResponse | Backend::NoticeResponse => texts.fields(body),
            Backend::NotificationResponse => texts.notification(body),
            Backend::ParameterStatus => texts.setting(body),
            _ => texts.result(body),
        };
        let (values, enforces) = (texts.masked, texts.enforces);
        let Some(new) = new else { return Ok(Step::Pass) };
        if let Some(
            Awaited::Query(running) | Awaited::Execute(Some(running)) | Awaited::FunctionCall(running),
        ) = self.pending.front()
        {
            running.results.masked_in_message(values);
        }
        if !enforces {
            return Ok(Step::Pass);
        }
        self.replace(kind, header, at, &new)
    }

    /// Puts a message of the same kind with the body `new` in the place of the one at `at`, after guard has read what was
    /// there.
    fn replace(
        &mut self,
        kind: Backend,
        header: Header,
        at: usize,
        new: &[u8],
    ) -> Result<Step, SessionError> {
        let (start, end) = (at + HEADER_BYTES, at + header.total());
        let mut ours = None;
        match kind {
            Backend::ErrorResponse => ours = self.on_error(start, end)?,
            Backend::ParameterStatus => self.on_control(kind, start, end)?,
            _ => self.on_answer(kind)?,
        }
        self.pipe.answers.pass(at);
        self.pipe.answers.skip(header.total());
        match ours {
            Some(ours) => self.pipe.answers.insert(&ours),
            None => {
                let length = u32::try_from(new.len() + 4).unwrap_or(u32::MAX);
                self.pipe.answers.insert(&[header.tag]);
                self.pipe.answers.insert(&length.to_be_bytes());
                self.pipe.answers.insert(new);
            }
        }
        Ok(Step::Done)
    }
}

/// Rewrites texts of one message.
struct Texts {
    rewriter: RowRewriter<Finder>,
    strict: bool,
    enforces: bool,
    /// It shows what a call of an unknown function returns.
    shows_results: bool,
    masked: u64,
    row: Vec<u8>,
    out: Vec<u8>,
}

impl Texts {
    fn new(relay: &Relay<'_>, masking: &Masking, strict: bool) -> Self {
        let (rules, shows_results) = relay.worker.found_rules(&relay.session, relay.scope, masking);
        let column = Column {
            treatment: Treatment::Scan(Hint::default()),
            value_type: ValueType::new(Base::Text),
            format: Format::Text,
            computed: true,
        };
        Self {
            // Whom everything is shown is shown what is quoted too.
            strict: strict && !shows_results,
            rewriter: RowRewriter::new(vec![column], rules, masking.settings, Finder::default()),
            enforces: masking.enforces,
            shows_results,
            masked: 0,
            row: Vec::new(),
            out: Vec::new(),
        }
    }

    /// `text` without what is found in it; `None` where nothing is.
    fn found(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let length = i32::try_from(text.len()).ok()?;
        self.row.clear();
        self.row.extend_from_slice(&[0, 1]);
        self.row.extend_from_slice(&length.to_be_bytes());
        self.row.extend_from_slice(text);
        self.out.clear();
        match self.rewriter.row(&self.row, &mut self.out) {
            Ok(Rewritten::Untouched) => None,
            Ok(Rewritten::Changed) => {
                self.masked += self.rewriter.take_tally().values();
                // Tag and length of the message, the count of values, the length of the value.
                let value = self.out.get(11..).filter(|_| self.out.get(7..11) != Some(&[0xff; 4]));
                Some(value.unwrap_or(MASKED).iter().copied().filter(|byte| *byte != 0).collect())
            }
            Err(_) => {
                self.masked += 1;
                Some(MASKED.to_vec())
            }
        }
    }

    /// The fields of an error or a notice.
    fn fields(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let fields = read_fields(body)?;
        let of = |kind: u8| fields.iter().find(|(known, _)| *known == kind).map_or(&b""[..], |(_, text)| *text);
        let told = Told {
            raised: of(b'R') == b"exec_stmt_raise",
            grammar: of(b'C').starts_with(b"42") || of(b'C').starts_with(b"0A") || of(b'C').starts_with(b"57"),
            translated: of(b'S') != of(b'V'),
            names: [b's', b't', b'c', b'd', b'n'].map(of),
        };
        let mut out = Vec::with_capacity(body.len());
        let mut changed = false;
        for (kind, text) in &fields {
            let mut new = None;
            if matches!(kind, b'M' | b'D' | b'H' | b'W' | b'q') {
                if self.strict {
                    new = told.without_quotations(*kind, text);
                    self.masked += u64::from(new.is_some());
                }
                let left = new.as_deref().unwrap_or(text).to_vec();
                new = self.found(&left).or(new);
            }
            changed |= new.is_some();
            out.push(*kind);
            out.extend_from_slice(new.as_deref().unwrap_or(text));
            out.push(0);
        }
        out.push(0);
        changed.then_some(out)
    }

    /// The payload of a NOTIFY.
    fn notification(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let (head, rest) = body.split_at_checked(4)?;
        let (channel, rest) = cstring(rest)?;
        let (payload, _) = cstring(rest)?;
        let new = self.found(payload)?;
        let mut out = head.to_vec();
        for text in [channel, &new] {
            out.extend_from_slice(text);
            out.push(0);
        }
        Some(out)
    }

    /// A setting, which a statement may have set to a value that it has read.
    fn setting(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let (name, value) = parameter_status(body).ok()?;
        if PLAIN_SETTINGS.contains(&name) {
            return None;
        }
        let new = if self.strict && !value.is_empty() {
            self.masked += 1;
            MASKED.to_vec()
        } else {
            self.found(value)?
        };
        let mut out = name.to_vec();
        out.push(0);
        out.extend_from_slice(&new);
        out.push(0);
        Some(out)
    }

    /// What a function that was called by its number returns: of which type, nobody says.
    fn result(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let value = body.get(4..).filter(|value| !value.is_empty())?;
        if self.shows_results || !self.strict && self.found(value).is_none() {
            return None;
        }
        self.masked += u64::from(self.strict);
        Some((-1_i32).to_be_bytes().to_vec())
    }
}

/// What an error or a notice says of itself.
struct Told<'a> {
    /// Code of a function has written its text.
    raised: bool,
    /// It is about the statement's own text, or the server's state.
    grammar: bool,
    /// Its text is in another language: what it quotes stands between other marks.
    translated: bool,
    /// Names of objects that it is about.
    names: [&'a [u8]; 5],
}

impl Told<'_> {
    /// `text` without anything that it may quote of a value; `None` where it quotes nothing.
    fn without_quotations(&self, kind: u8, text: &[u8]) -> Option<Vec<u8>> {
        if self.raised && matches!(kind, b'M' | b'D' | b'H') || self.translated && !self.grammar {
            return Some(b"masked by guard: it may quote columns that are masked".to_vec());
        }
        if self.grammar || kind == b'q' {
            return None;
        }
        let text = if kind == b'D' { self.without_values(text) } else { text.to_vec() };
        let without = self.without_quoted(&text);
        Some(without)
    }

    /// `Key (a)=(value) already exists`, `Failing row contains (..)`.
    fn without_values(&self, text: &[u8]) -> Vec<u8> {
        let find = |wanted: &[u8]| text.windows(wanted.len()).position(|window| window == wanted);
        let start = find(b"=(").map(|at| at + 2).or_else(|| find(b"(").map(|at| at + 1));
        match (start, text.iter().rposition(|byte| *byte == b')')) {
            (Some(start), Some(end)) if start <= end => [&text[..start], MASKED, &text[end..]].concat(),
            (Some(start), _) => [&text[..start], MASKED].concat(),
            _ => text.to_vec(),
        }
    }

    /// Without what stands between quotation marks, names of objects aside.
    fn without_quoted(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.iter().position(|byte| *byte == b'"') {
            let (before, after) = rest.split_at(at + 1);
            out.extend_from_slice(before);
            let name = self.names.iter().find(|name| {
                !name.is_empty() && after.starts_with(name) && after.get(name.len()) == Some(&b'"')
            });
            if let Some(name) = name {
                out.extend_from_slice(name);
                out.push(b'"');
                rest = &after[name.len() + 1..];
                continue;
            }
            // What is quoted may itself hold quotation marks: up to the last one of the line.
            let line = after.iter().position(|byte| *byte == b'\n').unwrap_or(after.len());
            let end = after[..line].iter().rposition(|byte| *byte == b'"').unwrap_or(line);
            out.extend_from_slice(MASKED);
            rest = &after[end..];
            if rest.first() == Some(&b'"') {
                out.push(b'"');
                rest = &rest[1..];
            }
        }
        out.extend_from_slice(rest);
        out
    }
}

/// Kind and text of each field; `None` where the message is malformed.
fn read_fields(mut body: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut fields = Vec::new();
    loop {
        let (kind, rest) = body.split_first()?;
        if *kind == 0 {
            return Some(fields);
        }
        let (text, rest) = cstring(rest)?;
        fields.push((*kind, text));
        body = rest;
    }
}

/// A NOTICE of guard's own.
pub(super) fn notice(text: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(text.len() + 32);
    for (kind, value) in [(b'S', "NOTICE"), (b'V', "NOTICE"), (b'C', "00000"), (b'M', text)] {
        body.push(kind);
        body.extend(value.bytes().filter(|byte| *byte != 0));
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut message = vec![b'N'];
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<'a>(names: [&'a [u8]; 5]) -> Told<'a> {
        Told { raised: false, grammar: false, translated: false, names }
    }

    fn text(bytes: Option<Vec<u8>>) -> String {
        String::from_utf8(bytes.unwrap()).unwrap()
    }

    #[test]
    fn nothing_that_is_quoted_is_left_but_names_of_objects() {
        let told = told([b"", b"customers", b"", b"", b"customers_name_key"]);
        let m = |message: &str| text(told.without_quotations(b'M', message.as_bytes()));
        assert_eq!(
            m("duplicate key value violates unique constraint \"customers_name_key\""),
            "duplicate key value violates unique constraint \"customers_name_key\""
        );
        assert_eq!(m("invalid input syntax for type integer: \"Ann \"x\" Lee\""),
            "invalid input syntax for type integer: \"***\"");
        assert_eq!(m("cut \"off"), "cut \"***");
        let d = |detail: &str| text(told.without_quotations(b'D', detail.as_bytes()));
        assert_eq!(d("Key (name)=(Ann (x) Lee) already exists."), "Key (name)=(***) already exists.");
        assert_eq!(d("Failing row contains (1, Ann, null)."), "Failing row contains (***).");
    }

    #[test]
    fn raised_and_translated_texts_are_masked_whole() {
        let raised = Told { raised: true, ..told([b""; 5]) };
        assert!(!text(raised.without_quotations(b'M', b"Ann Lee")).contains("Ann"));
        let translated = Told { translated: true, ..told([b""; 5]) };
        assert!(!text(translated.without_quotations(b'M', "ung\u{fc}ltig: \u{bb}Ann\u{ab}".as_bytes())).contains("Ann"));
        let grammar = Told { grammar: true, ..told([b""; 5]) };
        assert_eq!(grammar.without_quotations(b'M', b"column \"x\" does not exist"), None);
    }

    #[test]
    fn a_notice_is_a_whole_message() {
        let message = notice("a\0b");
        assert_eq!(message[0], b'N');
        assert_eq!(read_fields(&message[5..]).unwrap().last(), Some(&(b'M', &b"ab"[..])));
    }
}
