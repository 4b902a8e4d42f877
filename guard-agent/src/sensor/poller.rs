//! Finds TCP connections by looking at the kernel's tables again and again: without the kernel side, all of them; with
//! it, those that were open before. Pure: it is given the tables, and the ends that the kernel told of meanwhile.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::SocketAddr,
};

use super::{
    dump::Ended,
    event::{Bytes, SocketId},
    sockets::Connection,
};

/// Connections that were seen and not yet gone.
#[derive(Debug, Default)]
pub struct Poller {
    open: HashMap<SocketId, Seen>,
    /// The kernel tells of ends, a little after they are no longer in its tables.
    told_of_ends: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    ends: (SocketAddr, SocketAddr),
    /// It was not in the last table.
    missing: bool,
}

/// What has changed between two looks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Server-side ends of new connections.
    pub opened: Vec<Connection>,
    /// Server-side sockets that are gone, and their bytes where the kernel told.
    pub closed: Vec<(SocketId, Option<Bytes>)>,
}

impl Poller {
    /// At most this many connections are followed.
    const LIMIT: usize = 100_000;

    /// None is known. `told_of_ends`: whether [`Poller::told`] will be called.
    pub fn new(told_of_ends: bool) -> Self {
        Self { open: HashMap::new(), told_of_ends }
    }

    /// Whether there is anything whose end has to be seen.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Server ports of what is followed.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.open.values().map(|seen| seen.ends.1.port()).collect()
    }

    /// Looks for connections on `ports` that are new, and for the end of those known.
    pub fn look(&mut self, table: &[Connection], ports: &BTreeSet<u16>) -> Changes {
        let mut changes = self.ended(table);
        for connection in table.iter().filter(|connection| ports.contains(&connection.local.port())) {
            let Some(socket) = connection.socket() else { continue };
            if self.open.len() >= Self::LIMIT || self.open.contains_key(&socket) {
                continue;
            }
            let seen = Seen { ends: (connection.remote, connection.local), missing: false };
            self.open.insert(socket, seen);
            changes.opened.push(*connection);
        }
        changes
    }

    /// Looks only for the end of those known.
    pub fn ended(&mut self, table: &[Connection]) -> Changes {
        let present: HashSet<(SocketId, (SocketAddr, SocketAddr))> =
            table.iter().filter_map(|end| Some((end.socket()?, (end.remote, end.local)))).collect();
        let patient = self.told_of_ends;
        let mut closed = Vec::new();
        for (socket, seen) in &mut self.open {
            let missing = !present.contains(&(*socket, seen.ends));
            // Its end may be on its way, with the bytes.
            if missing && (seen.missing || !patient) {
                closed.push(*socket);
            }
            seen.missing = missing;
        }
        for socket in &closed {
            self.open.remove(socket);
        }
        Changes { opened: Vec::new(), closed: closed.into_iter().map(|socket| (socket, None)).collect() }
    }

    /// The kernel has told of ends. A connection that no look has seen was shorter than the time between two.
    pub fn told(&mut self, ended: &[Ended]) -> Changes {
        let mut changes = Changes::default();
        for end in ended {
            let Some(socket) = end.connection.socket() else { continue };
            if self.open.remove(&socket).is_none() {
                changes.opened.push(end.connection);
            }
            changes.closed.push((socket, Some(end.bytes)));
        }
        changes
    }

    /// Forgets a connection that turned out to be known by other means.
    pub fn forget(&mut self, socket: SocketId) {
        self.open.remove(&socket);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Bytes, Changes, Connection, Ended, Poller, SocketId};

    fn connection(client_port: u16, inode: u64) -> Connection {
        Connection {
            local: "127.0.0.1:5432".parse().unwrap(),
            remote: ([127, 0, 0, 1], client_port).into(),
            inode,
            namespace: 0,
            cookie: 0,
            uid: None,
            bytes: None,
        }
    }

    #[test]
    fn reports_each_connection_once() {
        let (mut poller, ports) = (Poller::default(), BTreeSet::from([5432]));
        let table = [connection(1, 10), connection(2, 11)];
        assert_eq!(poller.look(&table, &ports).opened, table);
        assert_eq!(poller.look(&table, &ports), Changes::default());
        assert_eq!(poller.look(&table[..1], &ports).closed, [(SocketId::Inode(11), None)]);
        assert!(!poller.is_empty());
        assert_eq!(poller.ended(&[]).closed, [(SocketId::Inode(10), None)]);
        assert!(poller.is_empty());
    }

    #[test]
    fn an_inode_used_again_is_another_connection() {
        let (mut poller, ports) = (Poller::default(), BTreeSet::from([5432]));
        poller.look(&[connection(1, 10)], &ports);
        let changes = poller.look(&[connection(2, 10)], &ports);
        assert_eq!(
            (changes.closed, changes.opened),
            (vec![(SocketId::Inode(10), None)], vec![connection(2, 10)])
        );
    }

    #[test]
    fn other_ports_are_not_looked_at() {
        let mut poller = Poller::default();
        assert_eq!(poller.look(&[connection(1, 10)], &BTreeSet::from([1])), Changes::default());
    }

    #[test]
    fn what_was_too_short_for_a_look_is_told_by_its_end() {
        let (mut poller, ports) = (Poller::default(), BTreeSet::from([5432]));
        let bytes = Bytes { from_client: 7, to_client: 8 };
        let end = |port, cookie| {
            let connection = Connection { cookie, ..connection(port, 0) };
            Ended { connection, bytes }
        };
        let seen = Connection { cookie: 1, ..connection(1, 10) };
        poller.look(&[seen], &ports);
        let changes = poller.told(&[end(1, 1), end(2, 2)]);
        assert_eq!(changes.opened, [end(2, 2).connection]);
        assert_eq!(changes.closed, [(SocketId::Cookie(1), Some(bytes)), (SocketId::Cookie(2), Some(bytes))]);
        assert!(poller.is_empty());
    }

    #[test]
    fn an_end_that_will_be_told_is_waited_for_once() {
        let (mut poller, ports) = (Poller::new(true), BTreeSet::from([5432]));
        poller.look(&[connection(1, 10)], &ports);
        assert_eq!(poller.ended(&[]), Changes::default());
        assert_eq!(poller.ended(&[]).closed, [(SocketId::Inode(10), None)]);
    }

    #[test]
    fn a_connection_without_a_name_is_left_for_the_next_look() {
        let (mut poller, ports) = (Poller::default(), BTreeSet::from([5432]));
        assert_eq!(poller.look(&[connection(1, 0)], &ports), Changes::default());
    }
}
