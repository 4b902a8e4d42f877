//! Connections to PostgreSQL: a URL enters, connections that work leave.
//!
//! A connection that broke is thrown away and never handed out again; the next one is made anew, so that a server that was
//! gone is used again as soon as it is back.

use std::{
    collections::HashMap,
    fmt,
    ops::{Deref, DerefMut},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{
    Client, Config, NoTls, Statement,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::StoreError;

/// Connections of one replica.
const CONNECTIONS: usize = 16;
/// How long connecting may take, and waiting for a connection.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long one statement may take.
const STATEMENT_TIME: Duration = Duration::from_secs(60);

/// Where PostgreSQL is. It may hold a password: it is never shown.
#[derive(Clone)]
pub struct Url(Config);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |problem: &str| format!("{problem}: write it as postgresql://user@host/database");
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(wrong("no PostgreSQL URL"));
        }
        // The parser's own words could repeat the password.
        let mut config: Config = text.parse().map_err(|_| wrong("not a valid PostgreSQL URL"))?;
        config.application_name("guard-control").connect_timeout(CONNECT_TIME);
        config.options(format!("-c statement_timeout={}", STATEMENT_TIME.as_millis()));
        Ok(Self(config))
    }
}

impl Url {
    /// Host and database, for people.
    pub fn place(&self) -> String {
        let hosts = self.0.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let hosts = hosts.collect::<Vec<_>>().join(",");
        format!("PostgreSQL at {hosts}, database {}", self.0.get_dbname().unwrap_or("(default)"))
    }

    fn leaves_the_host(&self) -> bool {
        self.0.get_hosts().iter().any(|host| match host {
            Host::Unix(_) => false,
            Host::Tcp(name) => {
                name != "localhost"
                    && !name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        })
    }
}

/// Connections.
#[derive(Clone)]
pub(super) struct Pool {
    config: Arc<Config>,
    tls: Option<MakeRustlsConnect>,
    idle: Arc<Mutex<Vec<Session>>>,
    places: Arc<Semaphore>,
}

/// A connection and what was prepared on it.
struct Session {
    client: Client,
    prepared: Mutex<HashMap<&'static str, Statement>>,
}

impl Pool {
    pub(super) fn new(url: &Url, authorities: Option<PathBuf>) -> Result<Self, StoreError> {
        let mut config = url.0.clone();
        let tls = match authorities {
            Some(path) => {
                // With an authority at hand nothing else will do.
                config.ssl_mode(SslMode::Require);
                Some(connector(path)?)
            }
            None if config.get_ssl_mode() == SslMode::Disable || !url.leaves_the_host() => {
                config.ssl_mode(SslMode::Disable);
                None
            }
            None => return Err(StoreError::PostgresTls),
        };
        Ok(Self {
            config: Arc::new(config),
            tls,
            idle: Arc::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        })
    }

    /// A connection, when one is free.
    pub(super) async fn client(&self) -> Result<Lent, StoreError> {
        let waiting = tokio::time::timeout(CONNECT_TIME, self.places.clone().acquire_owned()).await;
        let place = waiting.map_err(|_| StoreError::Busy)?.map_err(|_| StoreError::Closed)?;
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(session) if session.client.is_closed() => {}
                Some(session) => return Ok(self.lend(session, place)),
                None => return Ok(self.lend(self.connect().await?, place)),
            }
        }
    }

    fn lend(&self, session: Session, place: OwnedSemaphorePermit) -> Lent {
        Lent { session: Some(session), idle: self.idle.clone(), _place: place }
    }

    async fn connect(&self) -> Result<Session, StoreError> {
        let client = match self.tls.clone() {
            Some(tls) => {
                let (client, connection) = self.config.connect(tls).await?;
                drive(connection);
                client
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                drive(connection);
                client
            }
        };
        Ok(Session { client, prepared: Mutex::default() })
    }
}

fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            // Whoever waits for an answer is told as well.
            tracing::debug!(%error, "a connection to PostgreSQL ended");
        }
    });
}

fn connector(path: PathBuf) -> Result<MakeRustlsConnect, StoreError> {
    let wrong = |problem: String| StoreError::Authorities { path: path.clone(), problem };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(&path).map_err(|error| wrong(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("it holds no certificate".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// A connection that goes back when it is dropped.
pub(super) struct Lent {
    session: Option<Session>,
    idle: Arc<Mutex<Vec<Session>>>,
    _place: OwnedSemaphorePermit,
}

impl Lent {
    /// Prepares a statement, once for each connection.
    pub(super) async fn prepare_cached(
        &self,
        text: &'static str,
    ) -> Result<Statement, tokio_postgres::Error> {
        let Some(session) = &self.session else { return self.prepare(text).await };
        let known = session.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(text).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = session.client.prepare(text).await?;
        session.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(text, statement.clone());
        Ok(statement)
    }
}

impl Deref for Lent {
    type Target = Client;

    fn deref(&self) -> &Client {
        // INVARIANT: taken when it is dropped, and never before.
        self.session.as_ref().map(|session| &session.client).unwrap_or_else(|| unreachable!("lent"))
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Client {
        // INVARIANT: as above.
        self.session.as_mut().map(|session| &mut session.client).unwrap_or_else(|| unreachable!("lent"))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(session) = self.session.take().filter(|session| !session.client.is_closed()) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let url: Url = "postgresql://guard:s3cret@db.example/guard".parse().unwrap();
        assert!(!format!("{url:?} {}", url.place()).contains("s3cret"));
        for bad in ["postgresql://guard:s3cret@[/x", "guard:s3cret@db", "mysql://a:s3cret@b/c"] {
            let Err(error) = bad.parse::<Url>() else { panic!("{bad}") };
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn another_host_is_reached_over_tls_or_by_a_clear_word() {
        let pool = |url: &str| Pool::new(&url.parse().unwrap(), None).map(drop);
        assert!(matches!(pool("postgresql://a@db.example/guard"), Err(StoreError::PostgresTls)));
        assert!(matches!(
            pool("postgresql://a@10.0.0.1/guard?sslmode=require"),
            Err(StoreError::PostgresTls)
        ));
        pool("postgresql://a@127.0.0.1/guard").unwrap();
        pool("postgresql://a@db.example/guard?sslmode=disable").unwrap();
        pool("postgresql:///guard?host=/run/postgresql&user=a").unwrap();
    }
}
