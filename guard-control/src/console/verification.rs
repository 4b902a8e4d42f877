//! Whether the record is whole: what was verified, what is missing, and how to check it without this program.

use axum::{
    extract::{Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use guard_common::{
    api::control::Agent,
    audit::proof::{Consistency, Inclusion, TreeHead},
};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    agents_now,
    page::{self, Head, Place},
    show,
};
use crate::{
    http::{
        app::App,
        fault::Fault,
        signed::{Posted, Signed},
    },
    people::Right,
    proof::{self, ProveError},
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
            (tree(&app, &signed, &agents).await?)
            section.card {
                h2 { "Without trusting this page" }
                p { "Take an export from the host and the public key that you kept when the agent was installed, and verify them on a machine of your own:" }
                pre tabindex="0" { code { "$ guard-agent audit export --output chain.jsonl     # on the host\n$ guard-verify --public-key agent.pub chain.jsonl   # anywhere" } }
            }
        }
    };
    Ok(page::page(&app, &signed, head, &body))
}

/// The signed tree over everything that is stored, and proofs from it.
async fn tree(app: &App, signed: &Signed, agents: &[Agent]) -> Result<Markup, Fault> {
    let head = match proof::tree_head(&app.fleet.store).await {
        Ok(head) => head,
        Err(ProveError::Store(error)) => return Err(error.into()),
        Err(nothing) => {
            return Ok(html! {
                section.card aria-labelledby="tree" { h2 #tree { "The tree over all records" } p.faint { (nothing) "." } }
            });
        }
    };
    let holds = head.verify(&app.key.public()).is_ok();
    Ok(html! {
        section.card aria-labelledby="tree" {
            div.bar-head {
                h2 #tree { "The tree over all records" }
                a.button.quiet href="/verification/head" { "Download its head" }
            }
            p { "All that is stored lies under one signed hash, which only grows. Keep a head elsewhere, now and then: later it proves that nothing under it was changed, dropped or slipped in." }
            dl.facts {
                dt { "Signed" } dd { (show::time(jiff::Timestamp::from_second(head.at).ok())) " with key " code { (show::text(&head.key_id, 64)) } " "
                    @if holds { span.pill.allowed { "holds" } } @else { span.pill.refused { "not by this control plane's key" } } }
                dt { "Leaves" } dd.number { (show::number(head.size)) }
                dt { "Root" } dd { code { (show::text(&head.root, 64)) } }
            }
        }
        div.two {
            section.card aria-labelledby="inclusion" {
                h2 #inclusion { "Prove that a record is held" }
                @if signed.may(Right::Export) {
                    form.stack method="get" action="/verification/inclusion" {
                        label { "Host"
                            select name="agent" { @for agent in agents.iter().take(2_000) { option value=(agent.agent_id) { (show::text(&agent.host, 60)) } } }
                        }
                        label { "Number of the record" input type="number" name="sequence" min="1" required; }
                        button type="submit" { "Download the proof" }
                    }
                } @else { p.faint { "A proof holds the record itself: it is for " (Right::Export.held_by()) "." } }
            }
            section.card aria-labelledby="consistency" {
                h2 #consistency { "Prove that nothing has changed since" }
                form.stack method="post" action="/verification/consistency" {
                    (page::form_token(signed))
                    label { "A head that you have kept" textarea name="head" rows="4" required maxlength="4000" spellcheck="false" {} }
                    button type="submit" { "Download the proof" }
                }
            }
        }
        section.card {
            h2 { "Check a proof anywhere" }
            p { "With the key that you kept when the control plane was set up (" code { "guard-control audit key" } "), and without any network:" }
            pre tabindex="0" { code { "$ guard-control audit verify --key KEPT head.json record-proof.json grown-proof.json" } }
        }
    })
}

/// The latest head, to be kept.
pub async fn head(State(app): State<App>, _: Signed) -> Result<Response, Fault> {
    file("guard-head.json", &proof::tree_head(&app.fleet.store).await?)
}

/// Which record.
#[derive(Debug, Deserialize)]
pub struct Wanted {
    agent: String,
    sequence: u64,
}

/// Proves that a record is held.
pub async fn inclusion(
    State(app): State<App>,
    signed: Signed,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Fault> {
    let Wanted { agent, sequence } = wanted;
    let proof = prove(&app, &signed, &agent, sequence).await?;
    file(&format!("guard-record-{sequence}.json"), &proof)
}

/// The same for pages and programs. A proof holds the record: it is taken along.
pub async fn prove(app: &App, signed: &Signed, agent: &str, sequence: u64) -> Result<Inclusion, Fault> {
    let agent = Uuid::try_parse(agent).map_err(|_| Fault::NotFound("such agent"))?.hyphenated().to_string();
    let subject = format!("record {sequence} of agent {agent}");
    signed.must(app, Right::Export, "prove", &subject).await?;
    // What is not there is said, and is nothing that was done.
    let proof = proof::inclusion(&app.fleet.store, &agent, sequence).await?;
    signed.does(app, "prove", &subject, "").await?;
    Ok(proof)
}

/// Proves that nothing has changed since a head that somebody has kept.
pub async fn consistency(State(app): State<App>, posted: Posted) -> Result<Response, Fault> {
    let from = posted.fields.text("head");
    file("guard-grown.json", &grown(&app, from.as_bytes()).await?)
}

/// The same for pages and programs.
pub async fn grown(app: &App, head: &[u8]) -> Result<Consistency, Fault> {
    let from: TreeHead = serde_json::from_slice(head).map_err(|error| {
        Fault::Bad(format!(
            "this is no head as `Download its head` and `guard-control audit head` give it: {error}"
        ))
    })?;
    if from.verify(&app.key.public()).is_err() {
        return Err(Fault::Bad(
            "this head was not signed by this control plane: it is from another one".to_owned(),
        ));
    }
    Ok(proof::consistency(&app.fleet.store, from).await?)
}

fn file(name: &str, value: &impl Serialize) -> Result<Response, Fault> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Fault::Bad(error.to_string()))? + "\n";
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, text).into_response())
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
