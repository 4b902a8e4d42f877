//! Refusing a statement by letting the server fail in its place.
//!
//! What is refused is replaced by a word that no grammar takes. The server's own syntax error then comes in the right
//! order, aborts the transaction as any failed statement does, and makes it skip the rest of a pipeline; its text is
//! replaced by the refusal on the way back. So guard never has to guess where a session stands.

use std::{collections::HashMap, sync::Arc};

use guard_common::audit::v1::{Decision, statement::Protocol};

use super::{pending::Awaited, relay::Relay};
use crate::{
    sql::Statement,
    wire::postgres::{ErrorResponse, Header, Severity, parse_message},
};

/// SQLSTATE of a refusal by policy: insufficient_privilege.
pub(super) const REFUSED: &str = "42501";

/// Most refusals that may wait for the server's error.
const MAX_WAITING: usize = 16_384;

/// Refusals of one session that the server has not yet answered.
#[derive(Debug)]
pub(super) struct Refusals {
    /// Unknown to the client, so that no statement of its own can look like one of ours.
    mark: String,
    next: u64,
    waiting: HashMap<u64, ErrorResponse>,
}

impl Refusals {
    pub(super) fn new() -> Self {
        Self {
            mark: format!("guard_refused_{}_", uuid::Uuid::new_v4().simple()),
            next: 0,
            waiting: HashMap::new(),
        }
    }

    /// True while the server owes so many errors that no more should be caused.
    pub(super) fn full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// A Query message that the server fails on, and the refusal's number.
    pub(super) fn query(&mut self, response: ErrorResponse) -> (u64, Vec<u8>) {
        let (number, word) = self.add(response);
        let mut message = vec![b'Q'];
        let length = u32::try_from(word.len() + 5).unwrap_or(u32::MAX);
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(word.as_bytes());
        message.push(0);
        (number, message)
    }

    /// A Parse message that the server fails on, and the refusal's number.
    pub(super) fn parse(&mut self, response: ErrorResponse) -> (u64, Vec<u8>) {
        let (number, word) = self.add(response);
        // A name of its own: the unnamed statement stays what it was.
        (number, parse_message(&word, &word))
    }

    fn add(&mut self, response: ErrorResponse) -> (u64, String) {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, response);
        (number, format!("{}{number}", self.mark))
    }

    /// The refusal that the server's error `message` stands for.
    pub(super) fn answered(&mut self, message: &[u8]) -> Option<ErrorResponse> {
        let mark = self.mark.as_bytes();
        let at = message.windows(mark.len()).position(|window| window == mark)?;
        let digits = message[at + mark.len()..].iter().take_while(|byte| byte.is_ascii_digit()).take(20);
        let number =
            digits.fold(0_u64, |number, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
        self.waiting.remove(&number)
    }

    /// The server skipped the message with this refusal.
    pub(super) fn skipped(&mut self, number: u64) {
        self.waiting.remove(&number);
    }
}

/// The error for a statement that policy refuses.
pub(super) fn by_policy(decision: &Decision) -> ErrorResponse {
    let subject = if decision.subject.is_empty() { "this" } else { &decision.subject };
    ErrorResponse {
        severity: Severity::Error,
        code: REFUSED,
        message: format!("refused by guard, policy \"{}\": {subject}", decision.policy),
        detail: decision.reason.clone(),
        hint: decision.hint.clone(),
    }
}

/// The error for a statement that could not be recorded.
pub(super) fn unrecorded(error: &crate::audit::AuditError) -> ErrorResponse {
    ErrorResponse {
        severity: Severity::Error,
        code: "58030",
        message: format!("refused by guard: {error}"),
        detail: "statements that change data run only once they are on record".to_owned(),
        hint: "free disk space for the audit journal on the database's host; reading goes on".to_owned(),
    }
}

/// The error for one prepared statement or portal too many.
pub(super) fn too_many_names(limit: usize) -> ErrorResponse {
    ErrorResponse {
        severity: Severity::Error,
        code: "53400",
        message: format!(
            "guard: this session has {limit} prepared statements and portals, which is the limit"
        ),
        detail: String::new(),
        hint: "close some, or raise proxy.max_prepared_statements in the agent's configuration".to_owned(),
    }
}

impl Relay<'_> {
    /// Lets the server fail in the place of a simple query.
    pub(super) fn refuse_query(&mut self, response: ErrorResponse, header: Header) {
        self.dropping = header.total();
        self.stream_through();
        let (number, message) = self.refusals.query(response);
        self.pipe.requests.insert(&message);
        self.pending.push(Awaited::RefusedQuery(number));
    }

    /// Lets the server fail in the place of an extended query's message, and skips what belongs to it.
    pub(super) fn refuse_extended(&mut self, response: ErrorResponse, header: Header) {
        self.dropping = header.total();
        self.stream_through();
        let (number, message) = self.refusals.parse(response);
        self.pipe.requests.insert(&message);
        self.pending.push(Awaited::Refusal(number));
        self.skipping = true;
    }

    /// Whoever is refused finds it on record. A journal that cannot be written does not change the refusal: what was
    /// lost stands in a gap record.
    pub(super) async fn record_refusal(
        &mut self,
        statement: &Arc<Statement>,
        decision: &Arc<Decision>,
        protocol: Protocol,
    ) {
        if let Err(error) = self.recorder.commit(statement, decision, protocol).await {
            tracing::error!("a refusal is not on record: {error}");
        }
        self.proxy.counters.statement();
        self.proxy.counters.refused();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::postgres::ParseHead;

    #[test]
    fn the_servers_error_finds_its_refusal() {
        let mut refusals = Refusals::new();
        let response = |text: &str| ErrorResponse::fatal("42501", text);
        let (_, query) = refusals.query(response("first"));
        let word = String::from_utf8(query[5..query.len() - 1].to_vec()).unwrap();
        let (number, parse) = refusals.parse(response("second"));
        assert_eq!(
            ParseHead::read(&parse[5..]).unwrap().text,
            format!("{}{number}", refusals.mark).as_bytes()
        );
        assert_eq!(refusals.answered(b"syntax error at or near \"guard_refused_0\""), None);
        let error = format!("Syntaxfehler bei \u{bb}{word}\u{ab}");
        assert_eq!(refusals.answered(error.as_bytes()), Some(response("first")));
        assert_eq!(refusals.answered(error.as_bytes()), None, "once only");
        refusals.skipped(number);
        assert!(refusals.waiting.is_empty());
    }
}
