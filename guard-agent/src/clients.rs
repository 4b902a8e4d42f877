//! What processes of this host connect to on other hosts, for the control plane to join with what the agents there see.
//!
//! Connections as the sensor tells them enter, and where databases are: configured, or handed down. Records leave, and what
//! this host says of itself: its addresses, and where its own databases are. Nothing is decided on here; a control plane
//! that names places cannot make the agent report more than connections over TCP to them.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use guard_common::{
    api::{
        agent::ClientsStatus,
        control::{HostFacts, KnownDatabases},
    },
    audit::v1::{ClientConnected, record::Body},
};
use tokio::sync::{Notify, watch};

use crate::{
    audit::AuditLog,
    config::ClientsConfig,
    sensor::{Connected, interface_addresses},
    servers::Server,
};

/// Places that the control plane may name.
const MOST_KNOWN: usize = 4_096;
/// Ports that are watched for them: the kernel side holds 1024 in all.
const MOST_PORTS: usize = 256;
/// Addresses of other network namespaces that are remembered as this host's own.
const MOST_INSIDE: usize = 1_024;
/// Connections that are remembered, so that a look does not report them again.
const MOST_RECENT: usize = 65_536;
/// Places of its own databases that a host tells.
const MOST_TOLD: usize = 256;

/// Watches what local processes connect to elsewhere; cheap to clone.
#[derive(Clone, Debug)]
pub struct Clients(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: ClientsConfig,
    audit: AuditLog,
    state: Mutex<State>,
    facts: watch::Sender<HostFacts>,
    /// Other ports are to be watched.
    changed: Notify,
    reported: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// As the control plane named them.
    known: HashSet<SocketAddr>,
    cut: bool,
    /// Of the agent's own network namespace.
    interfaces: BTreeSet<IpAddr>,
    /// Of others on this host, in which processes have connected; the oldest first.
    inside: VecDeque<IpAddr>,
    /// Reported, with the process: a look that finds one of these finds nothing new.
    recent: HashMap<(SocketAddr, SocketAddr), u32>,
    /// How often the control plane has named new places.
    news: u64,
    /// Where this host's own databases are reached.
    databases: BTreeSet<SocketAddr>,
}

impl Clients {
    /// Reports to `audit`, as configured.
    pub fn new(config: &ClientsConfig, audit: AuditLog) -> Self {
        let state = State { interfaces: interface_addresses(), ..State::default() };
        let facts = watch::channel(state.facts()).0;
        Self(Arc::new(Shared {
            config: config.clone(),
            audit,
            state: Mutex::new(state),
            facts,
            changed: Notify::new(),
            reported: AtomicU64::new(0),
        }))
    }

    /// Whether the control plane is to say where databases are.
    pub fn asks_control(&self) -> bool {
        self.0.config.report && self.0.config.from_control
    }

    /// Ports to which connections are to be told.
    pub fn ports(&self) -> BTreeSet<u16> {
        if !self.0.config.report {
            return BTreeSet::new();
        }
        let configured = self.0.config.servers.iter().map(|place| place.port());
        let state = self.state();
        let ports: BTreeSet<u16> = configured.chain(state.known.iter().map(SocketAddr::port)).collect();
        ports.into_iter().take(MOST_PORTS).collect()
    }

    /// Counts the times at which connections that stand already are to be looked for.
    pub fn looks(&self) -> u64 {
        self.state().news
    }

    /// Returns when other ports are to be watched.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// The control plane has said where databases are. What is no address of one is passed over.
    pub fn know(&self, told: &KnownDatabases) {
        if !self.asks_control() {
            return;
        }
        let addresses = told.addresses.iter().take(MOST_KNOWN).filter_map(|text| text.parse().ok());
        let known: HashSet<SocketAddr> = addresses.filter(|address| may_be_elsewhere(*address)).collect();
        let cut = told.cut || told.addresses.len() > MOST_KNOWN;
        let new = {
            let mut state = self.state();
            if state.cut != cut && cut {
                tracing::warn!(
                    "the fleet has more databases than the control plane tells: list networks in `clients.servers`"
                );
            }
            let new = !known.is_subset(&state.known);
            // Processes may be connected to these already.
            state.news += u64::from(new);
            let fewer = known.len() < state.known.len();
            (state.known, state.cut) = (known, cut);
            new || fewer
        };
        if new {
            self.0.changed.notify_one();
        }
    }

    /// Takes note of where this host's own databases and proxies are now, and of its addresses.
    pub fn look(&self, servers: &[Arc<Server>], proxies: impl Iterator<Item = SocketAddr>) {
        let mut state = self.state();
        state.interfaces = interface_addresses();
        let mut databases = BTreeSet::new();
        for server in servers {
            match server.elsewhere.as_ref().filter(|elsewhere| elsewhere.namespace.is_some()) {
                Some(elsewhere) => databases.extend(elsewhere.outside(&server.addresses)),
                None => databases.extend(server.addresses.iter().flat_map(|own| state.reached(*own))),
            }
        }
        databases.extend(proxies.flat_map(|own| state.reached(own)));
        state.databases =
            databases.into_iter().filter(|one| may_be_elsewhere(*one)).take(MOST_TOLD).collect();
        self.say(&state);
    }

    /// A process of this host has connected to somewhere.
    pub fn connected(&self, connected: &Connected) {
        let (client, server) = (connected.client, connected.server);
        {
            let mut state = self.state();
            let wanted =
                self.0.config.servers.iter().any(|place| place.has(server)) || state.known.contains(&server);
            // To this host's own databases whoever connects is attested where they accept.
            let own = state.interfaces.contains(&server.ip()) || state.databases.contains(&server);
            if !self.0.config.report || !wanted || own || !may_be_elsewhere(server) {
                return;
            }
            if !state.is_new(connected) {
                return;
            }
            if state.has_come_from(client.ip()) {
                // INVARIANT: said before the record is written, so that it arrives before it.
                self.say(&state);
            }
        }
        self.0.reported.fetch_add(1, Ordering::Relaxed);
        self.0.audit.record(Body::ClientConnected(ClientConnected {
            client_address: client.to_string(),
            server_address: server.to_string(),
            workload: Some(connected.workload.as_ref().clone()),
            preexisting: connected.preexisting,
        }));
    }

    /// What this host says of itself, from now on.
    pub fn facts(&self) -> watch::Receiver<HostFacts> {
        let mut facts = self.0.facts.subscribe();
        facts.mark_changed();
        facts
    }

    /// For the command line.
    pub fn status(&self) -> ClientsStatus {
        let state = self.state();
        ClientsStatus {
            report: self.0.config.report,
            configured: u32::try_from(self.0.config.servers.len()).unwrap_or(u32::MAX),
            from_control: u32::try_from(state.known.len()).unwrap_or(u32::MAX),
            cut: state.cut,
            reported: self.0.reported.load(Ordering::Relaxed),
        }
    }

    fn say(&self, state: &State) {
        let facts = state.facts();
        self.0.facts.send_if_modified(|known| {
            let changed = *known != facts;
            *known = facts;
            changed
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete when the lock is released, whatever happened to its holder.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn facts(&self) -> HostFacts {
        let addresses: BTreeSet<IpAddr> = self.interfaces.iter().chain(&self.inside).copied().collect();
        HostFacts {
            addresses: addresses.iter().map(ToString::to_string).collect(),
            databases: self.databases.iter().map(ToString::to_string).collect(),
        }
    }

    /// Whether it has not been reported yet: what the kernel tells of is new, what a look finds need not be.
    fn is_new(&mut self, connected: &Connected) -> bool {
        let (ends, pid) = ((connected.client, connected.server), connected.workload.pid);
        if connected.preexisting && self.recent.get(&ends) == Some(&pid) {
            return false;
        }
        if self.recent.len() >= MOST_RECENT {
            self.recent.clear();
        }
        self.recent.insert(ends, pid);
        true
    }

    /// Where other hosts reach what listens there.
    fn reached(&self, listens: SocketAddr) -> Vec<SocketAddr> {
        let ip = listens.ip();
        if !ip.is_unspecified() {
            return vec![SocketAddr::new(ip.to_canonical(), listens.port())];
        }
        // A socket of IPv6 takes connections of IPv4 as well.
        let own = self.interfaces.iter().filter(|own| ip.is_ipv6() || own.is_ipv4());
        own.map(|own| SocketAddr::new(*own, listens.port())).collect()
    }

    /// The kernel has a process of this host at that address: it is one of this host's. Whether that is news.
    fn has_come_from(&mut self, ip: IpAddr) -> bool {
        if self.interfaces.contains(&ip) || self.inside.contains(&ip) {
            return false;
        }
        // One of the agent's own namespace may have come since the last look.
        self.interfaces = interface_addresses();
        if !self.interfaces.contains(&ip) {
            if self.inside.len() >= MOST_INSIDE {
                self.inside.pop_front();
            }
            self.inside.push_back(ip);
        }
        true
    }
}

/// Loopback addresses mean something on their own host alone.
fn may_be_elsewhere(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() && address.port() != 0
}

#[cfg(test)]
mod tests {
    use guard_common::audit::v1::workload::Evidence;

    use super::*;
    use crate::{audit::Entry, config::Place, identity::Workload};

    fn clients(config: ClientsConfig) -> (Clients, tokio::sync::mpsc::Receiver<Entry>) {
        let (audit, records) = AuditLog::to_queue(64);
        (Clients::new(&config, audit), records)
    }

    fn reporting(servers: &[&str]) -> ClientsConfig {
        let servers = servers.iter().map(|place| place.parse::<Place>().unwrap()).collect();
        ClientsConfig { report: true, servers, from_control: true }
    }

    fn connected(client: &str, server: &str) -> Connected {
        let workload = Workload { pid: 7, evidence: Evidence::Attested.into(), ..Workload::default() };
        Connected {
            client: client.parse().unwrap(),
            server: server.parse().unwrap(),
            workload: Arc::new(workload),
            preexisting: false,
        }
    }

    fn known(addresses: &[&str]) -> KnownDatabases {
        KnownDatabases { addresses: addresses.iter().map(|one| (*one).to_owned()).collect(), cut: false }
    }

    fn reported(records: &mut tokio::sync::mpsc::Receiver<Entry>) -> Vec<(String, String)> {
        let mut all = Vec::new();
        while let Ok(entry) = records.try_recv() {
            let Some(Body::ClientConnected(one)) = entry.record.body else { panic!("another record") };
            assert_eq!(one.workload.unwrap().pid, 7);
            all.push((one.client_address, one.server_address));
        }
        all
    }

    #[test]
    fn only_connections_to_known_places_are_reported() {
        let (clients, mut records) = clients(reporting(&["198.51.100.0/24:5432"]));
        clients.know(&known(&["203.0.113.7:6432", "not an address", "127.0.0.1:5432", "[::]:1"]));
        assert_eq!(clients.ports(), BTreeSet::from([5432, 6432]));
        for server in ["198.51.100.9:5432", "203.0.113.7:6432", "203.0.113.7:5432", "192.0.2.1:5432"] {
            clients.connected(&connected("192.0.2.9:40000", server));
        }
        let servers: Vec<_> = reported(&mut records).into_iter().map(|(_, server)| server).collect();
        assert_eq!(servers, ["198.51.100.9:5432", "203.0.113.7:6432"]);
        clients.know(&known(&[]));
        clients.connected(&connected("192.0.2.9:40000", "203.0.113.7:6432"));
        assert!(reported(&mut records).is_empty(), "what is named no more is reported no more");
    }

    #[test]
    fn a_look_reports_what_stands_already_once() {
        let (clients, mut records) = clients(reporting(&["198.51.100.9:5432"]));
        let told = connected("192.0.2.9:40000", "198.51.100.9:5432");
        let found = Connected { preexisting: true, ..told.clone() };
        for one in [&found, &found, &told, &told, &found] {
            clients.connected(one);
        }
        assert_eq!(reported(&mut records).len(), 3, "a port that is used again is another connection");
        let looks = clients.looks();
        clients.know(&known(&["203.0.113.7:5432"]));
        clients.know(&known(&["203.0.113.7:5432"]));
        assert_eq!(clients.looks(), looks + 1);
    }

    #[test]
    fn nothing_is_reported_unasked() {
        let (clients, mut records) =
            clients(ClientsConfig { report: false, ..reporting(&["0.0.0.0/0:5432"]) });
        clients.know(&known(&["203.0.113.7:5432"]));
        clients.connected(&connected("192.0.2.9:40000", "203.0.113.7:5432"));
        assert!(clients.ports().is_empty() && reported(&mut records).is_empty());
        let (clients, mut records) =
            self::clients(ClientsConfig { from_control: false, ..reporting(&["192.0.2.1:1"]) });
        clients.know(&known(&["203.0.113.7:5432"]));
        clients.connected(&connected("192.0.2.9:40000", "203.0.113.7:5432"));
        assert!(reported(&mut records).is_empty() && !clients.asks_control());
    }

    #[test]
    fn an_address_inside_of_the_host_is_said_before_its_connection_is_recorded() {
        let (clients, mut records) = clients(reporting(&["198.51.100.9:5432"]));
        let mut facts = clients.facts();
        facts.borrow_and_update();
        clients.connected(&connected("172.31.255.2:40000", "198.51.100.9:5432"));
        assert!(facts.has_changed().unwrap());
        assert!(facts.borrow_and_update().addresses.contains(&"172.31.255.2".to_owned()));
        assert_eq!(reported(&mut records).len(), 1);
        clients.connected(&connected("172.31.255.2:40001", "198.51.100.9:5432"));
        assert!(!facts.has_changed().unwrap());
        for n in 0..=u16::try_from(MOST_INSIDE).unwrap() {
            let [high, low] = n.to_be_bytes();
            clients.connected(&connected(&format!("172.30.{high}.{low}:1"), "198.51.100.9:5432"));
        }
        assert!(
            !facts.borrow().addresses.contains(&"172.31.255.2".to_owned()),
            "bounded, the oldest goes first"
        );
    }

    #[test]
    fn a_host_says_where_its_databases_are_reached_and_not_by_loopback() {
        let (clients, _records) = clients(ClientsConfig::default());
        clients.state().interfaces = ["192.0.2.5".parse().unwrap(), "2001:db8::5".parse().unwrap()].into();
        let state = clients.state();
        let reached = |listens: &str| state.reached(listens.parse().unwrap());
        assert_eq!(reached("0.0.0.0:5432"), ["192.0.2.5:5432".parse().unwrap()]);
        assert_eq!(reached("[::]:5432").len(), 2);
        assert_eq!(reached("192.0.2.5:1"), ["192.0.2.5:1".parse().unwrap()]);
        assert!(!may_be_elsewhere("127.0.0.1:5432".parse().unwrap()));
    }
}
