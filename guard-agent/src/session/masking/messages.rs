//! Texts of the server that may quote values: errors, notices, notifications, settings, results of function calls.
//!
//! What is found in them is masked like values. Of a statement that has to do with masked columns nothing is left of what
//! a text quotes, since a name or a part of a value cannot be found by its form.

use smallvec::SmallVec;

use super::super::{SessionError, pending::Awaited, relay::Relay};
use super::{Masking, Step, rows::MAX_WATCHED};
use crate::{
    mask::rewrite::{About, Detectors, RewriteError, Rewritten, Scrubber},
    wire::postgres::{Backend, HEADER_BYTES, Header, parameter_status},
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
        let Some(masking) = self.masking.as_deref() else { return Ok(Step::Pass) };
        if !masking.enforces && header.body > MAX_WATCHED {
            return Ok(Step::Pass);
        }
        if header.body > masking.masks.max_row {
            return Err(SessionError::LongRow(masking.masks.max_row));
        }
        if self.pipe.answers.unread().len() - at < header.total() {
            return Ok(Step::Waits);
        }
        let (strict, texts) = match self.pending.front() {
            Some(
                Awaited::Query(running) | Awaited::Execute(Some(running)) | Awaited::FunctionCall(running),
            ) => (running.results.touches(), running.results.texts()),
            // Their text is being read, or values bound to it: constants in it are computed.
            Some(Awaited::Parse { .. } | Awaited::Bind { .. } | Awaited::Describe(_)) => {
                (false, SmallVec::new())
            }
            Some(Awaited::UnfollowedParse | Awaited::UnfollowedBind) => (true, SmallVec::new()),
            _ => (false, SmallVec::new()),
        };
        let sent: SmallVec<[&[u8]; 2]> = texts
            .iter()
            .filter_map(|statement| statement.origin.text())
            .map(|(text, _)| text.as_bytes())
            .collect();
        let body = &self.pipe.answers.unread()[at + HEADER_BYTES..at + header.total()];
        let Some(masking) = self.masking.as_deref() else { return Ok(Step::Pass) };
        // Settings are reported when a statement is over, whichever changed them.
        let strict = strict || (kind == Backend::ParameterStatus && masking.tainted);
        let whole = kind == Backend::NotificationResponse && masking.notified;
        let mut texts = Texts::new(self, masking, strict);
        texts.plain_table = !strict && names_plain_table(masking, body);
        let new = match kind {
            Backend::ErrorResponse | Backend::NoticeResponse => texts.fields(kind, body, &sent),
            Backend::NotificationResponse => texts.notification(body, whole),
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

/// Whether the table that an error names is known, and no column of it is sensitive.
fn names_plain_table(masking: &Masking, body: &[u8]) -> bool {
    let field = |wanted: u8| {
        let mut fields = body.split(|byte| *byte == 0).filter_map(|field| field.split_first());
        fields.find(|(kind, _)| **kind == wanted).and_then(|(_, value)| std::str::from_utf8(value).ok())
    };
    let (Some(schema), Some(table)) = (field(b's'), field(b't')) else { return false };
    let catalog = &masking.catalog;
    let mut named =
        catalog.relations().filter(|one| *one.schema == *schema && *one.name == *table).peekable();
    masking.spilled.is_empty()
        && catalog.is_complete()
        && named.peek().is_some()
        && named.all(|relation| catalog.sensitive_columns(relation).next().is_none())
}

/// Scrubs texts of one message.
struct Texts {
    scrubber: Scrubber<Detectors>,
    strict: bool,
    /// The table that the message names has nothing to hide.
    plain_table: bool,
    enforces: bool,
    /// It shows what a call of an unknown function returns.
    shows_results: bool,
    masked: u64,
    out: Vec<u8>,
}

impl Texts {
    fn new(relay: &Relay<'_>, masking: &Masking, strict: bool) -> Self {
        let (rules, shows_results) = relay.worker.found_rules(&relay.session, relay.scope, masking);
        Self {
            // Whom everything is shown is shown what is quoted too.
            strict: strict && !shows_results,
            scrubber: Scrubber::new(rules, masking.settings, Detectors),
            plain_table: false,
            enforces: masking.enforces,
            shows_results,
            masked: 0,
            out: Vec::new(),
        }
    }

    /// The body of an error or a notice that takes the place of `body`.
    fn fields(&mut self, kind: Backend, body: &[u8], sent: &[&[u8]]) -> Option<Vec<u8>> {
        let tag = if kind == Backend::ErrorResponse { b'E' } else { b'N' };
        let about = About { sent, strict: self.strict, plain_table: self.plain_table };
        let scrubbed = self.scrubber.message(tag, body, about, &mut self.out);
        self.changed(scrubbed)
    }

    /// The payload of a NOTIFY.
    fn notification(&mut self, body: &[u8], whole: bool) -> Option<Vec<u8>> {
        let whole = whole && !self.shows_results;
        let scrubbed = self.scrubber.notification(body, whole, &mut self.out);
        self.changed(scrubbed)
    }

    /// What was written, without its header. What is malformed is left to the session to refuse.
    fn changed(&mut self, scrubbed: Result<Rewritten, RewriteError>) -> Option<Vec<u8>> {
        if scrubbed != Ok(Rewritten::Changed) {
            return None;
        }
        self.masked += self.scrubber.take_tally().values().max(1);
        self.out.get(HEADER_BYTES..).map(<[u8]>::to_vec)
    }

    /// Whether something is found in `text`, which stands alone.
    fn is_found(&mut self, text: &[u8]) -> bool {
        let body = [b"M".as_slice(), text, b"\0\0"].concat();
        self.out.clear();
        let strict = std::mem::replace(&mut self.strict, false);
        let found = self.fields(Backend::NoticeResponse, &body, &[]).is_some();
        self.strict = strict;
        found
    }

    /// A setting, which a statement may have set to a value that it has read.
    fn setting(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let (name, value) = parameter_status(body).ok()?;
        if PLAIN_SETTINGS.contains(&name) || value.is_empty() {
            return None;
        }
        if self.strict {
            self.masked += 1;
        } else if !self.is_found(value) {
            return None;
        }
        let mut out = Vec::with_capacity(body.len());
        for text in [name, MASKED] {
            out.extend_from_slice(text);
            out.push(0);
        }
        Some(out)
    }

    /// What a function that was called by its number returns: of which type, nobody says.
    fn result(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let value = body.get(4..).filter(|value| !value.is_empty())?;
        if self.shows_results || !self.strict && (value.contains(&0) || !self.is_found(value)) {
            return None;
        }
        self.masked += u64::from(self.strict);
        Some((-1_i32).to_be_bytes().to_vec())
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

    #[test]
    fn a_notice_is_a_whole_message() {
        let message = notice("a\0b");
        let header = Header::read(&message, 1024).unwrap().unwrap();
        assert_eq!((header.tag, header.total()), (b'N', message.len()));
        assert!(message.ends_with(b"C00000\0Mab\0\0"));
    }
}
