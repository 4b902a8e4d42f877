//! Agents and how they are.

use axum::extract::{Path, State};
use guard_common::api::control::{Agent, DecisionsRequest};
use maud::{Markup, html};

use super::{
    agent_now, agents_now,
    page::{self, Head, Place},
    show,
};
use crate::{
    http::{app::App, fault::Fault, signed::Signed},
    reading::{Facts, Level, level},
};

/// All of them.
pub async fn list(State(app): State<App>, signed: Signed) -> Result<Markup, Fault> {
    let agents = agents_now(&app).await?;
    let facts = app.readings.facts(&agents).await?;
    let nothing = Facts::default();
    let head = Head { place: Place::Agents, title: "Agents", lead: "One on each host, and how it is." };
    let body = html! {
        @if agents.is_empty() {
            (page::empty("No agent has come yet", &html! {
                p { "Install guard-agent on a database's host, and name this control plane as " code { "[control] endpoint" } " in its configuration." }
            }))
        } @else {
            div.table tabindex="0" role="region" aria-label="Agents" {
                table {
                    thead { tr { th scope="col" { "Host" } th scope="col" { "Protection" } th scope="col" { "Mode" } th scope="col" { "Kernel side" } th scope="col" { "Policies" } th scope="col" { "Records" } th scope="col" { "Last heard of" } th scope="col" { "Version" } } }
                    tbody {
                        @for agent in &agents { (row(agent, facts.get(&agent.agent_id).unwrap_or(&nothing))) }
                    }
                }
            }
        }
    };
    Ok(page::page(&app, &signed, head, &body))
}

/// A level as a small label.
fn pill(level: Level) -> Markup {
    html! { span class={ "pill level-" (level.name()) } title=(level.meaning()) { (level.name()) } }
}

fn row(agent: &Agent, facts: &Facts) -> Markup {
    html! {
        tr {
            th scope="row" { a href={ "/agents/" (agent.agent_id) } { (show::text(&agent.host, 60)) } }
            td {
                (pill(level(agent, facts)))
                @if !agent.alarm.is_empty() { " " span.pill.refused { "alarm" } }
                @if agent.gaps > 0 { " " span.tag { (show::counted(agent.gaps, "gap", "gaps")) } }
            }
            td { (show::text(&agent.mode, 20)) }
            td { @match &facts.sensor { Some(sensor) => (show::text(&sensor.rung, 30)), None => span.faint { "—" } } }
            td { (show::hash(&facts.policy_hash)) }
            td.number { (show::number(agent.stored_sequence)) }
            td { @if agent.connected { "connected" } @else { (show::ago(show::stamp(agent.last_seen.as_ref()))) } }
            td { (show::text(&agent.agent_version, 20)) }
        }
    }
}

/// One of them.
pub async fn page(
    State(app): State<App>,
    signed: Signed,
    Path(agent_id): Path<String>,
) -> Result<Markup, Fault> {
    let agent = agent_now(&app, &agent_id).await?;
    let facts = app.readings.facts(std::slice::from_ref(&agent)).await?.remove(&agent_id).unwrap_or_default();
    let request = DecisionsRequest { limit: 15, agent_id: agent_id.clone(), ..DecisionsRequest::default() };
    let newest = app.fleet.store.decisions(request).await?.decisions;
    let level = level(&agent, &facts);
    let title = show::text(&agent.host, 60);
    let head = Head { place: Place::Agents, title: &title, lead: level.meaning() };
    let body = html! {
        @if !agent.alarm.is_empty() { (page::note("bad", &html! { b { "Its chain does not fit. " } (show::text(&agent.alarm, 400)) })) }
        @if let Some(change) = facts.policy.as_ref().filter(|change| !change.error.is_empty()) {
            (page::note("warn", &html! { "Its newest policies were not taken: " (show::text(&change.error, 300)) }))
        }
        section.card {
            div.bar-head { h2 { "State" } (pill(level)) }
            dl.facts {
                dt { "agent" } dd { code { (agent.agent_id) } }
                dt { "version" } dd { (show::text(&agent.agent_version, 40)) }
                dt { "mode" } dd { (show::text(&agent.mode, 40)) }
                dt { "policies" } dd { (show::hash(&facts.policy_hash)) @if let Some(change) = &facts.policy { " from " (show::text(&change.source, 120)) } }
                dt { "kernel" } dd { (show::text(&facts.kernel, 80)) }
                dt { "first seen" } dd { (show::ago(show::stamp(agent.first_seen.as_ref()))) }
                dt { "last seen" } dd { @if agent.connected { "connected" } @else { (show::ago(show::stamp(agent.last_seen.as_ref()))) } }
                dt { "records" } dd { (show::number(agent.stored_sequence)) }
                dt { "gaps" } dd { (show::number(agent.gaps)) @if agent.missing > 0 { ", " (show::number(agent.missing)) " records never arrived" } }
                @if let Some(gap) = &facts.gap { dt { "newest gap" } dd { (show::text(&gap.source, 40)) ": " (show::number(gap.lost)) " lost. " (show::text(&gap.detail, 200)) } }
            }
        }
        @if let Some(sensor) = &facts.sensor {
            section.card {
                h2 { "What its kernel lets it see" }
                p { "Rung " b { (show::text(&sensor.rung, 40)) } ", " (sensor.programs.iter().filter(|one| one.attached).count()) " of " (sensor.programs.len()) " programs attached." }
                @if !sensor.missing.is_empty() { ul.plain { @for missing in sensor.missing.iter().take(20) { li { (show::text(missing, 300)) } } } }
                p.effects { @for program in sensor.programs.iter().take(80) {
                    span class={ "tag " @if !program.attached { "off" } } title=(show::text(&program.error, 200)) { (show::text(&program.name, 40)) } " "
                } }
            }
        }
        section.card {
            div.bar-head { h2 { "Last decided" } a href={ "/search?agent=" (agent.agent_id) } { "All of them" } }
            @if newest.is_empty() { p.faint { "Nothing yet." } }
            ol.events { @for stored in &newest { (show::event(stored)) } }
        }
    };
    Ok(page::page(&app, &signed, head, &body))
}
