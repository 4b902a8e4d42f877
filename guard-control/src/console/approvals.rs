//! Statements that wait for people: the inbox, one of them, and deciding on it.
//!
//! The agent has the last word on whether somebody counts. What is sure before, that one may not decide on one's own, is
//! said here, and recorded where it is tried.

use axum::{
    extract::{Path, Query, State},
    response::{IntoResponse, Redirect, Response},
};
use guard_common::{
    api::{
        agent::{ApprovalRequest, approval_request::State as RequestState},
        control::{ApprovalAnswer, DecideApprovalRequest, FleetApproval},
    },
    audit::v1::Person as Voter,
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    page::{self, Head, Place},
    show,
};
use crate::{
    http::{
        app::App,
        fault::Fault,
        metrics::Metrics,
        signed::{Posted, Signed},
    },
    people::{Person, Right},
    webhooks::link,
};

/// Longest reason in bytes.
const MAX_REASON: usize = 500;

/// The inbox.
pub async fn inbox(State(app): State<App>, signed: Signed) -> Markup {
    let mut waiting = app.fleet.waiting.list(None);
    waiting.sort_by_key(|one| {
        one.request.as_ref().and_then(|request| request.opened.as_ref().map(|at| (at.seconds, at.nanos)))
    });
    let head = Head {
        place: Place::Approvals,
        title: "Approvals",
        lead: "Statements that wait for a person. Nothing of them has run.",
    };
    let body = html! {
        @if waiting.is_empty() {
            (page::empty("Nothing waits", &html! {
                p { "A policy can let a risky statement wait for people in place of refusing it. Its client waits meanwhile, and what is approved runs once, exactly as it was asked:" }
                pre tabindex="0" { code { "@id(\"prod-bulk-delete\")\n@approval(\"dba\")\nforbid (principal, action == Guard::Action::\"delete\", resource)\nunless { context.has_where };" } }
                p { "Agents take the word of this console where their configuration has " code { "approvals.from_control = true" } "." }
            }))
        }
        ol.cards data-watch="/approvals" { @for one in &waiting { (card(one, &signed.person)) } }
    };
    page::page(&app, &signed, head, &body)
}

fn card(one: &FleetApproval, person: &Person) -> Markup {
    let Some(request) = &one.request else { return html! {} };
    html! {
        li.card.waiting {
            div.bar-head {
                h2 { a href={ "/approvals/" (one.agent_id) "/" (request.id) } { (effects(request)) } }
                (state(request))
            }
            pre.sql tabindex="0" { code { (show::text(&request.text, 400)) } }
            p.meta {
                b { (show::who(request.workload.as_ref())) } " as " (show::text(&request.db_user, 60)) "@" (show::text(&request.database, 60))
                " on " (show::text(&one.host, 60)) " · " (show::ago(show::stamp(request.opened.as_ref())))
            }
            @if !request.justification.is_empty() { p { "Reason given: " (show::text(&request.justification, 300)) } }
            p.faint { (needs(request)) @if is_own(request, person) { " You have asked for it yourself: somebody else decides." } }
        }
    }
}

fn state(request: &ApprovalRequest) -> Markup {
    html! {
        @match request.state() {
            RequestState::Waiting => span.pill.held { "waits" },
            RequestState::Approved => span.pill.allowed { "approved, has not run" },
            RequestState::Ran => span.pill.allowed { "ran" },
            RequestState::Denied => span.pill.refused { "denied" },
            _ => span.pill.unknown { "over" },
        }
    }
}

fn effects(request: &ApprovalRequest) -> String {
    if let Some(words) = request.effects_in_words.first() {
        return show::text(words, 120);
    }
    let all = request.effects.iter().take(3).map(|effect| {
        let every = if effect.has_where == Some(false) { ", every row" } else { "" };
        format!("{} {}{every}", show::text(&effect.action, 30), show::text(&effect.object, 60))
    });
    let words = all.collect::<Vec<_>>().join("; ");
    if words.is_empty() { show::text(&request.subject, 120) } else { words }
}

fn needs(request: &ApprovalRequest) -> String {
    let Some(needs) = &request.needs else { return String::new() };
    let all = needs.requirements.iter().map(|one| {
        let groups = show::text(&one.groups.join(" or "), 120);
        let people =
            if one.approvers > 1 { format!("{} people", one.approvers) } else { "one person".to_owned() };
        format!("{people} of {groups} (policy {})", show::text(&one.policy, 60))
    });
    format!("It needs {}.", all.collect::<Vec<_>>().join(" and "))
}

/// Whether `person` is behind the request: agents compare the same names.
pub fn is_own(request: &ApprovalRequest, person: &Person) -> bool {
    let same = |name: &str| !name.is_empty() && name.eq_ignore_ascii_case(&person.name);
    let Some(workload) = &request.workload else { return same(&request.db_user) };
    if workload.remote_address.is_empty() && !workload.user.is_empty() {
        return same(&workload.user) || same(&workload.login_user);
    }
    let certificate = workload.certificate.as_ref();
    same(&request.db_user) || certificate.is_some_and(|certificate| same(&certificate.common_name))
}

/// What a link in a message carries.
#[derive(Debug, Default, Deserialize)]
pub struct Linked {
    #[serde(default)]
    sig: String,
}

/// One request.
pub async fn page(
    State(app): State<App>,
    signed: Signed,
    Path((agent_id, request_id)): Path<(String, String)>,
    Query(linked): Query<Linked>,
) -> Result<Markup, Fault> {
    // A link that was tampered with leads to another request than the message was about.
    if !linked.sig.is_empty() && !link::is_signed(&app.link_key, &agent_id, &request_id, &linked.sig) {
        return Err(Fault::Bad("this link was changed on its way: open the inbox instead".to_owned()));
    }
    let head = Head { place: Place::Approvals, title: "Approval", lead: "" };
    let Some(one) = app.fleet.waiting.find(&agent_id, &request_id) else {
        let body = page::empty(
            "It does not wait any more",
            &html! {
                p { "It was decided, has run, or is over; or its agent is not connected." }
                p { a.button href="/approvals" { "What waits" } }
            },
        );
        return Ok(page::page(&app, &signed, head, &body));
    };
    let request = one.request.clone().unwrap_or_default();
    let title = effects(&request);
    let head = Head { place: Place::Approvals, title: &title, lead: "It waits; nothing of it has run." };
    Ok(page::page(&app, &signed, head, &whole(&one, &request, &signed)))
}

fn whole(one: &FleetApproval, request: &ApprovalRequest, signed: &Signed) -> Markup {
    let pair =
        |name: &'static str, value: String| html! { @if !value.is_empty() { dt { (name) } dd { (value) } } };
    let workload = request.workload.clone().unwrap_or_default();
    let ancestry = workload
        .ancestry
        .iter()
        .map(|one| show::text(if one.executable.is_empty() { &one.comm } else { &one.executable }, 60));
    html! {
        section.card {
            div.bar-head { h2 { "The statement" } (state(request)) }
            pre.sql tabindex="0" { code { (show::lines(&request.text)) } }
            p.faint { "Literals and parameters stay on the host; there: " code { "guard-agent approvals show " (show::text(&request.id, 20)) " --full" } }
            @if request.in_transaction { (page::note("warn", &html! { "Its session is inside of a transaction, and keeps what it has locked while it waits." })) }
            dl.facts {
                (pair("it would touch", show::text(if request.estimate.is_empty() { &request.estimate_missing } else { &request.estimate }, 200)))
                (pair("who", show::who(Some(&workload))))
                (pair("account", show::text(&account(&workload), 160)))
                (pair("command line", show::text(&workload.argv.join(" "), 400)))
                (pair("started by", ancestry.collect::<Vec<_>>().join(" ← ")))
                (pair("database user", show::text(&format!("{}@{}", request.db_user, request.database), 160)))
                (pair("application", show::text(&request.application_name, 160)))
                (pair("host", show::text(&one.host, 80)))
                (pair("server", show::text(&format!("{} {}", request.server, request.environment), 120)))
                (pair("policy", show::text(&format!("{}: {}", request.policy, request.reason), 300)))
                (pair("reason given", show::text(&request.justification, 400)))
                (pair("needs", needs(request)))
                dt { "asked" } dd { (show::ago(show::stamp(request.opened.as_ref()))) }
                dt { "open until" } dd { (show::time(show::stamp(request.expires.as_ref()))) " UTC" }
            }
            @if !request.votes.is_empty() {
                h3 { "So far" }
                ul.plain {
                    @for vote in &request.votes {
                        @let voter = vote.person.clone().unwrap_or_default();
                        li {
                            (if vote.approve { "approved" } else { "denied" }) " by "
                            b { (show::text(if voter.login_user.is_empty() { &voter.user } else { &voter.login_user }, 60)) }
                            @if !vote.reason.is_empty() { ": " (show::text(&vote.reason, 200)) }
                        }
                    }
                }
            }
        }
        (decision(one, request, signed))
    }
}

fn decision(one: &FleetApproval, request: &ApprovalRequest, signed: &Signed) -> Markup {
    let may = signed.may(Right::Decide);
    let own = is_own(request, &signed.person);
    html! {
        @if request.state() != RequestState::Waiting {
            (page::note("plain", &html! { "There is nothing to decide on it any more." }))
        } @else if own {
            (page::note("plain", &html! { "You have asked for this yourself: somebody else decides on it." }))
        } @else if !may {
            (page::note("plain", &html! { "Approvers decide on it; you are not one of them." }))
        } @else {
            form.card.decide method="post" action={ "/approvals/" (one.agent_id) "/" (request.id) } {
                (page::form_token(signed))
                h2 { "Your word" }
                label { span { "Why (recorded)" } input type="text" name="reason" maxlength=(MAX_REASON) autocomplete="off"; }
                p.faint { "You decide as " b { (signed.person.name) } " for " (if signed.person.groups.is_empty() { "no group".to_owned() } else { signed.person.groups.join(", ") }) "." }
                div.live-tools {
                    button.good type="submit" name="word" value="approve" { "Approve: it runs once" }
                    button.bad type="submit" name="word" value="deny" { "Deny" }
                }
            }
        }
    }
}

/// Somebody's word.
pub async fn decide(
    State(app): State<App>,
    Path((agent_id, request_id)): Path<(String, String)>,
    posted: Posted,
) -> Result<Response, Fault> {
    let approve = match posted.fields.text("word") {
        "approve" => true,
        "deny" => false,
        _ => return Err(Fault::Bad("a word is `approve` or `deny`".to_owned())),
    };
    let reason = posted.fields.text("reason");
    let answer = say(&app, &posted.signed, (&agent_id, &request_id), (approve, reason)).await?;
    if answer.counted {
        return Ok(Redirect::to("/approvals").into_response());
    }
    let head = Head { place: Place::Approvals, title: "It did not count", lead: "" };
    let body = html! {
        (page::note("bad", &html! { "The agent says: " (show::text(&answer.problem, 400)) }))
        p { a.button href={ "/approvals/" (agent_id) "/" (request_id) } { "Back to it" } }
    };
    Ok(page::page(&app, &posted.signed, head, &body).into_response())
}

/// Says somebody's word to the agent: for pages and programs.
pub async fn say(
    app: &App,
    signed: &Signed,
    (agent_id, request_id): (&str, &str),
    (approve, reason): (bool, &str),
) -> Result<ApprovalAnswer, Fault> {
    let action = if approve { "approve" } else { "deny" };
    let subject = format!("request {request_id} of agent {agent_id}");
    signed.must(app, Right::Decide, action, &subject).await?;
    if reason.len() > MAX_REASON {
        return Err(Fault::Bad(format!("a reason has at most {MAX_REASON} bytes")));
    }
    let one =
        app.fleet.waiting.find(agent_id, request_id).ok_or(Fault::NotFound("such statement that waits"))?;
    if one.request.as_ref().is_some_and(|request| is_own(request, &signed.person)) {
        app.recorder.refused(&signed.actor, action, &subject, "they have asked for it themselves").await?;
        return Err(Fault::Bad("you have asked for this yourself: somebody else decides on it".to_owned()));
    }
    signed.does(app, action, &subject, reason).await?;
    let person = Voter {
        user: signed.person.name.clone(),
        groups: signed.person.groups.clone(),
        via: "control".to_owned(),
        ..Voter::default()
    };
    let asked = DecideApprovalRequest {
        agent_id: agent_id.to_owned(),
        request_id: request_id.to_owned(),
        approve,
        reason: reason.to_owned(),
        person: Some(person),
    };
    let answer = app.fleet.waiting.decide(asked).await;
    match &answer {
        Ok(answer) if answer.counted => Metrics::count(&app.metrics.decided),
        Ok(answer) => app.recorder.refused(&signed.actor, action, &subject, &answer.problem).await?,
        Err(error) => app.recorder.refused(&signed.actor, action, &subject, &error.to_string()).await?,
    }
    Ok(answer?)
}

/// The account that a process runs as, and the one that somebody logged in with where it is another.
fn account(workload: &guard_common::audit::v1::Workload) -> String {
    let (user, login) = (&workload.user, &workload.login_user);
    if login.is_empty() || login == user { user.clone() } else { format!("{user}, logged in as {login}") }
}

#[cfg(test)]
mod tests {
    use guard_common::audit::v1::Workload;

    use super::*;

    fn person(name: &str) -> Person {
        Person {
            id: 1,
            name: name.to_owned(),
            full_name: String::new(),
            local: true,
            must_change: false,
            roles: "approver".parse().unwrap(),
            groups: Vec::new(),
            disabled: false,
            seen: None,
        }
    }

    #[test]
    fn whoever_asks_is_known_by_the_names_that_agents_compare() {
        let local = ApprovalRequest {
            db_user: "app".to_owned(),
            workload: Some(Workload {
                user: "ann".to_owned(),
                login_user: "ann.b".to_owned(),
                ..Workload::default()
            }),
            ..ApprovalRequest::default()
        };
        assert!(is_own(&local, &person("Ann")) && is_own(&local, &person("ann.b")));
        assert!(!is_own(&local, &person("app")) && !is_own(&local, &person("bob")));
        let remote = ApprovalRequest {
            db_user: "bob".to_owned(),
            workload: Some(Workload { remote_address: "192.0.2.1".to_owned(), ..Workload::default() }),
            ..ApprovalRequest::default()
        };
        assert!(is_own(&remote, &person("bob")) && !is_own(&remote, &person("ann")));
        assert!(!is_own(&ApprovalRequest::default(), &person("ann")));
    }
}
