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
/// How long an accept at a steered address waits for the proxy, which may have many to accept.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(10);
/// Connections that are followed until they end.
const LIMIT: usize = 100_000;

const OWN_WITHOUT_SESSION: &str = "made by guard-agent itself, but not for any session";
const NOT_STEERED: &str = "reached the server although its address is steered";

/// What came of an accept.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
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
    /// It was open before it could be watched.
    pub preexisting: bool,
    /// The kernel told of its beginning.
    pub by_kernel: bool,
    /// Events lost up to then.
    pub lost_before: u64,
    /// guard has ended it.
    pub cut: bool,
}

/// Open connections, and what waits for its other half.
#[derive(Debug, Default)]
pub struct Table {
    followed: HashMap<SocketId, Followed>,
    proxied: HashSet<SocketId>,
    sessions: HashSet<UpstreamSocket>,
    released: VecDeque<(Instant, UpstreamSocket)>,
    waiting: VecDeque<(Instant, NonProxied)>,
    /// What the proxy has taken in a server's place, until the kernel tells of it: by ends, the client's first.
    taken: HashSet<UpstreamSocket>,
    taken_at: VecDeque<(Instant, UpstreamSocket)>,
    /// What the kernel told of at a steered address, until the proxy has taken it.
    arriving: VecDeque<(Instant, NonProxied)>,
    /// Those that are being cut, with their end where it has come already.
    cutting: HashMap<SocketId, Option<Closed>>,
}

impl Table {
    /// A database has accepted a connection.
    pub fn accepted(
        &mut self,
        accepted: Accepted,
        server: Arc<Server>,
        steered: bool,
        now: Instant,
    ) -> Arrival {
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
        if !own && self.taken.remove(&upstream_of(&accepted.endpoint)) {
            self.remember_proxied(accepted.socket);
            return Arrival::Proxied;
        }
        // What is older than the agent nobody will take.
        let steered = steered && !own && !accepted.preexisting && is_tcp(&accepted.endpoint);
        let access = NonProxied { accepted, server, closed: None };
        if steered && self.arriving.len() < LIMIT {
            self.arriving.push_back((now, access));
            return Arrival::Waits;
        }
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

    /// The proxy has accepted a connection in a server's place.
    pub fn taken(&mut self, socket: UpstreamSocket, now: Instant) {
        let position =
            self.arriving.iter().position(|(_, access)| upstream_of(&access.accepted.endpoint) == socket);
        match position.and_then(|position| self.arriving.remove(position)) {
            Some((_, access)) if access.closed.is_none() => self.remember_proxied(access.accepted.socket),
            Some(_) => {}
            None if self.taken.len() < LIMIT => {
                self.taken.insert(socket);
                self.taken_at.push_back((now, socket));
            }
            None => {}
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
        if let Some(ended) = self.cutting.get_mut(&closed.socket) {
            *ended = Some(closed.clone());
            return None;
        }
        let mut both = self.waiting.iter_mut().chain(&mut self.arriving).rev();
        let waiting = both.find(|(_, access)| access.accepted.socket == closed.socket);
        if let Some((_, access)) = waiting {
            access.closed = Some(closed.clone());
            return None;
        }
        self.followed.remove(&closed.socket)
    }

    /// An access is being cut: its end waits until what came of it is recorded.
    pub fn begin_cut(&mut self, socket: SocketId) {
        self.cutting.insert(socket, None);
    }

    /// What came of cutting is known; gives the end of the connection, where it has come.
    pub fn end_cut(&mut self, socket: SocketId) -> Option<Closed> {
        self.cutting.remove(&socket).flatten()
    }

    /// Whether a session of the proxy has made this connection, as was not known when it was accepted.
    pub fn claimed(&mut self, accepted: &Accepted) -> bool {
        let claimed = self.sessions.remove(&upstream_of(&accepted.endpoint));
        if claimed {
            self.remember_proxied(accepted.socket);
        }
        claimed
    }

    /// Follows an access until its end, which guard makes where it is `cut`; false where the table is full.
    pub fn follow(
        &mut self,
        id: &ConnectionId,
        accepted: &Accepted,
        server: &Arc<Server>,
        lost_before: u64,
        cut: bool,
    ) -> bool {
        if self.followed.len() >= LIMIT {
            return false;
        }
        let unix = matches!(accepted.endpoint, Endpoint::Unix { .. });
        let followed = Followed {
            id: id.clone(),
            server: Arc::clone(server),
            at: accepted.at,
            preexisting: accepted.preexisting,
            by_kernel: !accepted.preexisting
                && (unix || matches!(accepted.socket, SocketId::Cookie(_) | SocketId::Serial(_))),
            lost_before,
            cut,
        };
        self.followed.insert(accepted.socket, followed);
        true
    }

    /// Accepts that have waited long enough for a session.
    pub fn overdue(&mut self, now: Instant) -> Vec<(NonProxied, &'static str)> {
        while let Some((at, socket)) = self.released.front().copied() {
            if now.saturating_duration_since(at) < JOIN_WITHIN {
                break;
            }
            self.released.pop_front();
            self.sessions.remove(&socket);
        }
        let mut overdue = Vec::new();
        while self.waiting.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= JOIN_WITHIN) {
            overdue.extend(self.waiting.pop_front().map(|(_, access)| (access, OWN_WITHOUT_SESSION)));
        }
        while self.arriving.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= TAKEN_WITHIN)
        {
            overdue.extend(self.arriving.pop_front().map(|(_, access)| (access, NOT_STEERED)));
        }
        while let Some((at, socket)) = self.taken_at.front().copied() {
            if now.saturating_duration_since(at) < TAKEN_WITHIN && self.taken_at.len() < LIMIT {
                break;
            }
            self.taken_at.pop_front();
            self.taken.remove(&socket);
        }
        overdue
    }

    fn remember_proxied(&mut self, socket: SocketId) {
        if self.proxied.len() < LIMIT {
            self.proxied.insert(socket);
        }
    }
}

fn is_tcp(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Tcp { .. })
}

/// The client's end of a connection, in the form in which the proxy names its own sockets.
pub fn upstream_of(endpoint: &Endpoint) -> UpstreamSocket {
    match endpoint {
        Endpoint::Tcp { client, server } => UpstreamSocket::Tcp { local: *client, peer: *server },
        Endpoint::Unix { peer_inode, .. } => UpstreamSocket::Unix { inode: *peer_inode },
    }
}
