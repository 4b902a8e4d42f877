//! Which connection a server's socket belongs to, for whoever sees what happens on the server's side of it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{ConnectionId, UpstreamSocket};
use crate::{identity::Workload, sensor::SocketId, servers::Server};

/// Sockets that are remembered.
const LIMIT: usize = 100_000;

/// How long a connection is remembered after its end: what was seen of it may be told later than that.
const REMEMBERED: Duration = Duration::from_secs(5);

/// A connection that is open, or was a moment ago.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Its name in records.
    pub id: ConnectionId,
    /// Who is at the client's end.
    pub workload: Arc<Workload>,
    /// The server.
    pub server: Arc<Server>,
    /// `tcp` or `unix`.
    pub transport: &'static str,
    /// Through the proxy, or round it.
    pub proxied: bool,
}

/// Open connections by their sockets on the server's side.
#[derive(Debug, Default)]
pub(super) struct Joins {
    non_proxied: HashMap<SocketId, Arc<Joined>>,
    /// Sockets whose other end is the agent's own.
    own: HashMap<SocketId, UpstreamSocket>,
    sessions: HashMap<UpstreamSocket, Arc<Joined>>,
    /// Sockets that are closed, the first of them first.
    ended: VecDeque<(Instant, SocketId)>,
    /// The same of the proxy's own.
    ended_sessions: VecDeque<(Instant, UpstreamSocket)>,
}

impl Joins {
    /// Someone has gone round the proxy.
    pub(super) fn opened(&mut self, socket: SocketId, joined: Joined) {
        self.begins(socket);
        if self.non_proxied.len() < LIMIT {
            self.non_proxied.insert(socket, Arc::new(joined));
        }
    }

    /// A server has accepted what the agent itself has connected.
    pub(super) fn accepted(&mut self, socket: SocketId, other_end: UpstreamSocket) {
        self.begins(socket);
        if self.own.len() < LIMIT {
            self.own.insert(socket, other_end);
        }
    }

    /// The server's socket is closed.
    pub(super) fn closed(&mut self, socket: SocketId) {
        self.forget(Instant::now());
        if self.non_proxied.contains_key(&socket) || self.own.contains_key(&socket) {
            self.ended.push_back((Instant::now(), socket));
        }
    }

    /// A number that is used again is another socket's.
    fn begins(&mut self, socket: SocketId) {
        let known = self.non_proxied.remove(&socket).is_some() | self.own.remove(&socket).is_some();
        if known {
            self.ended.retain(|(_, ended)| *ended != socket);
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, socket)) = self.ended.front().copied()
            && now.saturating_duration_since(at) >= REMEMBERED
        {
            self.ended.pop_front();
            self.non_proxied.remove(&socket);
            self.own.remove(&socket);
        }
        while self
            .ended_sessions
            .front()
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) >= REMEMBERED)
        {
            if let Some((_, socket)) = self.ended_sessions.pop_front() {
                self.sessions.remove(&socket);
            }
        }
    }

    /// A session of the proxy has this socket towards its server.
    pub(super) fn session(&mut self, socket: UpstreamSocket, joined: Arc<Joined>) {
        if self.sessions.insert(socket, joined).is_some() {
            self.ended_sessions.retain(|(_, ended)| *ended != socket);
        }
    }

    /// It has ended.
    pub(super) fn session_ended(&mut self, socket: &UpstreamSocket) {
        self.forget(Instant::now());
        self.ended_sessions.push_back((Instant::now(), *socket));
    }

    /// The connection of a server's socket.
    pub(super) fn find(&self, socket: SocketId) -> Option<Arc<Joined>> {
        let proxied = || self.own.get(&socket).and_then(|other_end| self.sessions.get(other_end));
        self.non_proxied.get(&socket).or_else(proxied).cloned()
    }
}
