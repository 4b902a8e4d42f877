//! Who is behind a backend, and what its session is like: read from its socket and from its memory.
//!
//! Its memory is the server's own: what it says of user, database and settings is what the server goes by.

use std::{
    fs,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use guard_common::audit::v1::Workload;
use nix::sys::socket::{SockaddrLike, SockaddrStorage, getpeername, getsockname, getsockopt, sockopt};

use super::{
    process::{Memory, Process},
    target::Target,
};
use crate::{
    connections::{Connections, Joined},
    sensor::SensorHandle,
};

/// Longest names and settings that are read.
const MAX_NAME: usize = 64;
const MAX_SETTING: usize = 1024;
/// Where in `Port` the names of database and user may be: behind both addresses, wherever the version has them.
const NAMES_FROM: u64 = 280;
const NAMES_UNTIL: u64 = 640;
/// How often the connection table is asked for a connection that has only just come.
const ASKED: u32 = 20;
const ASKED_EVERY: Duration = Duration::from_millis(5);

/// Who is behind a backend: the same as long as it lives.
#[derive(Clone, Debug)]
pub struct Client {
    /// The workload at the other end of its socket.
    pub workload: Arc<Workload>,
    /// `tcp` or `unix`.
    pub transport: &'static str,
    /// The connection's name in records; empty where the sensor has not seen it.
    pub connection_id: String,
    /// It is a connection of guard's own proxy.
    pub proxied: bool,
    /// The database.
    pub database: String,
    /// Who logged in.
    pub user: String,
}

/// Settings of a session as they are right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `search_path`, as it is set; nothing where it cannot be read.
    pub search_path: Option<String>,
    /// `role`; `none` where none is set.
    pub role: Option<String>,
    /// `application_name`.
    pub application_name: String,
    /// `standard_conforming_strings`.
    pub plain_strings: bool,
}

/// Whom to ask about connections.
#[derive(Clone, Debug)]
pub struct Registry {
    /// Who is at the other end.
    pub sensor: SensorHandle,
    /// Its name in records.
    pub connections: Connections,
}

impl Client {
    /// Finds out who is behind `process`, a backend of `target`; nothing where it has no client any more.
    pub async fn learn(
        process: &Process,
        memory: &Memory,
        target: &Target,
        registry: &Registry,
    ) -> Option<Self> {
        let port = memory.word(target.held.port)?;
        let number = i32::from_ne_bytes(memory.bytes(port)?);
        let socket = process.descriptor(number).ok()?;
        let joined = joined(&registry.connections, &socket).await;
        let (workload, transport) = match &joined {
            // As it was when it connected: it may have ended since.
            Some(joined) => (Arc::clone(&joined.workload), joined.transport),
            None => peer(&socket, &registry.sensor).await?,
        };
        let proxied = joined.as_ref().is_some_and(|joined| joined.proxied);
        let own = workload.pid == std::process::id();
        let (database, user) = names(process.pid(), memory, port).unwrap_or_default();
        Some(Self {
            workload,
            transport,
            connection_id: joined.map(|joined| joined.id.to_string()).unwrap_or_default(),
            proxied: proxied || own,
            database,
            user,
        })
    }
}

/// The connection that ends in a server's socket. It may have come this very moment.
async fn joined(connections: &Connections, socket: &OwnedFd) -> Option<Arc<Joined>> {
    let inode = nix::sys::stat::fstat(socket.as_fd()).ok()?.st_ino;
    let cookie = cookie(socket);
    for _ in 0..ASKED {
        if let Some(joined) = connections.joined(cookie, inode) {
            return Some(joined);
        }
        tokio::time::sleep(ASKED_EVERY).await;
    }
    None
}

/// Who is at the other end of a server's socket, and by what way, where the connection table does not know it.
async fn peer(socket: &OwnedFd, sensor: &SensorHandle) -> Option<(Arc<Workload>, &'static str)> {
    let fd = socket.as_raw_fd();
    let address: SockaddrStorage = getsockname(fd).ok()?;
    if address.family() == Some(nix::sys::socket::AddressFamily::Unix) {
        let peer = getsockopt(&socket, sockopt::PeerCredentials).ok()?;
        let pid = u32::try_from(peer.pid()).unwrap_or(0);
        let workload = sensor.attest_unix(pid, peer.uid(), peer.gid()).await;
        return Some((workload, "unix"));
    }
    let (client, server) = (inet(&getpeername(fd).ok()?)?, inet(&address)?);
    let workload = sensor.attest_tcp(client, server).await;
    Some((workload, "tcp"))
}

fn inet(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    let v6 = || {
        let v6 = address.as_sockaddr_in6()?;
        // IPv4 in its own form, as the sensor has it.
        Some(SocketAddr::from((v6.ip().to_canonical(), v6.port())))
    };
    v4.or_else(v6)
}

/// The kernel's cookie of a socket, 0 where it has none.
fn cookie(socket: &OwnedFd) -> u64 {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: cookie and length are as large as the option and live through the call.
    let result = unsafe {
        let value = (&raw mut cookie).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, value, &raw mut length)
    };
    if result == 0 { cookie } else { 0 }
}

/// Database and user of a backend. Where they are in `Port` differs from version to version; the process's title says
/// which two names they are: `postgres: user database host`.
fn names(pid: u32, memory: &Memory, port: u64) -> Option<(String, String)> {
    let title = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    (NAMES_FROM..NAMES_UNTIL).step_by(8).find_map(|offset| {
        let name = |at| memory.text(memory.word(port + at)?, MAX_NAME).filter(|name| !name.is_empty());
        let (database, user) = (name(offset)?, name(offset + 8)?);
        is_titled(&title, &user, &database).then(|| (lossy(&database), lossy(&user)))
    })
}

fn is_titled(title: &[u8], user: &[u8], database: &[u8]) -> bool {
    let wanted = [b" ", user, b" ", database, b" "].concat();
    title.starts_with(b"postgres: ") && memchr::memmem::find(title, &wanted).is_some()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Settings {
    /// As the backend has them now.
    pub fn read(memory: &Memory, target: &Target) -> Self {
        let held = &target.held;
        let text = |variable| memory.text_of(variable, MAX_SETTING).map(|text| lossy(&text));
        Self {
            search_path: text(held.search_path),
            role: text(held.role).filter(|role| !role.is_empty()),
            application_name: text(held.application_name).unwrap_or_default(),
            plain_strings: memory.bytes(held.plain_strings) == Some([1_u8]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_title_says_which_names_they_are() {
        let title = b"postgres: orders: ann smith shop 127.0.0.1(4711) idle";
        assert!(is_titled(title, b"ann smith", b"shop"));
        assert!(!is_titled(title, b"shop", b"ann smith"));
        assert!(!is_titled(title, b"ann", b"smith shop x"));
        assert!(!is_titled(b"psql ann smith shop 127.0.0.1", b"ann smith", b"shop"), "no backend");
        assert!(is_titled(b"postgres: walsender app shop [local] idle", b"app", b"shop"));
    }
}
