//! One client connection, from accept to close.
//!
//! A connected client enters; statements that policy permits leave towards the server, and answers towards the client.
//! The way reads from [`serve`]: attest, decide on the connection, start up, log in, relay. Nothing that a peer sends
//! makes it panic, wait for ever or take unbounded memory.

mod backend;
mod error;
mod flow;
mod followed;
mod frontend;
mod held;
mod literals;
mod login;
mod masking;
mod naming;
mod pending;
mod pipe;
mod prepared;
mod recorder;
mod refusal;
mod relay;
mod settings;
mod short;
mod startup;
mod stream;
mod upstream;
mod way;
mod worker;

#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use guard_common::audit::v1::{
    Decision, Workload, connection_opened::Transport, decision::Verdict, workload::Evidence,
};
use tokio::{
    io::AsyncWriteExt,
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

pub use self::{
    error::SessionError,
    masking::{KeyError, Masks},
    stream::Stream,
    way::Ways,
    worker::{Worker, caps, function_call, replication_statement},
};
use self::{
    pipe::Pipe,
    startup::{Opening as StartupOpening, Secured},
    upstream::{Dial, Transport as UpstreamTransport},
    way::{Asked, Binding},
};
pub(crate) use self::{recorder::must_be_durable, settings::is_known_version};
use crate::{
    approval::{Approvals, cancel_digest},
    audit::AuditLog,
    config::ProxyConfig,
    config::TlsMode,
    connections::{Connections, Ending, Opening, ProxiedConnection},
    decide::{ConnectRequest, Decider},
    identity::Identifier,
    listen::{Counters, Login, Logins},
    sensor::SensorHandle,
    servers::Server,
    steering::Origin,
    tls::ClientTls,
    wire::{
        postgres::{ErrorResponse, Severity, StartupPacket},
        proxy_protocol::Route,
    },
};

/// How long a client may take to read why it was refused.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The server behind a proxy. It may move: sessions that begin later find it at its new place.
#[derive(Clone, Debug)]
pub struct ServerSlot(Arc<RwLock<Arc<Server>>>);

impl ServerSlot {
    /// A slot that holds `server`.
    pub fn new(server: Server) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(server))))
    }

    /// The server as it is known now.
    pub fn get(&self) -> Arc<Server> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `server` in its place.
    pub fn set(&self, server: Server) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if **current != server {
            *current = Arc::new(server);
        }
    }
}

/// What all sessions of one database server share.
#[derive(Debug)]
pub struct Proxy {
    /// The server behind the proxy.
    pub server: ServerSlot,
    /// What clients are offered of TLS.
    pub tls: Arc<ClientTls>,
    /// The ways to the server.
    pub ways: Ways,
    /// Clients that are logging in, over all servers.
    pub logins: Logins,
    /// Limits.
    pub limits: ProxyConfig,
    /// Decides.
    pub decider: Arc<Decider>,
    /// Records.
    pub audit: AuditLog,
    /// Joins what the kernel sees with what passes here.
    pub connections: Connections,
    /// Knows who connects; absent in tests of sessions alone.
    pub sensor: Option<SensorHandle>,
    /// Masks results.
    pub masks: Arc<Masks>,
    /// Asks people.
    pub approvals: Approvals,
    /// Counts.
    pub counters: Arc<Counters>,
    /// Turns true when the agent stops.
    pub stopping: watch::Receiver<bool>,
}

/// A client that has been accepted.
#[derive(Debug)]
pub struct Client {
    /// Its socket.
    pub stream: Stream,
    /// Who is at the other end.
    pub peer: Peer,
    /// It came when there were already too many.
    pub surplus: bool,
    /// It was going to the server's own address, and the server is to see its own.
    pub steered: bool,
}

/// The other end of an accepted socket.
#[derive(Clone, Debug)]
pub enum Peer {
    /// Both ends of a TCP connection.
    Tcp {
        /// The client's.
        client: SocketAddr,
        /// Ours.
        local: SocketAddr,
    },
    /// A unix socket's peer, as the kernel tells it.
    Unix {
        /// Process id.
        pid: u32,
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Our path.
        path: PathBuf,
    },
}

impl Peer {
    /// The policy's word for the transport.
    pub fn transport(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Unix { .. } => "unix",
        }
    }
}

/// Serves one client to its end and records it.
pub async fn serve(proxy: Arc<Proxy>, worker: Rc<Worker>, client: Client) {
    let deadline = Instant::now() + Duration::from_secs(proxy.limits.login_timeout_seconds.max(1));
    let Client { mut stream, peer, surplus, steered } = client;
    // In boxes, here and below: what a phase needed is given back when it is over, and a session waits for most of its life.
    let (arrival, arrived) = Box::pin(arrive(&proxy, &mut stream, (peer, steered), deadline)).await;
    let Arrival { peer, workload, secured, login } = arrival;
    let server = proxy.server.get();
    let decision = proxy.decider.connect(&ConnectRequest {
        workload: &workload,
        server: &server,
        proxied: true,
        transport: peer.transport(),
    });
    let connection = proxy.connections.open_proxied(opening(&server, &peer, &workload, &decision));
    let admission = admit(&decision);
    let mut ending =
        Ending { reason: String::new(), bytes_from_client: 0, bytes_to_client: 0, statements: 0 };
    let attested = Attested { server: &server, peer, surplus, steered, workload, connection: &connection };
    let outcome = async {
        let Some(opening) = arrived? else {
            return Ok(Served::without_session("closed without a startup packet"));
        };
        admission?;
        let entry = Entry { opening, secured, login, deadline };
        Box::pin(run(&proxy, &worker, &mut stream, attested, entry)).await
    };
    ending.reason = match outcome.await {
        Ok(served) => {
            (ending.bytes_from_client, ending.bytes_to_client) =
                (served.bytes_from_client, served.bytes_to_client);
            ending.statements = served.statements;
            served.reason
        }
        Err(error) => {
            tracing::info!(connection = %connection.id(), server = %server.name, "session ended: {error}");
            if let Some(response) = error.for_client() {
                Box::pin(say_goodbye(&mut stream, &response)).await;
            }
            error.to_string()
        }
    };
    connection.close(ending);
}

/// Who has come, as far as is known before its startup packet is acted on.
struct Arrival {
    peer: Peer,
    workload: Arc<Workload>,
    secured: Option<Secured>,
    /// Counts it among those of its address until it has logged in.
    login: Option<Login>,
}

/// What a client has come with.
struct Entry {
    opening: StartupOpening,
    secured: Option<Secured>,
    login: Option<Login>,
    /// By then it has logged in.
    deadline: Instant,
}

type Arrived = Result<Option<StartupOpening>, SessionError>;

/// Finds out who has come: by the load balancer's word, by the kernel's, and by the certificate that it holds; and reads
/// its startup packet.
async fn arrive(
    proxy: &Proxy,
    stream: &mut Stream,
    (peer, steered): (Peer, bool),
    deadline: Instant,
) -> (Arrival, Arrived) {
    let (peer, balancer, routed) = match steered {
        // It talks to the server, as it always has: nobody has told it to send a header.
        true => (peer, None, Ok(true)),
        false => routed(proxy, stream, peer, deadline).await,
    };
    let mut workload = match (&peer, balancer) {
        (Peer::Tcp { client, .. }, Some(balancer)) => Identifier::relayed(client.ip(), balancer.ip()),
        _ => attest(proxy, &peer, steered).await,
    };
    let (mut secured, mut login) = (None, None);
    let arrived = async {
        if !routed? {
            return Ok(None);
        }
        login = enter(proxy, &peer)?;
        let offer = proxy.tls.offer().ok().filter(|_| matches!(peer, Peer::Tcp { .. }));
        let negotiated = startup::negotiate(stream, offer.as_deref(), &mut secured);
        timeout_at(deadline, negotiated).await.map_err(|_| SessionError::LoginTimeout)?
    };
    let arrived = arrived.await;
    if let Some(certificate) = secured.as_mut().and_then(|secured| secured.client.take()) {
        let known = Arc::make_mut(&mut workload);
        if !known.remote_address.is_empty() {
            // Whoever holds the key is who the certificate names, wherever it comes from.
            known.set_evidence(Evidence::Attested);
        }
        known.certificate = Some(certificate);
    }
    (Arrival { peer, workload, secured, login }, arrived)
}

/// Takes a load balancer's word for where a client comes from. False: the load balancer left without a word.
async fn routed(
    proxy: &Proxy,
    stream: &mut Stream,
    peer: Peer,
    deadline: Instant,
) -> (Peer, Option<SocketAddr>, Result<bool, SessionError>) {
    let Peer::Tcp { client: balancer, local } = peer else {
        return (peer, None, Ok(true));
    };
    let trusted = &proxy.limits.proxy_protocol_from;
    if !trusted.iter().any(|network| network.contains(balancer.ip())) {
        return (peer, None, Ok(true));
    }
    let route = timeout_at(deadline, startup::route(stream)).await;
    match route.unwrap_or(Err(SessionError::LoginTimeout)) {
        Ok(Some(Route::Relayed { client, destination })) => {
            (Peer::Tcp { client, local: destination }, Some(balancer), Ok(true))
        }
        Ok(Some(Route::Own)) => (Peer::Tcp { client: balancer, local }, None, Ok(true)),
        Ok(None) => (peer, None, Ok(false)),
        Err(error) => (peer, None, Err(error)),
    }
}

/// Counts a client among those that are logging in.
fn enter(proxy: &Proxy, peer: &Peer) -> Result<Option<Login>, SessionError> {
    let Peer::Tcp { client, .. } = peer else { return Ok(None) };
    let limit = proxy.limits.max_logins_per_address;
    let login = proxy.logins.enter(client.ip(), limit);
    login.map(Some).ok_or(SessionError::TooManyLogins(limit))
}

/// Who is served, and under which connection.
struct Attested<'a> {
    server: &'a Server,
    peer: Peer,
    surplus: bool,
    steered: bool,
    workload: Arc<Workload>,
    connection: &'a ProxiedConnection,
}

impl Attested<'_> {
    /// Whose connection the server is to see; nobody's where the client knows that it talks to a proxy.
    fn origin(&self) -> Option<Origin> {
        match &self.peer {
            Peer::Tcp { client, local } if self.steered => {
                Some(Origin { client: *client, destination: *local })
            }
            Peer::Tcp { .. } | Peer::Unix { .. } => None,
        }
    }
}

/// How a session went that ended in good order.
#[derive(Debug)]
struct Served {
    reason: String,
    bytes_from_client: u64,
    bytes_to_client: u64,
    statements: u64,
}

impl Served {
    fn without_session(reason: &str) -> Self {
        Self { reason: reason.to_owned(), bytes_from_client: 0, bytes_to_client: 0, statements: 0 }
    }
}

async fn attest(proxy: &Proxy, peer: &Peer, steered: bool) -> Arc<Workload> {
    match (&proxy.sensor, peer) {
        (Some(sensor), Peer::Tcp { client, local }) => {
            // A steered connection ends where its server is.
            let gate = proxy.ways.gate().filter(|_| steered);
            sensor.attest_tcp_in(gate.and_then(|gate| gate.namespace_cookie()), *client, *local).await
        }
        (Some(sensor), Peer::Unix { pid, uid, gid, .. }) => sensor.attest_unix(*pid, *uid, *gid).await,
        (None, _) => Arc::default(),
    }
}

fn opening(server: &Arc<Server>, peer: &Peer, workload: &Arc<Workload>, decision: &Arc<Decision>) -> Opening {
    let (transport, client_address, server_address, unix_path) = match peer {
        Peer::Tcp { client, local } => (Transport::Tcp, Some(*client), Some(*local), None),
        Peer::Unix { path, .. } => (Transport::Unix, None, None, Some(path.clone())),
    };
    Opening {
        workload: Arc::clone(workload),
        server: Arc::clone(server),
        transport,
        client_address,
        server_address,
        unix_path,
        decision: Arc::clone(decision),
    }
}

fn admit(decision: &Decision) -> Result<(), SessionError> {
    match decision.verdict() {
        Verdict::Allowed | Verdict::WouldRefuse | Verdict::WouldHold => Ok(()),
        // A connection does not wait.
        Verdict::Refused | Verdict::Held | Verdict::Unspecified => {
            let response = refusal::by_policy(decision);
            let response = ErrorResponse { severity: Severity::Fatal, ..response };
            Err(SessionError::Refused(decision.policy.clone(), response))
        }
    }
}

async fn run(
    proxy: &Proxy,
    worker: &Worker,
    stream: &mut Stream,
    attested: Attested<'_>,
    entry: Entry,
) -> Result<Served, SessionError> {
    match Box::pin(enter_session(proxy, worker, stream, &attested, entry)).await? {
        login::End::Ready(relay) => Box::pin(relay.run()).await,
        login::End::Over(served) => Ok(served),
    }
}

/// From the startup packet to a session that is ready for its first statement.
async fn enter_session<'a>(
    proxy: &'a Proxy,
    worker: &'a Worker,
    stream: &mut Stream,
    attested: &'a Attested<'a>,
    entry: Entry,
) -> Result<login::End<'a>, SessionError> {
    let Entry { opening, secured, login: logging_in, deadline } = entry;
    // A request to cancel is let in all the same: it may be what makes room.
    if attested.surplus && !matches!(opening.packet, StartupPacket::Cancel(_)) {
        return Err(SessionError::TooMany(proxy.limits.max_connections));
    }
    let limit = Duration::from_secs(proxy.limits.connect_timeout_seconds.max(1));
    let gate = proxy.ways.gate();
    let (server, connection) = (attested.server, attested.connection);
    let dial = Dial { server, connection, limit, gate: gate.as_deref(), origin: attested.origin() };
    let without = |reason| Ok(login::End::Over(Served::without_session(reason)));
    let startup = match opening.packet {
        StartupPacket::Start(startup) => startup,
        StartupPacket::Cancel(_) => {
            // Behind its length and its code. What waits for people is not at the server.
            let key = opening.bytes.get(8..).unwrap_or_default();
            if proxy.approvals.cancel(&cancel_digest(key)) {
                return without("cancel request for a statement that waited");
            }
            // The server knows the session by the key that it gave out itself, whatever way the session took.
            let upstream = proxy.ways.to_cancel(dial).await?;
            upstream::send_cancel(upstream, &opening.bytes, limit).await;
            return without("cancel request");
        }
        StartupPacket::Ssl | StartupPacket::Gss => return without("no startup packet"),
    };
    let in_clear = secured.is_none() && matches!(attested.peer, Peer::Tcp { .. });
    if in_clear && proxy.tls.mode() == TlsMode::Require {
        return Err(SessionError::InClear);
    }
    let mut packet = opening.bytes;
    if proxy.limits.name_workload {
        naming::add_workload(&mut packet, &startup, &attested.workload.label());
    }
    let via = login::Via {
        transport: UpstreamTransport::Tcp,
        binding: Binding::NoTls,
        client_tls: secured.as_ref().map_or("", |secured| secured.version),
    };
    let mut login = login::Login::new(proxy, worker, attested, startup, via);
    login.admit()?;
    let asked =
        Asked { peer: &attested.peer, secured: secured.as_ref(), startup: &login.startup, packet: &packet };
    let way = timeout_at(deadline, proxy.ways.open(dial, asked)).await;
    let way = way.map_err(|_| SessionError::LoginTimeout)??;
    (login.via.transport, login.via.binding) = (way.upstream.transport, way.binding);
    let client = std::mem::replace(stream, Stream::Taken);
    let pipe = Pipe::new(client, way.upstream.stream, way.upstream.said);
    let result = timeout_at(deadline, login.relay(pipe)).await;
    drop(logging_in);
    result.map_err(|_| SessionError::LoginTimeout)?
}

async fn say_goodbye(stream: &mut Stream, response: &ErrorResponse) {
    let last = async {
        stream.write_all(&response.encode()).await?;
        stream.shutdown().await
    };
    let _: Result<std::io::Result<()>, _> = timeout(LAST_WORDS, last).await;
}
