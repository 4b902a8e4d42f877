//! Connections to the server that the environment names, and what errors look like.

use std::{env, sync::Arc};

use futures_util::{StreamExt, stream};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio_postgres::{
    AsyncMessage, Client, Config, Error, NoTls,
    config::{ChannelBinding, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Failure;

/// A session, and what the server sends on its own account.
pub struct Session {
    pub client: Client,
    pub messages: UnboundedReceiver<AsyncMessage>,
}

pub fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

pub fn config() -> Config {
    let mut config = Config::new();
    config
        .host(variable("TEST_HOST"))
        .port(variable("TEST_PORT").parse().unwrap_or_default())
        .dbname(variable("TEST_DATABASE"))
        .user(variable("TEST_USER"))
        .password(variable("TEST_PASSWORD"))
        .ssl_mode(SslMode::Disable);
    config
}

pub async fn connect() -> Result<Session, Error> {
    connect_with(&config()).await
}

pub async fn connect_with(config: &Config) -> Result<Session, Error> {
    let (client, mut connection) = config.connect(NoTls).await?;
    let (send, messages) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut all = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = all.next().await {
            // Who does not listen has let go of the other end.
            let _ = send.send(message);
        }
    });
    Ok(Session { client, messages })
}

/// A session by TLS; `None` where this way to the server has none.
pub async fn secure(binding: ChannelBinding) -> Result<Client, Failure> {
    let ca = variable("TEST_CA");
    if ca.is_empty() {
        return Err(Failure::Unsupported("this way to the server has no TLS"));
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = config();
    config.ssl_mode(SslMode::Require).channel_binding(binding);
    let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// What the driver says of an error.
pub fn error(error: &Error) -> Value {
    let Some(db) = error.as_db_error() else {
        return json!({ "kind": error.to_string(), "closed": error.is_closed() });
    };
    json!({
        "severity": db.severity(), "sqlstate": db.code().code(), "message": db.message(), "detail": db.detail(), "hint_": db.hint(),
        "position": format!("{:?}", db.position()), "where": db.where_(), "schema": db.schema(), "table": db.table(),
        "column": db.column(), "constraint": db.constraint(), "routine": db.routine(),
    })
}

/// What matters of a refusal.
pub fn refusal(error: &Error) -> Value {
    let Some(db) = error.as_db_error() else { return json!({ "kind": error.to_string() }) };
    json!({
        "sqlstate": db.code().code(), "severity": format!("{:?}", db.parsed_severity()),
        "by_guard": db.message().starts_with("refused by guard"), "hint": db.hint().is_some(),
    })
}

/// What `outcome` failed with, as `describe` puts it.
pub fn raised<T>(outcome: Result<T, Error>, describe: fn(&Error) -> Value) -> Result<Value, Failure> {
    match outcome {
        Err(raised) => Ok(describe(&raised)),
        Ok(_) => Err(Failure::Broken("nothing was raised".to_owned())),
    }
}

/// A large value in a few characters.
pub fn digest(bytes: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    // Without a seed: the same in every run of this program.
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{}:{:016x}", bytes.len(), hasher.finish())
}
