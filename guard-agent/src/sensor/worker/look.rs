//! What the sensor finds by looking: connections that are older than the watch, or of which no event has told; clients
//! that the kernel side did not capture; ends that were lost.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use guard_common::audit::v1::workload::Evidence;

use super::{LOOK_EVERY, Open, Worker};
use crate::{
    identity::{Identifier, Workload},
    sensor::{
        client_ends::{ClientEnds, Ends},
        dump::{self, Endings},
        event::{Accepted, Bytes, Closed, Endpoint, Lost, SensorEvent, SocketId},
        host, namespace,
        sockets::{self, Connection},
        unix_diag,
        unix_table::OpenUnix,
    },
};

/// Where the kernel does not tell, ends are seen by looking.
pub(super) fn listen_for_ends() -> Option<Endings> {
    Endings::listen()
        .map_err(|error| tracing::warn!(%error, "the kernel does not tell of the ends of connections"))
        .ok()
}

impl Worker {
    /// The best that is known of a client that the kernel side did not capture.
    pub(super) fn uncaptured(&mut self, client: SocketAddr, server: SocketAddr) -> Arc<Workload> {
        if !self.own_addresses.contains(client.ip()) || !self.looks.may(Instant::now()) {
            return Identifier::remote(client.ip());
        }
        let table = dump::connections(&[dump::Ends { local: client.port(), remote: server.port() }]);
        let own = Connection::between(server, client);
        self.reported(&table, &[own]).pop().unwrap_or_else(|| Identifier::remote(client.ip()))
    }

    /// Clients of several connections, given by their server's ends, each by the process that holds the other end's
    /// socket.
    pub(super) fn reported(&mut self, table: &[Connection], wanted: &[Connection]) -> Vec<Arc<Workload>> {
        let ends = ClientEnds::of(table);
        let users: HashMap<u64, u32> = table.iter().filter_map(|end| Some((end.inode, end.uid?))).collect();
        let inodes: Vec<Option<u64>> = wanted.iter().map(|server_end| ends.find(server_end)).collect();
        let owners = sockets::owners(&inodes.iter().flatten().copied().collect());
        wanted
            .iter()
            .zip(inodes)
            .map(|(server_end, inode)| {
                let pid = inode.and_then(|inode| owners.get(&inode)).and_then(|pids| pids.first());
                let user = inode.and_then(|inode| users.get(&inode));
                match (pid, user) {
                    (Some(pid), _) => self.identifier.owner(*pid),
                    // Whoever held it has ended meanwhile; whose it was is known.
                    (None, Some(uid)) => self.identifier.of_user(*uid),
                    (None, None) => Identifier::remote(server_end.remote.ip()),
                }
            })
            .collect()
    }

    /// Looks in the kernel's tables for connections on `ports` that no event has told of.
    pub(super) fn look(&mut self, ports: &BTreeSet<u16>, preexisting: bool) {
        let followed: BTreeSet<u16> = self.poller.ports().union(ports).copied().collect();
        let table = self.tables(&followed);
        // What was accepted before the look is in the ring buffer by now.
        self.drain();
        let mut changes = self.poller.look(&table, ports);
        self.report_ends(changes.closed);
        if !changes.opened.is_empty() {
            // A client that has chosen its own address may have chosen the port of a server as well.
            let listeners = sockets::listeners(std::process::id());
            let serves = |end: &Connection| end.namespace != 0 || sockets::may_serve(&listeners, end.local);
            let (opened, clients): (Vec<_>, Vec<_>) = changes.opened.into_iter().partition(serves);
            changes.opened = opened;
            clients.iter().filter_map(Connection::socket).for_each(|socket| self.poller.forget(socket));
        }
        let mut told = self.told.take().unwrap_or_default();
        told.extend(self.open.values().map(Open::ends));
        let was_told = |end: &Connection| {
            let namespace = if end.namespace == 0 { self.own_namespace } else { end.namespace };
            [namespace, 0].iter().any(|namespace| told.contains(&(*namespace, end.remote, end.local)))
        };
        let (known, new): (Vec<Connection>, Vec<Connection>) = changes.opened.into_iter().partition(was_told);
        for socket in known.iter().filter_map(Connection::socket) {
            self.poller.forget(socket);
        }
        if !new.is_empty() {
            let table = self.with_clients(table, preexisting);
            self.report(new, &table, preexisting);
        }
    }

    /// Looks for what no event tells of.
    pub(super) fn look_around(&mut self) {
        if self.kernel.is_none() {
            let ports = self.watch.database_ports.clone();
            self.look(&ports, false);
            let elsewhere = self.watch.elsewhere_ports.clone();
            self.look_outgoing(&elsewhere, false);
        } else if self.ticks.is_multiple_of(LOOK_EVERY) && !self.poller.is_empty() {
            let changes = self.poller.ended(&self.tables(&self.poller.ports()));
            self.report_ends(changes.closed);
        }
        if self.unix_unseen && !self.watch.unix_sockets.is_empty() {
            let paths = self.watch.unix_sockets.clone();
            self.look_for_unix(&paths, false);
        }
    }

    /// What has ended since, and what was too short to be seen before.
    pub(super) fn take_endings(&mut self) {
        let Some(endings) = &self.endings else { return };
        let (ended, dropped) = endings.take(&self.watch.database_ports);
        if dropped > 0 {
            let (since, until) = (self.counted_at, SystemTime::now());
            let lost = Lost { kind: "ends-of-sockets", lost: dropped, since, until, by_cpu: Vec::new() };
            self.send(SensorEvent::Lost(lost));
        }
        if ended.is_empty() {
            return;
        }
        let changes = self.poller.told(&ended);
        // The clients of those that are new have ended as well, or are about to.
        let clients: Vec<dump::Ends> = changes
            .opened
            .iter()
            .map(|end| dump::Ends { local: end.remote.port(), remote: end.local.port() })
            .collect();
        let table = dump::connections(&clients);
        self.report(changes.opened, &table, false);
        self.report_ends(changes.closed);
    }

    fn report_ends(&mut self, closed: Vec<(SocketId, Option<Bytes>)>) {
        for (socket, bytes) in closed {
            self.send(SensorEvent::Closed(Closed { socket, bytes, late: false, at: host::monotonic() }));
        }
    }

    fn report(&mut self, new: Vec<Connection>, table: &[Connection], preexisting: bool) {
        let workloads = self.reported(table, &new);
        for (connection, workload) in new.into_iter().zip(workloads) {
            let Some(socket) = connection.socket() else { continue };
            let own = connection.namespace == 0;
            self.send(SensorEvent::Accepted(Accepted {
                socket,
                endpoint: Endpoint::Tcp { client: connection.remote, server: connection.local },
                workload,
                at: host::monotonic(),
                preexisting,
                namespace: if own { self.own_namespace } else { connection.namespace },
                server_pid: 0,
                client: None,
                namespace_cookie: 0,
            }));
        }
    }

    /// Asks the kernel for connections on unix sockets of which no event has told: they are older than the watch, or the
    /// programs cannot follow them.
    pub(super) fn look_for_unix(&mut self, paths: &BTreeSet<PathBuf>, preexisting: bool) {
        let found = match unix_diag::connected() {
            Ok(found) => found,
            Err(error) => {
                if preexisting {
                    tracing::warn!(%error, "connections on unix sockets that are open already cannot be listed");
                }
                return;
            }
        };
        // What was accepted before the look is in the ring buffer by now, and in the table.
        self.drain();
        let known = |inode: u64| self.unix.knows(inode);
        let new: Vec<_> =
            found.into_iter().filter(|end| paths.contains(&end.path) && !known(end.inode)).collect();
        if new.is_empty() {
            return;
        }
        let owners = sockets::owners(&new.iter().flat_map(|end| [end.inode, end.peer]).collect());
        let owner = |inode| owners.get(&inode).and_then(|pids| pids.first()).copied();
        for end in new {
            // The server has it in several processes for a moment; the last one is the one that serves it.
            let server_pid = owners.get(&end.inode).and_then(|pids| pids.last()).copied();
            let Some(server_pid) = server_pid else { continue };
            let workload = match owner(end.peer) {
                Some(pid) => self.identifier.owner(pid),
                None => Arc::new(Workload { evidence: Evidence::Address.into(), ..Workload::default() }),
            };
            self.unix.opened(
                end.inode,
                OpenUnix { namespace: self.own_namespace, client_pid: server_pid, key: 0, late: false },
            );
            self.send(SensorEvent::Accepted(Accepted {
                socket: SocketId::Inode(end.inode),
                endpoint: Endpoint::Unix { path: end.path, peer_inode: end.peer },
                workload,
                at: host::monotonic(),
                preexisting,
                namespace: self.own_namespace,
                server_pid,
                client: None,
                namespace_cookie: 0,
            }));
        }
    }

    /// Connections of the agent's network namespace, those on `ports`, and of those of the servers.
    pub(super) fn tables(&self, ports: &BTreeSet<u16>) -> Vec<Connection> {
        let mut table = dump::of_ports(ports);
        for (namespace, pid) in &self.watch.namespaces {
            table.extend(sockets::connections_in(*namespace, *pid));
        }
        table
    }

    /// The same with all namespaces in which clients may be, where it is worth the time.
    pub(super) fn with_clients(&self, mut table: Vec<Connection>, all: bool) -> Vec<Connection> {
        let others = if all { namespace::others() } else { BTreeMap::new() };
        for (namespace, pid) in others {
            if !self.watch.namespaces.contains_key(&namespace) {
                table.extend(sockets::connections_in(namespace, pid));
            }
        }
        table
    }

    /// Ends of connections were lost: what is no longer in /proc has ended. Only the agent's network namespace and those
    /// of servers are listed.
    pub(super) fn reconcile(&mut self) {
        let listed = |namespace: u64| {
            namespace == self.own_namespace || self.watch.namespaces.contains_key(&namespace)
        };
        let present: HashSet<Ends> = self
            .tables(&self.watch.database_ports)
            .into_iter()
            .map(|end| {
                let own = end.namespace == 0;
                (if own { self.own_namespace } else { end.namespace }, end.remote, end.local)
            })
            .collect();
        let gone: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, open)| listed(open.namespace))
            .filter(|(_, open)| !present.contains(&open.ends()))
            .map(|(cookie, _)| *cookie)
            .collect();
        for cookie in gone {
            self.open.remove(&cookie);
            self.ended(self.socket(cookie));
        }
    }
}
