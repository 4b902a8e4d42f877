//! Listening sockets and the loops that accept from them.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{
    SockaddrIn, SockaddrIn6, getsockopt, setsockopt,
    sockopt::{Ip6tOriginalDst, KeepAlive, OriginalDst},
};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Semaphore, watch},
};

use super::threads::{Arrival, SessionThreads, Socket};
use crate::session::{Peer, Proxy};

/// Surplus clients that are told so at once; beyond, they are closed without a word.
const MAX_SURPLUS: usize = 64;

/// Why the proxy cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Taken, not ours, or not permitted.
    #[error("the proxy for `{server}` cannot listen on {address}: {error}; {hint}")]
    Bind {
        /// The server behind.
        server: String,
        /// Where.
        address: String,
        /// Why not.
        error: io::Error,
        /// What to do.
        hint: &'static str,
    },
}

/// A listening socket of the proxy.
#[derive(Debug)]
pub enum Listener {
    /// On TCP.
    Tcp(TcpListener),
    /// Takes connections to the server's own address, which are steered here.
    Steered(TcpListener),
    /// On a unix socket; its file goes with it.
    Unix(UnixListener, SocketFile),
}

/// Removes a socket's file when it is no longer listened on.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another may have taken its place in the meantime; a failure leaves a stale file, which the next start removes.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Listens on a TCP address for the server called `server`.
    pub async fn tcp(server: &str, address: SocketAddr) -> Result<Self, ListenError> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another process has it: choose another `listen` in the configuration"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "this host has no such address: check `listen` in the configuration"
                }
                _ => "check `listen` in the configuration",
            };
            ListenError::Bind { server: server.to_owned(), address: address.to_string(), error, hint }
        })?;
        Ok(Self::Tcp(listener))
    }

    /// Listens on a unix socket that every local user may connect to, as with PostgreSQL's own.
    pub async fn unix(server: &str, path: &Path) -> Result<Self, ListenError> {
        let bound = bind_unix(path).await;
        bound.map_err(|error| ListenError::Bind {
            server: server.to_owned(),
            address: path.display().to_string(),
            error,
            hint: "choose another `listen_unix` in the configuration",
        })
    }

    /// The TCP address, with the port that the system chose where 0 was asked for.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            // Its own address is nobody's business.
            Self::Steered(_) | Self::Unix(..) => None,
        }
    }

    /// Accepts until the agent stops.
    pub async fn run(self, proxy: Arc<Proxy>, threads: SessionThreads, places: Arc<Semaphore>) {
        let mut stopping = proxy.stopping.clone();
        let surplus = Arc::new(Semaphore::new(MAX_SURPLUS));
        let steered = matches!(self, Self::Steered(_));
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = stopped(&mut stopping) => return,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, mostly: what is open goes on, and accepting again at once would only spin.
                    tracing::warn!(server = %proxy.server.get().name, "cannot accept: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if let (true, Peer::Tcp { client, local }) = (steered, &peer) {
                proxy.connections.taken(*client, *local);
            }
            let (place, is_surplus) = match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => (Some(place), false),
                Err(_) => (Arc::clone(&surplus).try_acquire_owned().ok(), true),
            };
            let proxy = Arc::clone(&proxy);
            let Some(place) = place else {
                tracing::warn!(server = %proxy.server.get().name, "too many connections: one was closed without a word");
                continue;
            };
            if !threads.hand_over(Arrival { proxy, socket, peer, place, surplus: is_surplus, steered }) {
                tracing::warn!("all session threads are busy: a connection was closed");
            }
        }
    }

    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, client) = listener.accept().await?;
                let local = stream.local_addr()?;
                Ok((prepared(stream)?, Peer::Tcp { client, local }))
            }
            Self::Steered(listener) => loop {
                let (stream, client) = listener.accept().await?;
                // Whoever connects to this very socket was not steered, and is closed without a word.
                if let Some(local) = destination(&stream, listener.local_addr()?.port())? {
                    return Ok((prepared(stream)?, Peer::Tcp { client, local }));
                }
            },
            Self::Unix(listener, SocketFile(path)) => {
                let (stream, _) = listener.accept().await?;
                let credentials = stream.peer_cred()?;
                let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
                let peer =
                    Peer::Unix { pid, uid: credentials.uid(), gid: credentials.gid(), path: path.clone() };
                Ok((Socket::Unix(stream.into_std()?), peer))
            }
        }
    }
}

fn prepared(stream: TcpStream) -> io::Result<Socket> {
    stream.set_nodelay(true)?;
    // As the server does: a client whose host went away must not hold its session for ever.
    setsockopt(&stream, KeepAlive, &true)?;
    Ok(Socket::Tcp(stream.into_std()?))
}

/// Where a steered connection was going: its own end says so, but where it was redirected to `port`; then the kernel does.
fn destination(stream: &TcpStream, port: u16) -> io::Result<Option<SocketAddr>> {
    let local = stream.local_addr()?;
    if local.port() != port {
        return Ok(Some(local));
    }
    let original: Option<SocketAddr> = if local.is_ipv4() {
        let found = getsockopt(stream, OriginalDst).ok().map(SockaddrIn::from);
        found.map(|found| SocketAddr::V4(found.into()))
    } else {
        let found = getsockopt(stream, Ip6tOriginalDst).ok().map(SockaddrIn6::from);
        found.map(|found| SocketAddr::V6(found.into()))
    };
    Ok(original.filter(|original| original.port() != port))
}

async fn bind_unix(path: &Path) -> io::Result<Listener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket {
        if UnixStream::connect(path).await.is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        // Nobody listens: it is left over.
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    Ok(Listener::Unix(listener, SocketFile(path.to_owned())))
}

/// Returns when the agent stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_whose_host_went_away_is_noticed() {
        let listener = Listener::tcp("shop", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().unwrap();
        let (client, accepted) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        let (Ok(_client), Ok((Socket::Tcp(socket), _))) = (client, accepted) else {
            panic!("a TCP connection");
        };
        assert!(getsockopt(&socket, KeepAlive).unwrap());
    }
}
