//! One version: who signed it, who runs it, how it differs from another, what it would have done.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use guard_common::api::control::Agent;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::{NAMED, hosts};
use crate::{
    console::{
        agents_now,
        page::{self, Head, Place},
        show,
    },
    http::{app::App, fault::Fault, signed::Signed},
    people::Right,
    policy::{
        self, Handed, Version,
        diff::{self, Line},
        dry_run::{Run, State as RunState},
    },
};

/// Lines of a difference, and of a file, that are shown.
const MOST_LINES: usize = 2_000;
/// Longest line that is shown.
const MOST_LETTERS: usize = 2_000;
/// Changes of a dry run that are shown.
const CHANGES: usize = 50;

/// What is compared with.
#[derive(Debug, Deserialize)]
pub struct Asked {
    against: Option<u64>,
}

/// The page.
pub async fn page(
    State(app): State<App>,
    signed: Signed,
    Path(number): Path<u64>,
    Query(asked): Query<Asked>,
) -> Result<Markup, Fault> {
    let store = &app.fleet.store;
    let versions = policy::versions(store).await?;
    let version = versions.iter().find(|version| version.number == number);
    let version = version.ok_or(Fault::NotFound("such version of the policies"))?;
    let bundle = policy::signed(store, number).await?;
    let holds = policy::holds(&bundle, &app.key.public());
    let files = policy::files_of(&bundle).unwrap_or_default();
    let before = versions.iter().find(|version| version.number < number).map(|version| version.number);
    let against = asked.against.filter(|wanted| versions.iter().any(|one| one.number == *wanted)).or(before);
    let other = match against {
        Some(against) => policy::files(store, against).await?,
        None => BTreeMap::new(),
    };
    let agents = agents_now(&app).await?;
    let running: Vec<&Agent> = agents.iter().filter(|agent| agent.policy_version == number).collect();
    let handed = policy::handed(store).await?;
    let title = format!("Version {number}");
    let head = Head { place: Place::Policies, title: &title, lead: "" };
    let newest = versions.first().is_some_and(|newest| newest.hash == version.hash);
    let body = html! {
        (facts(version, holds))
        section.card aria-labelledby="hosts" {
            h2 #hosts { "Hosts that run it" }
            @if running.is_empty() { p.faint { "None." } } @else { (hosts(running.iter().copied())) }
            (handed_out(&handed, number))
        }
        @if signed.may(Right::Administer) { (forms(&signed, number, newest)) }
        @if let Some(run) = app.dry_runs.of(number) { (dry_run(&run)) }
        section.card aria-labelledby="changes" {
            div.bar-head { h2 #changes { "What changes" } (compared(&versions, number, against)) }
            (difference(&other, &files, against))
        }
        section.card aria-labelledby="files" {
            h2 #files { (show::counted(files.len() as u64, "file", "files")) }
            @for (name, content) in files.iter().take(NAMED) { (file(name, content)) }
        }
    };
    Ok(page::page(&app, &signed, head, &body))
}

fn facts(version: &Version, holds: bool) -> Markup {
    html! {
        section.card {
            dl.facts {
                dt { "Published" } dd { (show::time(Timestamp::from_microsecond(version.at).ok())) " by " b { (show::text(&version.author, 120)) } }
                @if !version.note.is_empty() { dt { "Note" } dd { (show::text(&version.note, 1_000)) } }
                dt { "Signature" }
                dd {
                    @if holds { span.pill.allowed { "holds" } } @else { span.pill.refused { "not by this control plane's key" } }
                    " key " code { (show::text(&version.key_id, 64)) }
                }
                dt { "Set" } dd { code { (show::text(&version.hash, 128)) } }
            }
        }
    }
}

fn handed_out(handed: &[Handed], number: u64) -> Markup {
    let handed: Vec<_> = handed.iter().filter(|one| one.version == number).collect();
    html! {
        @if handed.is_empty() { p.faint { "It was handed to nobody yet." } }
        ul.plain {
            @for one in handed.iter().take(20) {
                li { "handed to " b { (show::text(&policy::whom(&one.labels), 200)) } " " (show::time(Timestamp::from_microsecond(one.at).ok())) " by " (show::text(&one.author, 120)) }
            }
        }
    }
}

/// What admins do with it.
fn forms(signed: &Signed, number: u64, newest: bool) -> Markup {
    html! {
        div.two {
            section.card aria-labelledby="stage" {
                h2 #stage { "Hand it out" }
                form.stack method="post" action={ "/policies/" (number) "/stage" } {
                    (page::form_token(signed))
                    label { "To hosts with all of these labels"
                        input type="text" name="labels" maxlength="1000" autocomplete="off" placeholder="canary=yes, region=eu";
                    }
                    label.tick { input type="checkbox" name="all" value="1"; " to every host" }
                    button type="submit" { "Hand out" }
                }
                @if !newest {
                    form.stack method="post" action={ "/policies/" (number) "/rollback" } {
                        (page::form_token(signed))
                        p.faint { "Going back publishes this content as the newest version, and hands that to every host." }
                        button.bad type="submit" { "Go back to version " (number) }
                    }
                }
            }
            section.card aria-labelledby="try" {
                h2 #try { "What would it have done?" }
                p.faint { "Decides anew on what was recorded. No host notices anything of it." }
                form.stack method="post" action={ "/policies/" (number) "/dry-run" } {
                    (page::form_token(signed))
                    label { "Over the last days"
                        input type="number" name="days" value="7" min="1" max="3650" required;
                    }
                    button type="submit" { "Dry run" }
                }
            }
        }
    }
}

/// What came of a dry run, or how far it is.
pub fn dry_run(run: &Run) -> Markup {
    html! {
        section.card aria-labelledby="dry-run" data-run=[matches!(run.state, RunState::Running).then_some("running")] {
            div.bar-head {
                h2 #dry-run { "Dry run over " (show::counted(run.days, "day", "days")) }
                span.faint { (show::time(Some(run.begun))) " by " (show::text(&run.by, 64)) }
            }
            @match &run.state {
                RunState::Running => p role="status" { "It is under way: " a href={ "/policies/" (run.version) } { "look again" } "." },
                RunState::Failed(problem) => (page::note("bad", &html! { b { "It has failed. " } (show::text(problem, 2_000)) })),
                RunState::Done(result) => (outcome(result)),
            }
        }
    }
}

fn outcome(result: &Value) -> Markup {
    let count = |name: &str| result[name].as_u64().unwrap_or_default();
    let sum = |name: &str| {
        (
            result[name]["count"].as_u64().unwrap_or_default(),
            result[name]["workloads"].as_u64().unwrap_or_default(),
        )
    };
    let (statements, statement_workloads) = sum("newly_refused_statements");
    let (connections, connection_workloads) = sum("newly_refused_connections");
    let (allowed, _) = sum("newly_allowed_statements");
    let changes = result["changes"].as_array().map_or(&[][..], Vec::as_slice);
    let word =
        |change: &Value, name: &str, most: usize| show::text(change[name].as_str().unwrap_or_default(), most);
    html! {
        @if statements + connections == 0 {
            (page::note("good", &html! { b { "Nothing that ran would have been refused." } }))
        } @else {
            (page::note("warn", &html! {
                b { "It would have refused " (show::counted(statements, "statement", "statements")) " of " (show::counted(statement_workloads, "workload", "workloads")) }
                @if connections > 0 { " and " (show::counted(connections, "connection", "connections")) " of " (show::counted(connection_workloads, "workload", "workloads")) }
                "."
            }))
        }
        p.faint {
            "Decided anew: " (show::counted(count("statements"), "statement", "statements")) " and "
            (show::counted(count("connections"), "connection", "connections")) "."
            @if allowed > 0 { " " (show::counted(allowed, "statement", "statements")) " that were refused would be allowed." }
        }
        @if !changes.is_empty() {
            div.table tabindex="0" role="region" aria-label="What would change" {
                table {
                    thead { tr { th scope="col" { "How often" } th scope="col" { "Workload" } th scope="col" { "Then" } th scope="col" { "Now" } th scope="col" { "Policy" } th scope="col" { "For example" } } }
                    tbody {
                        @for change in changes.iter().take(CHANGES) {
                            tr {
                                td.number { (show::number(change["count"].as_u64().unwrap_or_default())) }
                                th scope="row" { (word(change, "workload", 80)) }
                                td { (word(change, "then", 30)) }
                                td { (word(change, "now", 30)) }
                                td { (word(change, "policy", 60)) }
                                td { code { (word(change, "example", 200)) } }
                            }
                        }
                    }
                }
            }
            @if changes.len() > CHANGES { p.faint { "and " (changes.len() - CHANGES) " more kinds: " code { "guard-control policy dry-run" } " lists them" } }
        }
    }
}

fn compared(versions: &[Version], number: u64, against: Option<u64>) -> Markup {
    html! {
        @if versions.len() > 1 {
            form.inline method="get" action={ "/policies/" (number) } {
                label { "Compared with"
                    select name="against" {
                        @for version in versions.iter().filter(|version| version.number != number).take(NAMED) {
                            option value=(version.number) selected[Some(version.number) == against] { "version " (version.number) }
                        }
                    }
                }
                button.quiet type="submit" { "Compare" }
            }
        }
    }
}

fn difference(
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    against: Option<u64>,
) -> Markup {
    let files = diff::between(old, new);
    html! {
        @match against {
            None => p.faint { "It is the first version: all of it is new." },
            Some(against) if files.is_empty() => p.faint { "Nothing: version " (against) " has the same content." },
            Some(_) => {
                @for file in files.iter().take(NAMED) {
                    h3 { (show::text(file.name, 200)) }
                    pre.diff tabindex="0" { code {
                        @for line in file.lines.iter().take(MOST_LINES) { (changed(line)) }
                        @if file.lines.len() > MOST_LINES { span.faint { "… and " (file.lines.len() - MOST_LINES) " more lines\n" } }
                    } }
                }
            }
        }
    }
}

fn changed(line: &Line<'_>) -> Markup {
    html! {
        @match line {
            Line::Same(text) => { "  " (show::text(text, MOST_LETTERS)) "\n" },
            Line::Removed(text) => del { "- " (show::text(text, MOST_LETTERS)) "\n" },
            Line::Added(text) => ins { "+ " (show::text(text, MOST_LETTERS)) "\n" },
            Line::LeftOut(count) => span.faint { "  … " (show::counted(*count as u64, "line", "lines")) " as before …\n" },
        }
    }
}

fn file(name: &str, content: &str) -> Markup {
    let lines = content.lines().count();
    html! {
        details {
            summary { (show::text(name, 200)) " " span.faint { (show::counted(lines as u64, "line", "lines")) } }
            pre tabindex="0" { code {
                @for line in content.lines().take(MOST_LINES) { (show::text(line, MOST_LETTERS)) "\n" }
                @if lines > MOST_LINES { span.faint { "… and " (lines - MOST_LINES) " more lines" } }
            } }
        }
    }
}
