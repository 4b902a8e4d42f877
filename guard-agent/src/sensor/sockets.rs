//! Sockets as /proc shows them: the fallback where the kernel side is missing, and how servers are found.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::SocketAddr,
    path::PathBuf,
};

use procfs::{
    net::{TcpNetEntry, TcpState, UnixNetEntry, UnixState},
    process::Process,
};

use super::event::{Bytes, SocketId};

/// An established TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// This end; IPv4 in its own form.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Inode number of this end's socket; 0 where no process holds it yet, or any more.
    pub inode: u64,
    /// The network namespace; 0 for the agent's own.
    pub namespace: u64,
    /// The kernel's cookie of this end's socket; 0 where it was not told.
    pub cookie: u64,
    /// The user who made this end's socket.
    pub uid: Option<u32>,
    /// Payload so far, for the server's side.
    pub bytes: Option<Bytes>,
}

impl Connection {
    /// One of which only the ends are known, in the agent's own network namespace.
    pub fn between(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { local, remote, inode: 0, namespace: 0, cookie: 0, uid: None, bytes: None }
    }

    /// The name of this end's socket; nothing for one that only /proc tells of, and that no process holds.
    pub fn socket(&self) -> Option<SocketId> {
        match (self.cookie, self.inode) {
            (0, 0) => None,
            (0, inode) => Some(SocketId::Inode(inode)),
            (cookie, _) => Some(SocketId::Cookie(cookie)),
        }
    }
}

/// A TCP socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens; IPv4 in its own form.
    pub address: SocketAddr,
    /// Its inode number.
    pub inode: u64,
}

/// A unix socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixListener {
    /// Where it listens; an abstract name starts with `@`.
    pub path: PathBuf,
    /// Its inode number.
    pub inode: u64,
}

/// Established TCP connections of the agent's own network namespace.
pub fn connections() -> Vec<Connection> {
    established(procfs::net::tcp().into_iter().chain(procfs::net::tcp6()).flatten(), 0)
}

/// Established TCP connections of `namespace`, in which process `pid` is.
pub fn connections_in(namespace: u64, pid: u32) -> Vec<Connection> {
    // The process may have gone, and its pid to another one.
    let Some(process) = process(pid).filter(|_| super::namespace::of(pid) == Some(namespace)) else {
        return Vec::new();
    };
    established(process.tcp().into_iter().chain(process.tcp6()).flatten(), namespace)
}

fn established(entries: impl Iterator<Item = TcpNetEntry>, namespace: u64) -> Vec<Connection> {
    entries
        .filter(|entry| entry.state == TcpState::Established)
        .map(|entry| Connection {
            local: canonical(entry.local_address),
            remote: canonical(entry.remote_address),
            inode: entry.inode,
            namespace,
            cookie: 0,
            uid: (entry.inode != 0).then_some(entry.uid),
            bytes: None,
        })
        .collect()
}

/// Listening TCP sockets in the network namespace of process `pid`.
pub fn listeners(pid: u32) -> Vec<Listener> {
    let Some(process) = process(pid) else { return Vec::new() };
    let entries: Vec<TcpNetEntry> = process.tcp().into_iter().chain(process.tcp6()).flatten().collect();
    entries
        .into_iter()
        .filter(|entry| entry.state == TcpState::Listen)
        .map(|entry| Listener { address: canonical(entry.local_address), inode: entry.inode })
        .collect()
}

/// Whether `local` can be the server's end of a connection: where somebody listens on its port, it is at its address. Who
/// has accepted a connection may listen no longer.
pub fn may_serve(listeners: &[Listener], local: SocketAddr) -> bool {
    let mut at_port = listeners.iter().filter(|listener| listener.address.port() == local.port()).peekable();
    let at_address =
        |listener: &Listener| listener.address.ip().is_unspecified() || listener.address.ip() == local.ip();
    at_port.peek().is_none() || at_port.any(at_address)
}

/// Listening unix sockets in the network namespace of process `pid`.
pub fn unix_listeners(pid: u32) -> Vec<UnixListener> {
    unix_entries(pid)
        .into_iter()
        // A listening socket is unconnected and has a path; so has a datagram socket, which is no server here.
        .filter(|entry| {
            entry.state == UnixState::UNCONNECTED && entry.socket_type == libc::SOCK_STREAM as u16
        })
        .filter_map(|entry| Some(UnixListener { path: entry.path?, inode: entry.inode }))
        .collect()
}

/// Inode numbers of the unix sockets in the network namespace of process `pid`; nothing where it is gone.
pub fn unix_inodes(pid: u32) -> Option<HashSet<u64>> {
    let entries = process(pid)?.unix().ok()?;
    Some(entries.into_iter().map(|entry| entry.inode).collect())
}

/// The processes that hold sockets with these inode numbers, the lowest pid first.
pub fn owners(inodes: &HashSet<u64>) -> HashMap<u64, Vec<u32>> {
    let mut owners: HashMap<u64, Vec<u32>> = HashMap::new();
    if inodes.is_empty() {
        return owners;
    }
    let Ok(entries) = fs::read_dir("/proc") else { return owners };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        for inode in socket_inodes(pid).intersection(inodes) {
            owners.entry(*inode).or_default().push(pid);
        }
    }
    for pids in owners.values_mut() {
        pids.sort_unstable();
    }
    owners
}

/// Inode numbers of the sockets that a process holds.
pub fn socket_inodes(pid: u32) -> HashSet<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return HashSet::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// IPv4 in its own form, whatever socket it came from.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn process(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

fn unix_entries(pid: u32) -> Vec<UnixNetEntry> {
    process(pid).and_then(|process| process.unix().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::TcpListener, os::unix::net};

    use super::{Listener, connections, listeners, may_serve, owners, unix_listeners};

    #[test]
    fn finds_listeners_and_their_owner() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let pid = std::process::id();
        let found = listeners(pid).into_iter().find(|listener| listener.address == address).unwrap();
        let owners = owners(&HashSet::from([found.inode]));
        assert_eq!(owners[&found.inode], [pid]);
    }

    #[test]
    fn a_client_may_have_the_port_of_a_server_at_another_address() {
        let listener = |address: &str| Listener { address: address.parse().unwrap(), inode: 1 };
        let listeners = [listener("127.0.0.1:5432"), listener("[::]:6000")];
        let may = |local: &str| may_serve(&listeners, local.parse().unwrap());
        assert!(may("127.0.0.1:5432") && may("10.0.0.1:6000") && may("[::1]:6000"));
        assert!(!may("127.0.1.2:5432"));
        assert!(may("127.0.1.2:7000"), "whoever accepted it listens no longer");
    }

    #[test]
    fn finds_both_ends_of_a_connection() {
        let socket = TcpListener::bind("[::]:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _server = socket.accept().unwrap();
        let ends: Vec<_> = connections()
            .into_iter()
            .filter(|connection| connection.local.port() == port || connection.remote.port() == port)
            .collect();
        assert_eq!(ends.len(), 2, "{ends:?}");
        assert!(ends.iter().any(|end| end.local == client.local_addr().unwrap()));
        assert!(ends.iter().all(|end| end.local.is_ipv4()));
    }

    #[test]
    fn finds_unix_listeners() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".s.PGSQL.1");
        let _socket = net::UnixListener::bind(&path).unwrap();
        assert!(unix_listeners(std::process::id()).iter().any(|listener| listener.path == path));
    }
}
