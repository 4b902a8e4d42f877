//! The console's server: browsers' and programs' HTTP enters, pages and JSON leave.
//!
//! TLS unless it was told otherwise on a loopback address. Connections, headers, bodies and times are bounded, and so is
//! how often one address may ask. Pages are in [`crate::console`], JSON in [`crate::api`].

pub mod app;
pub mod config;
pub mod fault;
mod headers;
pub mod limits;
pub mod metrics;
pub mod outward;
pub mod routes;
pub mod signed;
mod tls;
pub mod watched;

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use self::{app::App, config::Settings};

/// Connections at once.
const MAX_CONNECTIONS: usize = 2_000;
/// How long TLS and the headers of a request may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long open requests may take to end after the signal to stop.
const GRACE: Duration = Duration::from_secs(3);
/// Streams of one connection.
const MAX_STREAMS: u32 = 64;
/// Bytes of all headers of a request.
const MAX_HEADERS: u32 = 32 * 1024;

/// Why there is no console.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address can't be had.
    #[error("the console cannot listen on {listen}: {error}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
    /// The address for metrics can't be had.
    #[error("metrics cannot be served at {listen}: {error}")]
    Watched {
        /// The address.
        listen: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
    /// Passwords would cross the network in clear.
    #[error(
        "the console speaks plain HTTP on loopback addresses alone: leave --console-plaintext out, or listen on 127.0.0.1"
    )]
    Plaintext,
    /// A file of the certificate can't be used.
    #[error("the console's certificate: {0}")]
    Certificate(String),
    /// The settings can't be used.
    #[error("the console's settings `{path}`: {problem}")]
    Settings {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The people's book can't be used.
    #[error(transparent)]
    People(#[from] crate::people::PeopleError),
}

/// A console that listens.
pub struct Http {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    fingerprint: Option<String>,
}

/// The peer of a request's connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Http {
    /// Listens as `settings` say; a certificate of its own is kept in `data`.
    pub async fn bind(settings: &Settings, data: &Path) -> Result<Self, HttpError> {
        let listen = settings.listen;
        if settings.plaintext && !listen.ip().to_canonical().is_loopback() {
            return Err(HttpError::Plaintext);
        }
        let (acceptor, fingerprint) = match settings.plaintext {
            true => (None, None),
            false => {
                let tls::Identity { acceptor, fingerprint } = tls::identity(settings, data)?;
                (Some(acceptor), fingerprint)
            }
        };
        let failed = |error| HttpError::Listen { listen, error };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, acceptor, fingerprint })
    }

    /// Listens in plaintext for monitoring systems: see [`watched`].
    pub async fn bind_watched(listen: SocketAddr) -> Result<Self, HttpError> {
        let failed = |error| HttpError::Watched { listen, error };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, acceptor: None, fingerprint: None })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The SHA-256 fingerprint of a certificate that it made itself: browsers show it before they believe.
    pub fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    /// As a browser would be told.
    pub fn url(&self) -> String {
        let scheme = if self.acceptor.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves the console until `stopping` says otherwise, and then until the open requests have ended.
    pub async fn serve(self, app: App, stopping: watch::Receiver<bool>) {
        self.serve_all(routes::router(app), stopping).await;
    }

    /// Serves monitoring systems, as long.
    pub async fn serve_watched(self, watched: watched::Watched) {
        let stopping = watched.stopping.clone();
        self.serve_all(watched::router(watched), stopping).await;
    }

    async fn serve_all(self, router: Router, mut stopping: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let graceful = Arc::new(GracefulShutdown::new());
        loop {
            let place = tokio::select! {
                place = places.clone().acquire_owned() => place,
                _ = stopping.wait_for(|stopping| *stopping) => break,
            };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stopping.wait_for(|stopping| *stopping) => break,
            };
            match (accepted, place) {
                (Ok((stream, peer)), Ok(place)) => {
                    let visit = Visit { peer, place, router: router.clone(), graceful: graceful.clone() };
                    tokio::spawn(visit.run(stream, self.acceptor.clone()));
                }
                (Err(error), _) => {
                    // No file descriptors left, as a rule: others may close.
                    tracing::warn!(%error, "the console cannot accept");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                (_, Err(_)) => break,
            }
        }
        drop(self.listener);
        if let Some(graceful) = Arc::into_inner(graceful) {
            let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// One connection of a browser or a program.
struct Visit {
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    router: Router,
    graceful: Arc<GracefulShutdown>,
}

impl Visit {
    async fn run(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        let _ = stream.set_nodelay(true);
        match acceptor {
            None => self.talk(stream).await,
            Some(acceptor) => match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => self.talk(stream).await,
                Ok(Err(error)) => tracing::debug!(%error, peer = %self.peer, "a TLS handshake failed"),
                Err(_) => tracing::debug!(peer = %self.peer, "a TLS handshake took too long"),
            },
        }
    }

    async fn talk(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { peer, place, router, graceful } = self;
        let service = router.map_request(move |mut request: Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            request.map(axum::body::Body::new)
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIME).max_headers(100);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(Some(Duration::from_secs(20)))
            .keep_alive_timeout(Duration::from_secs(20));
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let watched = graceful.watch(connection.into_owned());
        drop(graceful);
        if let Err(error) = watched.await {
            tracing::debug!(%error, %peer, "a connection to the console ended early");
        }
        drop(place);
    }
}
