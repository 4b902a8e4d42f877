//! Steering: connections to a server's own address go to the proxy's socket.
//!
//! One set of maps for each network namespace. Addresses are IPv6 in network order, IPv4 as `::ffff:a.b.c.d`.

/// An address on which a server listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SteeredAddress {
    /// The server's address; `::` and `::ffff:0.0.0.0` stand for every one of their family.
    pub address: [u8; 16],
    /// Its port, host order.
    pub port: u32,
}

/// What becomes of connections to a [`SteeredAddress`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SteeringRule {
    /// Where the proxy's listening socket is in the map of sockets.
    pub listener: u32,
    /// Where there is no such socket: 1 refuses the connection, 0 lets it go to the server.
    pub refuse: u32,
}

/// A connection of the proxy to the server, about to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct OwnConnection {
    /// The proxy's end, which may be its client's address.
    pub source: [u8; 16],
    /// The port of that end, host order.
    pub source_port: u16,
    /// The server's port, host order.
    pub server_port: u16,
}

/// Value of an [`OwnConnection`]: whatever device it comes by. The kernel itself drops what comes from outside under an
/// address of the host, and gives packets to its own addresses the devices of these.
pub const BY_ANY: u8 = 1;
/// The same: only by the loopback device, where the context tells.
pub const BY_LOOPBACK: u8 = 2;

/// Where the program counts what, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SteeringCount {
    /// Led to the proxy.
    Steered = 0,
    /// The proxy's own connections.
    Own = 1,
    /// Refused: there was no proxy.
    Refused = 2,
    /// Let through to the server: there was no proxy.
    Passed = 3,
}

impl SteeringCount {
    /// How many there are.
    pub const ALL: u32 = 4;
}

/// Names, as both sides know them.
pub mod names {
    /// The program.
    pub const PROGRAM: &str = "steer";
    /// [`super::SteeredAddress`] to [`super::SteeringRule`].
    pub const RULES: &str = "RULES";
    /// The proxy's listening sockets. A socket that is closed leaves it.
    pub const LISTENERS: &str = "LISTENERS";
    /// [`super::OwnConnection`] to [`super::BY_ANY`] or [`super::BY_LOOPBACK`].
    pub const OWN: &str = "OWN";
    /// Per-CPU counts, by [`super::SteeringCount`].
    pub const COUNTS: &str = "COUNTS";
}
