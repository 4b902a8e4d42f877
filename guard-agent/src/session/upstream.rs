//! The proxy's own connection to the server: sockets, TLS, and the server's first answer to a startup packet.
//!
//! Which of these ways a session takes is decided in `way`. Here nothing reaches the client.

use std::{io, net::SocketAddr, os::fd::AsRawFd, path::Path, time::Duration};

use bytes::BytesMut;
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{SessionError, stream::Stream};
use crate::{
    connections::{ProxiedConnection, UpstreamSocket},
    servers::Server,
    steering::{Connected, Gate, Origin, Pass},
    tls::Connector,
    wire::postgres::{Backend, ErrorFields, HEADER_BYTES, Header},
};

/// An SSLRequest.
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Most bytes of what the server says first.
const MAX_FIRST: usize = 64 * 1024;

/// How the proxy talks to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// By its unix socket.
    Unix,
    /// By TCP, in clear.
    Tcp,
    /// By TCP, under TLS.
    Tls,
}

impl Transport {
    /// Its name in records.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// A connection to the server.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) stream: Stream,
    pub(super) transport: Transport,
    /// What the server has said that the client has not yet been told.
    pub(super) said: BytesMut,
    /// The certificate that the server presented.
    pub(super) certificate: Option<CertificateDer<'static>>,
    /// Lets the connection pass until the server has answered.
    pass: Option<Pass>,
}

/// What a server answers to a startup packet before it answers anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// It lets the client in, or asks for this.
    Authentication(Method),
    /// It refuses, with this SQLSTATE.
    Refusal(String),
    /// It closed the connection.
    Closed,
}

/// What a server asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Nothing: the client is in.
    Nothing,
    /// A password, hashed with a salt: against the role's own.
    Md5,
    /// SCRAM-SHA-256 without channel binding: against the role's own verifier.
    Scram,
    /// Anything else. Who asks may check it against anything.
    Other,
}

impl Method {
    fn read(body: &[u8]) -> Self {
        match body.split_first_chunk().map(|(code, rest)| (u32::from_be_bytes(*code), rest)) {
            Some((0, _)) => Self::Nothing,
            Some((5, _)) => Self::Md5,
            Some((10, b"SCRAM-SHA-256\0\0")) => Self::Scram,
            _ => Self::Other,
        }
    }
}

/// Opens connections to one server for one client, each known to the connection table before it is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dial<'a> {
    pub(super) server: &'a Server,
    pub(super) connection: &'a ProxiedConnection,
    /// For each attempt.
    pub(super) limit: Duration,
    /// Past what steers connections to this server.
    pub(super) gate: Option<&'a Gate>,
    /// From whose address; from the proxy's own where it is not said.
    pub(super) origin: Option<Origin>,
}

impl Dial<'_> {
    /// The first of the server's unix sockets that answers.
    pub(super) async fn unix(&self) -> Result<Upstream, SessionError> {
        let mut failure = self.nowhere();
        for path in self.server.reachable_sockets() {
            match within(self.limit, UnixStream::connect(path)).await {
                Ok(stream) => return self.by_unix(stream, path),
                Err(error) => failure = failed(path.display(), error),
            }
        }
        Err(failure)
    }

    fn by_unix(&self, stream: UnixStream, path: &Path) -> Result<Upstream, SessionError> {
        let inode = socket_inode(&stream).map_err(|error| failed(path.display(), error))?;
        self.connection.upstream(UpstreamSocket::Unix { inode });
        Ok(Upstream::new(Stream::Unix(stream), Transport::Unix))
    }

    /// The first of the server's addresses that answers, in clear.
    pub(super) async fn tcp(&self) -> Result<Upstream, SessionError> {
        self.address().await.map(|(upstream, _)| upstream)
    }

    /// The same under TLS. In clear where the server offers none and it is not demanded (`demands`).
    pub(super) async fn tls(&self, connector: &Connector, demands: bool) -> Result<Upstream, SessionError> {
        let (mut upstream, address) = self.address().await?;
        let broken = |error| failed(address, error);
        let answer = async {
            upstream.stream.write_all(&TLS_REQUEST).await?;
            upstream.stream.read_u8().await
        };
        // One byte, and nothing behind it that could pass for what comes under TLS: the socket is read no further.
        match within(self.limit, answer).await.map_err(broken)? {
            b'S' => {}
            b'N' if !demands => return Ok(upstream),
            b'N' => return Err(failed(address, io::Error::other("it does not offer TLS (`ssl = off`)"))),
            // A server that is out of connections says so before it reads the request.
            b'E' if !demands => return self.tcp().await,
            _ => return Err(failed(address, io::Error::other("it answers a request for TLS with nonsense"))),
        }
        let name = connector.server_name(address.ip());
        let handshake = TlsConnector::from(connector.config.clone()).connect(name, upstream.stream);
        let stream = within(self.limit, handshake).await.map_err(broken)?;
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate =
            certificates.and_then(<[_]>::first).map(|certificate| certificate.clone().into_owned());
        let stream = Stream::Tls(Box::new(stream.into()));
        Ok(Upstream { certificate, ..Upstream::new(stream, Transport::Tls) })
    }

    async fn address(&self) -> Result<(Upstream, SocketAddr), SessionError> {
        let mut failure = self.nowhere();
        for address in self.targets() {
            match within(self.limit, self.connect(address)).await {
                Ok(connected) => return Ok((self.by_tcp(connected, address)?, address)),
                Err(error) => failure = failed(address, error),
            }
        }
        Err(failure)
    }

    fn targets(&self) -> Vec<SocketAddr> {
        match (self.gate, self.origin) {
            (Some(gate), Some(origin)) => gate.targets(origin, &self.server.addresses),
            _ => self.server.reachable_addresses().collect(),
        }
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Connected> {
        match self.gate {
            Some(gate) => gate.connect(self.origin, address).await,
            None => Ok(Connected { stream: TcpStream::connect(address).await?, pass: None }),
        }
    }

    fn by_tcp(&self, connected: Connected, address: SocketAddr) -> Result<Upstream, SessionError> {
        let Connected { stream, pass } = connected;
        let ends = stream.set_nodelay(true).and_then(|()| Ok((stream.local_addr()?, stream.peer_addr()?)));
        let (local, peer) = ends.map_err(|error| failed(address, error))?;
        self.connection.upstream(UpstreamSocket::Tcp { local, peer });
        Ok(Upstream { pass, ..Upstream::new(Stream::Tcp(stream), Transport::Tcp) })
    }

    fn nowhere(&self) -> SessionError {
        failed(&self.server.name, io::Error::new(io::ErrorKind::NotFound, "no address of it is known"))
    }
}

impl Upstream {
    pub(super) fn new(stream: Stream, transport: Transport) -> Self {
        Self { stream, transport, said: BytesMut::new(), certificate: None, pass: None }
    }

    /// Sends the startup packet and reads the server's first answer; what it says is kept in `said`.
    pub(super) async fn begin(&mut self, packet: &[u8]) -> Result<First, SessionError> {
        if self.stream.write_all(packet).await.is_err() || self.stream.flush().await.is_err() {
            return Ok(First::Closed);
        }
        loop {
            if let Some(first) = first_answer(&self.said)? {
                self.pass = None;
                return Ok(first);
            }
            match self.stream.read_buf(&mut self.said).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Ok(First::Closed),
            }
        }
    }
}

/// The answer in what the server has said so far; `None` until it is there.
fn first_answer(mut said: &[u8]) -> Result<Option<First>, SessionError> {
    loop {
        let Some(header) = Header::read(said, MAX_FIRST).map_err(SessionError::Server)? else {
            return Ok(None);
        };
        let kind = Backend::from_tag(header.tag).map_err(SessionError::Server)?;
        let Some(body) = said.get(HEADER_BYTES..header.total()) else {
            return Ok(None);
        };
        match kind {
            Backend::Authentication => return Ok(Some(First::Authentication(Method::read(body)))),
            Backend::ErrorResponse => {
                let code = ErrorFields::start(body).code;
                return Ok(Some(First::Refusal(String::from_utf8_lossy(code).into_owned())));
            }
            // They may come before.
            Backend::NegotiateProtocolVersion | Backend::NoticeResponse => said = &said[header.total()..],
            _ => return Err(SessionError::OutOfTurn("a message of a running session")),
        }
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
        upstream.stream.flush().await?;
        upstream.stream.read(&mut [0]).await
    };
    let _: Result<io::Result<usize>, _> = timeout(limit, exchange).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        [&[tag][..], &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
    }

    #[test]
    fn the_first_answer_is_read_behind_what_may_come_before_it() {
        let negotiation = message(b'v', b"\0\x03\0\0\0\0\0\0");
        let said = [negotiation.clone(), message(b'R', b"\0\0\0\x05salt")].concat();
        assert_eq!(first_answer(&said).unwrap(), Some(First::Authentication(Method::Md5)));
        for end in 0..said.len() {
            assert_eq!(first_answer(&said[..end]).unwrap(), None, "{end}");
        }
        let refusal = message(b'E', b"SFATAL\0VFATAL\0C28000\0Mno\0\0");
        assert_eq!(first_answer(&refusal).unwrap(), Some(First::Refusal("28000".to_owned())));
        assert!(first_answer(&message(b'Z', b"I")).is_err());
    }

    #[test]
    fn only_what_checks_the_roles_own_secret_counts_as_the_same() {
        let method = |body: &[u8]| Method::read(body);
        assert_eq!(method(b"\0\0\0\0"), Method::Nothing);
        assert_eq!(method(b"\0\0\0\x0aSCRAM-SHA-256\0\0"), Method::Scram);
        assert_eq!(method(b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"), Method::Other);
        assert_eq!(method(b"\0\0\0\x0aOAUTHBEARER\0\0"), Method::Other);
        assert_eq!(method(b"\0\0\0\x03"), Method::Other, "a password in clear may be LDAP's");
        assert_eq!(method(b"\0\0"), Method::Other);
    }
}
