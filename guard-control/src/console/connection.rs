//! One connection: who was behind it and how that is known, and what it did, in order.

use std::collections::HashMap;

use axum::extract::{Path, State};
use guard_common::audit::v1::{
    Approval, ConnectionClosed, ConnectionOpened, Decision, Outcome, SessionStarted, Statement, Workload,
    approval::Event, connection_opened::Access, outcome::Status, record::Body, statement::Parse,
};
use maud::{Markup, html};
use uuid::Uuid;

use super::{
    agent_now,
    page::{self, Head, Place},
    reported, round, show,
};
use crate::{
    http::{app::App, fault::Fault, signed::Signed},
    reading::Course,
};

/// The page.
pub async fn page(
    State(app): State<App>,
    signed: Signed,
    Path((agent_id, connection_id)): Path<(String, String)>,
) -> Result<Markup, Fault> {
    let connection_id = Uuid::try_parse(&connection_id).map_err(|_| Fault::NotFound("such connection"))?;
    let agent = agent_now(&app, &agent_id).await?;
    let course = app.readings.connection(&agent_id, connection_id).await?;
    let course = course.ok_or(Fault::NotFound("such connection"))?;
    let opened = course.records.iter().find_map(|(_, _, body)| match body {
        Body::ConnectionOpened(opened) => Some(opened),
        _ => None,
    });
    let remote = match course.opened(&agent_id) {
        Some(stored) => app.fleet.store.remote(stored).await,
        None => None,
    };
    let title = opened.map_or_else(|| "Connection".to_owned(), |opened| show::who(opened.workload.as_ref()));
    let lead = opened.map_or_else(String::new, |opened| {
        format!("{} on {}", show::server(opened), show::text(&agent.host, 60))
    });
    let place = match opened.map(ConnectionOpened::access) {
        Some(Access::NonProxied) => Place::Round,
        _ => Place::Search,
    };
    let body = html! {
        @if let Some(cut) = course.cut { (page::note("plain", &html! { "Not everything is shown: " (cut) "." })) }
        @if let Some(opened) = opened { (identity(opened, session(&course))) }
        @if let Some(remote) = &remote { (reported::whole(remote)) }
        section.card aria-labelledby="timeline" {
            h2 #timeline { "What happened" }
            ol.timeline { (timeline(&course)) }
        }
        p.faint.small { "Connection " code { (connection_id) } " · agent " a href={ "/agents/" (agent_id) } { (show::text(&agent.host, 60)) } }
    };
    Ok(page::page(&app, &signed, Head { place, title: &title, lead: &lead }, &body))
}

fn session(course: &Course) -> Option<&SessionStarted> {
    course.records.iter().find_map(|(_, _, body)| match body {
        Body::SessionStarted(session) => Some(session),
        _ => None,
    })
}

/// From the person who logged in to the database user, link by link.
fn identity(opened: &ConnectionOpened, session: Option<&SessionStarted>) -> Markup {
    let workload = opened.workload.clone().unwrap_or_default();
    let known = workload.known_by.clone().unwrap_or_default();
    html! {
        section.card aria-labelledby="identity" {
            div.bar-head {
                h2 #identity { "Who it was" }
                span.tag { (round::evidence(workload.evidence())) }
            }
            ol.chain {
                @if workload.login_uid.is_some() {
                    (link("logged in", &show::text(&workload.login_user, 60), &format!("uid {}", workload.login_uid.unwrap_or_default()), "kept by the kernel through su and sudo"))
                }
                @for ancestor in workload.ancestry.iter().rev() {
                    @let name = if ancestor.executable.is_empty() { &ancestor.comm } else { &ancestor.executable };
                    (link("started by", &show::text(name, 100), &format!("pid {}", ancestor.pid), known_by(&ancestor.known_by)))
                }
                @if !workload.executable.is_empty() || workload.pid != 0 {
                    (link("process", &show::text(&workload.executable, 120), &format!("pid {}, user {}", workload.pid, show::text(&workload.user, 40)), known_by(&known.executable)))
                }
                @if !workload.remote_address.is_empty() {
                    (link("from", &show::text(&workload.remote_address, 80), "", "an address alone"))
                }
                @if let Some(session) = session {
                    (link("database user", &format!("{} in {}", show::text(&session.db_user, 60), show::text(&session.database, 60)), &show::text(&session.application_name, 80), "as the login said"))
                }
                (link("server", &show::server(opened), "", if opened.access() == Access::NonProxied { "round the proxy" } else { "through the proxy" }))
            }
            (details(&workload))
        }
    }
}

fn link(role: &str, name: &str, more: &str, known: &str) -> Markup {
    html! {
        li {
            span.role { (role) }
            strong { (name) }
            @if !more.is_empty() { span.more { (more) } }
            @if !known.is_empty() { span.known { (known) } }
        }
    }
}

fn known_by(how: &str) -> &'static str {
    match how {
        "exec" => "told by the kernel at exec",
        "fork" => "told by the kernel at fork",
        "procfs" => "read from /proc afterwards",
        _ => "",
    }
}

fn details(workload: &Workload) -> Markup {
    let pair =
        |name: &'static str, value: String| html! { @if !value.is_empty() { dt { (name) } dd { (value) } } };
    let container = workload.container.clone().unwrap_or_default();
    let pod = workload.pod.clone().unwrap_or_default();
    let file = workload.program_file.clone().unwrap_or_default();
    html! {
        @if !workload.argv.is_empty() {
            pre.command tabindex="0" aria-label="Command line" { code { (show::text(&workload.argv.join(" "), 2_000)) @if workload.argv_truncated { " …" } } }
        }
        dl.facts {
            (pair("AI agent", show::text(&workload.ai_agent, 60)))
            (pair("CI runner", show::text(&workload.ci_runner, 60)))
            (pair("unit", show::text(&workload.unit, 100)))
            (pair("container", show::text(&format!("{} {}", container.name, container.image), 160).trim().to_owned()))
            (pair("pod", if pod.name.is_empty() { String::new() } else { show::text(&format!("{}/{}", pod.namespace, pod.name), 160) }))
            (pair("cgroup", show::text(&workload.cgroup, 200)))
            (pair("certificate", workload.certificate.as_ref().map(|one| show::text(&one.subject, 160)).unwrap_or_default()))
            (pair("program file", if file.sha256.is_empty() { show::text(&file.unhashed, 120) } else { format!("SHA-256 {}", show::text(&file.sha256, 64)) }))
        }
    }
}

fn timeline(course: &Course) -> Markup {
    let mut outcomes: HashMap<u64, &Outcome> = HashMap::new();
    for (_, _, body) in &course.records {
        if let Body::Outcomes(all) = body {
            outcomes.extend(all.outcomes.iter().map(|outcome| (outcome.ordinal, outcome)));
        }
    }
    html! {
        @for (sequence, at, body) in &course.records {
            @if !matches!(body, Body::Outcomes(_)) {
                li id={ "r" (sequence) } class=(class(body)) {
                    (show::time(show::stamp(at.as_ref())))
                    div { (entry(body, &outcomes)) }
                }
            }
        }
    }
}

fn class(body: &Body) -> &'static str {
    let decision = match body {
        Body::ConnectionOpened(opened) => opened.decision.as_ref(),
        Body::Statement(statement) => statement.decision.as_ref(),
        Body::Approval(_) => return "held",
        _ => None,
    };
    decision.map_or("", |decision| show::verdict(decision.verdict()).1)
}

fn entry(body: &Body, outcomes: &HashMap<u64, &Outcome>) -> Markup {
    match body {
        Body::ConnectionOpened(opened) => connected(opened),
        Body::SessionStarted(session) => logged_in(session),
        Body::Statement(statement) => ran(statement, outcomes.get(&statement.ordinal).copied()),
        Body::Approval(approval) => asked(approval),
        Body::ConnectionClosed(closed) => ended(closed),
        _ => html! {},
    }
}

fn connected(opened: &ConnectionOpened) -> Markup {
    let decision = opened.decision.clone().unwrap_or_default();
    let (done, class) = round::outcome(opened, &decision);
    html! {
        p.title {
            @if opened.access() == Access::NonProxied { "Connected round the proxy" } @else { "Connected" }
            " " span class={ "pill " (class) } { (done) }
        }
        @if opened.preexisting { p.faint { "It was open before the agent began to watch." } }
        (why(&decision))
        @if let Some(enforcement) = opened.enforcement.as_ref().filter(|one| !one.detail.is_empty()) {
            p.faint { (show::text(&enforcement.detail, 300)) }
        }
    }
}

fn logged_in(session: &SessionStarted) -> Markup {
    html! {
        p.title {
            @if session.failure.is_empty() { "Logged in as " } @else { "Login failed as " }
            b { (show::text(&session.db_user, 60)) } " to " b { (show::text(&session.database, 60)) }
        }
        p.faint {
            @if !session.failure.is_empty() { "SQLSTATE " (show::text(&session.failure, 10)) " · " }
            @if !session.application_name.is_empty() { "application " (show::text(&session.application_name, 100)) " · " }
            @if session.client_tls.is_empty() { "without TLS" } @else { (show::text(&session.client_tls, 20)) }
        }
    }
}

fn ran(statement: &Statement, outcome: Option<&Outcome>) -> Markup {
    let decision = statement.decision.clone().unwrap_or_default();
    html! {
        p.title {
            "Statement " (statement.ordinal) " " (show::pill(decision.verdict()))
            @if !statement.evidence.is_empty() { " " span.tag.round { "seen in the server: " (show::text(&statement.evidence, 20)) } }
            @if statement.nested { " " span.tag { "inside of another" } }
            @if statement.executions > 1 { " " span.tag { (show::number(statement.executions)) " times" } }
        }
        pre.sql tabindex="0" { code { (show::lines(&statement.text)) } }
        @if !statement.text_loss.is_empty() { p.faint { "The text is not whole: " (show::text(&statement.text_loss, 200)) } }
        @if !statement.effects.is_empty() {
            p.effects {
                @for effect in statement.effects.iter().take(40) {
                    span.tag { (show::text(&effect.action, 30)) " " (show::text(&effect.object, 80)) @if effect.has_where == Some(false) { ", every row" } }
                    " "
                }
            }
        }
        @match statement.parse() {
            Parse::Tokens => p.faint { "Understood from its words alone, towards the dangerous side." },
            Parse::None => p.faint { "Its text could not be read." },
            Parse::Full | Parse::Unspecified => {},
        }
        (why(&decision))
        @if let Some(outcome) = outcome { (came_of_it(outcome)) }
    }
}

fn why(decision: &Decision) -> Markup {
    html! {
        @if !decision.policy.is_empty() || !decision.reason.is_empty() {
            p.why {
                @if !decision.policy.is_empty() { "policy " b { (show::text(&decision.policy, 80)) } }
                @if !decision.reason.is_empty() { ": " (show::text(&decision.reason, 300)) }
                @if !decision.subject.is_empty() { " (" (show::text(&decision.subject, 160)) ")" }
            }
        }
        @for error in decision.errors.iter().take(5) { p.why { "policy error: " (show::text(error, 200)) } }
    }
}

fn came_of_it(outcome: &Outcome) -> Markup {
    let words = match outcome.status() {
        Status::Completed => "completed",
        Status::Failed => "failed",
        Status::Unknown => "the connection ended first",
        Status::Suspended => "more rows were left",
        Status::Skipped => "skipped",
        Status::Unspecified => "unknown",
    };
    html! {
        p.faint {
            (words)
            @if !outcome.command_tag.is_empty() { " · " (show::text(&outcome.command_tag, 60)) }
            @if !outcome.sqlstate.is_empty() { " · SQLSTATE " (show::text(&outcome.sqlstate, 10)) }
            " · " (show::micros(outcome.duration_us))
            @if let Some(masking) = &outcome.masking {
                @if !masking.columns.is_empty() {
                    " · masked: "
                    @for (at, column) in masking.columns.iter().take(12).enumerate() {
                        @if at > 0 { ", " }
                        (show::text(&column.column, 80)) " (" (show::text(&column.kind, 30)) ")"
                    }
                }
            }
        }
    }
}

fn asked(approval: &Approval) -> Markup {
    let person = approval.person.clone().unwrap_or_default();
    let who = if person.login_user.is_empty() { &person.user } else { &person.login_user };
    html! {
        p.title {
            @match approval.event() {
                Event::Requested => "Waits for approval",
                Event::Approved => { "Approved by " b { (show::text(who, 60)) } },
                Event::Denied => { "Denied by " b { (show::text(who, 60)) } },
                Event::Expired => "Nobody has said enough in time",
                Event::Withdrawn => "Withdrawn",
                Event::Ran => "Ran, as approved",
                Event::BreakGlass => { "Ran at once: glass broken" },
                Event::Refused => "Approved, and refused when it was to run: policies have changed",
                Event::Unspecified => "Approval",
            }
            " " code { (show::text(&approval.request_id, 20)) }
        }
        @if !approval.justification.is_empty() { p { "Reason given: " (show::text(&approval.justification, 300)) } }
        @if !approval.note.is_empty() { p.faint { (show::text(&approval.note, 300)) } }
        @if !person.via.is_empty() { p.faint { "by the word of " (if person.via == "control" { "the control plane" } else { "the host's kernel" }) } }
    }
}

fn ended(closed: &ConnectionClosed) -> Markup {
    let completeness = closed.completeness.clone().unwrap_or_default();
    html! {
        p.title { "Closed after " (show::micros(closed.duration_us)) }
        p.faint {
            (show::bytes(closed.bytes_from_client)) " from the client, " (show::bytes(closed.bytes_to_client)) " to it · "
            (show::counted(closed.statements, "statement", "statements"))
            @if !closed.reason.is_empty() { " · " (show::text(&closed.reason, 120)) }
        }
        @if completeness.whole { p.faint { "Its record is whole." } }
        @for missing in completeness.missing.iter().take(10) { p.faint { "Missing: " (show::text(missing, 200)) } }
    }
}
