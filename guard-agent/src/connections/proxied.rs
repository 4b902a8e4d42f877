//! A connection through the proxy, as the session holds it.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use guard_common::audit::v1::{Completeness, ConnectionClosed, record::Body};
use uuid::Uuid;

use super::{Connections, Joined};

/// Names one connection: a UUID version 7.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(Arc<str>);

impl ConnectionId {
    pub(super) fn new() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    /// As it stands in records.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The proxy's own socket towards the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamSocket {
    /// TCP, by its ends.
    Tcp {
        /// The proxy's end.
        local: SocketAddr,
        /// The server's end.
        peer: SocketAddr,
    },
    /// A unix socket, by the inode number of the proxy's end.
    Unix {
        /// As `fstat` tells it.
        inode: u64,
    },
}

/// How a proxied connection ended.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// Why.
    pub reason: String,
    /// Bytes that the client sent.
    pub bytes_from_client: u64,
    /// Bytes that the client was sent.
    pub bytes_to_client: u64,
    /// Statements that were recorded.
    pub statements: u64,
}

/// An open connection through the proxy. Dropping it records its end too.
#[derive(Debug)]
pub struct ProxiedConnection {
    connections: Connections,
    joined: Arc<Joined>,
    opened: Instant,
    upstream: Mutex<Vec<UpstreamSocket>>,
    ended: bool,
}

impl ProxiedConnection {
    pub(super) fn new(connections: Connections, joined: Joined) -> Self {
        let joined = Arc::new(joined);
        Self { connections, joined, opened: Instant::now(), upstream: Mutex::default(), ended: false }
    }

    /// Its name in records.
    pub fn id(&self) -> ConnectionId {
        self.joined.id.clone()
    }

    /// `socket` is the proxy's and belongs to this connection: what the server accepts from it is not an access
    /// round the proxy. To be called as soon as it is connected.
    pub fn upstream(&self, socket: UpstreamSocket) {
        let socket = socket.canonical();
        {
            let mut state = self.connections.state();
            state.table.registered(socket);
            state.joins.session(socket, Arc::clone(&self.joined));
        }
        self.sockets().push(socket);
    }

    /// Records the end.
    pub fn close(mut self, ending: Ending) {
        self.end(ending, "proxy");
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<UpstreamSocket>> {
        self.upstream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&mut self, ending: Ending, bytes_source: &str) {
        self.ended = true;
        let sockets = std::mem::take(&mut *self.sockets());
        {
            let mut state = self.connections.state();
            for socket in sockets {
                state.table.released(socket, Instant::now());
                state.joins.session_ended(&socket);
            }
            let counts = state.counts.entry(self.joined.server.name.clone()).or_default();
            counts.proxied_open = counts.proxied_open.saturating_sub(1);
        }
        let duration = self.opened.elapsed().as_micros();
        let whole = bytes_source == "proxy";
        let missing = (!whole).then(|| "the session ended without its last figures".to_owned());
        let completeness = Completeness { whole, missing: missing.into_iter().collect(), lost_meanwhile: 0 };
        self.connections.shared.audit.record(Body::ConnectionClosed(ConnectionClosed {
            connection_id: self.joined.id.to_string(),
            bytes_from_client: ending.bytes_from_client,
            bytes_to_client: ending.bytes_to_client,
            bytes_source: bytes_source.to_owned(),
            duration_us: u64::try_from(duration).unwrap_or(u64::MAX),
            reason: ending.reason,
            statements: ending.statements,
            completeness: Some(completeness),
        }));
    }
}

impl Drop for ProxiedConnection {
    fn drop(&mut self) {
        if !self.ended {
            let reason = "the session ended without saying why".to_owned();
            self.end(Ending { reason, ..Ending::default() }, "none");
        }
    }
}

impl UpstreamSocket {
    /// IPv4 addresses in their own form, as the sensor tells them.
    pub(super) fn canonical(self) -> Self {
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        match self {
            Self::Tcp { local, peer } => Self::Tcp { local: plain(local), peer: plain(peer) },
            Self::Unix { .. } => self,
        }
    }
}
