//! What the sensor says and is told: owned values, no kernel handles.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use guard_common::{
    audit::v1::SensorState,
    kernel::{EventKind, process::TaskInfo},
};
use tokio::sync::mpsc;

use crate::identity::Workload;

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// TCP ports on which databases listen.
    pub database_ports: BTreeSet<u16>,
    /// TCP ports on which guard's proxy listens: their clients are remembered, nothing is reported.
    pub proxy_ports: BTreeSet<u16>,
    /// TCP ports on which databases of other hosts listen: connections that processes here make to them are told.
    pub elsewhere_ports: BTreeSet<u16>,
    /// With another number than before, those that stand already are looked for again.
    pub elsewhere_looks: u64,
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
    /// The kernel has refused a connection by a verdict.
    Refused(Refused),
    /// A process here has a connection to a port of [`Watch::elsewhere_ports`].
    Connected(Connected),
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
    /// Names the client to the kernel side, where it is a process of this host that the kernel has captured.
    pub client: Option<Client>,
    /// Cookie of the server's network namespace; 0 where it is not known, or the agent's own.
    pub namespace_cookie: u64,
}

/// A process of this host has connected to a server, most likely on another one.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Its end.
    pub client: SocketAddr,
    /// The server's end, as the client knows it.
    pub server: SocketAddr,
    /// Who has connected.
    pub workload: Arc<Workload>,
    /// It was open before it could be watched.
    pub preexisting: bool,
}

/// Names one image of one process to the kernel side: everything of it that a decision can depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client(pub(super) TaskInfo);

impl Client {
    /// Nothing where the kernel side could not read all of it.
    pub(super) fn of(task: &TaskInfo) -> Option<Self> {
        task.identity().map(Self)
    }
}

/// A process that may connect some day: what it may not do can be told before.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name for the kernel side.
    pub client: Client,
    /// Who it is.
    pub workload: Arc<Workload>,
}

/// Servers that verdicts can be about, and how long they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enforced {
    /// Names the policies and servers that verdicts of now come from; 0: nothing is refused.
    pub epoch: u64,
    /// The servers.
    pub servers: Vec<EnforcedServer>,
    /// A policy reads the hashes of programs: nobody is decided on before theirs is known.
    pub by_hash: bool,
}

/// A server that verdicts can be about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnforcedServer {
    /// Below 64; each number is one server's alone, as long as the agent runs.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// Where it listens; an abstract name starts with `@`.
    pub unix_sockets: Vec<PathBuf>,
    /// Its process, where it is known.
    pub pid: Option<u32>,
    /// Connections to its addresses are led to the proxy: to connect there is no way round it.
    pub steered: bool,
}

/// What is told of candidates: where they go.
pub type Candidates = mpsc::Sender<Candidate>;

/// What a client may not connect to.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Whom it is about.
    pub subject: Subject,
    /// [`Enforced::epoch`] as it was before it was decided.
    pub epoch: u64,
    /// Servers that it may not reach over TCP: one bit each.
    pub tcp: u64,
    /// Servers that it may not reach over unix sockets: one bit each.
    pub unix: u64,
}

/// Whom a verdict is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A process of this host.
    Client(Client),
    /// Whoever comes from that address, which is not of this host.
    Address(IpAddr),
}

/// A connection that does not exist, because the kernel has refused it.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The server's name.
    pub server: String,
    /// Where it was refused.
    pub way: Way,
    /// The client.
    pub workload: Arc<Workload>,
    /// As in [`Accepted::at`].
    pub at: Duration,
    /// Attempts since the last that was told of, this one included.
    pub attempts: u32,
}

/// How a connection was refused, and what it was to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// connect has failed, over TCP.
    Connect {
        /// The address that was asked for.
        server: SocketAddr,
    },
    /// connect has failed, on a unix socket.
    ConnectUnix {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// A SYN was answered as if nobody listened.
    Listener {
        /// Where it came from.
        client: SocketAddr,
        /// Where it went.
        server: SocketAddr,
    },
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
    /// What passed at the very beginning may be missing in them.
    pub late: bool,
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
