//! What the sensor says and is told: owned values, no kernel handles.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use guard_common::{audit::v1::SensorState, kernel::EventKind};

use crate::identity::Workload;

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// TCP ports on which databases listen.
    pub database_ports: BTreeSet<u16>,
    /// TCP ports on which guard's proxy listens: their clients are remembered, nothing is reported.
    pub proxy_ports: BTreeSet<u16>,
    /// Unix sockets on which databases listen; an abstract name starts with `@`.
    pub unix_sockets: BTreeSet<PathBuf>,
    /// Network namespaces of servers beside the agent's own, by inode number, with a process in each: connections that
    /// are older than the agent are looked for there too.
    pub namespaces: BTreeMap<u64, u32>,
}

/// Something happened on a watched port or socket, or to the sensor.
#[derive(Clone, Debug)]
pub enum SensorEvent {
    /// A database has a new connection.
    Accepted(Accepted),
    /// A connection that was reported as accepted has ended.
    Closed(Closed),
    /// Events were lost.
    Lost(Lost),
    /// What the sensor can see has changed.
    State(SensorState),
}

/// Names one server-side socket while the host is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketId {
    /// The kernel's socket cookie, of TCP sockets that it reported.
    Cookie(u64),
    /// The inode number: unix sockets, and TCP sockets found in /proc.
    Inode(u64),
    /// A number of the sensor's own, where the kernel gives a socket no cookie at that place.
    Serial(u64),
}

/// Both ends of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP; IPv4 addresses are always in their own form.
    Tcp {
        /// The client's end.
        client: SocketAddr,
        /// The server's end.
        server: SocketAddr,
    },
    /// A unix socket.
    Unix {
        /// Where the server listens.
        path: PathBuf,
        /// Inode number of the client's socket; 0 where it was closed before it was seen.
        peer_inode: u64,
    },
}

/// A database has a new connection.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The server-side socket.
    pub socket: SocketId,
    /// Its ends.
    pub endpoint: Endpoint,
    /// The client.
    pub workload: Arc<Workload>,
    /// Time since an arbitrary point, the same for all events.
    pub at: Duration,
    /// It was open before it could be watched.
    pub preexisting: bool,
    /// Inode number of the server's network namespace; 0 where it is not known.
    pub namespace: u64,
    /// The process that accepted, for unix sockets; 0 where it is not known.
    pub server_pid: u32,
}

/// Payload bytes of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From the client.
    pub from_client: u64,
    /// To the client.
    pub to_client: u64,
}

/// A connection has ended.
#[derive(Clone, Debug)]
pub struct Closed {
    /// The server-side socket.
    pub socket: SocketId,
    /// As the kernel counted them, where it does.
    pub bytes: Option<Bytes>,
    /// As in [`Accepted::at`].
    pub at: Duration,
}

/// Events that did not arrive.
#[derive(Clone, Debug)]
pub struct Lost {
    /// What was lost: a kind of kernel event, or `queue` for events that the agent itself dropped.
    pub kind: &'static str,
    /// How many.
    pub lost: u64,
    /// Not before.
    pub since: SystemTime,
    /// Not after.
    pub until: SystemTime,
    /// Which CPUs lost how many; empty for `queue`.
    pub by_cpu: Vec<(u32, u64)>,
}

impl Lost {
    /// The eBPF program whose events they were; `queue` where the agent itself lost them.
    pub fn program(&self) -> &'static str {
        EventKind::ALL.into_iter().find(|kind| kind.name() == self.kind).map_or(self.kind, EventKind::program)
    }
}
