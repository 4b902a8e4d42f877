//! Whether the record is whole: what was verified, what is missing, and how to check it without this program.

use axum::extract::State;
use guard_common::api::control::Agent;
use maud::{Markup, html};

use super::{
    agents_now,
    page::{self, Head, Place},
    show,
};
use crate::{
    http::{app::App, fault::Fault, signed::Signed},
    reading::Facts,
};

/// The page.
pub async fn page(State(app): State<App>, signed: Signed) -> Result<Markup, Fault> {
    let agents = agents_now(&app).await?;
    let facts = app.readings.facts(&agents).await?;
    let nothing = Facts::default();
    let records: u64 = agents.iter().map(|agent| agent.stored_sequence).sum();
    let alarmed = agents.iter().filter(|agent| !agent.alarm.is_empty()).count() as u64;
    let incomplete = agents.iter().filter(|agent| agent.gaps > 0 || agent.missing > 0).count() as u64;
    let head = Head {
        place: Place::Verification,
        title: "Verification",
        lead: "Every record carries the hash of the one before it. Each was checked before it was stored.",
    };
    let body = html! {
        @if alarmed > 0 {
            (page::note("bad", &html! { b { (show::counted(alarmed, "chain does", "chains do")) " not fit. " } "What did not fit was not stored. Keep the host's journal as it is, and compare." }))
        } @else if !agents.is_empty() {
            (page::note("good", &html! { b { "All chains fit. " } (show::number(records)) " records of " (show::counted(agents.len() as u64, "agent", "agents")) " were verified." @if incomplete > 0 { " What was lost is counted below." } }))
        } @else {
            (page::empty("Nothing to verify yet", &html! { p { "As soon as an agent sends its record, its chain stands here." } }))
        }
        @if !agents.is_empty() {
            div.table tabindex="0" role="region" aria-label="Chains" {
                table {
                    thead { tr { th scope="col" { "Host" } th scope="col" { "Chain" } th scope="col" { "Verified up to" } th scope="col" { "Signed up to" } th scope="col" { "Gaps" } th scope="col" { "Never arrived" } } }
                    tbody { @for agent in &agents { (row(agent, facts.get(&agent.agent_id).unwrap_or(&nothing))) } }
                }
            }
            section.card {
                h2 { "Without trusting this page" }
                p { "Take an export from the host and the public key that you kept when the agent was installed, and verify them on a machine of your own:" }
                pre tabindex="0" { code { "$ guard-agent audit export --output chain.jsonl     # on the host\n$ guard-verify --public-key agent.pub chain.jsonl   # anywhere" } }
            }
        }
    };
    Ok(page::page(&app, &signed, head, &body))
}

fn row(agent: &Agent, facts: &Facts) -> Markup {
    html! {
        tr {
            th scope="row" { a href={ "/agents/" (agent.agent_id) } { (show::text(&agent.host, 60)) } }
            td { @if agent.alarm.is_empty() { span.pill.allowed { "fits" } } @else { span.pill.refused { "does not fit" } " " (show::text(&agent.alarm, 300)) } }
            td.number { (show::number(agent.stored_sequence)) }
            td {
                @match &facts.checkpoint {
                    Some(checkpoint) => { (show::number(checkpoint.sequence)) " " span.faint { "by key " (show::text(&checkpoint.key_id, 16)) ", " (show::ago(show::seconds(checkpoint.signed_at))) } },
                    None => span.faint { "—" },
                }
            }
            td.number { (show::number(agent.gaps)) }
            td.number { (show::number(agent.missing)) }
        }
    }
}
