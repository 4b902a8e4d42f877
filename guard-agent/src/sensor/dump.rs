//! The kernel's own table of TCP sockets, by netlink (`sock_diag`): what connects where, without eBPF, and how many bytes.
//!
//! A filter enters, connections of the agent's own network namespace leave; and the end of every socket as it comes. /proc stands in where the
//! kernel has no `sock_diag`. What arrives is the kernel's, but is checked for length all the same.

mod netlink;
mod tcp;

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering},
};

pub use tcp::Ends;

use super::{
    event::Bytes,
    sockets::{self, Connection},
    unix_diag,
};
use netlink::Netlink;

/// The end of a TCP socket of this network namespace, as the kernel tells it to whoever listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its ends, and its cookie; the inode is gone by then.
    pub connection: Connection,
    /// Its payload.
    pub bytes: Bytes,
}

/// Connections with one of these ends; from /proc where the kernel does not answer.
pub fn connections(wanted: &[Ends]) -> Vec<Connection> {
    /// Said once: it does not change while the host is up.
    static SAID: AtomicBool = AtomicBool::new(false);
    match tcp::connections(wanted) {
        Ok(found) => found,
        Err(error) => {
            if !SAID.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "the kernel's table of sockets cannot be asked for; /proc is read instead");
            }
            let mut all = sockets::connections();
            all.retain(|connection| wanted.iter().any(|ends| ends.fit(connection)));
            all
        }
    }
}

/// Both sides of the connections to servers on these ports.
pub fn of_ports(ports: &BTreeSet<u16>) -> Vec<Connection> {
    let ends: Vec<Ends> = ports.iter().flat_map(|port| [Ends::local(*port), Ends::remote(*port)]).collect();
    connections(&ends)
}

/// Whether the kernel tells of TCP sockets this way, and of unix sockets; the reason where it does not.
pub fn probe() -> [(&'static str, io::Result<()>); 3] {
    [
        ("TCP", tcp::connections(&[Ends::local(1)]).map(|_| ())),
        ("ends of TCP", Endings::listen().map(|_| ())),
        ("unix", unix_diag::connected().map(|_| ())),
    ]
}

/// The ends of TCP sockets, from now on.
#[derive(Debug)]
pub struct Endings {
    socket: Netlink,
}

impl Endings {
    /// Begins to listen.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { socket: Netlink::listening(tcp::DESTROYED)? })
    }

    /// Becomes readable when there are some.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What has ended on the server's side of one of `ports`; and how often the kernel had to drop some.
    pub fn take(&self, ports: &BTreeSet<u16>) -> (Vec<Ended>, u64) {
        let mut ended = Vec::new();
        let lost = self.socket.drain(|message| {
            if let Some(one) = tcp::ended(message).filter(|one| ports.contains(&one.connection.local.port()))
            {
                ended.push(one);
            }
        });
        (ended, lost)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        thread,
        time::Duration,
    };

    use super::{Bytes, Endings, of_ports, probe};

    fn pair() -> (TcpListener, TcpStream, TcpStream, BTreeSet<u16>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        (listener, client, server, BTreeSet::from([address.port()]))
    }

    #[test]
    fn both_ends_are_found_with_their_bytes() {
        let (_listener, mut client, mut server, ports) = pair();
        client.write_all(&[1; 1000]).unwrap();
        server.read_exact(&mut [0; 1000]).unwrap();
        server.write_all(&[2; 50]).unwrap();
        client.read_exact(&mut [0; 50]).unwrap();
        let found = of_ports(&ports);
        assert_eq!(found.len(), 2, "{found:?}");
        let local = client.local_addr().unwrap();
        let server_side = found.iter().find(|end| end.remote == local).unwrap();
        assert_eq!(server_side.uid, Some(nix::unistd::Uid::effective().as_raw()));
        assert!(server_side.inode != 0);
        if server_side.cookie != 0 {
            assert_eq!(server_side.bytes, Some(Bytes { from_client: 1000, to_client: 50 }));
        }
        assert!(found.iter().any(|end| end.local == local));
    }

    #[test]
    fn the_end_is_told_with_all_bytes() {
        let Ok(endings) = Endings::listen() else { return };
        let (_listener, mut client, mut server, ports) = pair();
        client.write_all(&[1; 1000]).unwrap();
        server.read_exact(&mut [0; 1000]).unwrap();
        server.write_all(&[2; 50]).unwrap();
        client.read_exact(&mut [0; 50]).unwrap();
        let local = client.local_addr().unwrap();
        drop(client);
        thread::sleep(Duration::from_millis(50));
        drop(server);
        thread::sleep(Duration::from_millis(100));
        let (ended, _) = endings.take(&ports);
        assert_eq!(ended.len(), 1, "{ended:?}");
        assert_eq!(ended[0].connection.remote, local);
        assert_eq!(ended[0].bytes, Bytes { from_client: 1000, to_client: 50 });
    }

    #[test]
    fn every_table_can_be_asked_for_or_says_why_not() {
        for (what, result) in probe() {
            if let Err(error) = result {
                assert!(!error.to_string().is_empty(), "{what}");
            }
        }
    }
}
