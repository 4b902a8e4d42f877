//! What a statement that waits would touch: the server's own plan, asked on the session's own connection.
//!
//! Asked is `EXPLAIN`, which runs nothing, of one plain statement, within a read-only transaction of its own with short
//! limits; its answers are guard's and never reach the client. Where any of that cannot be, the estimate is unknown, and
//! says why. docs/adr/0011-estimates-on-the-sessions-own-connection.md says why not otherwise.

use guard_policy::vocabulary::{Action, Parse};
use serde_json::Value;

use super::{Asked, Message};
use crate::{
    session::relay::Relay,
    wire::postgres::{Backend, ErrorFields, TransactionStatus, query, query_message},
};

/// Asked before the plan: nothing is written, and nobody waits long.
const BEGIN: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = 2000; SET LOCAL lock_timeout = 500";
const EXPLAIN: &str = "EXPLAIN (FORMAT JSON) ";
const END: &str = "ROLLBACK";

/// ReadyForQuery that come for these three.
const READIES: u8 = 3;

/// Longest plan that is read, in bytes.
const MAX_PLAN: usize = 256 * 1024;

/// Deepest plan that is looked at.
const MAX_DEPTH: usize = 64;

/// An estimate that is under way.
#[derive(Debug)]
pub(super) struct Estimating {
    id: String,
    readies: u8,
    plan: Vec<u8>,
    problem: Option<String>,
}

impl Relay<'_> {
    /// Asks the server, or says why it cannot be asked.
    pub(super) fn estimate(&mut self, asked: &Asked, id: &str) {
        match self.explain_text(asked) {
            Ok(text) => {
                for part in [BEGIN.as_bytes(), &text, END.as_bytes()] {
                    self.pipe.requests.insert(&query_message(part));
                }
                let estimating =
                    Estimating { id: id.to_owned(), readies: READIES, plan: Vec::new(), problem: None };
                self.holding.estimating = Some(Box::new(estimating));
            }
            Err(why) => self.proxy.approvals.estimated(id, Err(why.to_owned())),
        }
    }

    fn explain_text(&self, asked: &Asked) -> Result<Vec<u8>, &'static str> {
        if !self.proxy.approvals.estimates() {
            return Err("estimates are switched off");
        }
        let (Message::Query, [statement], false) =
            (&asked.message, asked.statements.as_slice(), self.replication)
        else {
            return Err("only statements of the simple protocol are asked about");
        };
        if self.transaction != TransactionStatus::Idle || !self.pending.is_empty() {
            return Err("its session is in the middle of something");
        }
        let plain = |action| {
            matches!(
                action,
                Action::Select | Action::Insert | Action::Update | Action::Delete | Action::Merge
            )
        };
        if statement.parts != 1
            || statement.parse != Parse::Full
            || !statement.effects.iter().all(|effect| plain(effect.action))
        {
            return Err("it is not one plain SELECT, INSERT, UPDATE, DELETE or MERGE");
        }
        let text = self.body(asked.header).and_then(|body| query(body).ok()).unwrap_or_default();
        let text = [EXPLAIN.as_bytes(), text].concat();
        // What is sent is read as well, by the same reading as what clients send.
        let harmless = |action| matches!(action, Action::Explain | Action::Select | Action::Show);
        let read = self.worker.classify(&text, self.modes);
        if read.parts != 1 || !read.effects.iter().all(|effect| harmless(effect.action)) {
            return Err("its plan cannot be asked for without running something");
        }
        Ok(text)
    }

    /// A message of the server while an estimate is under way; `body` is all of it. True: it was guard's.
    pub(in crate::session) fn swallow(&mut self, kind: Backend, start: usize, end: usize) -> bool {
        let body = &self.pipe.answers.unread()[start..end];
        let Some(estimating) = &mut self.holding.estimating else { return false };
        match kind {
            Backend::NotificationResponse | Backend::ParameterStatus => return false,
            Backend::ErrorResponse => {
                let fields = ErrorFields::read(body).ok();
                let code = fields
                    .map_or_else(String::new, |fields| String::from_utf8_lossy(fields.code).into_owned());
                // The server ends the session: that is for the client.
                if code.starts_with("57P") {
                    return false;
                }
                estimating.problem.get_or_insert(code);
            }
            Backend::DataRow => {
                if let Some(value) = first_value(body).filter(|_| estimating.plan.is_empty()) {
                    estimating.plan = value[..value.len().min(MAX_PLAN)].to_vec();
                }
            }
            Backend::ReadyForQuery => estimating.readies = estimating.readies.saturating_sub(1),
            _ => {}
        }
        if estimating.readies == 0
            && let Some(estimating) = self.holding.estimating.take()
        {
            self.proxy.approvals.estimated(&estimating.id, estimating.told());
        }
        true
    }
}

impl Estimating {
    fn told(&self) -> Result<String, String> {
        if let Some(code) = &self.problem {
            return Err(match code.as_str() {
                "57014" => "the server took too long to plan it".to_owned(),
                "55P03" => "another session has locked what it touches".to_owned(),
                code => format!("the server cannot plan it (SQLSTATE {code})"),
            });
        }
        let plan: Value =
            serde_json::from_slice(&self.plan).map_err(|_| "its plan cannot be read".to_owned())?;
        describe(&plan).ok_or_else(|| "its plan cannot be read".to_owned())
    }
}

/// The first value of a DataRow.
fn first_value(body: &[u8]) -> Option<&[u8]> {
    let (length, rest) = body.get(2..)?.split_first_chunk()?;
    rest.get(..usize::try_from(i32::from_be_bytes(*length)).ok()?)
}

/// In words, such as `about 5 rows of orders (delete)`.
fn describe(plan: &Value) -> Option<String> {
    let top = plan.get(0)?.get("Plan")?;
    let mut changes = Vec::new();
    changed(top, 0, &mut changes);
    if !changes.is_empty() {
        return Some(changes.join("; "));
    }
    let rows = top.get("Plan Rows")?.as_u64()?;
    Some(format!("reads about {}", count(rows)))
}

fn changed(node: &Value, depth: usize, changes: &mut Vec<String>) {
    let children = node.get("Plans").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if node.get("Node Type").and_then(Value::as_str) == Some("ModifyTable") {
        let feeds = |child: &&Value| {
            let relation = child.get("Parent Relationship").and_then(Value::as_str);
            matches!(relation, Some("Outer" | "Member"))
        };
        let rows = children.iter().filter(feeds).filter_map(|child| child.get("Plan Rows")?.as_u64()).sum();
        let text = |key| node.get(key).and_then(Value::as_str).unwrap_or("?");
        let operation = text("Operation").to_ascii_lowercase();
        changes.push(format!("about {} of {} ({operation})", count(rows), text("Relation Name")));
    }
    if depth < MAX_DEPTH {
        children.iter().for_each(|child| changed(child, depth + 1, changes));
    }
}

fn count(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plans_are_told_by_what_they_change() {
        let delete = json!([{"Plan": {"Node Type": "ModifyTable", "Operation": "Delete", "Relation Name": "t",
            "Plan Rows": 0, "Plans": [{"Node Type": "Seq Scan", "Parent Relationship": "Outer", "Plan Rows": 42}]}}]);
        assert_eq!(describe(&delete).unwrap(), "about 42 rows of t (delete)");
        let read = json!([{"Plan": {"Node Type": "Seq Scan", "Plan Rows": 1}}]);
        assert_eq!(describe(&read).unwrap(), "reads about 1 row");
        let inner = delete[0]["Plan"].clone();
        let cte = json!([{"Plan": {"Node Type": "CTE Scan", "Plan Rows": 9, "Plans": [inner]}}]);
        assert_eq!(describe(&cte).unwrap(), "about 42 rows of t (delete)");
        assert_eq!(describe(&json!("nonsense")), None);
    }

    #[test]
    fn rows_that_are_none_are_not_read() {
        assert_eq!(first_value(b"\0\x01\0\0\0\x03abc"), Some(&b"abc"[..]));
        assert_eq!(first_value(b"\0\x01\xff\xff\xff\xff"), None);
        assert_eq!(first_value(b"\0\x01\0\0\0\x09abc"), None);
        assert_eq!(first_value(b""), None);
    }
}
