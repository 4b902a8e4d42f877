//! Connections that no event tells of: without the kernel side all of them, with it those that were open before, and
//! those on unix sockets where the programs cannot follow them. Found in the kernel's tables, and by the ends it tells.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::SystemTime,
};

use guard_common::audit::v1::workload::Evidence;

use super::{LOOK_EVERY, Worker};
use crate::{
    identity::{Identifier, Workload},
    sensor::{
        dump::{self, Endings, Ends},
        event::{Accepted, Closed, Endpoint, Lost, SensorEvent, SocketId},
        flow, host,
        poller::Changes,
        sockets::{self, Connection},
    },
};

/// Where the kernel does not tell, ends are seen by looking.
pub(super) fn listen_for_ends() -> Option<Endings> {
    Endings::listen()
        .map_err(|error| tracing::warn!(%error, "the kernel does not tell of the ends of connections"))
        .ok()
}

impl Worker {
    /// Looks in the kernel's tables for connections on `ports` that no event has told of.
    pub(super) fn look(&mut self, ports: &BTreeSet<u16>, preexisting: bool) {
        let followed: BTreeSet<u16> = self.poller.ports().union(ports).copied().collect();
        let table = dump::of_ports(&followed);
        // What was accepted before the look is in the ring buffer by now.
        self.drain();
        let mut changes = self.poller.look(&table, ports);
        let mut told = self.told.take().unwrap_or_default();
        told.extend(self.open.values().map(|flow| (flow::client(flow), flow::server(flow))));
        let (known, new): (Vec<Connection>, Vec<Connection>) =
            changes.opened.into_iter().partition(|end| told.contains(&(end.remote, end.local)));
        for socket in known.iter().filter_map(Connection::socket) {
            self.poller.forget(socket);
        }
        changes.opened = new;
        self.report(changes, &table, preexisting);
    }

    /// What has ended since, and what was too short to be seen before.
    pub(super) fn take_endings(&mut self) {
        let Some(endings) = &self.endings else { return };
        let (ended, dropped) = endings.take(&self.watch.database_ports);
        if dropped > 0 {
            let now = SystemTime::now();
            let lost = Lost { kind: "ends-of-sockets", lost: dropped, since: self.counted_at, until: now };
            self.send(SensorEvent::Lost(lost));
        }
        if !ended.is_empty() {
            let changes = self.poller.told(&ended);
            // The clients of those that are new have ended as well, or are about to.
            let clients: Vec<Ends> = changes
                .opened
                .iter()
                .map(|end| Ends { local: end.remote.port(), remote: end.local.port() })
                .collect();
            let table = dump::connections(&clients);
            self.report(changes, &table, false);
        }
    }

    pub(super) fn report(&mut self, changes: Changes, table: &[Connection], preexisting: bool) {
        let ends: Vec<(SocketAddr, SocketAddr)> =
            changes.opened.iter().map(|end| (end.remote, end.local)).collect();
        let workloads = self.reported(table, &ends);
        for (connection, workload) in changes.opened.into_iter().zip(workloads) {
            let Some(socket) = connection.socket() else { continue };
            self.send(SensorEvent::Accepted(Accepted {
                socket,
                endpoint: Endpoint::Tcp { client: connection.remote, server: connection.local },
                workload,
                at: host::monotonic(),
                preexisting,
            }));
        }
        for (socket, bytes) in changes.closed {
            self.send(SensorEvent::Closed(Closed { socket, bytes, at: host::monotonic() }));
        }
    }

    /// Looks for connections on watched unix sockets that no event can tell of.
    pub(super) fn look_at_unix(&mut self) {
        if self.watch.unix_sockets.is_empty() {
            return;
        }
        let mut new = dump::unix_connections(&self.watch.unix_sockets);
        new.retain(|connection| !self.unix.is_open(connection.inode));
        if new.is_empty() {
            return;
        }
        let both = new.iter().flat_map(|connection| [connection.inode, connection.peer_inode]);
        let owners = sockets::owners(&both.filter(|inode| *inode != 0).collect());
        let owner = |inode: u64| owners.get(&inode).and_then(|pids| pids.first()).copied();
        for connection in new {
            // Not accepted yet: the next look finds it.
            let Some(server) = owner(connection.inode) else { continue };
            let workload = match owner(connection.peer_inode) {
                Some(pid) => self.identifier.by_pid(pid, None, Evidence::Reported),
                None => self.identifier.by_pid(0, None, Evidence::Reported),
            };
            self.unix.opened(connection.inode, server);
            self.send(SensorEvent::Accepted(Accepted {
                socket: SocketId::Inode(connection.inode),
                endpoint: Endpoint::Unix { path: connection.path, peer_inode: connection.peer_inode },
                workload,
                at: host::monotonic(),
                preexisting: false,
            }));
        }
    }

    /// Looks for what no event tells of.
    pub(super) fn look_around(&mut self) {
        if self.kernel.is_none() {
            let ports = self.watch.database_ports.clone();
            self.look(&ports, false);
        } else if self.ticks.is_multiple_of(LOOK_EVERY) && !self.poller.is_empty() {
            let table = dump::of_ports(&self.poller.ports());
            let changes = self.poller.ended(&table);
            self.report(changes, &table, false);
        }
        if self.unix_unseen {
            self.look_at_unix();
        }
    }

    /// Clients of several connections, each by the process that holds the other end's socket.
    pub(super) fn reported(
        &mut self,
        table: &[Connection],
        wanted: &[(SocketAddr, SocketAddr)],
    ) -> Vec<Arc<Workload>> {
        let clients: HashMap<(SocketAddr, SocketAddr), &Connection> =
            table.iter().map(|end| ((end.local, end.remote), end)).collect();
        let inodes = wanted.iter().filter_map(|ends| clients.get(ends)).map(|end| end.inode);
        let owners = sockets::owners(&inodes.filter(|inode| *inode != 0).collect());
        wanted
            .iter()
            .map(|ends| {
                let client = clients.get(ends);
                let pid = client.and_then(|end| owners.get(&end.inode)).and_then(|pids| pids.first());
                match (pid, client.and_then(|end| end.uid)) {
                    (Some(pid), _) => self.identifier.by_pid(*pid, None, Evidence::Reported),
                    // Whoever held it has ended meanwhile; whose it was is known.
                    (None, Some(uid)) => self.identifier.of_user(uid),
                    (None, None) => Identifier::remote(ends.0.ip()),
                }
            })
            .collect()
    }
}
