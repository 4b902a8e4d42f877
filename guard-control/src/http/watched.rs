//! Counts and health for monitoring systems, with or without a console beside them.
//!
//! Whoever reaches the address may ask: what leaves are numbers and the names of outlets, never a host, a person or a record.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::watch;
use tower_http::limit::RequestBodyLimitLayer;

use super::{app::App, fault::Fault, metrics::Metrics};
use crate::{outlets, server::Fleet, store::StoreError};

/// What is watched.
#[derive(Clone)]
pub struct Watched {
    /// Hosts as they are now.
    pub fleet: Fleet,
    /// The console, where there is one: it counts its own answers.
    pub console: Option<App>,
    /// The control plane is stopping.
    pub stopping: watch::Receiver<bool>,
}

/// What is answered.
pub fn router(watched: Watched) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .layer(RequestBodyLimitLayer::new(1024))
        .with_state(Arc::new(watched))
}

async fn metrics(State(watched): State<Arc<Watched>>) -> Response {
    let none = Metrics::default();
    let counts = watched.console.as_ref().map_or(&none, |app| &app.metrics);
    match text(&watched.fleet, counts).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => unready(error.into()),
    }
}

async fn ready(State(watched): State<Arc<Watched>>) -> Response {
    if *watched.stopping.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    match watched.fleet.store.agents().await {
        Ok(_) => "ready\n".into_response(),
        Err(error) => unready(error.into()),
    }
}

fn unready(fault: Fault) -> Response {
    fault.log();
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", fault.told())).into_response()
}

/// Everything that is counted, as Prometheus reads it.
pub async fn text(fleet: &Fleet, counts: &Metrics) -> Result<String, StoreError> {
    let mut agents = fleet.store.agents().await?;
    for agent in &mut agents {
        agent.connected = fleet.sessions.is_connected(&agent.agent_id);
    }
    let mut text = counts.text(&agents, fleet.waiting.list(None).len());
    text.push_str(&outlets::state::metrics(&outlets::state::states(&fleet.store).await?));
    Ok(text)
}
