//! Finds TCP connections by looking at /proc again and again: without the kernel side, all of them; with it, those
//! that were open before. Pure: it is given the tables.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
};

use super::sockets::Connection;

/// Connections that were seen and not yet gone.
#[derive(Debug, Default)]
pub struct Poller {
    open: HashMap<u64, (SocketAddr, SocketAddr)>,
}

/// What has changed between two looks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Server-side ends of new connections.
    pub opened: Vec<Connection>,
    /// Inode numbers of server-side sockets that are gone.
    pub closed: Vec<u64>,
}

impl Poller {
    /// At most this many connections are followed.
    const LIMIT: usize = 100_000;

    /// Whether there is anything whose end has to be seen.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Looks for connections on `ports` that are new, and for the end of those known.
    pub fn look(&mut self, table: &[Connection], ports: &BTreeSet<u16>) -> Changes {
        let mut changes = self.ended(table);
        for connection in table.iter().filter(|connection| ports.contains(&connection.local.port())) {
            // Inode 0: the socket is accepted by the kernel but not yet by the server.
            if connection.inode == 0
                || self.open.len() >= Self::LIMIT
                || self.open.contains_key(&connection.inode)
            {
                continue;
            }
            self.open.insert(connection.inode, (connection.remote, connection.local));
            changes.opened.push(*connection);
        }
        changes
    }

    /// Looks only for the end of those known.
    pub fn ended(&mut self, table: &[Connection]) -> Changes {
        let present: HashMap<u64, (SocketAddr, SocketAddr)> =
            table.iter().map(|end| (end.inode, (end.remote, end.local))).collect();
        let gone = |(inode, ends): &(&u64, &(SocketAddr, SocketAddr))| present.get(*inode) != Some(*ends);
        let closed: Vec<u64> = self.open.iter().filter(gone).map(|(inode, _)| *inode).collect();
        for inode in &closed {
            self.open.remove(inode);
        }
        Changes { opened: Vec::new(), closed }
    }

    /// Forgets a connection that turned out to be known by other means.
    pub fn forget(&mut self, inode: u64) {
        self.open.remove(&inode);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Changes, Connection, Poller};

    fn connection(client_port: u16, inode: u64) -> Connection {
        Connection {
            local: "127.0.0.1:5432".parse().unwrap(),
            remote: ([127, 0, 0, 1], client_port).into(),
            inode,
            namespace: 0,
        }
    }

    #[test]
    fn reports_each_connection_once() {
        let (mut poller, ports) = (Poller::default(), BTreeSet::from([5432]));
        let table = [connection(1, 10), connection(2, 11)];
        assert_eq!(poller.look(&table, &ports).opened, table);
        assert_eq!(poller.look(&table, &ports), Changes::default());
        assert_eq!(poller.look(&table[..1], &ports).closed, [11]);
        assert!(!poller.is_empty());
        assert_eq!(poller.ended(&[]).closed, [10]);
        assert!(poller.is_empty());
    }

    #[test]
    fn an_inode_used_again_is_another_connection() {
        let (mut poller, ports) = (Poller::default(), BTreeSet::from([5432]));
        poller.look(&[connection(1, 10)], &ports);
        let changes = poller.look(&[connection(2, 10)], &ports);
        assert_eq!((changes.closed, changes.opened), (vec![10], vec![connection(2, 10)]));
    }

    #[test]
    fn other_ports_are_not_looked_at() {
        let mut poller = Poller::default();
        assert_eq!(poller.look(&[connection(1, 10)], &BTreeSet::from([1])), Changes::default());
    }
}
