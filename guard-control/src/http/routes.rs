//! Which address leads where; what every request passes on its way.

use std::{sync::atomic::Ordering, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tower_http::{limit::RequestBodyLimitLayer, timeout::TimeoutLayer};

use super::{Peer, app::App, fault::Fault, headers, signed::Caller, watched};
use crate::{api, console, people::Right};

/// Largest body of a request in bytes.
const MAX_BODY: usize = 64 * 1024;
/// How long an answer may take to begin.
const ANSWER_TIME: Duration = Duration::from_secs(40);

/// Everything that the console answers.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .merge(console::routes())
        .nest("/api/v1", api::routes())
        .fallback(async || Fault::NotFound("such page"))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(RequestBodyLimitLayer::new(MAX_BODY))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER_TIME))
        .layer(middleware::from_fn_with_state(app.clone(), admit))
        .layer(middleware::from_fn_with_state(app.clone(), headers::put_on))
        .with_state(app)
}

/// Whether whoever asks may ask again, and from here.
async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let peer = request.extensions().get::<Peer>().copied();
    let fault = match peer {
        Some(Peer(peer)) if !app.ordinary.admits(app.client(peer, headers)) => {
            app.metrics.limited.fetch_add(1, Ordering::Relaxed);
            Some(Fault::TooMany)
        }
        _ if !request.method().is_safe() && is_from_elsewhere(headers) => Some(Fault::Form),
        _ => None,
    };
    let response = match fault {
        Some(fault) => fault.into_response(),
        None => next.run(request).await,
    };
    app.metrics.answered(response.status().as_u16());
    response
}

/// A browser says that another site sends this. Programs say nothing, and have tokens.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text("origin") else { return false };
    let host = text(header::HOST.as_str());
    origin.split_once("://").is_none_or(|(_, origin)| Some(origin) != host)
}

async fn ready(State(app): State<App>) -> Response {
    let store = app.fleet.store.agents().await.map(drop).map_err(Fault::from);
    let people = app.people.with(|book| book.people().map(drop)).await.map_err(Fault::from);
    let stopping = *app.stopping.borrow();
    match store.and(people) {
        Ok(()) if !stopping => "ready\n".into_response(),
        Ok(()) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
        Err(fault) => {
            fault.log();
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", fault.told())).into_response()
        }
    }
}

async fn metrics(State(app): State<App>, Caller(caller): Caller) -> Result<Response, api::ApiFault> {
    caller.must(&app, Right::See, "metrics", "").await?;
    let text = watched::text(&app.fleet, &app.metrics).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_sites_send_no_forms() {
        let from = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, header::HeaderValue::from_static(value));
            }
            is_from_elsewhere(&headers)
        };
        assert!(!from(&[]));
        assert!(!from(&[("sec-fetch-site", "same-origin")]) && !from(&[("sec-fetch-site", "none")]));
        assert!(from(&[("sec-fetch-site", "cross-site")]) && from(&[("sec-fetch-site", "same-site")]));
        assert!(!from(&[("origin", "https://guard:7443"), ("host", "guard:7443")]));
        assert!(from(&[("origin", "https://evil"), ("host", "guard:7443")]));
        assert!(from(&[("origin", "null"), ("host", "guard:7443")]));
    }
}
