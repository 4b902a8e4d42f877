//! Which servers are observed: those that run and are not excepted, each by the program that it runs.

use std::{collections::HashMap, sync::Arc, sync::atomic::Ordering};

use super::{Observed, Observer};
use crate::{config::Config, sensor::ObservedServer, servers::Server};

impl Observer {
    /// Observes those of `servers` that `config` does not except, from now on, and no others.
    pub async fn refresh(&self, config: &Config, servers: &[Arc<Server>]) {
        let excepted = |server: &Server| {
            config.servers.iter().any(|configured| configured.name == server.name && !configured.observe)
        };
        let wanted: Vec<Arc<Server>> =
            servers.iter().filter(|server| server.pid.is_some() && !excepted(server)).cloned().collect();
        let shared = Arc::clone(&self.shared);
        // It reads /proc and program files.
        let looked = tokio::task::spawn_blocking(move || shared.state().look(&wanted)).await;
        let Ok(looked) = looked else { return };
        let places: Vec<ObservedServer> = looked.found.iter().map(|found| found.place.clone()).collect();
        let results = self.sensor.observe(places).await;
        let mut state = self.shared.state();
        let mut told: HashMap<String, (String, String)> = looked.failed.into_iter().collect();
        let mut observed = HashMap::new();
        for (found, result) in looked.found.into_iter().zip(results) {
            let name = found.server.name.clone();
            match result {
                Ok(()) => {
                    observed.insert(found.place.pid, found.server);
                    told.insert(name, (found.by, String::new()));
                }
                Err(error) => _ = told.insert(name, (String::new(), error)),
            }
        }
        for server in servers {
            let (by, error) = told.remove(&server.name).unwrap_or_default();
            let known = state.observed.entry(server.name.clone()).or_default();
            if known.by != by || known.error != error {
                tell(&server.name, &by, &error);
            }
            *known = Observed { by, error, ..known.clone() };
        }
        let changed = observed.keys().any(|pid| !state.servers.contains_key(pid));
        state.servers = observed;
        drop(state);
        if changed {
            self.shared.changed.store(true, Ordering::Release);
        }
    }
}

fn tell(server: &str, by: &str, error: &str) {
    if error.is_empty() {
        tracing::info!(server, "its statements are observed by {by}");
    } else {
        tracing::warn!(server, "its statements round the proxy are not seen: {error}");
    }
}

struct Found {
    server: Arc<Server>,
    place: ObservedServer,
    by: String,
}

struct Looked {
    found: Vec<Found>,
    /// By name: what sees it, which is nothing, and why.
    failed: Vec<(String, (String, String))>,
}

impl super::State {
    fn look(&mut self, servers: &[Arc<Server>]) -> Looked {
        let mut looked = Looked { found: Vec::new(), failed: Vec::new() };
        for server in servers {
            let Some(pid) = server.pid else { continue };
            match self.programs.server(pid) {
                Ok((place, program)) => {
                    let version = program.version.split(' ').next().unwrap_or_default();
                    let id: String = program.build_id.chars().take(12).collect();
                    let by = format!("probes in PostgreSQL {version} (build id {id})");
                    looked.found.push(Found { server: Arc::clone(server), place, by });
                }
                Err(error) => looked.failed.push((server.name.clone(), (String::new(), error.to_string()))),
            }
        }
        let places: Vec<ObservedServer> = looked.found.iter().map(|found| found.place.clone()).collect();
        self.programs.keep(&places);
        looked
    }
}
