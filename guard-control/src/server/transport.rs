//! How peers come in: sockets enter, connections leave that say who is at the other end.
//!
//! Plaintext says nobody's name and stays on this host. Over TLS 1.3 an agent shows its certificate; whoever shows none may
//! enrol and nothing else. No handshake holds up another, and none lasts.

use std::{
    io,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use crate::ca::{self, Authority, CaError, Named, SERVER_LIFETIME};

/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Handshakes at the same time; more wait in the socket's queue.
const HANDSHAKES: usize = 512;
/// Connections that wait for the server.
const WAITING: usize = 64;
/// How long a peer may take to read why it is refused.
const LAST_WORD: Duration = Duration::from_secs(1);
/// After an error that passes, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on a plaintext socket: on this host, unless whoever runs it has asked for more.
    Plain,
    /// Somebody over TLS who has shown no certificate.
    Nobody,
    /// An agent with a certificate that the authority has signed.
    Agent(Named),
}

/// A connection.
pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>, Peer),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        match self {
            Self::Plain(_) => Peer::Plain,
            Self::Tls(_, peer) => peer.clone(),
        }
    }
}

/// The control plane's own certificate, which is made anew while it runs.
#[derive(Debug)]
pub(super) struct Own(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Own {
    /// A certificate of `authority` for these names.
    pub(super) fn new(authority: &Authority, names: &[String]) -> Result<Arc<Self>, CaError> {
        Ok(Arc::new(Self(RwLock::new(authority.own_certificate(names)?))))
    }

    /// How long to wait before the next one.
    pub(super) const RENEW: Duration = Duration::from_secs(SERVER_LIFETIME.as_secs() / 3 * 2);

    /// Takes another one.
    pub(super) fn renew(&self, authority: &Authority, names: &[String]) -> Result<(), CaError> {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = authority.own_certificate(names)?;
        Ok(())
    }
}

/// TLS 1.3 for agents with certificates of `authority`, and for those who have none yet.
pub(super) fn acceptor(authority: &Authority, own: Arc<Own>) -> Result<TlsAcceptor, CaError> {
    let provider = Arc::new(default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()?), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would carry yesterday's certificate.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Takes connections of `listener` until nobody wants them any more.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    connections: mpsc::Sender<io::Result<Connection>>,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let accepted = tokio::select! {
            () = connections.closed() => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let _ = socket.set_nodelay(true);
        let Some(tls) = tls.clone() else {
            if connections.send(Ok(Connection::Plain(socket))).await.is_err() {
                return;
            }
            continue;
        };
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let connections = connections.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIME, tls.accept(socket).into_fallible()).await {
                Ok(Ok(stream)) => {
                    drop(place);
                    let peer = peer(&stream);
                    let _ = connections.send(Ok(Connection::Tls(Box::new(stream), peer))).await;
                }
                Ok(Err((error, socket))) => {
                    tracing::info!(%address, %error, "a TLS handshake failed");
                    let _ = tokio::time::timeout(LAST_WORD, let_read(socket)).await;
                }
                Err(_) => tracing::debug!(%address, "a TLS handshake took too long"),
            }
        });
    }
}

/// Lets the peer read why: closed at once, with something unread, the socket would take the alert back.
async fn let_read(mut socket: TcpStream) {
    let mut unread = [0; 1024];
    let _ = socket.shutdown().await;
    while matches!(socket.read(&mut unread).await, Ok(1..)) {}
}

pub(super) fn channel() -> (mpsc::Sender<io::Result<Connection>>, mpsc::Receiver<io::Result<Connection>>) {
    mpsc::channel(WAITING)
}

fn peer(stream: &TlsStream<TcpStream>) -> Peer {
    let certificates = stream.get_ref().1.peer_certificates();
    // INVARIANT: rustls has verified the first one. One that names no agent is nobody's.
    let named = certificates.and_then(|chain| chain.first()).and_then(ca::named);
    named.map_or(Peer::Nobody, Peer::Agent)
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
