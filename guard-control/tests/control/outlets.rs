//! Records on their way out: each at least once, whatever breaks, and nothing lost in silence.

mod nats;
mod otlp;
mod parquet;
mod place;
mod syslog;

use std::{path::Path, time::Duration};

use guard_common::{
    api::control::Hello,
    audit::v1::{SealedRecord, decision::Verdict},
};
use guard_control::{
    outlets::{
        self,
        config::File,
        state::{self, State},
    },
    store::{Appended, Batch, Store, StoreHandle, row::Row},
};
use tokio::{sync::watch, task::JoinSet};

use super::agent::{Chain, statement};

/// A store in this process, with outlets at work.
struct Site {
    store: Store,
    writer: StoreHandle,
    stop: watch::Sender<bool>,
    working: JoinSet<()>,
}

impl Site {
    fn start(data: &Path, settings: &str) -> Self {
        let (store, writer) = Store::open(data).unwrap();
        let (stop, stopped) = watch::channel(false);
        let working = outlets::start(&file(settings), &store, false, &stopped).unwrap();
        Self { store, writer, stop, working }
    }

    async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.working.join_next().await {
            ended.unwrap();
        }
        drop(self.store);
        tokio::task::spawn_blocking(|| self.writer.close()).await.unwrap();
    }

    /// As a crash would: outlets end wherever they are.
    async fn crash(mut self) {
        self.working.abort_all();
        while self.working.join_next().await.is_some() {}
        drop(self.store);
        tokio::task::spawn_blocking(|| self.writer.close()).await.unwrap();
    }
}

fn file(settings: &str) -> File {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), settings).unwrap();
    File::read(file.path()).unwrap()
}

/// Stores records of an agent.
async fn store(store: &Store, agent: &str, records: &[SealedRecord]) {
    let hello = Hello { agent_id: agent.to_owned(), host: "db1".to_owned(), ..Hello::default() };
    store.hello(hello).await.unwrap();
    let rows = records.iter().cloned().map(Row::new).collect();
    let stored = store.append(Batch::new(agent.to_owned(), 1, rows)).await.unwrap();
    assert!(matches!(stored, Appended::Stored(_)), "{stored:?}");
}

/// The next records of a chain, every tenth of them refused.
fn statements(chain: &mut Chain, count: usize) -> Vec<SealedRecord> {
    let verdict = |at: usize| if at % 10 == 9 { Verdict::Refused } else { Verdict::Allowed };
    (0..count).map(|at| chain.seal(statement(&format!("select {at}"), verdict(at)))).collect()
}

async fn only(store: &Store) -> State {
    state::states(store).await.unwrap().pop().unwrap_or_default()
}

/// Waits for a while until it holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within a minute: {what}");
}

/// Waits until nothing waits.
async fn given_out(store: &Store) -> State {
    until("everything has left", async || {
        let state = only(store).await;
        state.running && state.waiting == 0 && state.sent + state.passed_over + state.missed > 0
    })
    .await;
    only(store).await
}
