//! Connections of this host's processes to databases of other hosts: what the kernel side tells, and, where it does not
//! or was not there yet, what the kernel's tables show. Nothing is decided on here, and nothing is refused.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use guard_common::{audit::v1::workload::Evidence, kernel::socket::ConnectedEvent};

use super::Worker;
use crate::{
    identity::Identifier,
    sensor::{
        dump,
        event::{Connected, SensorEvent},
        flow,
        sockets::{self, Connection},
    },
};

/// A client's end as the tables show it.
type End = (u64, SocketAddr, SocketAddr, u64);

/// What looks have found.
#[derive(Debug, Default)]
pub(super) struct Known(HashSet<End>);

impl Known {
    /// Connections that are remembered; of more, each look tells again.
    const LIMIT: usize = 65_536;

    /// Which of `table`, all there is on these ports, no look has found before.
    fn new_ones(&mut self, table: Vec<Connection>) -> Vec<Connection> {
        let key = |end: &Connection| (end.namespace, end.local, end.remote, end.inode);
        let present: HashSet<End> = table.iter().map(key).take(Self::LIMIT).collect();
        let new = table.into_iter().filter(|end| !self.0.contains(&key(end))).collect();
        self.0 = present;
        new
    }
}

impl Worker {
    pub(super) fn connected(&mut self, event: &ConnectedEvent) {
        let workload = self.identifier.captured(&event.client);
        self.send(SensorEvent::Connected(Connected {
            client: flow::client(&event.flow),
            server: flow::server(&event.flow),
            workload,
            preexisting: false,
        }));
    }

    /// Tells of connections to `ports` that no look has found before; `preexisting`: they are older than the watch.
    pub(super) fn look_outgoing(&mut self, ports: &BTreeSet<u16>, preexisting: bool) {
        if ports.is_empty() {
            return;
        }
        let wanted: Vec<dump::Ends> = ports.iter().map(|port| dump::Ends::remote(*port)).collect();
        let mut table = self.with_clients(dump::connections(&wanted), preexisting);
        // Without an inode nobody has it any more.
        table.retain(|end| end.inode != 0 && ports.contains(&end.remote.port()));
        let new = if self.kernel.is_none() { self.outgoing.new_ones(table) } else { table };
        if new.is_empty() {
            return;
        }
        let users: HashMap<u64, u32> = new.iter().filter_map(|end| Some((end.inode, end.uid?))).collect();
        let owners = sockets::owners(&new.iter().map(|end| end.inode).collect());
        for end in new {
            let pid = owners.get(&end.inode).and_then(|pids| pids.first());
            let workload = match (pid, users.get(&end.inode)) {
                (Some(pid), _) => self.identifier.owner(*pid),
                (None, Some(uid)) => self.identifier.of_user(*uid),
                (None, None) => Identifier::remote(end.local.ip()),
            };
            // Whoever held it has ended meanwhile, and nobody knows whose it was: there is nothing to report.
            if workload.evidence() == Evidence::Address {
                continue;
            }
            let (client, server) = (end.local, end.remote);
            let workload = Arc::clone(&workload);
            self.send(SensorEvent::Connected(Connected { client, server, workload, preexisting }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Connection, Known};

    fn end(port: u16, inode: u64) -> Connection {
        Connection {
            local: ([10, 0, 0, 2], port).into(),
            remote: "10.0.0.1:5432".parse().unwrap(),
            inode,
            namespace: 0,
            cookie: 0,
            uid: None,
            bytes: None,
        }
    }

    #[test]
    fn each_connection_is_told_once_and_a_port_used_again_is_another_one() {
        let mut known = Known::default();
        assert_eq!(known.new_ones(vec![end(1, 10), end(2, 11)]).len(), 2);
        assert!(known.new_ones(vec![end(1, 10), end(2, 11)]).is_empty());
        assert_eq!(known.new_ones(vec![end(1, 12), end(2, 11)]), [end(1, 12)]);
    }
}
