//! What both stores make of a question for decisions: conditions in SQL with their values, and pages of what is found.

use std::fmt::Write;

use guard_common::{
    api::control::{DecisionsRequest, DecisionsResponse, StoredDecision, stored_decision::Subject},
    audit::v1::{Record, connection_opened::Access, decision::Verdict, record::Body},
};
use pbjson_types::Timestamp;
use prost::Message;
use rusqlite::types::Value;

use super::{
    StoreError,
    id::{record_id, sequence_of},
    row::kind::{CLIENT_CONNECTED, CONNECTION_OPENED, STATEMENT},
};

/// Decisions in an answer where the question names no number.
const DEFAULT_LIMIT: u32 = 100;
/// At most.
const MAX_LIMIT: u32 = 10_000;
/// Bytes of records in an answer; more go to the next page.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// How far a report may lie from the connection that is found by it, in microseconds.
pub(super) const NEAR: i64 = 86_400_000_000;
/// Longest text that is looked for, in bytes.
const MAX_PART: usize = 1024;

/// Microseconds since 1970.
pub(super) fn micros_of(moment: &Timestamp) -> i64 {
    moment.seconds.saturating_mul(1_000_000).saturating_add(i64::from(moment.nanos) / 1_000)
}

/// Conditions in SQL with their values.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// With `?1` ..
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

impl Filter {
    /// `agent`: the one that the request names, by its number in the store.
    pub(super) fn of(agent: Option<i64>, request: &DecisionsRequest) -> Result<Self, StoreError> {
        if request.contains.len() > MAX_PART {
            return Err(StoreError::Request("the text to look for must be shorter than 1024 bytes"));
        }
        let mut filter = Self::default();
        // The literal terms are what lets SQLite use the partial indexes.
        match request.verdict.as_str() {
            "" => filter.sql.push_str("r.verdict IS NOT NULL"),
            "allowed" => filter.verdict("r.verdict IS NOT NULL", Verdict::Allowed),
            "refused" => filter.verdict("r.verdict > 1", Verdict::Refused),
            "would_refuse" => filter.verdict("r.verdict > 1", Verdict::WouldRefuse),
            "would_hold" => filter.verdict("r.verdict > 1", Verdict::WouldHold),
            _ => {
                return Err(StoreError::Request(
                    "the verdict must be allowed, refused, would_refuse or would_hold",
                ));
            }
        }
        match request.kind.as_str() {
            "" => {}
            "connection" => filter.and("r.kind = ", CONNECTION_OPENED.into()),
            "statement" => filter.and("r.kind = ", STATEMENT.into()),
            _ => return Err(StoreError::Request("the kind must be connection or statement")),
        }
        if request.non_proxied {
            let _ = write!(filter.sql, " AND r.access = {}", i32::from(Access::NonProxied));
        }
        if let Some(agent) = agent {
            filter.and("r.id >= ", record_id(agent, 0).unwrap_or(i64::MAX).into());
            filter.and("r.id < ", record_id(agent + 1, 0).unwrap_or(i64::MAX).into());
        }
        for (condition, moment) in [("r.at >= ", &request.since), ("r.at < ", &request.until)] {
            if let Some(moment) = moment {
                filter.and(condition, micros_of(moment).into());
            }
        }
        filter.contains(&request.contains);
        filter.behind(&request.page)?;
        Ok(filter)
    }

    fn verdict(&mut self, index: &str, verdict: Verdict) {
        self.sql.push_str(index);
        self.and("r.verdict = ", i64::from(i32::from(verdict)).into());
    }

    /// One condition more: what stands before the placeholder.
    pub(super) fn and(&mut self, condition: &str, value: Value) {
        self.values.push(value);
        let _ = write!(self.sql, " AND {condition}?{}", self.values.len());
    }

    fn contains(&mut self, part: &str) {
        if part.is_empty() {
            return;
        }
        let mut pattern = String::from("%");
        for letter in part.chars() {
            if matches!(letter, '%' | '_' | '\\') {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        pattern.push('%');
        // Connections are found by how the client's address begins, too.
        let beginning = pattern[1..].to_owned();
        self.values.extend([pattern.into(), beginning.into()]);
        let at = self.values.len() - 1;
        let columns = ["text", "executable", "db_user", "policy", "workload"];
        let like = columns.map(|column| format!("r.{column} LIKE ?{at} ESCAPE '\\'"));
        // Whoever is reported to be the other end is found by what it is, too.
        let reported = format!(
            "r.kind = {CONNECTION_OPENED} AND r.flow IN (SELECT c.flow FROM records c WHERE c.kind = {CLIENT_CONNECTED}
                 AND (c.executable LIKE ?{at} ESCAPE '\\' OR c.workload LIKE ?{at} ESCAPE '\\'))
             AND EXISTS (SELECT 1 FROM records c WHERE c.kind = {CLIENT_CONNECTED} AND c.flow = r.flow
                 AND abs(c.at - r.at) < {NEAR})"
        );
        let ends = format!("r.kind = {CONNECTION_OPENED} AND r.flow LIKE ?{} ESCAPE '\\'", at + 1);
        let _ = write!(self.sql, " AND ({} OR ({ends}) OR ({reported}))", like.join(" OR "));
    }

    fn behind(&mut self, page: &str) -> Result<(), StoreError> {
        let Some((at, id)) = behind(page)? else { return Ok(()) };
        self.values.extend([at.into(), id.into()]);
        let last = self.values.len();
        let _ = write!(self.sql, " AND (r.at, r.id) < (?{}, ?{last})", last - 1);
        Ok(())
    }
}

/// The moment and the id behind which a page begins; nothing for the first one.
pub(super) fn behind(page: &str) -> Result<Option<(i64, i64)>, StoreError> {
    if page.is_empty() {
        return Ok(None);
    }
    let named = page.split_once('.').and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
    named.map(Some).ok_or(StoreError::Request("the page is not one that an answer named"))
}

/// A verdict by its name in a question; nothing: any.
pub(super) fn verdict_of(name: &str) -> Option<i32> {
    let verdict = match name {
        "allowed" => Verdict::Allowed,
        "refused" => Verdict::Refused,
        "would_refuse" => Verdict::WouldRefuse,
        "would_hold" => Verdict::WouldHold,
        _ => return None,
    };
    Some(verdict.into())
}

/// The access that a question is about; nothing: any.
pub(super) fn access_of(request: &DecisionsRequest) -> Option<i32> {
    request.non_proxied.then(|| Access::NonProxied.into())
}

/// What finds a page: ids, times, payloads, agents and hosts, one more than fits. `index`: along which SQLite has to go.
pub(super) fn page_sql(filter: &str, index: Option<&str>, limit: usize) -> String {
    let index = index.map(|index| format!("INDEXED BY {index} CROSS")).unwrap_or_default();
    format!(
        "SELECT r.id, r.at, r.payload, a.agent_id, a.host
         FROM records r {index} JOIN agents a ON a.id = r.id >> 44
         WHERE {filter} ORDER BY r.at DESC, r.id DESC LIMIT {}",
        limit + 1
    )
}

/// Decisions in an answer to `request`.
pub(super) fn limit(request: &DecisionsRequest) -> usize {
    match request.limit {
        0 => DEFAULT_LIMIT as usize,
        limit => limit.min(MAX_LIMIT) as usize,
    }
}

/// An answer that is being put together.
#[derive(Debug)]
pub(super) struct Page {
    limit: usize,
    bytes: usize,
    last: Option<(i64, i64)>,
    pub(super) answer: DecisionsResponse,
}

impl Page {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, last: None, answer: DecisionsResponse::default() }
    }

    /// Takes the next row; false where the page is full.
    pub(super) fn take(
        &mut self,
        (id, at): (i64, i64),
        payload: &[u8],
        whose: impl FnOnce() -> Result<(String, String), StoreError>,
    ) -> Result<bool, StoreError> {
        self.bytes += payload.len();
        let full = self.answer.decisions.len() == self.limit || self.bytes > MAX_BYTES;
        if let Some((at, id)) = self.last.filter(|_| full) {
            self.answer.next_page = format!("{at}.{id}");
            return Ok(false);
        }
        self.last = Some((at, id));
        // Only what was decodable has a verdict.
        if let Some((at, subject)) = subject(payload) {
            let (agent_id, host) = whose()?;
            self.answer.decisions.push(StoredDecision {
                agent_id,
                host,
                sequence: sequence_of(id),
                at,
                subject: Some(subject),
                remote: None,
            });
        }
        Ok(true)
    }
}

fn subject(payload: &[u8]) -> Option<(Option<Timestamp>, Subject)> {
    let record = Record::decode(payload).ok()?;
    match record.body? {
        Body::ConnectionOpened(connection) => Some((record.at, Subject::Connection(connection))),
        Body::Statement(statement) => Some((record.at, Subject::Statement(statement.shown()))),
        _ => None,
    }
}
