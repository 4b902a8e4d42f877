//! The proxy's own connection to the server: by unix socket where the server has one here, else by TCP.

use std::{io, os::fd::AsRawFd, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{SessionError, stream::Stream};
use crate::{connections::UpstreamSocket, servers::Server};

/// A connection to the server, and how the kernel knows it.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) stream: Stream,
    pub(super) socket: UpstreamSocket,
}

impl Upstream {
    /// Connects to the first of the server's sockets that answers, each within `limit`.
    pub(super) async fn connect(server: &Server, limit: Duration) -> Result<Self, SessionError> {
        let mut failure = None;
        for path in &server.unix_sockets {
            match within(limit, UnixStream::connect(path)).await {
                Ok(stream) => {
                    let inode = socket_inode(&stream).map_err(|error| failed(path.display(), error))?;
                    return Ok(Self { stream: Stream::Unix(stream), socket: UpstreamSocket::Unix { inode } });
                }
                Err(error) => failure = Some(failed(path.display(), error)),
            }
        }
        for address in &server.addresses {
            match within(limit, TcpStream::connect(address)).await {
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
