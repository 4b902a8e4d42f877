//! What admins do with versions. Forms enter; each is recorded before it is done, by the code of the command line.

use std::time::Duration;

use axum::{
    extract::{Path, State},
    response::Redirect,
};
use jiff::Timestamp;

use crate::{
    http::{
        app::App,
        fault::Fault,
        signed::{Posted, Signed},
    },
    people::Right,
    policy::{
        self, Labels,
        dry_run::{Run, State as RunState},
    },
};

/// Labels of one roll-out.
const MOST_LABELS: usize = 32;
/// Days that are looked back, at most.
const MOST_DAYS: u64 = 3_650;
/// How long a page waits for a dry run before it says that it is under way.
const PATIENCE: Duration = Duration::from_secs(3);

/// Hands a version to hosts.
pub async fn stage(
    State(app): State<App>,
    Path(number): Path<u64>,
    posted: Posted,
) -> Result<Redirect, Fault> {
    let all = !posted.fields.text("all").is_empty();
    let labels = labels(posted.fields.text("labels").split([',', ' ', '\n']))?;
    hand_out(&app, &posted.signed, number, &labels, all).await?;
    Ok(Redirect::to(&format!("/policies/{number}")))
}

/// The same for pages and programs.
pub async fn hand_out(
    app: &App,
    signed: &Signed,
    number: u64,
    labels: &Labels,
    all: bool,
) -> Result<(), Fault> {
    let subject = format!("version {number}");
    signed.must(app, Right::Administer, "policy-stage", &subject).await?;
    if all != labels.is_empty() {
        return Err(Fault::Bad("name labels as name=value, or say that it goes to every host".to_owned()));
    }
    policy::signed(&app.fleet.store, number).await?;
    signed.does(app, "policy-stage", &subject, &format!("to {}", policy::whom(labels))).await?;
    Ok(policy::stage(&app.fleet.store, number, labels, &signed.person.name).await?)
}

/// `name=value`, several times.
pub fn labels<'a>(pairs: impl Iterator<Item = &'a str>) -> Result<Labels, Fault> {
    let pairs = pairs.map(str::trim).filter(|pair| !pair.is_empty()).take(MOST_LABELS + 1);
    let labels: Labels = pairs.map(policy::label).collect::<Result<_, _>>()?;
    match labels.len() > MOST_LABELS {
        true => Err(Fault::Bad(format!("at most {MOST_LABELS} labels"))),
        false => Ok(labels),
    }
}

/// Publishes the content of a version anew, for every host.
pub async fn rollback(
    State(app): State<App>,
    Path(number): Path<u64>,
    posted: Posted,
) -> Result<Redirect, Fault> {
    let new = go_back(&app, &posted.signed, number).await?;
    Ok(Redirect::to(&format!("/policies/{new}")))
}

/// The same for pages and programs: the new version.
pub async fn go_back(app: &App, signed: &Signed, number: u64) -> Result<u64, Fault> {
    let subject = format!("version {number}");
    signed.must(app, Right::Administer, "policy-rollback", &subject).await?;
    policy::signed(&app.fleet.store, number).await?;
    signed.does(app, "policy-rollback", &subject, "to every host").await?;
    Ok(policy::rollback(&app.fleet.store, &app.key, number, &signed.person.name).await?.number)
}

/// Begins a dry run, and waits a moment for what comes of it.
pub async fn dry_run(
    State(app): State<App>,
    Path(number): Path<u64>,
    posted: Posted,
) -> Result<Redirect, Fault> {
    let Posted { signed, fields } = posted;
    decide_anew(&app, &signed, number, fields.text("days").trim().parse().ok()).await?;
    // Who looks at the page later sees it as well.
    Ok(Redirect::to(&format!("/policies/{number}#dry-run")))
}

/// The same for pages and programs.
pub async fn decide_anew(app: &App, signed: &Signed, number: u64, days: Option<u64>) -> Result<(), Fault> {
    let subject = format!("version {number}");
    signed.must(app, Right::Administer, "policy-dry-run", &subject).await?;
    let days = days.filter(|days| (1..=MOST_DAYS).contains(days));
    let days = days.ok_or_else(|| Fault::Bad(format!("a dry run looks back 1 to {MOST_DAYS} days")))?;
    let files = policy::files(&app.fleet.store, number).await?;
    signed.does(app, "policy-dry-run", &subject, &format!("{days} days")).await?;
    let run = Run {
        version: number,
        days,
        by: signed.person.name.clone(),
        begun: Timestamp::now(),
        state: RunState::Running,
    };
    if !app.dry_runs.begin((app.fleet.store.clone(), app.tool.clone()), files, run) {
        return Err(Fault::Bad("another dry run is under way: wait until it is done".to_owned()));
    }
    let done = async {
        while app.dry_runs.of(number).is_some_and(|run| matches!(run.state, RunState::Running)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let _ = tokio::time::timeout(PATIENCE, done).await;
    Ok(())
}
