//! Statements that are seen in the servers themselves, whatever way they came: round the proxy, or inside of others.
//!
//! What the sensor's probes report enters; the same reading, the same policies and the same record as for the proxy's
//! statements leave. Nothing can be stopped here: a refusal is recorded as what would have been. It never holds up a
//! server, and what is lost is counted.

mod backend;
mod record;
mod runs;
mod servers;
mod tally;
mod text;
mod worker;

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use crate::{
    audit::AuditLog, config::ProxyConfig, connections::Connections, decide::Decider, hold::HeldServers,
    sensor::SensorHandle, servers::Server,
};

/// Classification may nest deeply.
const STACK: usize = 64 * 1024 * 1024;

/// Statements of one server that were seen without the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// What sees them: `probes in PostgreSQL 15.20`; empty for nothing.
    pub by: String,
    /// Why nothing does.
    pub error: String,
    /// Statements.
    pub statements: u64,
    /// Those that policy would have refused.
    pub refused: u64,
    /// Those that were lost.
    pub lost: u64,
}

/// Sees statements in servers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Observer {
    shared: Arc<Shared>,
    sensor: SensorHandle,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Which servers are observed has changed.
    changed: AtomicBool,
    ended: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Observed servers by their first process.
    servers: HashMap<u32, Arc<Server>>,
    observed: HashMap<String, Observed>,
    programs: crate::probes::Programs,
}

/// What the worker needs of the agent.
#[derive(Debug)]
pub struct Rooms {
    /// For the joining of statements to connections.
    pub connections: Connections,
    /// By which policies.
    pub decider: Arc<Decider>,
    /// Where it is recorded.
    pub audit: AuditLog,
    /// Caps on reading.
    pub limits: ProxyConfig,
    /// Servers whose statements are held: what does not run there is recorded there.
    pub held: HeldServers,
}

impl Observer {
    /// Starts to take what the probes report, where this kernel has them. Nothing is observed yet.
    pub fn start(sensor: &SensorHandle, rooms: Rooms) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let mut thread = None;
        if let Some(reader) = sensor.take_statements() {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name("guard-observe".to_owned()).stack_size(STACK);
            thread = Some(builder.spawn(move || worker::Worker::new(reader, shared, rooms).run())?);
        }
        Ok(Self { shared, sensor: sensor.clone(), thread: Arc::new(Mutex::new(thread)) })
    }

    /// What is seen of the server of that name.
    pub fn of(&self, server_name: &str) -> Observed {
        self.shared.state().observed.get(server_name).cloned().unwrap_or_default()
    }

    /// Records what is still counted and ends.
    pub async fn stop(&self) {
        self.shared.ended.store(true, Ordering::Release);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It writes some records at most.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete when the lock is released, whatever happened to its holder.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, server: &str, statements: u64, refused: u64, lost: u64) {
        let mut state = self.state();
        let observed = state.observed.entry(server.to_owned()).or_default();
        observed.statements += statements;
        observed.refused += refused;
        observed.lost += lost;
    }
}
