//! Journal, uplink and a real control plane, over real sockets: outages, restarts, kills, lost journals.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something fails")]

mod approvals;
mod enrolment;
mod outages;
mod policies;
mod restarts;
mod trouble;

use std::{net::SocketAddr, path::Path, time::Duration};

use guard_agent::{
    audit::{AuditLog, JournalHandle},
    config::{ControlConfig, JournalConfig, Sync},
    uplink::{self, Credentials, Identity, UplinkHandle},
};
use guard_common::audit::v1::{Decision, Statement, decision::Verdict, record::Body};
use guard_control::{
    server::Server,
    store::{Store, StoreHandle, search::Search},
};
use tokio::sync::oneshot;

/// A control plane in this process.
struct Control {
    address: SocketAddr,
    fleet: guard_control::server::Fleet,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<()>,
    writer: StoreHandle,
}

const ANY: &str = "127.0.0.1:0";

impl Control {
    async fn start(data: &Path, address: &str) -> Self {
        let (store, writer) = Store::open(data).unwrap();
        let server = Server::bind(address.parse().unwrap(), false, store).await.unwrap();
        let (address, fleet) = (server.address(), server.fleet());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move { server.serve(async { _ = stopped.await }).await.unwrap() });
        Self { address, fleet, stop, serving, writer }
    }

    async fn stop(self) {
        drop(self.stop);
        self.serving.await.unwrap();
        tokio::task::spawn_blocking(|| self.writer.close()).await.unwrap();
    }
}

/// The part of an agent that these tests are about.
struct Agent {
    log: AuditLog,
    journal: JournalHandle,
    uplink: UplinkHandle,
}

impl Agent {
    fn start(dir: &Path, address: SocketAddr) -> Self {
        Self::with(
            dir,
            address,
            JournalConfig { sync: Sync::Os, sign_seconds: 0, ..JournalConfig::default() },
        )
    }

    fn with(dir: &Path, address: SocketAddr, config: JournalConfig) -> Self {
        let (log, journal) = AuditLog::open(&config, dir).unwrap();
        let uplink = uplink::start(&control(&format!("http://{address}")), identity(), log.clone()).unwrap();
        Self { log, journal, uplink }
    }

    fn record(&self, count: usize) {
        for n in 0..count {
            self.log.record(statement(&format!("select {n}")));
        }
    }

    /// Waits until the control plane has acknowledged record `last`.
    async fn arrived(&self, last: u64) {
        eventually(
            || self.uplink.status().acknowledged_sequence >= last,
            || format!("{:?}", self.uplink.status()),
        )
        .await;
    }

    async fn stop(self) {
        self.journal.close().await.unwrap();
        self.uplink.close(Duration::from_secs(10)).await;
    }
}

fn control(endpoint: &str) -> ControlConfig {
    ControlConfig {
        endpoint: Some(endpoint.to_owned()),
        labels: [("team".to_owned(), "x".to_owned())].into(),
    }
}

fn identity() -> Identity {
    Identity {
        host: "db1".to_owned(),
        mode: "enforce",
        credentials: Credentials::in_state(Path::new("/nonexistent")),
    }
}

fn statement(text: &str) -> Body {
    let decision = Decision { verdict: Verdict::Allowed.into(), ..Decision::default() };
    Body::Statement(Statement { text: text.to_owned(), decision: Some(decision), ..Statement::default() })
}

async fn eventually(mut condition: impl FnMut() -> bool, describe: impl Fn() -> String) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(40);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "it never came to pass: {}", describe());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The numbers of all stored decisions, in order.
fn stored(data: &Path) -> Vec<u64> {
    let search = Search::open(data).unwrap();
    let mut request = guard_common::api::control::DecisionsRequest { limit: 10_000, ..Default::default() };
    let mut sequences = Vec::new();
    loop {
        let answer = search.decisions(&request).unwrap();
        sequences.extend(answer.decisions.iter().map(|decision| decision.sequence));
        if answer.next_page.is_empty() {
            break;
        }
        request.page = answer.next_page;
    }
    sequences.sort_unstable();
    sequences
}
