//! Access round the proxy: by whom, how it was known, what was done about it.

use axum::extract::{Query, State};
use guard_common::{
    api::control::{DecisionsRequest, StoredDecision, stored_decision::Subject},
    audit::v1::{ConnectionOpened, Decision, enforcement::Action, workload::Evidence},
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    page::{self, Head, Place},
    reported, show,
};
use crate::http::{app::App, fault::Fault, signed::Signed};

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    #[serde(default)]
    page: String,
}

/// The page.
pub async fn page(
    State(app): State<App>,
    signed: Signed,
    Query(asked): Query<Asked>,
) -> Result<Markup, Fault> {
    let request = DecisionsRequest {
        limit: 50,
        non_proxied: true,
        kind: "connection".to_owned(),
        page: asked.page,
        ..DecisionsRequest::default()
    };
    let answer = app.fleet.store.decisions(request).await?;
    let head = Head {
        place: Place::Round,
        title: "Round the proxy",
        lead: "Connections that reached a database without passing guard's proxy, as the kernel saw them.",
    };
    let body = html! {
        @if answer.decisions.is_empty() {
            (page::empty("Nobody went round the proxy", &html! {
                p { "guard watches the servers' sockets in the kernel: whoever connects straight to a database, over TCP or a unix socket, stands here with process, ancestry and user, even if the process lived for a few milliseconds." }
                p { "To try it, connect to a database's own port on its host." }
            }))
        } @else {
            ol.cards { @for stored in &answer.decisions { (card(stored)) } }
            @if !answer.next_page.is_empty() {
                p { a.button href={ "/round-the-proxy?page=" (answer.next_page) } { "Older" } }
            }
        }
    };
    Ok(page::page(&app, &signed, head, &body))
}

fn card(stored: &StoredDecision) -> Markup {
    let Some(Subject::Connection(connection)) = &stored.subject else { return html! {} };
    let decision = connection.decision.clone().unwrap_or_else(Decision::default);
    let workload = connection.workload.clone().unwrap_or_default();
    let command = workload.argv.join(" ");
    let (done, class) = outcome(connection, &decision);
    html! {
        li.card.passage {
            div.bar-head {
                h2 {
                    @match show::connection_address(&stored.agent_id, &connection.connection_id) {
                        Some(address) => a href=(address) { (show::who(connection.workload.as_ref())) },
                        None => (show::who(connection.workload.as_ref())),
                    }
                }
                span.when { (show::time(show::stamp(stored.at.as_ref()))) }
            }
            p.meta {
                span class={ "pill " (class) } { (done) } " "
                span.tag { (evidence(workload.evidence())) } " to "
                b { (show::server(connection)) } " on " (show::text(&stored.host, 40))
            }
            @if let Some(remote) = &stored.remote { (reported::short(remote)) }
            @if !command.is_empty() { pre.command tabindex="0" { code { (show::text(&command, 400)) } } }
            dl.facts {
                @if !workload.user.is_empty() {
                    dt { "user" }
                    dd { (show::text(&workload.user, 40)) @if !workload.login_user.is_empty() && workload.login_user != workload.user { ", logged in as " (show::text(&workload.login_user, 40)) } }
                }
                @if !workload.ai_agent.is_empty() { dt { "AI agent" } dd { (show::text(&workload.ai_agent, 60)) } }
                @if !workload.unit.is_empty() { dt { "unit" } dd { (show::text(&workload.unit, 80)) } }
                @if !decision.policy.is_empty() { dt { "policy" } dd { (show::text(&decision.policy, 80)) @if !decision.reason.is_empty() { ": " (show::text(&decision.reason, 200)) } } }
                @if let Some(enforcement) = &connection.enforcement {
                    @if !enforcement.detail.is_empty() { dt { "how" } dd { (show::text(&enforcement.detail, 300)) } }
                    @if enforcement.attempts > 1 { dt { "attempts" } dd { (enforcement.attempts) } }
                }
            }
        }
    }
}

/// What was done about it, in words.
pub fn outcome(connection: &ConnectionOpened, decision: &Decision) -> (&'static str, &'static str) {
    match connection.enforcement.as_ref().map(|enforcement| enforcement.action()) {
        Some(Action::RefusedInKernel) => ("refused in the kernel", "refused"),
        Some(Action::Dropped) => ("refused at the server's socket", "refused"),
        Some(Action::Cut) => ("cut", "refused"),
        Some(Action::Failed) => ("could not be stopped", "would"),
        Some(Action::Unspecified) | None => show::verdict(decision.verdict()),
    }
}

/// How its peer is known.
pub fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Attested => "attested by the kernel",
        Evidence::Reported => "reported",
        Evidence::Address => "known by its address alone",
        Evidence::Unspecified => "evidence unknown",
    }
}
