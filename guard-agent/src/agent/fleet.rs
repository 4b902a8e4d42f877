//! The database servers of this host and the proxies in front of them, kept up to date.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{Semaphore, watch};

use super::{
    Agent, AgentError,
    steering::{self, Steered},
};
use crate::{
    config::{Config, Mode, ServerConfig, UpstreamTlsMode},
    listen::{Counters, ListenError, Listener, Logins, SessionThreads},
    sensor::Watch,
    servers::{self, Server},
    session::{Proxy, ServerSlot, Ways},
    tls::{ClientTls, Connector, ConnectorError},
};

/// Discovered servers get a proxy this far above their own port.
const PORT_OFFSET: u16 = 1_000;

/// How long a server that has shown up gets before it is looked at.
const SETTLE: Duration = Duration::from_millis(500);

/// How long a discovered server is remembered after it has gone.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// One server and what stands before it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) slot: ServerSlot,
    pub(super) counters: Arc<Counters>,
    /// What its clients are offered of TLS.
    pub(super) tls: Arc<ClientTls>,
    /// Why nothing, or why not what the newest files say.
    pub(super) tls_error: String,
    /// Where the proxy listens.
    pub(super) proxy: Vec<String>,
    pub(super) proxy_ports: BTreeSet<u16>,
    /// Why there is none.
    pub(super) proxy_error: String,
    /// How connections to the server's own address are led to the proxy; empty where they are not.
    pub(super) steering: String,
    /// Why they are not, where they should be.
    pub(super) steering_error: String,
    pub(super) steered: Steered,
    pub(super) since: SystemTime,
    /// It was there at the last look; nothing where nobody looks for it.
    pub(super) running: Option<bool>,
    /// When it was there last.
    seen: Instant,
}

impl Member {
    /// A discovered server that has gone for good, such as a container's, and whose proxy nobody can come to any more.
    fn is_over(&self, config: &Config) -> bool {
        let configured = config.servers.iter().any(|server| server.name == self.slot.get().name);
        !configured && self.proxy.is_empty() && self.running == Some(false) && self.seen.elapsed() > FORGOTTEN
    }
}

/// All servers of this host.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(super) members: BTreeMap<String, Member>,
    pub(super) threads: SessionThreads,
    pub(super) places: Arc<Semaphore>,
    logins: Logins,
    max_connections: u32,
    stopping: watch::Receiver<bool>,
}

impl Fleet {
    pub(super) fn new(
        threads: SessionThreads,
        stopping: watch::Receiver<bool>,
        max_connections: usize,
    ) -> Self {
        let max_connections = u32::try_from(max_connections.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let places = Arc::new(Semaphore::new(max_connections as usize));
        Self {
            members: BTreeMap::new(),
            threads,
            places,
            logins: Logins::default(),
            max_connections,
            stopping,
        }
    }

    /// One line per server.
    pub(super) fn describe(&self) -> Vec<String> {
        if self.members.is_empty() {
            return vec!["no database server found yet: looking for one".to_owned()];
        }
        let line = |(name, member): (&String, &Member)| {
            let server = member.slot.get();
            let addresses: Vec<String> = server.endpoints().collect();
            let proxy = match (member.proxy.is_empty(), member.proxy_error.is_empty()) {
                (false, _) => format!("proxy on {}", member.proxy.join(", ")),
                (true, false) => format!("no proxy: {}", member.proxy_error),
                (true, true) if member.steering.is_empty() => "no proxy configured".to_owned(),
                (true, true) => "no proxy of another address".to_owned(),
            };
            let steering = match (member.steering.is_empty(), member.steering_error.is_empty()) {
                (false, _) => format!("; steered: {}", member.steering),
                (true, false) => format!("; NOT STEERED: {}", member.steering_error),
                (true, true) => String::new(),
            };
            let tls = match member.tls.offer() {
                _ if member.proxy.is_empty() && member.steering.is_empty() => String::new(),
                Ok(offer) => format!("; TLS with `{}`", offer.file()),
                Err(error) => format!("; no TLS: {error}"),
            };
            format!("{name} ({}) at {}; {proxy}{steering}{tls}", server.environment, addresses.join(", "))
        };
        self.members.iter().map(line).collect()
    }

    /// Returns when every session has ended.
    pub(super) fn drained(&self) -> impl Future<Output = ()> + 'static {
        let (places, all) = (Arc::clone(&self.places), self.max_connections);
        async move {
            let _ = places.acquire_many(all).await;
        }
    }
}

/// Looks at the servers again and again.
pub(super) async fn keep_up(agent: Arc<Agent>) {
    let mut interval = tokio::time::interval(Duration::from_secs(agent.config.discovery.interval_seconds));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval.tick().await;
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = agent.clients.changed() => {}
            () = agent.connections.new_place().notified() => {
                // A server that has just started opens its sockets one after the other.
                tokio::time::sleep(SETTLE).await;
            }
        }
        if let Err(error) = refresh(&agent).await {
            tracing::warn!("{error}");
        }
    }
}

/// Finds the servers, tells the kernel side and the connection table, and opens proxies for the new ones.
pub(super) async fn refresh(agent: &Arc<Agent>) -> Result<(), AgentError> {
    let looking = Arc::clone(agent);
    // It reads /proc: not on the thread that serves the command line.
    let found = tokio::task::spawn_blocking(move || servers::find(&looking.config)).await;
    let found = found.map_err(io::Error::other)?;
    let mut fleet = agent.fleet.lock().await;
    let before = fleet.members.len();
    for member in fleet.members.values_mut().filter(|member| member.running.is_some()) {
        member.running = Some(false);
    }
    for server in found {
        match fleet.members.get_mut(&server.name) {
            Some(member) => {
                // A configured server on another host never has a process here.
                member.running = server.pid.map(|_| true).or(member.running);
                member.seen = Instant::now();
                member.slot.set(server);
            }
            None => add(agent, &mut fleet, server).await?,
        }
    }
    let over = fleet.members.iter().filter(|(_, member)| member.is_over(&agent.config));
    for name in over.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
        fleet.members.remove(&name);
        agent.connections.forget(&name);
    }
    refresh_tls(&mut fleet).await;
    let servers: Vec<Arc<Server>> = fleet.members.values().map(|member| member.slot.get()).collect();
    let proxies =
        fleet.members.values().flat_map(|member| &member.proxy).filter_map(|place| place.parse().ok());
    agent.clients.look(&servers, proxies);
    let watch = Watch {
        elsewhere_ports: agent.clients.ports(),
        elsewhere_looks: agent.clients.looks(),
        ..watched(&fleet, &servers)
    };
    agent.connections.set_servers(servers.clone());
    let sensor = agent.sensor.clone();
    let _ = tokio::task::spawn_blocking(move || sensor.watch(watch)).await;
    agent.observer.refresh(&agent.config, &servers).await;
    agent.hold.servers(servers.clone()).await;
    steering::refresh(agent, &mut fleet).await;
    let steered = fleet.members.iter().filter(|(_, member)| !member.steering.is_empty());
    let steered: BTreeSet<String> = steered.map(|(name, _)| name.clone()).collect();
    let enforcing = Arc::clone(agent);
    // After steering: to connect to a steered server is no way round the proxy.
    let enforce = move || {
        enforcing.enforcer.set_servers(servers, steered);
        close_folders(&enforcing);
    };
    let _ = tokio::task::spawn_blocking(enforce).await;
    if before > 0 && fleet.members.len() > before {
        fleet.describe().into_iter().for_each(|line| tracing::info!("{line}"));
    }
    Ok(())
}

/// Closes the folders that are to be closed: a server may have been started, and made its folder anew.
fn close_folders(agent: &Agent) {
    let wanted = agent.config.servers.iter().filter(|server| server.close_socket_folder);
    for server in wanted.filter(|server| agent.decider.mode(&server.name, "").mode == Mode::Enforce) {
        let Some(socket) = server.unix_socket.as_ref().filter(|socket| socket.exists()) else { continue };
        match agent.folders.close(socket) {
            Ok(true) => tracing::info!(server = %server.name, "the folder of its unix socket is closed"),
            Ok(false) => {}
            Err(error) => tracing::error!(server = %server.name, "{error}"),
        }
    }
}

/// Looks whether certificates have changed. Sessions go on with what they began with.
async fn refresh_tls(fleet: &mut Fleet) {
    for (name, member) in &mut fleet.members {
        let (tls, pid) = (Arc::clone(&member.tls), member.slot.get().pid);
        let Ok(refreshed) = tokio::task::spawn_blocking(move || tls.refresh(pid)).await else { continue };
        let error = match refreshed {
            Ok(true) if !member.proxy.is_empty() => {
                let file = member.tls.offer().map(|offer| offer.file().to_owned()).unwrap_or_default();
                tracing::info!(server = %name, "TLS towards clients with the certificate `{file}`");
                String::new()
            }
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        if error != member.tls_error && !error.is_empty() && !member.proxy.is_empty() {
            let without = if member.tls.offer().is_ok() { "the certificate before stays" } else { "no TLS" };
            tracing::warn!(server = %name, "{without}: {error}");
        }
        member.tls_error = error;
    }
}

fn watched(fleet: &Fleet, servers: &[Arc<Server>]) -> Watch {
    Watch {
        database_ports: servers.iter().flat_map(|server| &server.addresses).map(SocketAddr::port).collect(),
        proxy_ports: fleet.members.values().flat_map(|member| member.proxy_ports.iter().copied()).collect(),
        unix_sockets: servers.iter().flat_map(|server| server.unix_sockets.iter().cloned()).collect(),
        namespaces: servers
            .iter()
            .filter_map(|server| server.elsewhere.as_ref())
            .filter_map(|elsewhere| Some((elsewhere.namespace?, elsewhere.pid)))
            .collect(),
        ..Watch::default()
    }
}

async fn add(agent: &Arc<Agent>, fleet: &mut Fleet, server: Server) -> Result<(), AgentError> {
    let configured = agent.config.servers.iter().find(|configured| configured.name == server.name);
    let wanted = wanted_listeners(&agent.config, configured, &server);
    let counters = Arc::<Counters>::default();
    let tls = Arc::new(ClientTls::new(agent.config.tls(configured).clone()));
    let (offering, pid) = (Arc::clone(&tls), server.pid);
    // Before the first client comes.
    let found = tokio::task::spawn_blocking(move || offering.refresh(pid)).await;
    // Files that are configured have to be there; the server's own may come later, which is told with the next look.
    if let (Ok(Err(error)), true) = (found, tls.is_configured()) {
        return Err(AgentError::Tls { server: server.name, error });
    }
    let slot = ServerSlot::new(server);
    let name = slot.get().name.clone();
    let proxy = Arc::new(Proxy {
        server: slot.clone(),
        tls: Arc::clone(&tls),
        ways: ways(&agent.config, configured)?,
        logins: fleet.logins.clone(),
        limits: agent.config.proxy.clone(),
        decider: Arc::clone(&agent.decider),
        audit: agent.audit.clone(),
        approvals: agent.approvals.clone(),
        connections: agent.connections.clone(),
        sensor: Some(agent.sensor.clone()),
        masks: Arc::clone(&agent.masks),
        counters: Arc::clone(&counters),
        stopping: fleet.stopping.clone(),
    });
    let proxy_error = if no_way(&slot.get()) { NO_WAY.to_owned() } else { String::new() };
    let running = slot.get().pid.map(|_| true);
    let mut member = Member {
        slot,
        counters,
        tls,
        tls_error: String::new(),
        proxy: Vec::new(),
        proxy_ports: BTreeSet::new(),
        proxy_error,
        running,
        seen: Instant::now(),
        steering: String::new(),
        steering_error: String::new(),
        steered: Steered { proxy: Arc::clone(&proxy), accepting: Vec::new() },
        since: SystemTime::now(),
    };
    for wanted in wanted {
        match open(&name, &wanted).await {
            Ok((listener, address, port)) => {
                member.proxy.push(address);
                member.proxy_ports.extend(port);
                tokio::spawn(listener.run(
                    Arc::clone(&proxy),
                    fleet.threads.clone(),
                    Arc::clone(&fleet.places),
                ));
            }
            Err(error) if configured.is_some() => return Err(error.into()),
            // Nobody asked for this very address: watching goes on without it.
            Err(error) => {
                tracing::warn!("{error}");
                member.proxy_error = error.to_string();
            }
        }
    }
    fleet.members.insert(name, member);
    Ok(())
}

fn ways(config: &Config, configured: Option<&ServerConfig>) -> Result<Ways, ConnectorError> {
    let mode = config.upstream_tls(configured);
    let ca = configured.and_then(|configured| configured.upstream_ca.as_deref());
    let name = configured.and_then(|configured| configured.upstream_name.as_deref());
    let connector = match mode {
        UpstreamTlsMode::Off => None,
        _ => Some(Connector::new(mode, ca, name)?),
    };
    let prefer_unix = configured.is_some_and(|configured| configured.unix_socket.is_some());
    Ok(Ways::new(prefer_unix, mode, connector))
}

const NO_WAY: &str = "it is in another network namespace, and no address in there belongs to a network of this host: \
                      its connections are watched, but no proxy can reach it";

/// A server in another network namespace that the agent cannot reach as its other clients do.
fn no_way(server: &Server) -> bool {
    server.elsewhere.is_some() && server.reachable_addresses().next().is_none()
}

#[derive(Debug)]
enum Wanted {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Configured servers listen where they are told to, discovered ones a thousand ports above their own.
fn wanted_listeners(config: &Config, configured: Option<&ServerConfig>, server: &Server) -> Vec<Wanted> {
    if let Some(configured) = configured {
        let tcp = configured.listen.map(Wanted::Tcp);
        return tcp.into_iter().chain(configured.listen_unix.clone().map(Wanted::Unix)).collect();
    }
    if no_way(server) {
        return Vec::new();
    }
    let ip: Option<IpAddr> = config.proxy.discovered_listen.parse().ok();
    let port = server.addresses.first().and_then(|address| address.port().checked_add(PORT_OFFSET));
    ip.zip(port).map(|address| Wanted::Tcp(address.into())).into_iter().collect()
}

async fn open(name: &str, wanted: &Wanted) -> Result<(Listener, String, Option<u16>), ListenError> {
    match wanted {
        Wanted::Tcp(address) => {
            let listener = Listener::tcp(name, *address).await?;
            let address = listener.local_address().unwrap_or(*address);
            Ok((listener, address.to_string(), Some(address.port())))
        }
        Wanted::Unix(path) => Ok((Listener::unix(name, path).await?, path.display().to_string(), None)),
    }
}
