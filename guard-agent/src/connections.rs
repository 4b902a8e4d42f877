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
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use guard_common::{
    audit::v1::{
        ConnectionOpened, Decision, Enforcement, Gap, Loss, connection_opened::Access, decision::Verdict,
        enforcement::Action, record::Body, workload::Evidence,
    },
    kernel::EventKind,
};
use tokio::sync::{Notify, mpsc};

pub use guard_common::audit::v1::connection_opened::Transport;
pub use joined::Joined;
pub use proxied::{ConnectionId, Ending, ProxiedConnection, UpstreamSocket};

use crate::{
    audit::AuditLog,
    clients::Clients,
    decide::{ConnectRequest, Decider},
    enforce::{self, Enforcer},
    identity::Workload,
    sensor::{Accepted, Closed, Endpoint, Lost, Refused, SensorEvent, SocketId, Way, namespace},
    servers::Server,
};
use joined::Joins;
use table::{Arrival, NonProxied, Table, upstream_of};

/// How often accepts that wait for their session are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long a connection whose client the kernel did not name waits for a session that has made it, before it is cut.
const CLAIMED_WITHIN: Duration = Duration::from_millis(100);

/// Accepts that wait until it is known which server they are for.
const UNPLACED: usize = 4_096;

/// The agent's own network namespace; it does not change while the agent runs.
static OWN_NAMESPACE: LazyLock<Option<u64>> = LazyLock::new(namespace::own);

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
    /// When the newest of these began.
    pub last_non_proxied: Option<SystemTime>,
    /// Attempts to go round the proxy that the kernel has refused, since the agent started.
    pub non_proxied_refused: u64,
    /// Of those round the proxy: ended by guard.
    pub non_proxied_cut: u64,
    /// Of those round the proxy: refused by policy, and not stopped.
    pub non_proxied_not_stopped: u64,
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
    /// What acts on refused connections; nothing where nothing can.
    enforcer: OnceLock<Arc<Enforcer>>,
    /// What reports connections to other hosts; nothing where nobody wants to know.
    clients: OnceLock<Clients>,
    state: Mutex<State>,
    new_place: Notify,
}

#[derive(Debug, Default)]
struct State {
    table: Table,
    joins: Joins,
    servers: Vec<Arc<Server>>,
    /// Names of servers whose connections are steered to the proxy.
    steered: HashSet<String>,
    counts: HashMap<String, Counts>,
    /// Accepts in a place where no server is known yet: it may be a new one.
    unplaced: VecDeque<(Instant, Accepted, Option<Closed>)>,
    /// Events that the kernel side lost, by program and CPU, since the agent started.
    losses: BTreeMap<(&'static str, u32), u64>,
    /// All that was lost since then.
    lost: u64,
    /// Connections whose end will not be recorded, since the last gap record.
    unfollowed: u64,
    unfollowed_since: Option<SystemTime>,
}

impl Connections {
    /// An empty table.
    pub fn new(audit: AuditLog, decider: Arc<Decider>) -> Self {
        Self {
            shared: Arc::new(Shared {
                audit,
                decider,
                enforcer: OnceLock::new(),
                clients: OnceLock::new(),
                state: Mutex::default(),
                new_place: Notify::new(),
            }),
        }
    }

    /// Connections round the proxy that are refused are acted on by `enforcer`. The first one stays.
    pub fn act_by(&self, enforcer: Arc<Enforcer>) {
        let _ = self.shared.enforcer.set(enforcer);
    }

    /// Connections of this host's processes to other hosts are `clients`' matter. The first one stays.
    pub fn report_by(&self, clients: Clients) {
        let _ = self.shared.clients.set(clients);
    }

    /// The servers whose connections are recorded from now on.
    pub fn set_servers(&self, servers: Vec<Arc<Server>>) {
        let waiting = {
            let mut state = self.state();
            state.servers = servers;
            std::mem::take(&mut state.unplaced)
        };
        for (at, accepted, closed) in waiting {
            self.place(at, accepted, closed);
        }
    }

    /// The server of that name has gone for good.
    pub fn forget(&self, server_name: &str) {
        self.state().counts.remove(server_name);
    }

    /// Told when a connection was accepted where no server is known: somebody should look for new ones.
    pub fn new_place(&self) -> &Notify {
        &self.shared.new_place
    }

    /// Events that the kernel side lost since the agent started, and all that was lost, the agent's own part included.
    pub fn losses(&self) -> (Vec<Loss>, u64) {
        let state = self.state();
        let losses = state.losses.iter().map(|((program, cpu), lost)| Loss {
            program: (*program).to_owned(),
            cpu: *cpu,
            lost: *lost,
        });
        (losses.collect(), state.lost)
    }

    /// Whether connections to that server's own addresses are steered to the proxy from now on: what arrives there is the
    /// proxy's then, or has slipped through.
    pub fn set_steered(&self, server_name: &str, steered: bool) {
        let mut state = self.state();
        if steered {
            state.steered.insert(server_name.to_owned());
        } else {
            state.steered.remove(server_name);
        }
    }

    /// Whether connections to that server's own addresses reach the proxy.
    pub fn is_steered(&self, server_name: &str) -> bool {
        self.state().steered.contains(server_name)
    }

    /// The proxy has taken a connection from `client` to `server`, an address of a steered server. To be called as soon as
    /// it is accepted.
    pub fn taken(&self, client: SocketAddr, server: SocketAddr) {
        self.state()
            .table
            .taken(UpstreamSocket::Tcp { local: client, peer: server }.canonical(), Instant::now());
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
        self.tick(Instant::now() + table::TAKEN_WITHIN);
    }

    fn handle(&self, event: SensorEvent) {
        match event {
            SensorEvent::Accepted(accepted) => self.place(Instant::now(), accepted, None),
            SensorEvent::Closed(closed) => self.closed(&closed),
            SensorEvent::Refused(refused) => self.refused(&refused),
            SensorEvent::Connected(connected) => {
                if let Some(clients) = self.shared.clients.get() {
                    clients.connected(&connected);
                }
            }
            SensorEvent::Lost(lost) => self.lost(&lost),
            SensorEvent::State(state) => self.shared.audit.record(Body::SensorState(state)),
        }
    }

    /// Finds the server that has accepted. Where none is known at that place, one may have started a moment ago.
    fn place(&self, at: Instant, accepted: Accepted, closed: Option<Closed>) {
        let mut state = self.state();
        match server_of(&state.servers, &accepted) {
            Found::Server(server) => {
                drop(state);
                self.accepted(accepted, server, closed);
            }
            Found::Elsewhere(_) if state.unplaced.len() < UNPLACED => {
                state.unplaced.push_back((at, accepted, closed));
                drop(state);
                self.shared.new_place.notify_one();
            }
            Found::Elsewhere(server) => {
                drop(state);
                self.misplaced(accepted, server, closed);
            }
            Found::Nothing => {}
        }
    }

    /// Nobody knows what listens there, but it listens on a database's port: better under another name than not at all.
    /// It may be another service: it is not cut.
    fn misplaced(&self, accepted: Accepted, server: Arc<Server>, closed: Option<Closed>) {
        let access = NonProxied { accepted, server, closed };
        let mut decision = self.decide_on(&access, Some("accepted in a place where no server is known"));
        let enforcement = (decision.verdict() == Verdict::Refused)
            .then(|| enforce::not_acted(&mut decision, "nobody knows whether it is this server"));
        self.open(access, decision, enforcement);
    }

    fn accepted(&self, accepted: Accepted, server: Arc<Server>, closed: Option<Closed>) {
        let arrival = {
            let mut state = self.state();
            if accepted.workload.pid == std::process::id() {
                state.joins.accepted(accepted.socket, upstream_of(&accepted.endpoint));
            }
            let steered = state.steered.contains(&server.name);
            state.table.accepted(accepted, server, steered, Instant::now())
        };
        if let Arrival::NonProxied(access) = arrival {
            self.non_proxied(access, None);
        }
        if let Some(closed) = closed {
            self.closed(&closed);
        }
    }

    fn closed(&self, closed: &Closed) {
        let mut state = self.state();
        state.joins.closed(closed.socket);
        if let Some((_, _, end)) =
            state.unplaced.iter_mut().rev().find(|(_, accepted, _)| accepted.socket == closed.socket)
        {
            *end = Some(closed.clone());
            return;
        }
        let Some(ended) = state.table.closed(closed) else { return };
        let counts = state.counts.entry(ended.server.name.clone()).or_default();
        counts.non_proxied_open = counts.non_proxied_open.saturating_sub(1);
        let lost = state.lost;
        drop(state);
        self.shared.audit.record(Body::ConnectionClosed(records::closed_non_proxied(&ended, closed, lost)));
    }

    fn lost(&self, lost: &Lost) {
        {
            let mut state = self.state();
            state.lost += lost.lost;
            for (cpu, count) in &lost.by_cpu {
                *state.losses.entry((lost.program(), *cpu)).or_default() += count;
            }
        }
        self.shared.audit.record(Body::Gap(kernel_gap(lost)));
    }

    /// Decides on and records an access round the proxy; one that is refused is cut first.
    fn non_proxied(&self, access: NonProxied, reason: Option<&str>) {
        let mut decision = self.decide_on(&access, reason);
        if decision.verdict() != Verdict::Refused {
            return self.open(access, decision, None);
        }
        let enforcement = match (&access.closed, self.shared.enforcer.get()) {
            (Some(_), _) => enforce::not_acted(&mut decision, "it had ended before it was decided on"),
            (None, None) => enforce::not_acted(&mut decision, "nothing here can stop it"),
            (None, Some(enforcer)) => {
                self.state().table.begin_cut(access.accepted.socket);
                tokio::spawn(self.clone().cut(Arc::clone(enforcer), access, decision));
                return;
            }
        };
        self.open(access, decision, Some(enforcement));
    }

    fn decide_on(&self, access: &NonProxied, reason: Option<&str>) -> Decision {
        let transport = transport_of(&access.accepted.endpoint);
        let mut decision = self.decide(&access.accepted.workload, &access.server, transport);
        if let Some(reason) = reason {
            let decided =
                if decision.reason.is_empty() { String::new() } else { format!("; {}", decision.reason) };
            decision.reason = format!("{reason}{decided}");
        }
        decision
    }

    fn decide(&self, workload: &Workload, server: &Server, transport: &'static str) -> Decision {
        let request = ConnectRequest { workload, server, proxied: false, transport };
        Decision::clone(&self.shared.decider.connect(&request))
    }

    /// Cuts an access round the proxy and records what came of it.
    async fn cut(self, enforcer: Arc<Enforcer>, access: NonProxied, mut decision: Decision) {
        let socket = access.accepted.socket;
        if access.accepted.workload.evidence() != Evidence::Attested {
            // Whoever it is, a session may have made it: of guard's own connections none is cut.
            tokio::time::sleep(CLAIMED_WITHIN).await;
            let mut state = self.state();
            if state.table.claimed(&access.accepted) {
                let ended = state.table.end_cut(socket);
                drop(state);
                return ended.iter().for_each(|closed| self.closed(closed));
            }
        }
        let enforcement = enforcer.cut(&access.accepted, &access.server, &mut decision).await;
        self.open(access, decision, Some(enforcement));
    }

    /// Records an access round the proxy, and follows it to its end.
    fn open(&self, access: NonProxied, decision: Decision, enforcement: Option<Enforcement>) {
        let NonProxied { accepted, server, closed } = access;
        let id = ConnectionId::new();
        let action = enforcement.as_ref().map(Enforcement::action);
        let transport = transport_of(&accepted.endpoint);
        let mut opened: ConnectionOpened =
            records::opened(&id, Access::NonProxied, &accepted, &server, decision);
        opened.enforcement = enforcement;
        let (followed, closed) = {
            let mut state = self.state();
            // From one to the other without a gap, in which its end would be missed.
            let closed = closed.or_else(|| state.table.end_cut(accepted.socket));
            let cut = action == Some(Action::Cut);
            let lost = state.lost;
            let followed = state.table.follow(&id, &accepted, &server, lost, cut);
            let workload = Arc::clone(&accepted.workload);
            let joined = Joined { id, workload, server: Arc::clone(&server), transport, proxied: false };
            state.joins.opened(accepted.socket, joined);
            if !followed {
                state.unfollowed += 1;
                state.unfollowed_since.get_or_insert_with(SystemTime::now);
            }
            let counts = state.counts.entry(server.name.clone()).or_default();
            counts.non_proxied_total += 1;
            counts.last_non_proxied = Some(SystemTime::now());
            counts.non_proxied_open += u64::from(followed);
            counts.non_proxied_cut += u64::from(cut);
            counts.non_proxied_not_stopped += u64::from(action == Some(Action::Failed));
            (followed, closed)
        };
        self.shared.audit.record(Body::ConnectionOpened(opened));
        if let (true, Some(closed)) = (followed, closed) {
            self.closed(&closed);
        }
    }

    /// Records an attempt that the kernel has refused.
    fn refused(&self, refused: &Refused) {
        let mut state = self.state();
        let server = state.servers.iter().find(|server| server.name == refused.server).cloned();
        let Some(server) = server else { return };
        let counts = state.counts.entry(server.name.clone()).or_default();
        counts.non_proxied_refused += u64::from(refused.attempts);
        drop(state);
        let transport = if matches!(refused.way, Way::ConnectUnix { .. }) { "unix" } else { "tcp" };
        let mut decision = self.decide(&refused.workload, &server, transport);
        // Policies may have changed since: what has happened is what counts.
        decision.set_verdict(Verdict::Refused);
        let mut enforcement = enforce::refused_in_kernel(matches!(refused.way, Way::Listener { .. }));
        enforcement.attempts = if refused.attempts > 1 { refused.attempts } else { 0 };
        let record = records::refused(&ConnectionId::new(), refused, &server, decision, enforcement);
        self.shared.audit.record(Body::ConnectionOpened(record));
    }

    fn tick(&self, now: Instant) {
        let (overdue, unfollowed, since) = {
            let mut state = self.state();
            let overdue = state.table.overdue(now);
            (overdue, std::mem::take(&mut state.unfollowed), state.unfollowed_since.take())
        };
        let misplaced: Vec<_> = {
            let mut state = self.state();
            let due = |at: &Instant| now.saturating_duration_since(*at) >= table::JOIN_WITHIN;
            let count = state.unplaced.iter().take_while(|(at, _, _)| due(at)).count();
            let due: Vec<_> = state.unplaced.drain(..count).collect();
            let found = due.into_iter().filter_map(|(_, accepted, closed)| {
                let server = server_of(&state.servers, &accepted).into_server()?;
                Some((accepted, server, closed))
            });
            found.collect()
        };
        for (accepted, server, closed) in misplaced {
            self.misplaced(accepted, server, closed);
        }
        for (access, reason) in overdue {
            self.non_proxied(access, Some(reason));
        }
        if unfollowed > 0 {
            self.shared.audit.record(Body::Gap(Gap {
                source: "connection-table".to_owned(),
                lost: unfollowed,
                since: since.map(guard_common::audit::timestamp),
                until: Some(guard_common::audit::timestamp(SystemTime::now())),
                detail: "the table is full: the end of these connections is not recorded".to_owned(),
                losses: Vec::new(),
            }));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete when the lock is released, whatever happened to its holder.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn transport_of(endpoint: &Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Tcp { .. } => "tcp",
        Endpoint::Unix { .. } => "unix",
    }
}

fn kernel_gap(lost: &Lost) -> Gap {
    let own = lost.by_cpu.is_empty();
    let losses = lost.by_cpu.iter().map(|(cpu, count)| Loss {
        program: lost.program().to_owned(),
        cpu: *cpu,
        lost: *count,
    });
    let statements = [EventKind::Statement, EventKind::StatementText, EventKind::Backend];
    let of_statements = statements.iter().any(|kind| kind.name() == lost.kind);
    let key = if of_statements { "statement_ring_kib" } else { "ring_kib" };
    Gap {
        source: if own { "sensor-queue" } else { "kernel-ring" }.to_owned(),
        lost: lost.lost,
        since: Some(guard_common::audit::timestamp(lost.since)),
        until: Some(guard_common::audit::timestamp(lost.until)),
        detail: if own {
            "events that guard-agent could not take in time: it has too little of the processor".to_owned()
        } else {
            format!("{} events; a larger `sensor.{key}` holds more", lost.kind)
        },
        losses: losses.collect(),
    }
}

/// Which server an accept belongs to.
enum Found {
    Server(Arc<Server>),
    /// None that is known to be there; this one listens on the same port or path somewhere else.
    Elsewhere(Arc<Server>),
    Nothing,
}

impl Found {
    fn into_server(self) -> Option<Arc<Server>> {
        match self {
            Self::Server(server) | Self::Elsewhere(server) => Some(server),
            Self::Nothing => None,
        }
    }
}

/// The server at the end of a connection that was accepted on a watched port or path: the one in the same network
/// namespace, and of several the one whose process has accepted.
fn server_of(servers: &[Arc<Server>], accepted: &Accepted) -> Found {
    let is_there = |server: &&Arc<Server>| {
        let namespace = server.elsewhere.as_ref().and_then(|elsewhere| elsewhere.namespace);
        match (namespace, accepted.namespace) {
            // A kernel whose layout is not known tells none.
            (_, 0) => true,
            (Some(namespace), accepted) => namespace == accepted,
            (None, accepted) => Some(accepted) == *OWN_NAMESPACE,
        }
    };
    let there: Vec<&Arc<Server>> = servers.iter().filter(is_there).collect();
    let by_process = accepted.server_pid != 0;
    let own = there.iter().find(|server| by_process && server.pid == Some(accepted.server_pid));
    if let Some(server) = own.copied().or_else(|| best(&there, &accepted.endpoint)) {
        return Found::Server(Arc::clone(server));
    }
    let all: Vec<&Arc<Server>> = servers.iter().collect();
    best(&all, &accepted.endpoint).map_or(Found::Nothing, |server| Found::Elsewhere(Arc::clone(server)))
}

/// Its own address first, then one that listens everywhere, and the port alone at last: a server that is configured by
/// one address may listen on others, and that must be no way round.
fn best<'a>(servers: &[&'a Arc<Server>], endpoint: &Endpoint) -> Option<&'a Arc<Server>> {
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
    found.copied()
}

#[cfg(test)]
mod tests;
