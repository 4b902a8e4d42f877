//! The console as browsers and programs meet it: over real sockets, before a real store, with agents that have something
//! to tell.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something fails")]

#[path = "../control/agent.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod agent;
mod api;
mod approvals;
mod browser;
mod hostile;
mod live;
mod oidc;
mod people;
mod picture;
mod policies;
mod proofs;
mod replicas;
mod roles;
mod site;
mod slow;
mod tls;
mod webhooks;
