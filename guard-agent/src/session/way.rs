//! Which way a session takes to its server: by TLS where channel binding needs it, by unix socket where that makes no
//! difference to who is let in, else by TCP.
//!
//! A client's startup packet enters, a connection on which the server has given its first answer leaves. Attempts that are
//! given up leave no trace with the client. INVARIANT: a client that did not come by unix socket goes by unix socket only
//! where the server asks there for just what it asks for over TCP, so that `local` lines of `pg_hba.conf` let nobody in
//! whom the `host` lines would not.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU8, Ordering},
    },
};

use tokio::time::{Duration, Instant};

use super::{
    Peer, SessionError,
    startup::Secured,
    upstream::{Dial, First, Method, Transport, Upstream},
};
use crate::{
    config::UpstreamTlsMode, servers::Server, steering::Gate, tls::Connector, wire::postgres::Startup,
};

/// How long it is believed that the server's rules are what they were.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How long it is believed that the server presents another certificate: a renewed one is soon the same again.
const DIFFERS: Duration = Duration::from_secs(5);

/// Logins whose ways are remembered.
const MAX_REMEMBERED: usize = 4_096;

/// SQLSTATE `invalid_authorization_specification`: no line of `pg_hba.conf` fits, perhaps one with TLS would.
const NO_ENTRY: &str = "28000";

/// The ways to one server, and what is remembered of them.
#[derive(Debug, Default)]
pub struct Ways {
    /// Reach it by its unix socket whatever way the client came: only where the configuration says so.
    pub(super) prefer_unix: bool,
    /// TLS towards the server.
    mode: UpstreamTlsMode,
    /// For TLS towards it; `None` where it is switched off.
    connector: Option<Connector>,
    seen: Mutex<HashMap<Login, Seen>>,
    /// The server presented another certificate than the proxy, until then.
    differs: Mutex<Option<Instant>>,
    /// What has been said in the log about channel binding.
    said: AtomicU8,
    /// Past what steers connections to the server to the proxy.
    gate: RwLock<Option<Arc<Gate>>>,
}

/// What `pg_hba.conf` tells apart, the client's address left out: the server sees the proxy's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Login {
    user: String,
    database: String,
    replication: bool,
}

/// What a login met.
#[derive(Clone, Debug)]
struct Seen {
    until: Instant,
    /// What the server asked for over TCP in clear.
    tcp: Method,
    /// It asks for the same by unix socket, as far as is known.
    unix: bool,
}

/// Whether SCRAM-SHA-256-PLUS can hold from the client to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// The client does not talk TLS.
    NoTls,
    /// Client and server see the same certificate, each at its own end.
    EndToEnd,
    /// The certificates differ.
    OtherCertificate,
    /// The server offers no TLS.
    ServerWithoutTls,
    /// The configuration sends the session another way.
    ByConfiguration,
}

impl Binding {
    /// Its form in records.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::NoTls => "",
            Self::EndToEnd => "end to end",
            Self::OtherCertificate => "withheld: the proxy presents another certificate than the server",
            Self::ServerWithoutTls => "withheld: the server offers no TLS",
            Self::ByConfiguration => "withheld: `unix_socket` or `upstream_tls` is configured",
        }
    }
}

/// The client's side of what is to be opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) peer: &'a Peer,
    pub(super) secured: Option<&'a Secured>,
    pub(super) startup: &'a Startup,
    /// The startup packet to send.
    pub(super) packet: &'a [u8],
}

/// A connection to the server that has begun.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) upstream: Upstream,
    pub(super) binding: Binding,
}

impl Ways {
    /// Ways by the configuration: by unix socket alone where `prefer_unix`, TLS as `mode` says and `connector` can.
    pub fn new(prefer_unix: bool, mode: UpstreamTlsMode, connector: Option<Connector>) -> Self {
        Self { prefer_unix, mode, connector, ..Self::default() }
    }

    /// Connections to the server are steered from now on, and those of the proxy go by `gate`.
    pub fn set_gate(&self, gate: Option<Arc<Gate>>) {
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = gate;
    }

    pub(super) fn gate(&self) -> Option<Arc<Gate>> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens a session's connection and sends its startup packet.
    pub(super) async fn open(&self, dial: Dial<'_>, asked: Asked<'_>) -> Result<Way, SessionError> {
        let way = self.choose(dial, asked).await?;
        if asked.secured.is_some() {
            self.tell(dial, way.binding);
        }
        Ok(way)
    }

    /// Opens a connection for a request to cancel: the server takes it from anybody, before it looks at its rules.
    pub(super) async fn to_cancel(&self, dial: Dial<'_>) -> Result<Upstream, SessionError> {
        if let Some(connector) = self.connector.as_ref().filter(|_| self.mode.demands()) {
            // The key must not be overheard.
            return dial.tls(connector, true).await;
        }
        match dial.unix().await {
            Ok(upstream) => Ok(upstream),
            Err(_) if !dial.server.addresses.is_empty() => dial.tcp().await,
            Err(error) => Err(error),
        }
    }

    async fn choose(&self, dial: Dial<'_>, asked: Asked<'_>) -> Result<Way, SessionError> {
        let binding = |tls| if asked.secured.is_some() { tls } else { Binding::NoTls };
        let by_unix = self.prefer_unix || matches!(asked.peer, Peer::Unix { .. });
        if by_unix && dial.origin.is_none() && !dial.server.reachable_sockets().is_empty() {
            match dial.unix().await {
                Ok(upstream) => {
                    let way = Way { upstream, binding: binding(Binding::ByConfiguration) };
                    return way.begun(asked.packet).await;
                }
                Err(error) if dial.server.addresses.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        let (Some(connector), true) = (&self.connector, self.wants_tls(asked.secured)) else {
            let withheld = match self.mode {
                UpstreamTlsMode::Off => Binding::ByConfiguration,
                _ => Binding::OtherCertificate,
            };
            return self.in_clear(dial, asked, binding(withheld)).await;
        };
        let upstream = dial.tls(connector, self.mode.demands()).await?;
        let same =
            asked.secured.is_none_or(|secured| upstream.certificate.as_ref() == Some(&secured.presented));
        if upstream.transport != Transport::Tls {
            drop(upstream);
            return self.in_clear(dial, asked, binding(Binding::ServerWithoutTls)).await;
        }
        if !same && self.mode == UpstreamTlsMode::Auto && is_local(dial.server) {
            // A server under TLS refuses a client that found no -PLUS where it could have been. On the way to another
            // host encryption counts for more.
            *lock(&self.differs) = Some(Instant::now() + DIFFERS);
            drop(upstream);
            return self.in_clear(dial, asked, Binding::OtherCertificate).await;
        }
        let kept = if same { Binding::EndToEnd } else { Binding::OtherCertificate };
        Way { upstream, binding: binding(kept) }.begun(asked.packet).await
    }

    fn wants_tls(&self, secured: Option<&Secured>) -> bool {
        match self.mode {
            UpstreamTlsMode::Auto => {
                secured.is_some() && lock(&self.differs).is_none_or(|until| until < Instant::now())
            }
            UpstreamTlsMode::Off => false,
            _ => true,
        }
    }

    /// By unix socket where that is known to be the same, else by TCP.
    async fn in_clear(
        &self,
        dial: Dial<'_>,
        asked: Asked<'_>,
        binding: Binding,
    ) -> Result<Way, SessionError> {
        if dial.origin.is_some() {
            // The server knows the client by its address, and decides on just what it would have seen without guard.
            return Way { upstream: dial.tcp().await?, binding }.begun(asked.packet).await;
        }
        let login = Login::of(asked.startup);
        if let Some(expected) = self.same_by_unix(&login)
            && let Ok(mut upstream) = dial.unix().await
        {
            match upstream.begin(asked.packet).await {
                Ok(First::Authentication(method)) if method == expected => {
                    return Ok(Way { upstream, binding });
                }
                // Over TCP the client will hear why, if it is more than a difference.
                Ok(_) | Err(_) => self.differs_by_unix(&login),
            }
        }
        if dial.server.addresses.is_empty() {
            // There are no `host` lines to respect where nothing listens on TCP: but nobody said that clients from the
            // network may come in by the `local` ones.
            return Err(dial.tcp().await.err().unwrap_or(SessionError::OutOfTurn("a connection")));
        }
        let mut upstream = dial.tcp().await?;
        let first = upstream.begin(asked.packet).await?;
        match (&first, &self.connector) {
            (First::Authentication(method), _) => self.remember(login, method, dial),
            (First::Refusal(code), Some(connector))
                if code == NO_ENTRY && self.mode == UpstreamTlsMode::Auto =>
            {
                if let Some(way) = self.demanded(dial, asked, connector).await {
                    return Ok(way);
                }
            }
            _ => {}
        }
        Ok(Way { upstream, binding })
    }

    /// The server refuses what comes in clear: perhaps it wants TLS. `None`: that is not it, and its first answer stands.
    async fn demanded(&self, dial: Dial<'_>, asked: Asked<'_>, connector: &Connector) -> Option<Way> {
        let mut upstream = dial.tls(connector, true).await.ok()?;
        let first = upstream.begin(asked.packet).await.ok()?;
        let binding = if asked.secured.is_some() { Binding::OtherCertificate } else { Binding::NoTls };
        matches!(first, First::Authentication(_)).then_some(Way { upstream, binding })
    }

    /// What the server is expected to ask for by unix socket, if that may be tried.
    fn same_by_unix(&self, login: &Login) -> Option<Method> {
        let seen = lock(&self.seen).get(login).cloned()?;
        (seen.unix && seen.tcp != Method::Other && seen.until > Instant::now()).then_some(seen.tcp)
    }

    fn differs_by_unix(&self, login: &Login) {
        if let Some(seen) = lock(&self.seen).get_mut(login) {
            seen.unix = false;
        }
    }

    fn remember(&self, login: Login, method: &Method, dial: Dial<'_>) {
        if dial.server.reachable_sockets().is_empty() {
            return;
        }
        let now = Instant::now();
        let mut seen = lock(&self.seen);
        if seen.get(&login).is_some_and(|known| known.until > now && known.tcp == *method) {
            // What was found out about the unix socket keeps its time, and is tried again then.
            return;
        }
        if seen.len() >= MAX_REMEMBERED {
            seen.retain(|_, seen| seen.until > now);
        }
        if seen.len() < MAX_REMEMBERED || seen.contains_key(&login) {
            seen.insert(login, Seen { until: now + REMEMBERED, tcp: method.clone(), unix: true });
        }
    }

    /// Says once, for each reason, whether channel binding holds.
    fn tell(&self, dial: Dial<'_>, binding: Binding) {
        let bit = 1 << (binding as u8);
        if self.said.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            tracing::info!(server = %dial.server.name, "channel binding (SCRAM-SHA-256-PLUS): {}", binding.describe());
        }
    }
}

impl Way {
    /// Sends the startup packet; whatever the server answers is for the client.
    async fn begun(mut self, packet: &[u8]) -> Result<Self, SessionError> {
        self.upstream.begin(packet).await?;
        Ok(self)
    }
}

impl Login {
    fn of(startup: &Startup) -> Self {
        Self {
            user: startup.user().to_owned(),
            database: startup.database().to_owned(),
            replication: startup.replication(),
        }
    }
}

/// Whether what goes to the server stays on this host.
fn is_local(server: &Server) -> bool {
    let loopback = |address: &SocketAddr| address.ip().is_loopback() || address.ip().is_unspecified();
    server.pid.is_some() || server.addresses.iter().all(loopback)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "tests/way.rs"]
mod tests;
