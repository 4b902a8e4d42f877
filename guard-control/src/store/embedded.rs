//! The embedded store: commands enter one thread that writes, reads go over connections of their own.
//!
//! Several agents' batches share a transaction where they come together.

use std::{path::Path, sync::Arc, thread::JoinHandle, time::Duration};

use guard_common::{
    api::control::{Agent, DecisionsRequest, DecisionsResponse, Hello},
    audit::{chain::Hash, v1::record::Body},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Appended, Batch, FILE, Keep, StoreError,
    forget::{Forgotten, Step},
    search::Search,
    sql::{Line, Sql},
    sqlite::Writer,
};

/// Batches that may wait for the disk: with the limit of a message's size it bounds the memory.
const QUEUE: usize = 64;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) enum Command {
    Hello(Box<Hello>, Reply<u64>),
    Append(Batch, Reply<Appended>),
    Note(Box<Body>, Reply<()>),
    Run(Vec<Sql>, Reply<Vec<Vec<Line>>>),
    Forget(Step, Reply<Forgotten>),
    Stop,
}

/// SQLite in a folder.
pub(super) struct Embedded {
    commands: mpsc::Sender<Command>,
    search: Arc<Search>,
}

/// Keeps the store's writer.
pub struct StoreHandle {
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Opens the store in `dir`, making it if need be; `alone`: no other process may serve from it.
    pub(super) fn open(dir: &Path, alone: bool) -> Result<(Self, StoreHandle), StoreError> {
        let writer = Writer::open(dir, FILE, alone)?;
        let search = Arc::new(Search::open(dir)?);
        let (commands, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("guard-store".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|error| StoreError::Folder { path: dir.to_owned(), error })?;
        let handle = StoreHandle { commands: Some(commands.clone()), thread: Some(thread) };
        Ok((Self { commands, search }, handle))
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command + Send) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Search) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let search = self.search.clone();
        tokio::task::spawn_blocking(move || work(&search)).await.map_err(|_| StoreError::Closed)?
    }
}

#[tonic::async_trait]
impl Keep for Embedded {
    async fn hello(&self, hello: Hello) -> Result<u64, StoreError> {
        self.ask(|reply| Command::Hello(Box::new(hello), reply)).await
    }

    async fn append(&self, batch: Batch) -> Result<Appended, StoreError> {
        self.ask(|reply| Command::Append(batch, reply)).await
    }

    async fn note(&self, body: Body) -> Result<(), StoreError> {
        self.ask(|reply| Command::Note(Box::new(body), reply)).await
    }

    async fn run(&self, statements: Vec<Sql>) -> Result<Vec<Vec<Line>>, StoreError> {
        self.ask(|reply| Command::Run(statements, reply)).await
    }

    async fn look(&self, questions: Vec<Sql>, within: Duration) -> Result<Vec<Vec<Line>>, StoreError> {
        self.read(move |search| search.look(&questions, within)).await
    }

    async fn decisions(&self, request: DecisionsRequest) -> Result<DecisionsResponse, StoreError> {
        self.read(move |search| search.decisions(&request)).await
    }

    async fn agents(&self) -> Result<Vec<Agent>, StoreError> {
        self.read(Search::agents).await
    }

    async fn forget(&self, oldest: i64) -> Result<u64, StoreError> {
        let mut deleted = 0;
        let mut step = Step::Records { oldest, behind: 0 };
        loop {
            // In small steps: agents' batches wait in between, not behind.
            let Forgotten { records, next } = self.ask(|reply| Command::Forget(step, reply)).await?;
            deleted += records;
            match next {
                Some(next) => step = next,
                None => return Ok(deleted),
            }
        }
    }

    async fn hashes(&self, agent_id: &str, first: u64, last: u64) -> Result<Vec<Hash>, StoreError> {
        let agent_id = agent_id.to_owned();
        self.read(move |search| search.hashes(&agent_id, first, last)).await
    }
}

impl StoreHandle {
    /// Ends the writer after what was handed over before, and waits for it. Blocks: not for async code.
    pub fn close(mut self) {
        if let Some(commands) = self.commands.take() {
            let _ = commands.blocking_send(Command::Stop);
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer ended in a panic");
        }
    }
}
