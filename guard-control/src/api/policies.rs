//! Versions of the policies: what there is, who runs it, and handing it out.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiFault;
use crate::{
    console::{agents_now, policies::actions},
    http::{app::App, fault::Fault, signed::Caller},
    people::Right,
    policy::{
        self, Version,
        dry_run::{Run, State as RunState},
    },
};

fn shown(version: &Version) -> Value {
    let at = jiff::Timestamp::from_microsecond(version.at).map(|at| at.to_string()).unwrap_or_default();
    json!({
        "version": version.number,
        "at": at,
        "author": version.author,
        "note": version.note,
        "hash": version.hash,
        "key_id": version.key_id,
    })
}

/// All versions, the newest first; what was handed to whom.
pub async fn list(State(app): State<App>, Caller(caller): Caller) -> Result<Json<Value>, ApiFault> {
    caller.must(&app, Right::See, "see-policies", "").await?;
    let store = &app.fleet.store;
    let agents = agents_now(&app).await?;
    let versions = policy::versions(store).await?;
    let versions = versions.iter().map(|version| {
        let running = agents.iter().filter(|agent| agent.policy_version == version.number);
        let mut value = shown(version);
        value["agents"] = running.map(|agent| agent.agent_id.as_str()).collect();
        value
    });
    let handed = policy::handed(store).await?;
    let handed = handed.iter().map(|one| {
        let at = jiff::Timestamp::from_microsecond(one.at).map(|at| at.to_string()).unwrap_or_default();
        json!({ "version": one.version, "labels": one.labels, "at": at, "author": one.author })
    });
    Ok(Json(json!({ "versions": versions.collect::<Vec<_>>(), "rollouts": handed.collect::<Vec<_>>() })))
}

/// One version with its files.
pub async fn one(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(number): Path<u64>,
) -> Result<Json<Value>, ApiFault> {
    caller.must(&app, Right::See, "see-policies", "").await?;
    let store = &app.fleet.store;
    let versions = policy::versions(store).await?;
    let version = versions.iter().find(|version| version.number == number);
    let version = version.ok_or(Fault::NotFound("such version of the policies"))?;
    let signed = policy::signed(store, number).await?;
    let mut value = shown(version);
    value["signature_holds"] = policy::holds(&signed, &app.key.public()).into();
    value["signature"] = hex::encode(&signed.signature).into();
    value["files"] = json!(policy::files_of(&signed).unwrap_or_default());
    Ok(Json(value))
}

/// To whom.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whom {
    #[serde(default)]
    labels: policy::Labels,
    #[serde(default)]
    all: bool,
}

/// Hands a version to hosts.
pub async fn stage(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(number): Path<u64>,
    body: Bytes,
) -> Result<Json<Value>, ApiFault> {
    let whom: Whom = serde_json::from_slice(&body).map_err(|error| {
        Fault::Bad(format!(
            "the body is neither {{\"labels\": {{\"canary\": \"yes\"}}}} nor {{\"all\": true}}: {error}"
        ))
    })?;
    actions::hand_out(&app, &caller, number, &whom.labels, whom.all).await?;
    Ok(Json(json!({ "version": number })))
}

/// Publishes the content of a version anew, for every host.
pub async fn rollback(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(number): Path<u64>,
) -> Result<Json<Value>, ApiFault> {
    Ok(Json(json!({ "version": actions::go_back(&app, &caller, number).await? })))
}

/// How far back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Back {
    #[serde(default = "week")]
    days: u64,
}

fn week() -> u64 {
    7
}

/// Begins to decide anew on what was recorded; what came of it already, or that it is under way.
pub async fn begin_dry_run(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(number): Path<u64>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), ApiFault> {
    let body = if body.is_empty() { &b"{}"[..] } else { &body[..] };
    let back: Back = serde_json::from_slice(body)
        .map_err(|error| Fault::Bad(format!("the body is not {{\"days\": 7}}: {error}")))?;
    actions::decide_anew(&app, &caller, number, Some(back.days)).await?;
    told(app.dry_runs.of(number))
}

/// The last dry run of a version.
pub async fn dry_run(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(number): Path<u64>,
) -> Result<(StatusCode, Json<Value>), ApiFault> {
    caller.must(&app, Right::See, "see-policies", "").await?;
    told(app.dry_runs.of(number))
}

fn told(run: Option<Run>) -> Result<(StatusCode, Json<Value>), ApiFault> {
    let run = run.ok_or(Fault::NotFound("dry run of this version: begin one with POST"))?;
    let mut value =
        json!({ "version": run.version, "days": run.days, "by": run.by, "begun": run.begun.to_string() });
    let status = match run.state {
        RunState::Running => {
            value["state"] = "running".into();
            StatusCode::ACCEPTED
        }
        RunState::Done(result) => {
            value["state"] = "done".into();
            value["result"] = (*result).clone();
            StatusCode::OK
        }
        RunState::Failed(problem) => {
            value["state"] = "failed".into();
            value["error"] = problem.into();
            StatusCode::OK
        }
    };
    Ok((status, Json(value)))
}
