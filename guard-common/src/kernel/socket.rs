//! TCP connections on watched ports, and the key under which both ends of one connection meet.

use super::{EventHeader, process::TaskInfo};

/// Bits of a watched port.
pub mod watch {
    /// A database listens there: accepts and closes are reported.
    pub const DATABASE: u8 = 1;
    /// Guard's proxy listens there: only clients are remembered.
    pub const PROXY: u8 = 2;
    /// A database of another host may listen there: connections that local processes make to it are reported.
    pub const ELSEWHERE: u8 = 4;
}

/// A TCP connection by its ends. Addresses are IPv6 in network order, IPv4 as `::ffff:a.b.c.d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// The client's address.
    pub client: [u8; 16],
    /// The server's address.
    pub server: [u8; 16],
    /// Cookie of the network namespace where the client's address is a loopback address, else 0: loopback
    /// addresses are not unique on a host.
    pub namespace: u64,
    /// The client's port, host order.
    pub client_port: u16,
    /// The server's port, host order.
    pub server_port: u16,
    /// Zero.
    pub reserved: u32,
}

/// A database server's socket has a new connection.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AcceptedEvent {
    /// Kind [`super::EventKind::Accepted`].
    pub header: EventHeader,
    /// Cookie of the server-side socket.
    pub cookie: u64,
    /// Cookie of the server's network namespace.
    pub namespace: u64,
    /// Its ends.
    pub flow: FlowKey,
    /// The client, where it is a process on this host; its pid is 0 otherwise.
    pub client: TaskInfo,
    /// Inode number of the server's network namespace; 0 where this kernel's layout is not known.
    pub net_namespace: u32,
    /// Zero.
    pub reserved: u32,
}

/// A local process has a connection to a port on which databases of other hosts listen.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ConnectedEvent {
    /// Kind [`super::EventKind::Connected`].
    pub header: EventHeader,
    /// Its ends.
    pub flow: FlowKey,
    /// Who has connected.
    pub client: TaskInfo,
}

/// Bits of [`ClosedEvent::flags`].
pub mod ended {
    /// The other bits say something: the kernel's layout is known.
    pub const KNOWN: u32 = 1;
    /// The client has ended its direction: the kernel counted that as one more byte received.
    pub const BY_CLIENT: u32 = 2;
    /// Everything that the server sent, the end of its direction included, was acknowledged.
    pub const ALL_ACKED: u32 = 4;
}

/// A connection that was reported as accepted has ended.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ClosedEvent {
    /// Kind [`super::EventKind::Closed`].
    pub header: EventHeader,
    /// Cookie of the server-side socket.
    pub cookie: u64,
    /// Payload bytes that the server's kernel received, or [`ClosedEvent::UNCOUNTED`].
    pub received: u64,
    /// Payload bytes that the client's kernel acknowledged, or [`ClosedEvent::UNCOUNTED`].
    pub acked: u64,
    /// TCP state before the end.
    pub previous_state: u32,
    /// [`ended`] bits.
    pub flags: u32,
}

impl ClosedEvent {
    /// In place of a number of bytes that this kernel does not tell.
    pub const UNCOUNTED: u64 = u64::MAX;
}
