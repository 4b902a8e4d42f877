//! The proxy's own connection to the server: the way the client came, so that the server's rules for logging in keep
//! their meaning. A `trust` or `peer` rule for local sockets must not apply to a client from the network.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{Peer, SessionError, stream::Stream};
use crate::{connections::UpstreamSocket, servers::Server};

/// A connection to the server, and how the kernel knows it.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) stream: Stream,
    pub(super) socket: UpstreamSocket,
}

impl Upstream {
    /// Connects to the first of the server's sockets that answers, each within `limit`. By unix socket for clients that
    /// came by one, or where the configuration names one (`prefer_unix`); else by TCP.
    pub(super) async fn connect(
        server: &Server,
        peer: &Peer,
        prefer_unix: bool,
        limit: Duration,
    ) -> Result<Self, SessionError> {
        let mut failure = None;
        let unix = prefer_unix || matches!(peer, Peer::Unix { .. });
        for path in server.unix_sockets.iter().filter(|_| unix) {
            match within(limit, UnixStream::connect(path)).await {
                Ok(stream) => {
                    let inode = socket_inode(&stream).map_err(|error| failed(path.display(), error))?;
                    return Ok(Self { stream: Stream::Unix(stream), socket: UpstreamSocket::Unix { inode } });
                }
                Err(error) => failure = Some(failed(path.display(), error)),
            }
        }
        for address in &server.addresses {
            match within(limit, TcpStream::connect(reachable(*address))).await {
                Ok(stream) => {
                    let ends = stream
                        .set_nodelay(true)
                        .and_then(|()| Ok((stream.local_addr()?, stream.peer_addr()?)));
                    let (local, peer) = ends.map_err(|error| failed(address, error))?;
                    return Ok(Self {
                        stream: Stream::Tcp(stream),
                        socket: UpstreamSocket::Tcp { local, peer },
                    });
                }
                Err(error) => failure = Some(failed(address, error)),
            }
        }
        Err(failure.unwrap_or_else(|| {
            failed(&server.name, io::Error::new(io::ErrorKind::NotFound, "no address of it is known"))
        }))
    }
}

/// A server that listens on every address is reached on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn failed(endpoint: impl std::fmt::Display, error: io::Error) -> SessionError {
    SessionError::Upstream { endpoint: endpoint.to_string(), error }
}

async fn within<T>(limit: Duration, connect: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, connect).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
}

/// The inode by which the kernel's records name a socket.
fn socket_inode(socket: &impl AsRawFd) -> io::Result<u64> {
    // SAFETY: the descriptor is open for as long as `socket` is borrowed.
    let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    Ok(nix::sys::stat::fstat(descriptor)?.st_ino)
}

/// Passes a CancelRequest on and waits until the server has taken it: it closes then.
pub(super) async fn send_cancel(mut upstream: Upstream, packet: &[u8], limit: Duration) {
    let exchange = async {
        upstream.stream.write_all(packet).await?;
        upstream.stream.read(&mut [0]).await
    };
    let _: Result<io::Result<usize>, _> = timeout(limit, exchange).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, UnixListener};

    use super::*;
    use crate::servers::Engine;

    #[tokio::test]
    async fn clients_reach_the_server_the_way_they_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".s.PGSQL.5432");
        let (_unix, tcp) =
            (UnixListener::bind(&path).unwrap(), TcpListener::bind("0.0.0.0:0").await.unwrap());
        let server = Server {
            name: "main".to_owned(),
            engine: Engine::Postgresql,
            environment: "production".to_owned(),
            addresses: vec![tcp.local_addr().unwrap()],
            unix_sockets: vec![path.clone()],
            pid: None,
        };
        let address = "127.0.0.1:1".parse().unwrap();
        let from_network = Peer::Tcp { client: address, local: address };
        let from_host = Peer::Unix { pid: 1, uid: 0, gid: 0, path };
        for (peer, prefer_unix, unix) in
            [(&from_network, false, false), (&from_network, true, true), (&from_host, false, true)]
        {
            let upstream =
                Upstream::connect(&server, peer, prefer_unix, Duration::from_secs(5)).await.unwrap();
            assert_eq!(
                matches!(upstream.socket, UpstreamSocket::Unix { .. }),
                unix,
                "{peer:?} {prefer_unix}"
            );
        }
    }
}
