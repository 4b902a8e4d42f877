//! The gRPC side: agents' streams and people's questions enter, acknowledgements and answers leave.
//!
//! Everything a peer sends is bounded, and so is how many peers there are. Plaintext stays on this host; over TLS only
//! agents are heard, and each of them as nobody else.

pub mod approvals;
mod enrolment;
mod ingest;
pub mod live;
mod query;
mod refusals;
mod replicas;
mod reported;
pub mod sessions;
mod transport;

use std::{
    collections::HashSet,
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use guard_common::{
    api::control::{
        KnownDatabases, enrolment_server::EnrolmentServer, ingest_server::IngestServer,
        query_server::QueryServer,
    },
    audit::{MAX_SEALED_LEN, v1::ControlEvent},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status,
    body::Body,
    codegen::{
        CompressionEncoding,
        http::{Request, Response},
    },
    server::NamedService,
    transport::Server as Transport,
};
use tower::Service;

pub use self::transport::Peer;
use self::{
    approvals::Waiting, enrolment::EnrolmentService, ingest::IngestService, live::Live, query::QueryService,
    refusals::Refusals, replicas::Relay, sessions::Sessions, transport::Own,
};
use crate::{
    ca::CaError,
    enrol::{self, Registrar},
    policy::Rollouts,
    store::Store,
};

/// Largest message: an agent ends a batch with the record that takes it over 1 MiB.
const MAX_MESSAGE: usize = MAX_SEALED_LEN + 2 * 1024 * 1024;
/// Streams of one connection.
const MAX_STREAMS: u32 = 64;
/// How often a silent peer is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How soon a revoked agent's stream ends.
const REVOCATION: Duration = Duration::from_secs(2);
/// How long open requests may take to end after the signal to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Why the server can't serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Plaintext would leave this host.
    #[error(
        "refusing to listen on {0} without TLS: records would cross the network readable and forgeable. \
         Give agents of other hosts an address with --listen-tls, and leave this one on loopback such as \
         127.0.0.1:7400; or accept the risk with --insecure-plaintext"
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
    /// The certificates for TLS cannot be made or used.
    #[error(transparent)]
    Certificates(#[from] CaError),
    /// The transport failed.
    #[error("the server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// A server that listens.
pub struct Server {
    plain: Option<TcpListener>,
    address: SocketAddr,
    tls: Option<Tls>,
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

/// The side of the server that other hosts reach.
struct Tls {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    own: Arc<Own>,
    names: Vec<String>,
    registrar: Arc<Registrar>,
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
        let (listener, address) = bind(listen).await?;
        let waiting = Relay::of(&store).map(Waiting::among).unwrap_or_default();
        let fleet = Fleet { store, sessions: Sessions::default(), waiting, live: Live::default() };
        Ok(Self { plain: Some(listener), address, tls: None, fleet })
    }

    /// Listens on `listen` too, over TLS 1.3, for agents with certificates of `registrar`. `names`: what agents call this
    /// control plane.
    pub async fn with_tls(
        mut self,
        listen: SocketAddr,
        names: Vec<String>,
        registrar: Arc<Registrar>,
    ) -> Result<Self, ServerError> {
        let own = Own::new(registrar.authority(), &names)?;
        let acceptor = transport::acceptor(registrar.authority(), own.clone())?;
        let (listener, address) = bind(listen).await?;
        self.tls = Some(Tls { listener, address, acceptor, own, names, registrar });
        Ok(self)
    }

    /// Where it listens in plaintext.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens over TLS.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|tls| tls.address)
    }

    /// What people look at and decide on.
    pub fn fleet(&self) -> Fleet {
        self.fleet.clone()
    }

    /// Serves until `stop`, and then until the open requests have ended.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), ServerError> {
        let (stopping, stopped) = watch::channel(false);
        let registrar = self.tls.as_ref().map(|tls| tls.registrar.clone());
        let (connections, incoming) = transport::channel();
        let mut tasks = Tasks::default();
        if let Some(plain) = self.plain {
            tasks.spawn(transport::accept(plain, None, connections.clone()));
        }
        if let Some(tls) = self.tls {
            tasks.spawn(transport::accept(tls.listener, Some(tls.acceptor), connections.clone()));
            tasks.spawn(keep_own_certificate(tls.own, tls.registrar, tls.names));
        }
        drop(connections);
        let (revoked, revocations) = watch::channel(Arc::default());
        tasks.spawn(follow_revocations(self.fleet.store.clone(), revoked));
        let (handing, rollouts) = watch::channel(Rollouts::default());
        tasks.spawn(follow_rollouts(self.fleet.store.clone(), handing));
        let (naming, databases) = watch::channel(KnownDatabases::default());
        tasks.spawn(reported::follow_databases(self.fleet.store.clone(), naming));
        let refusals = Refusals::default();
        if self.fleet.store.is_shared() {
            tasks.spawn(replicas::follow(self.fleet.clone()));
        }
        tasks.spawn(tell_refusals(self.fleet.store.clone(), refusals.clone()));
        let (store, counted) = (self.fleet.store.clone(), refusals.clone());
        let news = News { stopping: stopped.clone(), revocations, rollouts, databases, refusals };
        let services = services(self.fleet, registrar, news);
        let server = Transport::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(Some(1024 * 1024))
            .initial_connection_window_size(Some(4 * 1024 * 1024));
        let signal = async move {
            stop.await;
            // Agents' streams never end by themselves.
            let _ = stopping.send(true);
        };
        let incoming = ReceiverStream::new(incoming);
        let serving = server.serve_with_incoming_shutdown(services, incoming, signal);
        tokio::pin!(serving);
        let mut overdue = stopped;
        let served = tokio::select! {
            result = &mut serving => result.map_err(ServerError::from),
            () = async {
                let _ = overdue.wait_for(|stopping| *stopping).await;
                tokio::time::sleep(GRACE).await;
            } => {
                tracing::warn!("some peers did not let go in time");
                Ok(())
            }
        };
        note_all(&store, counted.rest()).await;
        served
    }
}

async fn bind(listen: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |error| ServerError::Listen { listen, error };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn services(fleet: Fleet, registrar: Option<Arc<Registrar>>, news: News) -> Services {
    let ingest = IngestService::new(fleet.clone(), news);
    let Fleet { store, sessions, .. } = fleet;
    let query = QueryService::new(store.clone(), sessions);
    Services {
        ingest: IngestServer::new(ingest)
            .max_decoding_message_size(MAX_MESSAGE)
            .accept_compressed(CompressionEncoding::Zstd),
        query: QueryServer::new(query).max_decoding_message_size(64 * 1024),
        enrolment: EnrolmentServer::new(EnrolmentService::new(store, registrar))
            .max_decoding_message_size(64 * 1024),
    }
}

/// Tasks that end with the server.
#[derive(Default)]
struct Tasks(Vec<tokio::task::JoinHandle<()>>);

impl Tasks {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.push(tokio::spawn(task));
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Serials of certificates that are revoked and have not expired.
type Revocations = watch::Receiver<Arc<HashSet<String>>>;

/// What every stream has to know as soon as it changes.
#[derive(Clone)]
struct News {
    stopping: watch::Receiver<bool>,
    revocations: Revocations,
    rollouts: watch::Receiver<Rollouts>,
    databases: watch::Receiver<KnownDatabases>,
    refusals: Refusals,
}

/// How often it is looked whether something was refused for an hour.
const REFUSALS: Duration = Duration::from_secs(60);

/// Puts on record what was only counted, once its hour is over.
async fn tell_refusals(store: Store, refusals: Refusals) {
    loop {
        tokio::time::sleep(REFUSALS).await;
        note_all(&store, refusals.due(Instant::now())).await;
    }
}

async fn note_all(store: &Store, events: Vec<ControlEvent>) {
    for event in events {
        if let Err(error) = store.note_event(event).await {
            tracing::error!(%error, "what was refused cannot be recorded");
        }
    }
}

/// Looks which policies go to whom.
async fn follow_rollouts(store: Store, rollouts: watch::Sender<Rollouts>) {
    loop {
        match Rollouts::load(&store).await {
            Ok(found) => {
                rollouts.send_if_modified(|known| {
                    let changed = *known != found;
                    *known = found;
                    changed
                });
            }
            Err(error) => tracing::debug!(%error, "cannot look which policies go to whom"),
        }
        tokio::time::sleep(REVOCATION).await;
    }
}

/// Looks for certificates that somebody has revoked: by a command beside this server, or at another replica.
async fn follow_revocations(store: Store, revoked: watch::Sender<Arc<HashSet<String>>>) {
    loop {
        match enrol::revoked(&store).await {
            Ok(serials) if serials != **revoked.borrow() => {
                let _ = revoked.send(Arc::new(serials));
            }
            Ok(_) => {}
            // New streams ask the store themselves.
            Err(error) => tracing::debug!(%error, "cannot look for revoked certificates"),
        }
        tokio::time::sleep(REVOCATION).await;
    }
}

async fn keep_own_certificate(own: Arc<Own>, registrar: Arc<Registrar>, names: Vec<String>) {
    loop {
        tokio::time::sleep(Own::RENEW).await;
        if let Err(error) = own.renew(registrar.authority(), &names) {
            tracing::error!(%error, "the control plane's own certificate could not be renewed");
        }
    }
}

/// All services behind one address.
#[derive(Clone)]
struct Services {
    ingest: IngestServer<IngestService>,
    query: QueryServer<QueryService>,
    enrolment: EnrolmentServer<EnrolmentService>,
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
        // INVARIANT: whoever comes over TLS is an agent, or wants to be one. People's questions are not for them.
        let plain = request.extensions().get::<Peer>() == Some(&Peer::Plain);
        match service {
            Some(<EnrolmentServer<EnrolmentService> as NamedService>::NAME) => self.enrolment.call(request),
            Some(<QueryServer<QueryService> as NamedService>::NAME) if !plain => {
                let status = Status::permission_denied("agents do not ask this: it is for people");
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
            Some(<QueryServer<QueryService> as NamedService>::NAME) => self.query.call(request),
            // It answers what it does not know with UNIMPLEMENTED.
            _ => self.ingest.call(request),
        }
    }
}
