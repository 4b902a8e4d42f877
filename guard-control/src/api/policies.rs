//! Versions of the policies: what there is, who runs it, and handing it out.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiFault;
use crate::{
    console::{agents_now, policies::actions},
    http::{app::App, fault::Fault, signed::Caller},
    people::Right,
    policy::{self, Version},
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
