//! Versions of the policies and who runs them; what each host follows.

pub mod actions;
pub mod version;

use std::collections::BTreeMap;

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
    policy::{self, Handed, Version},
    reading::Facts,
};

/// Versions on the page: older ones are reached by their number.
const SHOWN: usize = 100;
/// Hosts that are named in one place.
const NAMED: usize = 200;

/// The page.
pub async fn page(State(app): State<App>, signed: Signed) -> Result<Markup, Fault> {
    let agents = agents_now(&app).await?;
    let facts = app.readings.facts(&agents).await?;
    let versions = policy::versions(&app.fleet.store).await?;
    let handed = policy::handed(&app.fleet.store).await?;
    let mut sets: BTreeMap<String, Vec<&Agent>> = BTreeMap::new();
    for agent in &agents {
        let hash = facts.get(&agent.agent_id).map(|facts| facts.policy_hash.clone()).unwrap_or_default();
        sets.entry(hash).or_default().push(agent);
    }
    let head = Head {
        place: Place::Policies,
        title: "Policies",
        lead: "Signed versions for the fleet, who runs which, and what each host follows.",
    };
    let body = html! {
        (failures(&agents, &facts))
        @if agents.is_empty() && versions.is_empty() {
            (page::empty("No host, no policies", &html! {
                p { "Policies are Cedar files. Each host follows a folder of its own, or signed versions from here:" }
                pre tabindex="0" { code { "$ guard-control policy publish policies/ --note \"no bulk deletes\"" } }
            }))
        } @else {
            (table(&versions, &agents, &handed))
        }
        @if !agents.is_empty() {
            @if sets.len() > 1 {
                p { "The fleet follows " b { (sets.len()) " different sets" } ": after a roll-out there should be one for each group of hosts." }
            }
            ol.cards { @for (hash, agents) in &sets { (set(hash, agents, &facts)) } }
        }
    };
    Ok(page::page(&app, &signed, head, &body))
}

/// Hosts that did not take what they were given.
fn failures(agents: &[Agent], facts: &std::collections::HashMap<String, Facts>) -> Markup {
    let own = |agent: &Agent| {
        let change = facts.get(&agent.agent_id)?.policy.as_ref()?;
        (!change.error.is_empty()).then(|| change.error.clone())
    };
    let failed = agents.iter().filter_map(|agent| match agent.policy_error.is_empty() {
        false => Some((agent, agent.policy_error.clone())),
        true => own(agent).map(|error| (agent, error)),
    });
    html! {
        @for (agent, error) in failed.take(NAMED) {
            (page::note("warn", &html! { b { (show::text(&agent.host, 60)) } " has not taken its newest policies: " (show::text(&error, 300)) }))
        }
    }
}

fn table(versions: &[Version], agents: &[Agent], handed: &[Handed]) -> Markup {
    html! {
        @if versions.is_empty() {
            section.card {
                h2 { "No version yet" }
                p { "Each host follows the policies in its own folder. Versions that are published here are signed, and handed out step by step to hosts with " code { "policy.from_control = true" } ":" }
                pre tabindex="0" { code { "$ guard-control policy publish policies/ --note \"no bulk deletes\"" } }
            }
        } @else {
            div.table tabindex="0" role="region" aria-label="Versions" {
                table {
                    thead { tr { th scope="col" { "Version" } th scope="col" { "Published" } th scope="col" { "By" } th scope="col" { "Note" } th scope="col" { "Signed by key" } th scope="col" { "Handed to" } th scope="col" { "Run by" } } }
                    tbody {
                        @for version in versions.iter().take(SHOWN) {
                            @let running = agents.iter().filter(|agent| agent.policy_version == version.number).count() as u64;
                            tr {
                                th scope="row" { a href={ "/policies/" (version.number) } { "Version " (version.number) } }
                                td { (show::time(jiff::Timestamp::from_microsecond(version.at).ok())) }
                                td { (show::text(&version.author, 60)) }
                                td { (show::text(&version.note, 200)) }
                                td { code { (show::text(&version.key_id, 16)) } }
                                td { (to_whom(handed, version.number)) }
                                td.number { @if running == 0 { span.faint { "no host" } } @else { (show::counted(running, "host", "hosts")) } }
                            }
                        }
                    }
                }
            }
            @if versions.len() > SHOWN { p.faint { (versions.len() - SHOWN) " older versions: " code { "guard-control policy versions" } } }
        }
    }
}

/// The hosts that a version was handed to.
fn to_whom(handed: &[Handed], version: u64) -> Markup {
    let mut groups: Vec<String> =
        handed.iter().filter(|one| one.version == version).map(|one| policy::whom(&one.labels)).collect();
    groups.dedup();
    html! {
        @if groups.is_empty() { span.faint { "nobody yet" } }
        @for group in groups.iter().take(5) { span.tag { (show::text(group, 80)) } " " }
        @if groups.len() > 5 { span.faint { "and " (groups.len() - 5) " more" } }
    }
}

fn set(hash: &str, agents: &[&Agent], facts: &std::collections::HashMap<String, Facts>) -> Markup {
    html! {
        li.card {
            div.bar-head {
                h2 { @if hash.is_empty() { "Not known" } @else { code { (show::text(hash, 16).trim_end_matches('…')) } } }
                span.faint { (show::counted(agents.len() as u64, "host", "hosts")) }
            }
            (hosts(agents.iter().copied()))
            @if let Some(change) = agents.first().and_then(|agent| facts.get(&agent.agent_id)?.policy.as_ref()) {
                p.faint { (show::counted(u64::from(change.policies), "policy", "policies")) " from " (show::text(&change.source, 120)) }
            }
        }
    }
}

/// Hosts by name, each with its page.
fn hosts<'a>(agents: impl ExactSizeIterator<Item = &'a Agent>) -> Markup {
    let more = agents.len().saturating_sub(NAMED);
    html! {
        p.effects {
            @for agent in agents.take(NAMED) {
                a.tag href={ "/agents/" (agent.agent_id) } { (show::text(&agent.host, 60)) } " "
            }
            @if more > 0 { span.faint { "and " (more) " more" } }
        }
    }
}
