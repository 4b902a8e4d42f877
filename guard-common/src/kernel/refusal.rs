//! Verdicts on connections round the proxy, made in userspace before they are needed, and what the kernel did by them.
//!
//! A verdict is about one server, which has a number below [`SERVERS`], and it only ever refuses: what the kernel side
//! does not know goes on, and is decided where the server accepts. INVARIANT: a verdict holds for one epoch; whatever
//! a decision depends on beyond its key (policies, servers) ends the epoch when it changes.

use super::{EventHeader, process::TaskInfo};

/// Servers that verdicts can be about.
pub const SERVERS: usize = 64;

/// What a local process may not connect to: one bit per server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Verdict {
    /// The epoch for which it holds.
    pub epoch: u64,
    /// Refused over TCP.
    pub tcp: u64,
    /// Refused over unix sockets.
    pub unix: u64,
}

/// A TCP address at which a server is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Place {
    /// The address, IPv4 as `::ffff:a.b.c.d`. `127.0.0.0` stands for all that begin with 127.
    pub address: [u8; 16],
    /// Inode number of the server's network namespace; 0 for a place that clients reach from other namespaces.
    pub namespace: u32,
    /// The port, host order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

/// Which server listens at a unix socket's path, and where that path means this socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct UnixPlace {
    /// The server's number.
    pub server: u32,
    /// Inode number of the namespace in which the name counts: the mount namespace of a path, the network namespace of
    /// an abstract name.
    pub namespace: u32,
    /// Which of the agent's paths it is.
    pub path: u32,
}

/// Somebody on another host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Peer {
    /// The address, IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// The server's number.
    pub server: u32,
}

/// That a peer may not connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PeerVerdict {
    /// The epoch for which it holds.
    pub epoch: u64,
    /// When its last attempt was reported, in `CLOCK_MONOTONIC` nanoseconds.
    pub reported_ns: u64,
    /// Attempts since then: peers are many and far, and must not fill the ring buffer.
    pub attempts: u32,
    /// Zero.
    pub reserved: u32,
}

/// How a connection was refused.
pub mod way {
    /// connect has failed in the client, over TCP.
    pub const CONNECT: u32 = 0;
    /// connect has failed in the client, on a unix socket.
    pub const CONNECT_UNIX: u32 = 1;
    /// The server's host has answered a SYN as if nobody listened.
    pub const LISTENER: u32 = 2;
}

/// A connection was refused before it existed.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RefusedEvent {
    /// Kind [`super::EventKind::Refused`].
    pub header: EventHeader,
    /// The client, where it is a process on this host; its pid is 0 otherwise.
    pub client: TaskInfo,
    /// The client's address, where it is known: zero bytes otherwise.
    pub peer: [u8; 16],
    /// The address that it asked for; for TCP.
    pub address: [u8; 16],
    /// The server's number.
    pub server: u32,
    /// One of [`way`].
    pub way: u32,
    /// Which of the agent's paths it is, for unix sockets.
    pub path: u32,
    /// Attempts, this one included, since the last that was reported.
    pub attempts: u32,
    /// The port that it asked for, host order.
    pub port: u16,
    /// The client's port, host order; 0 where it has none yet.
    pub peer_port: u16,
    /// Zero.
    pub reserved: u32,
}
