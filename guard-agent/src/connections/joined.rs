//! Which connection a server's socket belongs to, for whoever sees what happens on the server's side of it.

use std::{collections::HashMap, sync::Arc};

use super::{ConnectionId, UpstreamSocket};
use crate::{identity::Workload, sensor::SocketId, servers::Server};

/// Sockets that are remembered.
const LIMIT: usize = 100_000;

/// A connection that is open.
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
}

impl Joins {
    /// Someone has gone round the proxy.
    pub(super) fn opened(&mut self, socket: SocketId, joined: Joined) {
        if self.non_proxied.len() < LIMIT {
            self.non_proxied.insert(socket, Arc::new(joined));
        }
    }

    /// A server has accepted what the agent itself has connected.
    pub(super) fn accepted(&mut self, socket: SocketId, other_end: UpstreamSocket) {
        if self.own.len() < LIMIT {
            self.own.insert(socket, other_end);
        }
    }

    /// The server's socket is closed.
    pub(super) fn closed(&mut self, socket: SocketId) {
        self.non_proxied.remove(&socket);
        self.own.remove(&socket);
    }

    /// A session of the proxy has this socket towards its server.
    pub(super) fn session(&mut self, socket: UpstreamSocket, joined: Arc<Joined>) {
        self.sessions.insert(socket, joined);
    }

    /// It has ended.
    pub(super) fn session_ended(&mut self, socket: &UpstreamSocket) {
        self.sessions.remove(socket);
    }

    /// The connection of a server's socket.
    pub(super) fn find(&self, socket: SocketId) -> Option<Arc<Joined>> {
        let proxied = || self.own.get(&socket).and_then(|other_end| self.sessions.get(other_end));
        self.non_proxied.get(&socket).or_else(proxied).cloned()
    }
}
