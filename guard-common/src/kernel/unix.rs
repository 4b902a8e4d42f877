//! Connections on watched unix sockets.

use super::{EventHeader, UNIX_PATH_LEN, process::TaskInfo};

/// A unix socket's address: the bytes of `sun_path`, padded with zero bytes; an abstract name starts with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UnixPath {
    /// The bytes.
    pub bytes: [u8; UNIX_PATH_LEN],
}

/// A server has accepted a connection on a watched unix socket.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct UnixAcceptedEvent {
    /// Kind [`super::EventKind::UnixAccepted`].
    pub header: EventHeader,
    /// Inode number of the server-side socket.
    pub inode: u64,
    /// Inode number of the client's socket, 0 where it was closed already.
    pub peer_inode: u64,
    /// Under which [`UnixBytes`] of this connection are counted.
    pub key: u64,
    /// The process that accepted.
    pub server_pid: u32,
    /// The client's pid when it connected.
    pub client_pid: u32,
    /// The client's effective uid when it connected.
    pub client_uid: u32,
    /// The client's effective gid when it connected.
    pub client_gid: u32,
    /// Where the server listens.
    pub path: UnixPath,
    /// Inode number of the server's network namespace.
    pub net_namespace: u32,
    /// The client as it is when the server accepts; its pid is 0 where it has ended already.
    pub client: TaskInfo,
}

/// What a server has read from and written to one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct UnixBytes {
    /// Inode number of the server-side socket: a key may come round before it is forgotten.
    pub inode: u64,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
}
