//! A control plane with its console, in this process.

use std::net::SocketAddr;

use guard_common::audit::v1::record::Body;
use guard_control::{
    http::{
        Http,
        app::{App, Parts},
        config::{File, Settings},
    },
    keys::SigningKey,
    people::{People, book::BOOTSTRAP},
    policy::dry_run::Tool,
    server::Server,
    store::{Store, StoreHandle},
};
use guard_tests::Postgres;
use tokio::sync::{oneshot, watch};

use super::{
    agent::{Chain, Stream},
    browser::Browser,
};

/// What everybody here has as password.
pub const PASSWORD: &str = "four quiet yellow boats";

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

pub struct Site {
    pub dir: tempfile::TempDir,
    /// For agents.
    pub agents: SocketAddr,
    /// For people.
    pub console: SocketAddr,
    pub people: People,
    pub app: App,
    stop: Option<(oneshot::Sender<()>, watch::Sender<bool>)>,
    serving: Vec<tokio::task::JoinHandle<()>>,
    writer: Option<StoreHandle>,
}

impl Site {
    pub async fn start() -> Self {
        Self::with(File::default(), true).await
    }

    pub async fn with(file: File, plaintext: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = Store::open(dir.path()).unwrap();
        let people = People::open(dir.path()).unwrap();
        Self::launch(dir, (store, Some(writer)), people, Settings { listen: ANY, plaintext, file }).await
    }

    /// A replica on a store that others may share.
    pub async fn replica(postgres: &Postgres) -> Self {
        Self::replica_with(postgres, File::default()).await
    }

    pub async fn replica_with(postgres: &Postgres, file: File) -> Self {
        let url = format!("postgresql://postgres@{}/postgres", postgres.address());
        let store = Store::postgres(&url.parse().unwrap(), None).await.unwrap();
        let people = People::shared(store.clone(), tokio::runtime::Handle::current());
        let settings = Settings { listen: ANY, plaintext: true, file };
        Self::launch(tempfile::tempdir().unwrap(), (store, None), people, settings).await
    }

    async fn launch(
        dir: tempfile::TempDir,
        (store, writer): (Store, Option<StoreHandle>),
        people: People,
        settings: Settings,
    ) -> Self {
        let server = Server::bind(ANY, false, store).await.unwrap();
        let http = Http::bind(&settings, dir.path()).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (stopping, is_stopping) = watch::channel(false);
        let key = SigningKey::open(&dir.path().join("keys")).unwrap();
        let tool = Tool { guard_agent: Some(dir.path().join("guard-agent")) };
        let parts = Parts { people, key, tool };
        let url = http.url();
        let app = App::open(&settings, parts, &url, server.fleet(), is_stopping.clone());
        let app = app.await.unwrap();
        guard_control::webhooks::start(&app).unwrap();
        let (agents, console, people) = (server.address(), http.address(), app.people.clone());
        let serving = vec![
            tokio::spawn(async move { server.serve(async { _ = stopped.await }).await.unwrap() }),
            tokio::spawn(http.serve(app.clone(), is_stopping)),
        ];
        Self { dir, agents, console, people, app, stop: Some((stop, stopping)), serving, writer }
    }

    /// Somebody with these roles, who has chosen a password.
    pub async fn add(&self, name: &str, roles: &str, groups: &[&str]) {
        let (name, roles) = (name.to_owned(), roles.parse().unwrap());
        let groups: Vec<_> = groups.iter().map(|group| (*group).to_owned()).collect();
        let add = move |book: &guard_control::people::Book| {
            let first = book.add(&name, "", &roles, &groups)?;
            book.choose_password(book.named(&name)?.id, &first, PASSWORD)
        };
        self.people.with(add).await.unwrap();
    }

    /// A browser in which somebody with these roles has signed in.
    pub async fn signed_in(&self, roles: &str) -> Browser {
        let name = format!("p-{}", roles.replace(' ', "-"));
        self.add(&name, roles, &["dba"]).await;
        self.browser_of(&name).await
    }

    pub async fn browser_of(&self, name: &str) -> Browser {
        let mut browser = Browser::new(self.console);
        let answer = browser.sign_in(name, PASSWORD).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        browser
    }

    /// The first admin's password.
    pub async fn bootstrap(&self) -> String {
        self.people.with(|book| book.bootstrap()).await.unwrap().unwrap()
    }

    pub fn first_admin() -> &'static str {
        BOOTSTRAP
    }

    /// An agent that has sent these.
    pub async fn agent_with(&self, bodies: Vec<Body>) -> (Chain, Stream) {
        let mut chain = Chain::new();
        let (mut stream, _) = Stream::open(self.agents, &chain.id, 1).await.unwrap();
        let records = bodies.into_iter().map(|body| chain.seal(body)).collect();
        stream.store(records).await;
        (chain, stream)
    }

    /// What people did, the newest first.
    pub async fn actions(&self) -> Vec<guard_common::audit::v1::PersonAction> {
        let actions = self.app.readings.actions(None, 1_000).await.unwrap();
        actions.into_iter().map(|one| one.action).collect()
    }

    pub async fn stop(mut self) {
        if let Some((server, console)) = self.stop.take() {
            let _ = console.send(true);
            drop(server);
        }
        for serving in self.serving.drain(..) {
            serving.await.unwrap();
        }
        if let Some(writer) = self.writer.take() {
            tokio::task::spawn_blocking(|| writer.close()).await.unwrap();
        }
    }
}
