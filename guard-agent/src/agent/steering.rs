//! Keeps what is steered as the configuration and the servers of this host are, and ends it with the agent.

use std::sync::{Arc, PoisonError};

use guard_common::audit::v1::{Gap, record::Body};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    Agent,
    fleet::{Fleet, Member},
};
use crate::{
    config::{Steer, WhenProxyGone},
    listen::Listener,
    session::Proxy,
    steering::{self, Steering},
};

/// What takes a steered server's connections.
#[derive(Debug)]
pub(super) struct Steered {
    /// Serves them.
    pub(super) proxy: Arc<Proxy>,
    pub(super) accepting: Vec<JoinHandle<()>>,
}

/// Steers every server that is to be, follows those that have moved, and then takes away what earlier agents left.
pub(super) async fn refresh(agent: &Arc<Agent>, fleet: &mut Fleet) {
    for server in &agent.config.servers {
        let (Steer::On, Some(gone)) = (server.steer, server.when_proxy_gone) else { continue };
        let (threads, places) = (fleet.threads.clone(), Arc::clone(&fleet.places));
        let Some(member) = fleet.members.get_mut(&server.name) else { continue };
        let Some(result) = steer(agent, member, gone).await else { continue };
        match result {
            Ok(steered) => {
                for task in member.steered.accepting.drain(..) {
                    task.abort();
                }
                for listener in steered {
                    let proxy = Arc::clone(&member.steered.proxy);
                    let accepting = listener.run(proxy, threads.clone(), Arc::clone(&places));
                    member.steered.accepting.push(tokio::spawn(accepting));
                }
            }
            Err(error) => {
                agent.connections.set_steered(&server.name, !member.steering.is_empty());
                if member.steering_error != error {
                    tracing::error!(server = %server.name, "not steered: {error}");
                }
                member.steering_error = error;
            }
        }
    }
    let agent = Arc::clone(agent);
    // It works on files and in the kernel.
    let settle = tokio::task::spawn_blocking(move || with(&agent, |steering| account(&agent, steering)));
    let _ = settle.await;
}

/// New sockets for a server; `None` where those that there are go on.
async fn steer(
    agent: &Arc<Agent>,
    member: &mut Member,
    gone: WhenProxyGone,
) -> Option<Result<Vec<Listener>, String>> {
    let (server, shared) = (member.slot.get(), Arc::clone(agent));
    // Before the first of them arrives.
    agent.connections.set_steered(&server.name, true);
    let work = move || with(&shared, |steering| steering.steer(&server, gone));
    let result = match tokio::task::spawn_blocking(work).await {
        Ok(Some(Ok(None)) | None) => return None,
        Ok(Some(Ok(Some(steered)))) => accept(member, steered),
        Ok(Some(Err(error))) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match result {
        // It listens where it did: only addresses have changed.
        Ok(listeners) if listeners.is_empty() => None,
        other => Some(other),
    }
}

fn accept(member: &mut Member, steered: steering::Steered) -> Result<Vec<Listener>, String> {
    member.steered.proxy.ways.set_gate(Some(steered.gate));
    let listeners =
        steered.listeners.into_iter().map(|listener| TcpListener::from_std(listener).map(Listener::Steered));
    let listeners: Result<Vec<_>, _> = listeners.collect();
    let listeners = listeners.map_err(|error| error.to_string())?;
    member.steering = steered.description;
    member.steering_error.clear();
    // Where no other way leads to it, the gate does.
    member.proxy_error.clear();
    Ok(listeners)
}

/// Nobody could record these connections; that there were some is on record.
fn account(agent: &Agent, steering: &mut Steering) {
    let meanwhile = steering.settle();
    for (lost, what) in [(meanwhile.refused, "refused"), (meanwhile.passed, "let through to the server")] {
        if lost > 0 {
            tracing::warn!("{lost} connections to steered servers were {what} while no agent ran");
            agent.audit.record(Body::Gap(Gap {
                source: "steering".to_owned(),
                lost,
                detail: format!("connections to steered servers that were {what} while no agent ran"),
                ..Gap::default()
            }));
        }
    }
}

/// Leads no more connections here, unless the configuration says that it stays so. Before the sockets close.
pub(super) async fn stop(agent: &Agent) -> Option<Steering> {
    let mut steering = agent.steering.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    let stopped = tokio::task::spawn_blocking(move || {
        steering.stop();
        steering
    });
    stopped.await.ok()
}

/// The last session has ended.
pub(super) async fn stopped(steering: Option<Steering>) {
    if let Some(steering) = steering {
        let _ = tokio::task::spawn_blocking(move || steering.stopped()).await;
    }
}

fn with<T>(agent: &Agent, work: impl FnOnce(&mut Steering) -> T) -> Option<T> {
    agent.steering.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(work)
}
