//! One client connection, from accept to close.
//!
//! A connected client enters; statements that policy permits leave towards the server, and answers towards the client.
//! The way reads from [`serve`]: attest, decide on the connection, start up, log in, relay. Nothing that a peer sends
//! makes it panic, wait for ever or take unbounded memory.

mod backend;
mod error;
mod flow;
mod frontend;
mod login;
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

use guard_common::audit::v1::{Decision, Workload, connection_opened::Transport, decision::Verdict};
use tokio::{io::AsyncWriteExt, sync::watch, time::timeout};

pub use self::{error::SessionError, stream::Stream, worker::Worker};
use self::{relay::Relay, upstream::Upstream};
use crate::{
    audit::AuditLog,
    config::ProxyConfig,
    connections::{Connections, Ending, Opening, ProxiedConnection},
    decide::{ConnectRequest, Decider},
    listen::Counters,
    sensor::SensorHandle,
    servers::Server,
    wire::postgres::{ErrorResponse, StartupPacket},
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
    /// Reach it by its unix socket whatever way the client came: only where the configuration says so.
    pub prefer_unix: bool,
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
    let Client { mut stream, peer, surplus } = client;
    let workload = attest(&proxy, &peer).await;
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
    let outcome = run(
        &proxy,
        &worker,
        &mut stream,
        Attested { server: &server, peer, surplus, workload, connection: &connection },
        admission,
    );
    ending.reason = match Box::pin(outcome).await {
        Ok(served) => {
            (ending.bytes_from_client, ending.bytes_to_client) =
                (served.bytes_from_client, served.bytes_to_client);
            ending.statements = served.statements;
            served.reason
        }
        Err(error) => {
            tracing::info!(connection = %connection.id(), server = %server.name, "session ended: {error}");
            if let Some(response) = error.for_client() {
                say_goodbye(&mut stream, &response).await;
            }
            error.to_string()
        }
    };
    connection.close(ending);
}

/// Who is served, and under which connection.
struct Attested<'a> {
    server: &'a Server,
    peer: Peer,
    surplus: bool,
    workload: Arc<Workload>,
    connection: &'a ProxiedConnection,
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

async fn attest(proxy: &Proxy, peer: &Peer) -> Arc<Workload> {
    match (&proxy.sensor, peer) {
        (Some(sensor), Peer::Tcp { client, local }) => sensor.attest_tcp(*client, *local).await,
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
        Verdict::Allowed | Verdict::WouldRefuse => Ok(()),
        Verdict::Refused | Verdict::Unspecified => {
            let response = refusal::by_policy(decision);
            let response = ErrorResponse { severity: crate::wire::postgres::Severity::Fatal, ..response };
            Err(SessionError::Refused(decision.policy.clone(), response))
        }
    }
}

async fn run(
    proxy: &Proxy,
    worker: &Worker,
    stream: &mut Stream,
    attested: Attested<'_>,
    admission: Result<(), SessionError>,
) -> Result<Served, SessionError> {
    let login_limit = Duration::from_secs(proxy.limits.login_timeout_seconds.max(1));
    let opening =
        timeout(login_limit, startup::negotiate(stream)).await.map_err(|_| SessionError::LoginTimeout)??;
    let Some(opening) = opening else {
        return Ok(Served::without_session("closed without a startup packet"));
    };
    admission?;
    // A request to cancel is let in all the same: it may be what makes room.
    if attested.surplus && !matches!(opening.packet, StartupPacket::Cancel(_)) {
        return Err(SessionError::TooMany(proxy.limits.max_connections));
    }
    let connect_limit = Duration::from_secs(proxy.limits.connect_timeout_seconds.max(1));
    let upstream =
        Upstream::connect(attested.server, &attested.peer, proxy.prefer_unix, connect_limit).await?;
    attested.connection.upstream(upstream.socket);
    let startup = match opening.packet {
        StartupPacket::Start(startup) => startup,
        StartupPacket::Cancel(_) => {
            // The server knows the session by the key that it gave out itself.
            upstream::send_cancel(upstream, &opening.bytes, connect_limit).await;
            return Ok(Served::without_session("cancel request"));
        }
        StartupPacket::Ssl | StartupPacket::Gss => return Ok(Served::without_session("no startup packet")),
    };
    let client = std::mem::replace(stream, Stream::closed()?);
    let login = login::Login { proxy, worker, attested: &attested, startup };
    let result = timeout(login_limit, login.relay(client, upstream.stream, &opening.bytes)).await;
    match result.map_err(|_| SessionError::LoginTimeout)?? {
        login::End::Ready(relay) => Box::pin(Relay::run(*relay)).await,
        login::End::Over(served) => Ok(served),
    }
}

async fn say_goodbye(stream: &mut Stream, response: &ErrorResponse) {
    let last = async {
        stream.write_all(&response.encode()).await?;
        stream.shutdown().await
    };
    let _: Result<std::io::Result<()>, _> = timeout(LAST_WORDS, last).await;
}
