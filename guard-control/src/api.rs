//! The JSON API: what pages show, for programs. Tokens enter, JSON leaves; the same rights as on pages.
//!
//! `openapi.json` says what there is; a test holds both to each other.

mod approvals;
mod policies;
mod record;

use axum::{
    Json, Router,
    extract::{FromRequestParts, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    console::agents_now,
    http::{app::App, fault::Fault, signed::Caller},
    people::Right,
    reading::{Facts, level},
};

/// What there is.
pub const DESCRIPTION: &str = include_str!("api/openapi.json");

/// The API's addresses, below `/api/v1`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/openapi.json", get(description))
        .route("/me", get(me))
        .route("/agents", get(agents))
        .route("/decisions", get(record::decisions))
        .route("/export", get(record::export))
        .route("/history", get(record::history))
        .route("/connections/{agent}/{connection}", get(record::connection))
        .route("/actions", get(record::actions))
        .route("/approvals", get(approvals::list))
        .route("/approvals/{agent}/{request}", get(approvals::one))
        .route("/approvals/{agent}/{request}/decision", post(approvals::decide))
        .route("/policies", get(policies::list))
        .route("/policies/{version}", get(policies::one))
        .route("/policies/{version}/stage", post(policies::stage))
        .route("/policies/{version}/rollback", post(policies::rollback))
        .route("/policies/{version}/dry-run", get(policies::dry_run))
        .route("/policies/{version}/dry-run", post(policies::begin_dry_run))
        .route("/proofs/head", get(record::head))
        .route("/proofs/inclusion/{agent}/{sequence}", get(record::inclusion))
        .route("/proofs/consistency", post(record::consistency))
        .fallback(async || ApiFault(Fault::NotFound("such address")))
}

/// A fault as JSON.
#[derive(Debug)]
pub struct ApiFault(pub Fault);

impl<T: Into<Fault>> From<T> for ApiFault {
    fn from(fault: T) -> Self {
        Self(fault.into())
    }
}

impl IntoResponse for ApiFault {
    fn into_response(self) -> Response {
        let fault = self.0;
        fault.log();
        let status = fault.status();
        let mut response = (status, Json(json!({ "error": fault.told() }))).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What stands behind `?`; what cannot be read is said in JSON.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Asked<T> {
    type Rejection = ApiFault;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiFault> {
        let query = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        let query = query.map_err(|error| ApiFault(Fault::Bad(error.body_text())))?;
        Ok(Self(query.0))
    }
}

async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION).into_response()
}

async fn me(Caller(caller): Caller) -> Json<Value> {
    let roles: Vec<_> = caller.person.roles.iter().map(|role| role.name()).collect();
    Json(json!({ "name": caller.person.name, "roles": roles, "groups": caller.person.groups }))
}

async fn agents(State(app): State<App>, Caller(caller): Caller) -> Result<Json<Value>, ApiFault> {
    caller.must(&app, Right::See, "see-agents", "").await?;
    let agents = agents_now(&app).await?;
    let facts = app.readings.facts(&agents).await?;
    let nothing = Facts::default();
    let all = agents.iter().map(|agent| {
        let facts = facts.get(&agent.agent_id).unwrap_or(&nothing);
        let mut value = serde_json::to_value(agent).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.insert("connected".to_owned(), json!(agent.connected));
            fields.insert("protection".to_owned(), json!(level(agent, facts).name()));
            fields.insert("policy_hash".to_owned(), json!(facts.policy_hash));
            fields.insert("kernel".to_owned(), json!(facts.kernel));
        }
        value
    });
    Ok(Json(json!({ "agents": all.collect::<Vec<_>>() })))
}

#[cfg(test)]
mod tests;
