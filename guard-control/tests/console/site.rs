//! A control plane with its console, in this process.

use std::net::SocketAddr;

use guard_common::audit::v1::record::Body;
use guard_control::{
    http::{
        Http,
        app::App,
        config::{File, Settings},
    },
    people::{People, book::BOOTSTRAP},
    server::Server,
    store::{Store, StoreHandle},
};
use tokio::sync::{oneshot, watch};

use super::{
    agent::{Chain, Stream},
    browser::Browser,
};

/// What everybody here has as password.
pub const PASSWORD: &str = "four quiet yellow boats";

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
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), false, store).await.unwrap();
        let settings = Settings { listen: "127.0.0.1:0".parse().unwrap(), plaintext, file };
        let http = Http::bind(&settings, dir.path()).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (stopping, is_stopping) = watch::channel(false);
        let app =
            App::open(&settings, (dir.path(), &http.url()), server.fleet(), is_stopping.clone()).unwrap();
        guard_control::webhooks::start(&app).unwrap();
        let (agents, console, people) = (server.address(), http.address(), app.people.clone());
        let serving = vec![
            tokio::spawn(async move { server.serve(async { _ = stopped.await }).await.unwrap() }),
            tokio::spawn(http.serve(app.clone(), is_stopping)),
        ];
        Self {
            dir,
            agents,
            console,
            people,
            app,
            stop: Some((stop, stopping)),
            serving,
            writer: Some(writer),
        }
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
        let writer = self.writer.take().unwrap();
        tokio::task::spawn_blocking(|| writer.close()).await.unwrap();
    }
}
