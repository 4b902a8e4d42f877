//! Requests for people. What clients have written is shown so that it cannot move the cursor.

use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};
use guard_common::{
    api::agent::{ApprovalRequest, approval_request::State},
    audit::{
        display::{short, visible},
        v1::Person,
    },
};
use jiff::{Timestamp, tz::TimeZone};
use pbjson_types::Timestamp as At;
use sha2::Digest as _;

/// One line for each.
pub(super) fn table(requests: &[ApprovalRequest], all: bool) -> String {
    if requests.is_empty() {
        let what = if all { "no requests that you may see" } else { "nothing waits that you may see" };
        return format!("{what}\n");
    }
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["id", "state", "until", "who", "where", "what", "you"]);
    for request in requests {
        let you = match (is_open(request), request.may_decide) {
            (true, true) => "may decide".to_owned(),
            (true, false) => short(&request.may_not, 60),
            (false, _) => String::new(),
        };
        table.add_row([
            visible(&request.id).into_owned(),
            state(request.state()).to_owned(),
            time(request.expires.as_ref()),
            format!("{}\nas {}", who(request), short(&request.db_user, 40)),
            format!("{}/{}", short(&request.server, 40), short(&request.database, 40)),
            format!("{}\n{}", short(&request.subject, 80), short(&request.text, 160)),
            you,
        ]);
    }
    format!("{table}\n")
}

fn is_open(request: &ApprovalRequest) -> bool {
    matches!(request.state(), State::Waiting | State::Approved)
}

fn state(state: State) -> &'static str {
    match state {
        State::Unspecified => "unknown",
        State::Waiting => "waiting",
        State::Approved => "approved",
        State::Ran => "ran",
        State::Denied => "denied",
        State::Expired => "expired",
        State::Withdrawn => "withdrawn",
        State::Refused => "refused",
    }
}

fn time(at: Option<&At>) -> String {
    let at = at.and_then(|at| Timestamp::from_second(at.seconds).ok());
    at.map_or_else(String::new, |at| {
        at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    })
}

fn who(request: &ApprovalRequest) -> String {
    request.workload.as_ref().map_or_else(|| "nobody knows who".to_owned(), |who| short(&who.label(), 60))
}

fn name(person: &Person) -> String {
    let ran_as = short(&person.user, 40);
    if person.login_user.is_empty() || person.login_user == person.user {
        return ran_as;
    }
    format!("{} (as {ran_as})", short(&person.login_user, 40))
}

/// What a decision has come to.
pub(super) fn decided(request: &ApprovalRequest) -> String {
    let id = visible(&request.id);
    let needs = request.needs.as_ref();
    match request.state() {
        State::Approved | State::Ran if needs.is_some_and(|needs| needs.wait == "retry") => {
            format!("approved {id}: it runs once when its client sends it again\n")
        }
        State::Approved | State::Ran => format!("approved {id}: it runs now\n"),
        State::Denied => format!("denied {id}: nothing has run\n"),
        _ => {
            let left: Vec<String> = open_requirements(request).collect();
            format!("counted for {id}; still needed: {}\n", left.join(", and "))
        }
    }
}

fn open_requirements(request: &ApprovalRequest) -> impl Iterator<Item = String> {
    let needs = request.needs.iter().flat_map(|needs| &needs.requirements);
    needs.filter_map(|one| {
        let counts =
            |vote: &&guard_common::api::agent::Vote| vote.approve && vote.policies.contains(&one.policy);
        let votes = u32::try_from(request.votes.iter().filter(counts).count()).unwrap_or(u32::MAX);
        let left = one.approvers.max(1).saturating_sub(votes);
        (left > 0).then(|| format!("{left} of {}", one.groups.join(" or ")))
    })
}

/// Everything about one.
pub(super) fn describe(request: &ApprovalRequest, full: bool) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{label:<14} {value}");
        }
    };
    let seen = |value: &str| visible(value).into_owned();
    line("request", &seen(&request.id));
    let note = if request.note.is_empty() { String::new() } else { format!(": {}", seen(&request.note)) };
    line("state", &format!("{}{note}", state(request.state())));
    line("asked", &time(request.opened.as_ref()));
    line("until", &time(request.expires.as_ref()));
    line("server", &format!("{} ({})", seen(&request.server), seen(&request.environment)));
    line("database", &seen(&request.database));
    line("as", &format!("{} over {}", seen(&request.db_user), request.protocol));
    who_in_full(request, &mut line);
    line("reason given", &seen(&request.justification));
    line("policy", &format!("{}: {}", seen(&request.policy), seen(&request.reason)));
    let open: Vec<String> = open_requirements(request).collect();
    line("still needs", &open.join(", and "));
    for vote in &request.votes {
        let who = vote.person.as_ref().map(name).unwrap_or_default();
        let word = if vote.approve { "approved" } else { "denied" };
        line(word, &format!("by {who} at {} {}", time(vote.at.as_ref()), seen(&vote.reason)));
    }
    for (number, effect) in request.effects_in_words.iter().enumerate() {
        line(if number == 0 { "what it does" } else { "" }, &seen(effect));
    }
    if request.parse != "full" {
        line("", "it could not be read for certain: it may do more");
    }
    if request.in_transaction {
        line("", "its session is inside of a transaction, and keeps its locks while it waits");
    }
    let rows = match (request.estimate.as_str(), request.estimate_missing.as_str()) {
        ("", "") => "unknown".to_owned(),
        ("", why) => format!("unknown, because {}", seen(why)),
        (known, _) => seen(known),
    };
    line("rows", &rows);
    line("statement", &seen(&request.text));
    if request.parameters > 0 {
        line("parameters", &format!("{}, bound to the request", request.parameters));
    }
    if full {
        if !request.full_text.is_empty() {
            let digest = hex::encode(sha2::Sha256::digest(request.full_text.as_bytes()));
            line("text", &format!("{} bytes, SHA-256 {digest}", request.full_text.len()));
        }
        line("in full", &seen(&request.full_text));
        for (number, value) in request.full_parameters.iter().enumerate() {
            line(&format!("  ${}", number + 1), &seen(value));
        }
        line("in full", &seen(&request.full_missing));
    }
    line("you", if request.may_decide { "may decide" } else { &request.may_not });
    text
}

fn who_in_full(request: &ApprovalRequest, line: &mut impl FnMut(&str, &str)) {
    let Some(workload) = &request.workload else { return };
    line("who", &who(request));
    line("executable", &visible(&workload.executable));
    line("arguments", &short(&workload.argv.join(" "), 400));
    let user = if workload.login_user.is_empty() || workload.login_user == workload.user {
        workload.user.clone()
    } else {
        format!("{}, logged in as {}", workload.user, workload.login_user)
    };
    line("user", &visible(&user));
    line("unit", &visible(&workload.unit));
    line("AI agent", &visible(&workload.ai_agent));
    line("from", &visible(&workload.remote_address));
    let parents: Vec<&str> = workload.ancestry.iter().map(|one| one.executable.as_str()).collect();
    line("started by", &short(&parents.join(" < "), 400));
    line("calls itself", &visible(&request.application_name));
}

#[cfg(test)]
mod tests {
    use guard_common::audit::v1::{ApprovalNeeds, ApprovalRequirement};

    use super::*;

    fn request() -> ApprovalRequest {
        let requirement =
            ApprovalRequirement { policy: "bulk".to_owned(), groups: vec!["dba".to_owned()], approvers: 2 };
        let mut request = ApprovalRequest {
            id: "abcd".to_owned(),
            text: "DELETE FROM t\x1b[2J".to_owned(),
            needs: Some(ApprovalNeeds {
                requirements: vec![requirement],
                wait: "hold".to_owned(),
                within_seconds: 0,
            }),
            ..ApprovalRequest::default()
        };
        request.set_state(State::Waiting);
        request
    }

    #[test]
    fn nothing_of_a_client_reaches_the_terminal_raw() {
        let request = request();
        for text in [describe(&request, true), table(&[request], false)] {
            assert!(!text.contains('\x1b'), "{text}");
            assert!(text.contains("DELETE FROM t\\u{1b}"), "{text}");
        }
    }

    #[test]
    fn what_is_still_needed_is_told() {
        assert_eq!(decided(&request()), "counted for abcd; still needed: 2 of dba\n");
        assert!(describe(&request(), false).contains("unknown"));
    }
}
