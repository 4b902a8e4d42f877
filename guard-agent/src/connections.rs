//! The connection table: kernel accepts and proxy sessions enter, one record per connection leaves.
//!
//! An accept on a database's socket that the proxy made itself belongs to a proxied connection; everything else is
//! non-proxied access, which is decided on and recorded. Nothing is dropped silently: what cannot be joined is
//! recorded as non-proxied, what cannot be followed as a gap.

mod joined;
mod proxied;
mod records;
mod table;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use guard_common::{
    audit::v1::{ConnectionOpened, Decision, Gap, connection_opened::Access, record::Body},
    kernel::EventKind,
};
use tokio::sync::mpsc;

pub use guard_common::audit::v1::connection_opened::Transport;
pub use joined::Joined;
pub use proxied::{ConnectionId, Ending, ProxiedConnection, UpstreamSocket};

use crate::{
    audit::AuditLog,
    decide::{ConnectRequest, Decider},
    identity::Workload,
    sensor::{Accepted, Closed, Endpoint, Lost, SensorEvent, SocketId},
    servers::Server,
};
use joined::Joins;
use table::{Arrival, NonProxied, Table, upstream_of};

/// How often accepts that wait for their session are looked at.
const TICK: Duration = Duration::from_millis(250);

/// A connection that the proxy has accepted and decided on.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Who connects.
    pub workload: Arc<Workload>,
    /// To which server.
    pub server: Arc<Server>,
    /// How the client reached the proxy.
    pub transport: Transport,
    /// The client's end; for TCP.
    pub client_address: Option<SocketAddr>,
    /// The end that the client connected to; for TCP.
    pub server_address: Option<SocketAddr>,
    /// The proxy's socket; for unix sockets.
    pub unix_path: Option<PathBuf>,
    /// The decision on `connect`.
    pub decision: Arc<Decision>,
}

/// Connections of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Through the proxy, now.
    pub proxied_open: u64,
    /// Through the proxy, since the agent started.
    pub proxied_total: u64,
    /// Round the proxy, now.
    pub non_proxied_open: u64,
    /// Round the proxy, since the agent started.
    pub non_proxied_total: u64,
}

/// The connection table; cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    audit: AuditLog,
    decider: Arc<Decider>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    table: Table,
    joins: Joins,
    servers: Vec<Arc<Server>>,
    counts: HashMap<String, Counts>,
    /// Connections whose end will not be recorded, since the last gap record.
    unfollowed: u64,
    unfollowed_since: Option<SystemTime>,
}

impl Connections {
    /// An empty table.
    pub fn new(audit: AuditLog, decider: Arc<Decider>) -> Self {
        Self { shared: Arc::new(Shared { audit, decider, state: Mutex::default() }) }
    }

    /// The servers whose connections are recorded from now on.
    pub fn set_servers(&self, servers: Vec<Arc<Server>>) {
        self.state().servers = servers;
    }

    /// Connections of the server of that name.
    pub fn counts(&self, server_name: &str) -> Counts {
        self.state().counts.get(server_name).copied().unwrap_or_default()
    }

    /// Records a connection through the proxy. It stays open until it is closed or dropped.
    pub fn open_proxied(&self, opening: Opening) -> ProxiedConnection {
        let id = ConnectionId::new();
        {
            let mut state = self.state();
            let counts = state.counts.entry(opening.server.name.clone()).or_default();
            counts.proxied_open += 1;
            counts.proxied_total += 1;
        }
        self.shared.audit.record(Body::ConnectionOpened(records::opened_proxied(&id, &opening)));
        let joined = Joined {
            id,
            workload: opening.workload,
            server: opening.server,
            transport: if opening.transport == Transport::Unix { "unix" } else { "tcp" },
            proxied: true,
        };
        ProxiedConnection::new(self.clone(), joined)
    }

    /// The connection that ends in a server's socket with this cookie (0: none) and inode number.
    pub fn joined(&self, cookie: u64, inode: u64) -> Option<Arc<Joined>> {
        let state = self.state();
        let by_cookie = (cookie != 0).then(|| state.joins.find(SocketId::Cookie(cookie))).flatten();
        by_cookie.or_else(|| state.joins.find(SocketId::Inode(inode)))
    }

    /// Joins what the sensor tells until it ends.
    pub async fn run(self, mut events: mpsc::Receiver<SensorEvent>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.handle(event),
                    None => break,
                },
                _ = ticks.tick() => self.tick(Instant::now()),
            }
        }
        // What still waits for its session would be lost otherwise.
        self.tick(Instant::now() + table::JOIN_WITHIN);
    }

    fn handle(&self, event: SensorEvent) {
        match event {
            SensorEvent::Accepted(accepted) => self.accepted(accepted),
            SensorEvent::Closed(closed) => self.closed(&closed),
            SensorEvent::Lost(lost) => self.shared.audit.record(Body::Gap(kernel_gap(&lost))),
            SensorEvent::State(state) => self.shared.audit.record(Body::SensorState(state)),
        }
    }

    fn accepted(&self, accepted: Accepted) {
        let mut state = self.state();
        let Some(server) = server_of(&state.servers, &accepted.endpoint) else { return };
        if accepted.workload.pid == std::process::id() {
            state.joins.accepted(accepted.socket, upstream_of(&accepted.endpoint));
        }
        let arrival = state.table.accepted(accepted, server, Instant::now());
        drop(state);
        if let Arrival::NonProxied(access) = arrival {
            self.non_proxied(access, None);
        }
    }

    fn closed(&self, closed: &Closed) {
        let mut state = self.state();
        state.joins.closed(closed.socket);
        let Some(ended) = state.table.closed(closed) else { return };
        let counts = state.counts.entry(ended.server.name.clone()).or_default();
        counts.non_proxied_open = counts.non_proxied_open.saturating_sub(1);
        drop(state);
        self.shared.audit.record(Body::ConnectionClosed(records::closed_non_proxied(&ended, closed)));
    }

    /// Decides on and records an access round the proxy.
    fn non_proxied(&self, access: NonProxied, reason: Option<&str>) {
        let NonProxied { accepted, server, closed } = access;
        let id = ConnectionId::new();
        let transport = match accepted.endpoint {
            Endpoint::Tcp { .. } => "tcp",
            Endpoint::Unix { .. } => "unix",
        };
        let workload = accepted.workload.as_ref();
        let request = ConnectRequest { workload, server: &server, proxied: false, transport };
        let mut decision = Decision::clone(&self.shared.decider.connect(&request));
        if let Some(reason) = reason {
            let decided =
                if decision.reason.is_empty() { String::new() } else { format!("; {}", decision.reason) };
            decision.reason = format!("{reason}{decided}");
        }
        let opened: ConnectionOpened = records::opened(&id, Access::NonProxied, &accepted, &server, decision);
        let followed = {
            let mut state = self.state();
            let followed = state.table.follow(&id, &accepted, &server);
            let workload = Arc::clone(&accepted.workload);
            let joined = Joined { id, workload, server: Arc::clone(&server), transport, proxied: false };
            state.joins.opened(accepted.socket, joined);
            if !followed {
                state.unfollowed += 1;
                state.unfollowed_since.get_or_insert_with(SystemTime::now);
            }
            let counts = state.counts.entry(server.name.clone()).or_default();
            counts.non_proxied_total += 1;
            counts.non_proxied_open += u64::from(followed);
            followed
        };
        self.shared.audit.record(Body::ConnectionOpened(opened));
        if let (true, Some(closed)) = (followed, closed) {
            self.closed(&closed);
        }
    }

    fn tick(&self, now: Instant) {
        let (overdue, unfollowed, since) = {
            let mut state = self.state();
            let overdue = state.table.overdue(now);
            (overdue, std::mem::take(&mut state.unfollowed), state.unfollowed_since.take())
        };
        for access in overdue {
            self.non_proxied(access, Some("made by guard-agent itself, but not for any session"));
        }
        if unfollowed > 0 {
            self.shared.audit.record(Body::Gap(Gap {
                source: "connection-table".to_owned(),
                lost: unfollowed,
                since: since.map(guard_common::audit::timestamp),
                until: Some(guard_common::audit::timestamp(SystemTime::now())),
                detail: "the table is full: the end of these connections is not recorded".to_owned(),
            }));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete when the lock is released, whatever happened to its holder.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kernel_gap(lost: &Lost) -> Gap {
    let statements = [EventKind::Statement, EventKind::StatementText, EventKind::Backend];
    let of_statements = statements.iter().any(|kind| kind.name() == lost.kind);
    let key = if of_statements { "statement_ring_kib" } else { "ring_kib" };
    Gap {
        source: "kernel-ring".to_owned(),
        lost: lost.lost,
        since: Some(guard_common::audit::timestamp(lost.since)),
        until: Some(guard_common::audit::timestamp(lost.until)),
        detail: format!("{} events; a larger `sensor.{key}` holds more", lost.kind),
    }
}

/// The server at the end of a connection that was accepted on a watched port or path. Its own address first, then
/// one that listens everywhere, and the port alone at last: a server that is configured by one address may listen
/// on others, and that must be no way round.
fn server_of(servers: &[Arc<Server>], endpoint: &Endpoint) -> Option<Arc<Server>> {
    let found = match endpoint {
        Endpoint::Unix { path, .. } => servers.iter().find(|server| server.unix_sockets.contains(path)),
        Endpoint::Tcp { server: address, .. } => {
            let with = |matches: &dyn Fn(&SocketAddr) -> bool| {
                servers.iter().find(|server| {
                    server.addresses.iter().any(|own| own.port() == address.port() && matches(own))
                })
            };
            with(&|own| own.ip().to_canonical() == address.ip())
                .or_else(|| with(&|own| own.ip().is_unspecified()))
                .or_else(|| with(&|_| true))
        }
    };
    found.cloned()
}

#[cfg(test)]
mod tests;
