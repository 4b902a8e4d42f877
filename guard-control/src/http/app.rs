//! What every page and question of the console has at hand.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Deref,
    sync::Arc,
};

use axum::http::HeaderMap;
use tokio::sync::watch;
use url::Url;

use super::{
    HttpError,
    config::{File, Settings},
    limits::{self, Limits},
    metrics::Metrics,
};
use crate::{
    keys::SigningKey,
    people::{Book, People, oidc::Oidc, record::Recorder, secret},
    policy::dry_run::{DryRuns, Tool},
    reading::Readings,
    server::Fleet,
};

/// The rooms behind the console.
pub struct Rooms {
    /// Hosts as they are now.
    pub fleet: Fleet,
    /// The record.
    pub readings: Readings,
    /// People.
    pub people: People,
    /// What people do.
    pub recorder: Recorder,
    /// Signing in elsewhere.
    pub oidc: Option<Oidc>,
    /// The settings file.
    pub file: File,
    /// Cookies go over TLS alone.
    pub secure: bool,
    /// Browsers are told never to come without TLS: the certificate is one that they believe.
    pub strict_transport: bool,
    /// How people reach the console.
    pub url: Url,
    /// How often one address may ask.
    pub ordinary: Limits,
    /// How often one address may try a password.
    pub passwords: Limits,
    /// Signs policies.
    pub key: SigningKey,
    /// Decides anew on what was recorded.
    pub tool: Tool,
    /// What it was asked for.
    pub dry_runs: DryRuns,
    /// Counts.
    pub metrics: Metrics,
    /// Signs links in messages.
    pub link_key: Vec<u8>,
    /// The control plane is stopping.
    pub stopping: watch::Receiver<bool>,
}

/// What the console is made of, besides hosts and settings.
#[derive(Debug)]
pub struct Parts {
    /// Who may sign in.
    pub people: People,
    /// Signs policies.
    pub key: SigningKey,
    /// Decides anew on what was recorded.
    pub tool: Tool,
}

/// A handle on the rooms.
#[derive(Clone)]
pub struct App(Arc<Rooms>);

impl Deref for App {
    type Target = Rooms;

    fn deref(&self) -> &Rooms {
        &self.0
    }
}

impl App {
    /// Of the hosts in `fleet`.
    pub async fn open(
        settings: &Settings,
        Parts { people, key, tool }: Parts,
        own_url: &str,
        fleet: Fleet,
        stopping: watch::Receiver<bool>,
    ) -> Result<Self, HttpError> {
        let file = settings.file.clone();
        let bad = |problem: String| HttpError::Settings { path: own_url.to_owned(), problem };
        let url = match &file.url {
            Some(url) => url.clone(),
            None => Url::parse(own_url).map_err(|error| bad(error.to_string()))?,
        };
        let made = |book: &Book| book.setting("link key", || Ok(secret::random_bytes()?.to_vec()));
        let link_key = people.with(made).await?;
        let oidc = |settings| Oidc::new(settings, &url, people.clone(), link_key.clone());
        let oidc = file.oidc.as_ref().map(oidc).transpose()?;
        Ok(Self(Arc::new(Rooms {
            recorder: Recorder::new(fleet.store.clone()),
            readings: Readings::new(fleet.store.clone()),
            fleet,
            people,
            oidc,
            secure: !settings.plaintext,
            strict_transport: !settings.plaintext && file.certificate.is_some(),
            url,
            file,
            ordinary: Limits::new(limits::ORDINARY),
            passwords: Limits::new(limits::PASSWORDS),
            key,
            tool,
            dry_runs: DryRuns::default(),
            metrics: Metrics::default(),
            link_key,
            stopping,
        })))
    }

    /// Whose request it is: the peer, or whom a trusted proxy names.
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.ip().to_canonical();
        if !self.file.trusted_proxies.contains(&peer) {
            return peer;
        }
        // The last one is what the proxy itself has written.
        let named = headers.get_all("x-forwarded-for").iter().next_back();
        let last = named.and_then(|value| value.to_str().ok()).and_then(|value| value.rsplit(',').next());
        last.and_then(|address| address.trim().parse().ok()).unwrap_or(peer)
    }
}
