//! Which policies each host follows.

use std::collections::BTreeMap;

use axum::extract::State;
use guard_common::api::control::Agent;
use maud::{Markup, html};

use super::{
    agents_now,
    page::{self, Head, Place},
    show,
};
use crate::http::{app::App, fault::Fault, signed::Signed};

/// The page.
pub async fn page(State(app): State<App>, signed: Signed) -> Result<Markup, Fault> {
    let agents = agents_now(&app).await?;
    let facts = app.readings.facts(&agents).await?;
    let mut sets: BTreeMap<String, Vec<&Agent>> = BTreeMap::new();
    for agent in &agents {
        let hash = facts.get(&agent.agent_id).map(|facts| facts.policy_hash.clone()).unwrap_or_default();
        sets.entry(hash).or_default().push(agent);
    }
    let failed: Vec<_> = agents
        .iter()
        .filter_map(|agent| {
            let change = facts.get(&agent.agent_id)?.policy.as_ref()?;
            (!change.error.is_empty()).then_some((agent, change))
        })
        .collect();
    let head = Head {
        place: Place::Policies,
        title: "Policies",
        lead: "Which set of policies each host follows, by its hash.",
    };
    let body = html! {
        @for (agent, change) in &failed {
            (page::note("warn", &html! { b { (show::text(&agent.host, 60)) } " has not taken its newest policies: " (show::text(&change.error, 300)) }))
        }
        @if agents.is_empty() {
            (page::empty("No host, no policies", &html! { p { "Policies are Cedar files in a folder on each host; what an agent follows stands here as soon as it connects." } }))
        }
        @if sets.len() > 1 {
            p { "The fleet follows " b { (sets.len()) " different sets" } ": after a roll-out there should be one for each group of hosts." }
        }
        ol.cards {
            @for (hash, agents) in &sets {
                li.card {
                    div.bar-head {
                        h2 { @if hash.is_empty() { "Not known" } @else { code { (show::text(hash, 16).trim_end_matches('…')) } } }
                        span.faint { (show::counted(agents.len() as u64, "host", "hosts")) }
                    }
                    p.effects {
                        @for agent in agents.iter().take(200) {
                            a.tag href={ "/agents/" (agent.agent_id) } { (show::text(&agent.host, 60)) } " "
                        }
                        @if agents.len() > 200 { span.faint { "and " (agents.len() - 200) " more" } }
                    }
                    @if let Some(change) = agents.first().and_then(|agent| facts.get(&agent.agent_id)?.policy.as_ref()) {
                        p.faint { (show::counted(u64::from(change.policies), "policy", "policies")) " from " (show::text(&change.source, 120)) }
                    }
                }
            }
        }
    };
    Ok(page::page(&app, &signed, head, &body))
}
