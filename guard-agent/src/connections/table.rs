//! Joins accepts of the kernel with sessions of the proxy, whichever comes first. Pure: it is told the time.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use guard_common::audit::v1::workload::Evidence;

use super::{ConnectionId, UpstreamSocket};
use crate::{
    sensor::{Accepted, Closed, Endpoint, SocketId},
    servers::Server,
};

/// How long an accept of a connection that the agent made waits for its session, and a session that has ended for
/// its accept.
pub const JOIN_WITHIN: Duration = Duration::from_secs(2);
/// Connections that are followed until they end.
const LIMIT: usize = 100_000;

/// What came of an accept.
#[derive(Debug)]
pub enum Arrival {
    /// It belongs to a session of the proxy.
    Proxied,
    /// The agent made it; its session may come later.
    Waits,
    /// Someone has gone round the proxy.
    NonProxied(NonProxied),
}

/// An access round the proxy, to be recorded.
#[derive(Debug)]
pub struct NonProxied {
    /// As the sensor told it.
    pub accepted: Accepted,
    /// The server that accepted it.
    pub server: Arc<Server>,
    /// It has ended already.
    pub closed: Option<Closed>,
}

/// An access round the proxy that is open.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Its name in records.
    pub id: ConnectionId,
    /// The server that accepted it.
    pub server: Arc<Server>,
    /// When it began, on the sensor's clock.
    pub at: Duration,
}

/// Open connections, and what waits for its other half.
#[derive(Debug, Default)]
pub struct Table {
    followed: HashMap<SocketId, Followed>,
    proxied: HashSet<SocketId>,
    sessions: HashSet<UpstreamSocket>,
    released: VecDeque<(Instant, UpstreamSocket)>,
    waiting: VecDeque<(Instant, NonProxied)>,
}

impl Table {
    /// A database has accepted a connection.
    pub fn accepted(&mut self, accepted: Accepted, server: Arc<Server>, now: Instant) -> Arrival {
        // A socket's name that comes again names another connection: the end of the first was missed.
        self.proxied.remove(&accepted.socket);
        let own = accepted.workload.pid == std::process::id();
        // Loopback addresses are not unique: another namespace may have the same ends. But a client that the kernel
        // captured is who it is.
        let possible = own || accepted.workload.evidence() != Evidence::Attested;
        if possible && self.sessions.remove(&upstream_of(&accepted.endpoint)) {
            self.remember_proxied(accepted.socket);
            return Arrival::Proxied;
        }
        let access = NonProxied { accepted, server, closed: None };
        if own && self.waiting.len() < LIMIT {
            self.waiting.push_back((now, access));
            return Arrival::Waits;
        }
        Arrival::NonProxied(access)
    }

    /// The proxy has connected `socket` for a session.
    pub fn registered(&mut self, socket: UpstreamSocket) {
        let position =
            self.waiting.iter().position(|(_, access)| upstream_of(&access.accepted.endpoint) == socket);
        match position.and_then(|position| self.waiting.remove(position)) {
            Some((_, access)) if access.closed.is_none() => self.remember_proxied(access.accepted.socket),
            Some(_) => {}
            None => {
                self.sessions.insert(socket);
            }
        }
    }

    /// The session of `socket` has ended. Its accept may still be on its way.
    pub fn released(&mut self, socket: UpstreamSocket, now: Instant) {
        if self.sessions.contains(&socket) {
            self.released.push_back((now, socket));
        }
    }

    /// A socket of a database was closed; tells the access round the proxy that it was.
    pub fn closed(&mut self, closed: &Closed) -> Option<Followed> {
        if self.proxied.remove(&closed.socket) {
            return None;
        }
        let waiting =
            self.waiting.iter_mut().rev().find(|(_, access)| access.accepted.socket == closed.socket);
        if let Some((_, access)) = waiting {
            access.closed = Some(closed.clone());
            return None;
        }
        self.followed.remove(&closed.socket)
    }

    /// Follows an access until its end; false where the table is full.
    pub fn follow(&mut self, id: &ConnectionId, accepted: &Accepted, server: &Arc<Server>) -> bool {
        if self.followed.len() >= LIMIT {
            return false;
        }
        let followed = Followed { id: id.clone(), server: Arc::clone(server), at: accepted.at };
        self.followed.insert(accepted.socket, followed);
        true
    }

    /// Accepts that have waited long enough for a session.
    pub fn overdue(&mut self, now: Instant) -> Vec<NonProxied> {
        while let Some((at, socket)) = self.released.front().copied() {
            if now.saturating_duration_since(at) < JOIN_WITHIN {
                break;
            }
            self.released.pop_front();
            self.sessions.remove(&socket);
        }
        let mut overdue = Vec::new();
        while self.waiting.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= JOIN_WITHIN) {
            overdue.extend(self.waiting.pop_front().map(|(_, access)| access));
        }
        overdue
    }

    fn remember_proxied(&mut self, socket: SocketId) {
        if self.proxied.len() < LIMIT {
            self.proxied.insert(socket);
        }
    }
}

/// The client's end of a connection, in the form in which the proxy names its own sockets.
pub fn upstream_of(endpoint: &Endpoint) -> UpstreamSocket {
    match endpoint {
        Endpoint::Tcp { client, server } => UpstreamSocket::Tcp { local: *client, peer: *server },
        Endpoint::Unix { peer_inode, .. } => UpstreamSocket::Unix { inode: *peer_inode },
    }
}
