//! Which socket is at the other end of a server's: tables of /proc enter, inode numbers leave. And how often they may be
//! read for one connection alone.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::sockets::Connection;

/// A connection by its ends, the client's first, and the server's network namespace: loopback addresses are in all of
/// them.
pub type Ends = (u64, SocketAddr, SocketAddr);

/// Inode numbers of clients' sockets, by how the server's end names them.
pub struct ClientEnds {
    whole: HashMap<Ends, u64>,
    /// By the client's end alone: where an address was translated on the way, the client knows another server than the
    /// one that it reached. 0 where several are possible.
    by_client: HashMap<SocketAddr, u64>,
}

impl ClientEnds {
    /// Those in `table`.
    pub fn of(table: &[Connection]) -> Self {
        let mut ends = Self { whole: HashMap::new(), by_client: HashMap::new() };
        for end in table.iter().filter(|end| end.inode != 0) {
            ends.whole.insert((of_loopback(end.local, end.namespace), end.local, end.remote), end.inode);
            if !end.local.ip().is_loopback() {
                let several = ends.by_client.insert(end.local, end.inode).is_some();
                if several {
                    ends.by_client.insert(end.local, 0);
                }
            }
        }
        ends
    }

    /// The socket at the other end of a server's.
    pub fn find(&self, server_end: &Connection) -> Option<u64> {
        let client = server_end.remote;
        let key = (of_loopback(client, server_end.namespace), client, server_end.local);
        let found = self.whole.get(&key).or_else(|| self.by_client.get(&client));
        found.copied().filter(|inode| *inode != 0)
    }
}

/// A loopback address means something in its own namespace alone.
fn of_loopback(address: SocketAddr, namespace: u64) -> u64 {
    if address.ip().is_loopback() { namespace } else { 0 }
}

/// Looks into /proc for a single connection: each reads all of them, and nobody may have the sensor do that all the time.
#[derive(Debug, Default)]
pub struct Looks {
    since: Option<Instant>,
    count: u32,
}

impl Looks {
    const PER_SECOND: u32 = 20;

    /// Whether one more may be taken.
    pub fn may(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        self.count <= Self::PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{ClientEnds, Connection, Looks};

    fn end(local: &str, remote: &str, inode: u64, namespace: u64) -> Connection {
        Connection {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            inode,
            namespace,
            cookie: 0,
            uid: None,
            bytes: None,
        }
    }

    #[test]
    fn loopback_means_its_own_namespace() {
        let table = [end("127.0.0.1:9", "127.0.0.1:5", 1, 0), end("127.0.0.1:9", "127.0.0.1:5", 2, 7)];
        let ends = ClientEnds::of(&table);
        assert_eq!(ends.find(&end("127.0.0.1:5", "127.0.0.1:9", 0, 0)), Some(1));
        assert_eq!(ends.find(&end("127.0.0.1:5", "127.0.0.1:9", 0, 7)), Some(2));
        assert_eq!(ends.find(&end("127.0.0.1:5", "127.0.0.1:9", 0, 8)), None);
    }

    #[test]
    fn a_client_behind_a_translated_address_is_found_by_its_own() {
        // It called the host's port 15432 and was led to the container's.
        let ends = ClientEnds::of(&[end("10.0.0.1:9", "10.0.0.1:15432", 3, 0)]);
        assert_eq!(ends.find(&end("172.17.0.2:5432", "10.0.0.1:9", 0, 7)), Some(3));
        let both = [end("10.0.0.1:9", "10.0.0.2:1", 3, 0), end("10.0.0.1:9", "10.0.0.3:1", 4, 0)];
        assert_eq!(ClientEnds::of(&both).find(&end("172.17.0.2:5432", "10.0.0.1:9", 0, 7)), None);
    }

    #[test]
    fn looks_are_rationed() {
        let (mut looks, now) = (Looks::default(), Instant::now());
        let many = |looks: &mut Looks, now| (0..100).filter(|_| looks.may(now)).count();
        assert_eq!(many(&mut looks, now), 20);
        assert_eq!(many(&mut looks, now + Duration::from_secs(1)), 20);
    }
}
