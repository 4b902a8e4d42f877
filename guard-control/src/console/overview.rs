//! The first page: how well hosts are protected, what was decided, what was refused.

use std::time::Duration;

use axum::extract::{Query, State};
use guard_common::api::control::{Agent, DecisionsRequest};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    agents_now, chart,
    page::{self, Head, Place},
    show,
};
use crate::{
    http::{app::App, fault::Fault, signed::Signed},
    reading::{History, Level, ReadingError, level},
};

/// Spans that can be looked at.
const SPANS: [(&str, &str, u64); 4] = [
    ("1h", "1 hour", 3_600),
    ("24h", "24 hours", 86_400),
    ("7d", "7 days", 604_800),
    ("30d", "30 days", 2_592_000),
];

/// What is asked for.
#[derive(Debug, Deserialize)]
pub struct Asked {
    #[serde(default)]
    span: String,
}

/// The page.
pub async fn page(
    State(app): State<App>,
    signed: Signed,
    Query(asked): Query<Asked>,
) -> Result<Markup, Fault> {
    let agents = agents_now(&app).await?;
    let head = Head {
        place: Place::Overview,
        title: "Overview",
        lead: "How well your databases are watched, and what was decided about their statements.",
    };
    if agents.is_empty() {
        return Ok(page::page(&app, &signed, head, &first_steps()));
    }
    let (span, _, seconds) = SPANS.into_iter().find(|(name, ..)| *name == asked.span).unwrap_or(SPANS[1]);
    let facts = app.readings.facts(&agents).await?;
    let levels: Vec<Level> = agents
        .iter()
        .map(|agent| level(agent, facts.get(&agent.agent_id).unwrap_or(&Default::default())))
        .collect();
    let history = match app.readings.history(Duration::from_secs(seconds)).await {
        Ok(history) => Some(history),
        Err(ReadingError::TooSlow) => None,
        Err(error) => return Err(error.into()),
    };
    let refused =
        newest(&app, DecisionsRequest { verdict: "refused".to_owned(), ..Default::default() }).await?;
    let round = newest(&app, DecisionsRequest { non_proxied: true, ..Default::default() }).await?;
    let body = html! {
        (warnings(&agents))
        (figures(&app, &agents, history.as_ref()))
        section.card aria-labelledby="over-time" {
            div.bar-head {
                h2 #over-time { "Decisions over time" }
                nav.spans aria-label="Span" {
                    @for (name, words, _) in SPANS {
                        a href={ "/?span=" (name) } aria-current=[(name == span).then_some("true")] { (words) }
                    }
                }
            }
            @match &history {
                Some(history) => (decided(history)),
                None => p.faint { "That is too much to count at a glance: choose a shorter span." },
            }
        }
        div.two {
            section.card aria-labelledby="protection" {
                h2 #protection { "Hosts by protection" }
                (protection(&levels))
            }
            section.card aria-labelledby="causes" {
                h2 #causes { "What refused the most" }
                (causes(history.as_ref()))
            }
        }
        section.card aria-labelledby="refused" {
            div.bar-head { h2 #refused { "Last refused" } a href="/search?verdict=refused" { "All of them" } }
            @if refused.is_empty() {
                p.faint { "Nothing was refused yet. In monitor mode nothing is: look for " a href="/search?verdict=would_refuse" { "what would have been" } "." }
            }
            ol.events { @for stored in &refused { (show::event(stored)) } }
        }
        section.card aria-labelledby="round" {
            div.bar-head { h2 #round { "Last round the proxy" } a href="/round-the-proxy" { "All of them" } }
            @if round.is_empty() { p.faint { "Nobody went round the proxy." } }
            ol.events { @for stored in &round { (show::event(stored)) } }
        }
    };
    Ok(page::page(&app, &signed, head, &body))
}

async fn newest(
    app: &App,
    request: DecisionsRequest,
) -> Result<Vec<guard_common::api::control::StoredDecision>, Fault> {
    Ok(app.fleet.store.decisions(DecisionsRequest { limit: 5, ..request }).await?.decisions)
}

fn warnings(agents: &[Agent]) -> Markup {
    let alarmed: Vec<_> = agents.iter().filter(|agent| !agent.alarm.is_empty()).collect();
    html! {
        @if !alarmed.is_empty() {
            (page::note("bad", &html! {
                b { (show::counted(alarmed.len() as u64, "chain does", "chains do")) " not fit. " }
                "Somebody may have changed a record: look at "
                a href="/verification" { "the verification" } "."
            }))
        }
    }
}

fn figures(app: &App, agents: &[Agent], history: Option<&History>) -> Markup {
    let connected = agents.iter().filter(|agent| agent.connected).count() as u64;
    let total = history.map(History::total).unwrap_or_default();
    let waiting = app.fleet.waiting.list(None).len() as u64;
    html! {
        ul.figures {
            (figure("/agents", show::number(connected), &format!("of {} hosts connected", agents.len()), ""))
            (figure("/search", show::number(total.total()), "decisions", ""))
            (figure("/search?verdict=refused", show::number(total.refused), "refused or held", if total.refused > 0 { "refused" } else { "" }))
            (figure("/round-the-proxy", show::number(total.non_proxied), "round the proxy", if total.non_proxied > 0 { "round" } else { "" }))
            (figure("/approvals", show::number(waiting), "wait for people", if waiting > 0 { "held" } else { "" }))
        }
    }
}

fn figure(address: &str, number: String, words: &str, class: &str) -> Markup {
    html! { li class={ "figure " (class) } { a href=(address) { strong { (number) } span { (words) } } } }
}

fn decided(history: &History) -> Markup {
    let total = history.total();
    html! {
        (chart::history(history))
        p.keys {
            span.key { span.dot.allowed {} (show::number(total.allowed)) " allowed" }
            span.key { span.dot.would {} (show::number(total.would)) " would be refused" }
            span.key { span.dot.refused {} (show::number(total.refused)) " refused or held" }
        }
    }
}

fn protection(levels: &[Level]) -> Markup {
    let count = |wanted: Level| levels.iter().filter(|level| **level == wanted).count() as u64;
    let parts = Level::ALL.map(|level| (level.name(), level.name(), count(level)));
    html! {
        (chart::shares("Hosts by protection", &parts))
        dl.meanings {
            @for level in Level::ALL {
                @if count(level) > 0 { dt { (level.name()) } dd { (level.meaning()) } }
            }
        }
    }
}

fn causes(history: Option<&History>) -> Markup {
    let causes = history.map_or(&[][..], |history| &history.causes);
    html! {
        @if causes.is_empty() {
            p.faint { "No policy has refused anything in this time." }
        } @else {
            ol.ranks {
                @for cause in causes {
                    li {
                        @if cause.policy.is_empty() { span { "no policy permits it" } }
                        @else {
                            @let query: String = url::form_urlencoded::byte_serialize(cause.policy.as_bytes()).collect();
                            a href={ "/search?contains=" (query) } { (show::text(&cause.policy, 60)) }
                        }
                        strong { (show::number(cause.count)) }
                    }
                }
            }
        }
    }
}

/// Where there is no agent yet.
fn first_steps() -> Markup {
    page::empty(
        "No host reports here yet",
        &html! {
            p { "guard watches a database from the host that it runs on. Install the agent there, and name this control plane in its configuration:" }
            pre tabindex="0" { code { "# /etc/guard/guard.toml\n[control]\nendpoint = \"…\"    # this control plane's address for agents\n\n$ guard-agent run" } }
            p { "It begins in monitor mode: everything is recorded, nothing is refused. What it sees appears under " a href="/live" { "Live" } " as it happens." }
        },
    )
}
