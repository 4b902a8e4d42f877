//! What people see: pages made here, whole, for browsers that need no script to show them.
//!
//! What was recorded enters, HTML leaves. Whatever a client has written is text here: maud escapes it, and `show` makes
//! visible what would hide or turn around what stands beside it. Nothing is inline; nothing comes from elsewhere.

mod account;
mod actions;
mod agents;
mod approvals;
mod assets;
pub mod chart;
mod connection;
pub mod export;
mod live;
mod overview;
pub mod page;
mod people;
pub mod policies;
mod reported;
mod round;
pub mod search;
pub mod show;
mod sign_in;
pub mod verification;

use axum::{
    Router,
    routing::{get, post},
};
use guard_common::api::control::Agent;

pub use self::approvals::say;
use crate::{
    http::{app::App, fault::Fault},
    store::StoreError,
};

/// The pages' addresses.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/", get(overview::page))
        .route("/live", get(live::page))
        .route("/live/events", get(live::events))
        .route("/round-the-proxy", get(round::page))
        .route("/search", get(search::page))
        .route("/search/save", post(search::save))
        .route("/search/forget", post(search::forget))
        .route("/export", get(export::download))
        .route("/connections/{agent}/{connection}", get(connection::page))
        .route("/approvals", get(approvals::inbox))
        .route("/approvals/{agent}/{request}", get(approvals::page).post(approvals::decide))
        .route("/agents", get(agents::list))
        .route("/agents/{agent}", get(agents::page))
        .route("/policies", get(policies::page))
        .route("/policies/{version}", get(policies::version::page))
        .route("/policies/{version}/stage", post(policies::actions::stage))
        .route("/policies/{version}/rollback", post(policies::actions::rollback))
        .route("/policies/{version}/dry-run", post(policies::actions::dry_run))
        .route("/verification", get(verification::page))
        .route("/verification/head", get(verification::head))
        .route("/verification/inclusion", get(verification::inclusion))
        .route("/verification/consistency", post(verification::consistency))
        .route("/actions", get(actions::page))
        .route("/people", get(people::list).post(people::add))
        .route("/people/{id}", get(people::page).post(people::change))
        .route("/people/{id}/reset", post(people::reset))
        .route("/tokens", get(people::tokens).post(people::make_token))
        .route("/tokens/revoke", post(people::revoke_token))
        .route("/account", get(account::page))
        .route("/account/password", post(account::password))
        .route("/account/tokens", post(account::make_token))
        .route("/account/tokens/revoke", post(account::revoke_token))
        .route("/sign-in", get(sign_in::page).post(sign_in::password))
        .route("/sign-in/elsewhere", get(sign_in::elsewhere))
        .route("/sign-in/back", get(sign_in::back))
        .route("/sign-out", post(sign_in::out))
        .route("/static/{name}", get(assets::file))
}

/// All agents, with who is connected.
pub async fn agents_now(app: &App) -> Result<Vec<Agent>, StoreError> {
    let mut agents = app.fleet.store.agents().await?;
    for agent in &mut agents {
        agent.connected = app.fleet.sessions.is_connected(&agent.agent_id);
    }
    Ok(agents)
}

/// One agent.
async fn agent_now(app: &App, agent_id: &str) -> Result<Agent, Fault> {
    let agents = agents_now(app).await?;
    agents.into_iter().find(|agent| agent.agent_id == agent_id).ok_or(Fault::NotFound("such agent"))
}
