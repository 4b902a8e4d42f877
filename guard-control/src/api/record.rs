//! Questions about the record.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    response::Response,
};
use guard_common::audit::{
    proof::{Consistency, Inclusion, TreeHead},
    v1::Record,
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ApiFault, Asked};
use crate::{
    console::{
        export::{self, Format},
        search::Wanted,
        show, verification,
    },
    http::{app::App, fault::Fault, signed::Caller},
    people::Right,
    proof,
};

/// How many answers are wanted.
#[derive(Debug, Deserialize)]
pub struct Limit {
    limit: Option<u32>,
}

/// Decisions, the newest first.
pub async fn decisions(
    State(app): State<App>,
    Caller(caller): Caller,
    Asked(wanted): Asked<Wanted>,
    Asked(Limit { limit }): Asked<Limit>,
) -> Result<Json<Value>, ApiFault> {
    caller.must(&app, Right::See, "search", &wanted.query()).await?;
    let limit = limit.unwrap_or(100).clamp(1, 1_000);
    let found = app.fleet.store.decisions(wanted.request(limit)?).await?;
    Ok(Json(json!({ "decisions": found.decisions, "next_page": found.next_page })))
}

/// In which form.
#[derive(Debug, Deserialize)]
pub struct Form {
    #[serde(default)]
    format: Format,
}

/// Decisions to be taken along.
pub async fn export(
    State(app): State<App>,
    Caller(caller): Caller,
    Asked(wanted): Asked<Wanted>,
    Asked(form): Asked<Form>,
) -> Result<Response, ApiFault> {
    Ok(export::take_along(&app, &caller, &wanted, form.format).await?)
}

/// How far back.
#[derive(Debug, Deserialize)]
pub struct Span {
    hours: Option<u64>,
}

/// Decisions over time.
pub async fn history(
    State(app): State<App>,
    Caller(caller): Caller,
    Asked(span): Asked<Span>,
) -> Result<Json<Value>, ApiFault> {
    caller.must(&app, Right::See, "see-history", "").await?;
    let hours = span.hours.unwrap_or(24).clamp(1, 24 * 90);
    let history = app.readings.history(Duration::from_secs(hours * 3_600)).await?;
    let buckets = history.buckets.iter().enumerate().map(|(at, bucket)| {
        let begin = jiff::Timestamp::from_microsecond(history.since + history.step * at as i64);
        json!({
            "since": begin.map(|at| at.to_string()).unwrap_or_default(),
            "allowed": bucket.allowed,
            "refused": bucket.refused,
            "would_be_refused": bucket.would,
            "non_proxied": bucket.non_proxied,
        })
    });
    let causes = history.causes.iter().map(|one| json!({ "policy": one.policy, "count": one.count }));
    Ok(Json(json!({ "buckets": buckets.collect::<Vec<_>>(), "policies": causes.collect::<Vec<_>>() })))
}

/// Everything about one connection.
pub async fn connection(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((agent, connection)): Path<(String, String)>,
) -> Result<Json<Value>, ApiFault> {
    caller.must(&app, Right::See, "see-connection", "").await?;
    let connection = Uuid::try_parse(&connection).map_err(|_| Fault::NotFound("such connection"))?;
    let course = app.readings.connection(&agent, connection).await?;
    let course = course.ok_or(Fault::NotFound("such connection"))?;
    let remote = match course.opened(&agent) {
        Some(stored) => app.fleet.store.remote(stored).await,
        None => None,
    };
    let records = course.records.into_iter().map(|(sequence, at, body)| {
        let record = Record { version: guard_common::audit::RECORD_VERSION, at, body: Some(body) };
        json!({ "sequence": sequence, "record": record })
    });
    Ok(Json(json!({ "records": records.collect::<Vec<_>>(), "cut": course.cut, "remote": remote })))
}

/// Before which.
#[derive(Debug, Deserialize)]
pub struct Before {
    before: Option<u64>,
}

/// What people did.
pub async fn actions(
    State(app): State<App>,
    Caller(caller): Caller,
    Asked(Before { before }): Asked<Before>,
    Asked(Limit { limit }): Asked<Limit>,
) -> Result<Json<Value>, ApiFault> {
    caller.must(&app, Right::SeePeoplesActions, "see-actions", "").await?;
    let actions = app.readings.actions(before, limit.unwrap_or(100).clamp(1, 1_000) as usize).await?;
    let actions = actions.into_iter().map(|one| {
        let at = show::stamp(one.at.as_ref()).map(|at| at.to_string());
        json!({ "sequence": one.sequence, "at": at, "action": one.action })
    });
    Ok(Json(json!({ "actions": actions.collect::<Vec<_>>() })))
}

/// The latest signed head of the tree over all records.
pub async fn head(State(app): State<App>, Caller(caller): Caller) -> Result<Json<TreeHead>, ApiFault> {
    caller.must(&app, Right::See, "prove", "").await?;
    Ok(Json(proof::tree_head(&app.fleet.store).await?))
}

/// Proves that a record is held.
pub async fn inclusion(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((agent, sequence)): Path<(String, u64)>,
) -> Result<Json<Inclusion>, ApiFault> {
    Ok(Json(verification::prove(&app, &caller, &agent, sequence).await?))
}

/// Proves that nothing has changed since a head that somebody has kept.
pub async fn consistency(
    State(app): State<App>,
    Caller(caller): Caller,
    body: Bytes,
) -> Result<Json<Consistency>, ApiFault> {
    caller.must(&app, Right::See, "prove", "").await?;
    Ok(Json(verification::grown(&app, &body).await?))
}
