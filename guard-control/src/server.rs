//! The gRPC side: agents' streams and people's questions enter, acknowledgements and answers leave.
//!
//! Everything a peer sends is bounded, and so is how many peers there are. Plaintext stays on this host.

pub mod approvals;
mod ingest;
pub mod live;
mod query;
pub mod sessions;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use guard_common::{
    api::control::{ingest_server::IngestServer, query_server::QueryServer},
    audit::MAX_SEALED_LEN,
};
use tokio::{net::TcpListener, sync::watch};
use tonic::{
    body::Body,
    codegen::http::{Request, Response},
    server::NamedService,
    transport::{Server as Transport, server::TcpIncoming},
};
use tower::Service;

use self::{approvals::Waiting, ingest::IngestService, live::Live, query::QueryService, sessions::Sessions};
use crate::store::Store;

/// Largest message: an agent ends a batch with the record that takes it over 1 MiB.
const MAX_MESSAGE: usize = MAX_SEALED_LEN + 2 * 1024 * 1024;
/// Streams of one connection.
const MAX_STREAMS: u32 = 64;
/// How often a silent peer is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long open requests may take to end after the signal to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Why the server can't serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Plaintext would leave this host.
    #[error(
        "refusing to listen on {0} without TLS: records would cross the network readable and forgeable. \
         Listen on a loopback address such as 127.0.0.1:7400 (and tunnel to it), or accept the risk with \
         --insecure-plaintext"
    )]
    Plaintext(SocketAddr),
    /// The address can't be had.
    #[error("cannot listen on {listen}: {error}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
    /// The transport failed.
    #[error("the server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    fleet: Fleet,
}

/// What is known of all hosts at this moment; cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    /// What was recorded.
    pub store: Store,
    /// Who is connected.
    pub sessions: Sessions,
    /// What waits for people.
    pub waiting: Waiting,
    /// What is being recorded.
    pub live: Live,
}

impl Server {
    /// Listens on `listen`. Addresses that other hosts can reach need `insecure_plaintext`.
    pub async fn bind(
        listen: SocketAddr,
        insecure_plaintext: bool,
        store: Store,
    ) -> Result<Self, ServerError> {
        if !listen.ip().to_canonical().is_loopback() && !insecure_plaintext {
            return Err(ServerError::Plaintext(listen));
        }
        let failed = |error| ServerError::Listen { listen, error };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let fleet = Fleet {
            store,
            sessions: Sessions::default(),
            waiting: Waiting::default(),
            live: Live::default(),
        };
        Ok(Self { listener, address, fleet })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What people look at and decide on.
    pub fn fleet(&self) -> Fleet {
        self.fleet.clone()
    }

    /// Serves until `stop`, and then until the open requests have ended.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), ServerError> {
        let (stopping, stopped) = watch::channel(false);
        let ingest = IngestService::new(self.fleet.clone(), stopped.clone());
        let Fleet { store, sessions, .. } = self.fleet;
        let query = QueryService::new(store, sessions);
        let services = Services {
            ingest: IngestServer::new(ingest).max_decoding_message_size(MAX_MESSAGE),
            query: QueryServer::new(query).max_decoding_message_size(64 * 1024),
        };
        let transport = Transport::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(Some(1024 * 1024))
            .initial_connection_window_size(Some(4 * 1024 * 1024));
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let signal = async move {
            stop.await;
            // Agents' streams never end by themselves.
            let _ = stopping.send(true);
        };
        let serving = transport.serve_with_incoming_shutdown(services, incoming, signal);
        tokio::pin!(serving);
        let mut overdue = stopped;
        tokio::select! {
            result = &mut serving => Ok(result?),
            () = async {
                let _ = overdue.wait_for(|stopping| *stopping).await;
                tokio::time::sleep(GRACE).await;
            } => {
                tracing::warn!("some peers did not let go in time");
                Ok(())
            }
        }
    }
}

/// All services behind one address.
#[derive(Clone)]
struct Services {
    ingest: IngestServer<IngestService>,
    query: QueryServer<QueryService>,
}

impl Service<Request<Body>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let service =
            path.strip_prefix('/').and_then(|path| path.split_once('/')).map(|(service, _)| service);
        match service {
            Some(<QueryServer<QueryService> as NamedService>::NAME) => self.query.call(request),
            // It answers what it does not know with UNIMPLEMENTED.
            _ => self.ingest.call(request),
        }
    }
}
