//! What a client reads about a statement that waits.

use guard_common::{api::agent::ApprovalRequest, audit::v1::Decision};

use crate::{
    approval::AskError,
    session::refusal::REFUSED,
    wire::postgres::{ErrorResponse, Severity},
};

/// SQLSTATE of notices about statements that wait; class `ZG` is guard's own.
const WAITS: &str = "ZG001";

/// SQLSTATE of the notice that a statement runs without an approval.
const GLASS: &str = "ZG002";

/// SQLSTATE `query_canceled`.
const CANCELED: &str = "57014";

/// Who may approve, such as `one of dba or oncall`.
fn people(decision: &Decision) -> String {
    let requirements = decision.needs.iter().flat_map(|needs| &needs.requirements);
    let each = requirements.map(|one| {
        let groups = one.groups.join(" or ");
        if one.approvers > 1 {
            format!("{} people of {groups}", one.approvers)
        } else {
            format!("one of {groups}")
        }
    });
    each.collect::<Vec<_>>().join(", and ")
}

fn error(code: &'static str, message: String, detail: String, hint: String) -> ErrorResponse {
    ErrorResponse { severity: Severity::Error, code, message, detail, hint }
}

/// The notice that it waits.
pub(super) fn waits(decision: &Decision, request: &ApprovalRequest, minutes: u64) -> ErrorResponse {
    let limit = if minutes == 1 { "one minute".to_owned() } else { format!("{minutes} minutes") };
    error(
        WAITS,
        format!("guard: {} waits for approval, request {}", decision.subject, request.id),
        format!(
            "policy \"{}\": {}. It may be approved by {}, within {limit}; nothing has run.",
            decision.policy,
            decision.reason,
            people(decision)
        ),
        format!(
            "they run: guard-agent approvals approve {id}    (or: show {id}, deny {id}). Cancel to give up.",
            id = request.id
        ),
    )
}

/// The notice that it still waits.
pub(super) fn reminder(id: &str) -> ErrorResponse {
    error(WAITS, format!("guard: still waiting for approval, request {id}"), String::new(), String::new())
}

/// The notice that it runs without an approval.
pub(super) fn glass(decision: &Decision) -> ErrorResponse {
    let policy = decision.break_glass.as_ref().map_or("", |glass| glass.policy.as_str());
    error(
        GLASS,
        format!("guard: {} runs without approval, by the break-glass policy \"{policy}\"", decision.subject),
        "This and the reason that you gave are on record, and raise an alarm.".to_owned(),
        String::new(),
    )
}

/// It is refused for now.
pub(super) fn retry(decision: &Decision, request: &ApprovalRequest) -> ErrorResponse {
    error(
        REFUSED,
        format!("refused by guard until it is approved, request {}: {}", request.id, decision.subject),
        format!(
            "policy \"{}\": {}. It may be approved by {}.",
            decision.policy,
            decision.reason,
            people(decision)
        ),
        format!(
            "they run: guard-agent approvals approve {}. Then send the same statement again: it runs once.",
            request.id
        ),
    )
}

/// It was sent again in a form of which nobody can say that it is the same.
pub(super) fn cannot_retry(decision: &Decision) -> ErrorResponse {
    error(
        REFUSED,
        format!("refused by guard, policy \"{}\": {}", decision.policy, decision.subject),
        format!(
            "{}. It needs approval, and nobody can tell what would be approved: its text is not known.",
            decision.reason
        ),
        "send the statement itself, or prepare it again, in place of EXECUTE".to_owned(),
    )
}

/// Its client has cancelled it.
pub(super) fn cancelled() -> ErrorResponse {
    error(
        CANCELED,
        "canceling statement due to user request".to_owned(),
        "It was waiting for approval; nothing has run.".to_owned(),
        String::new(),
    )
}

/// It waited, and does not run.
pub(super) fn over(decision: &Decision, id: &str, why: &str) -> ErrorResponse {
    error(
        REFUSED,
        format!(
            "refused by guard, policy \"{}\": {}, request {id}: {why}",
            decision.policy, decision.subject
        ),
        format!("{}. Nothing has run.", decision.reason),
        format!("it may be approved by {}; send it again to ask again", people(decision)),
    )
}

/// Nobody could be asked.
pub(super) fn nobody_asked(decision: &Decision, problem: &AskError) -> ErrorResponse {
    error(
        REFUSED,
        format!("refused by guard, policy \"{}\": {}", decision.policy, decision.subject),
        format!("{}. It needs approval, but nobody can be asked: {problem}", decision.reason),
        "try again later, or ask whoever looks after guard on the database's host".to_owned(),
    )
}

/// It cannot wait: it is too long to be kept, so nobody could see what they approve.
pub(super) fn too_long(decision: &Decision) -> ErrorResponse {
    error(
        REFUSED,
        format!("refused by guard, policy \"{}\": {}", decision.policy, decision.subject),
        "It needs approval, and is too long to be shown to anybody.".to_owned(),
        "split it: statement and parameters together may have 1 MiB".to_owned(),
    )
}

/// An approved statement that cannot be recorded does not run.
pub(super) fn unrecorded(problem: &str) -> ErrorResponse {
    error(
        "58030",
        format!("refused by guard: it was approved, but {problem}"),
        "What was approved runs only once that is on record.".to_owned(),
        "free disk space on the database's host, and send it again".to_owned(),
    )
}
