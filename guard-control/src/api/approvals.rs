//! Statements that wait: what there is, and deciding on it.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use guard_common::api::control::FleetApproval;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiFault;
use crate::{
    console::say,
    http::{app::App, fault::Fault, signed::Caller},
    people::Right,
};

fn shown(one: &FleetApproval) -> Value {
    json!({ "agent_id": one.agent_id, "host": one.host, "request": one.request })
}

/// All that waits.
pub async fn list(State(app): State<App>, Caller(caller): Caller) -> Result<Json<Value>, ApiFault> {
    caller.must(&app, Right::See, "see-approvals", "").await?;
    let waiting = app.fleet.waiting.list(None);
    Ok(Json(json!({ "approvals": waiting.iter().map(shown).collect::<Vec<_>>() })))
}

/// One of it.
pub async fn one(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((agent, request)): Path<(String, String)>,
) -> Result<Json<Value>, ApiFault> {
    caller.must(&app, Right::See, "see-approvals", &request).await?;
    let one = app.fleet.waiting.find(&agent, &request).ok_or(Fault::NotFound("such statement that waits"))?;
    Ok(Json(shown(&one)))
}

/// Somebody's word.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    approve: bool,
    #[serde(default)]
    reason: String,
}

/// Takes it.
pub async fn decide(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((agent, request)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, ApiFault> {
    let word: Word = serde_json::from_slice(&body).map_err(|error| {
        Fault::Bad(format!("the body is not {{\"approve\": true, \"reason\": \"..\"}}: {error}"))
    })?;
    let answer = say(&app, &caller, (&agent, &request), (word.approve, &word.reason)).await?;
    let status = if answer.counted { StatusCode::OK } else { StatusCode::CONFLICT };
    let body = json!({ "counted": answer.counted, "problem": answer.problem, "request": answer.request });
    Ok((status, Json(body)).into_response())
}
