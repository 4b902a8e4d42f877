//! Keeps what agents send: verified, once, and durable before it is acknowledged.
//!
//! Batches enter; one thread writes them, several agents' in one transaction where they come together. Reads go over
//! connections of their own. The chain of every agent is checked here, against what is stored, and nowhere else.

pub mod row;
mod schema;
pub mod search;
mod sqlite;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use guard_common::{
    api::control::{Agent, DecisionsRequest, DecisionsResponse, Hello},
    audit::v1::record::Body,
};
use tokio::sync::{mpsc, oneshot};

use self::{row::Row, search::Search, sqlite::Writer};

/// Batches that may wait for the disk: with the limit of a message's size it bounds the memory.
const QUEUE: usize = 64;
/// The longest that a search may take.
const SEARCH_TIME: Duration = Duration::from_secs(30);
/// Name of the database in the data folder.
const FILE: &str = "guard.sqlite";
/// The mode of the control plane's own chain, which is no agent's.
const OWN: &str = "control";

/// Why the store can't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("the store cannot be used: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The data folder can't be used.
    #[error("cannot use the data folder `{}`: {error}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// A later version of guard-control wrote it.
    #[error("the store has version {found}, this program knows {known}: install the later guard-control")]
    Newer {
        /// The version that was found.
        found: usize,
        /// The latest version that is known.
        known: usize,
    },
    /// Another process serves from the same folder.
    #[error("another guard-control uses `{}`: stop it first, or give this one its own --data", .0.display())]
    InUse(PathBuf),
    /// There is no store.
    #[error("there is no store in `{}`: name the folder that `guard-control serve --data` uses", .0.display())]
    Absent(PathBuf),
    /// The search took too long.
    #[error("the search took longer than {} seconds: narrow it, as by --agent or --verdict", SEARCH_TIME.as_secs())]
    TooSlow,
    /// What was asked for makes no sense.
    #[error("{0}")]
    Request(&'static str),
    /// The transaction was not kept: disk full, I/O error. The log says why.
    #[error("the store could not be written: its log says why")]
    Unwritten,
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Everything up to this record is on disk.
    Stored(u64),
    /// Nothing of the batch was kept.
    Rejected {
        /// The first record that does not fit.
        sequence: u64,
        /// Why.
        reason: String,
    },
}

/// A batch of one agent.
#[derive(Debug)]
pub struct Batch {
    /// The agent, which has said hello.
    pub agent_id: String,
    /// The oldest record that its journal had when it said hello.
    pub oldest: u64,
    /// In the order of the chain.
    pub rows: Vec<Row>,
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

enum Command {
    Hello(Box<Hello>, Reply<u64>),
    Append(Batch, Reply<Appended>),
    Note(Box<Body>, Reply<()>),
    Stop,
}

/// A handle on the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    commands: mpsc::Sender<Command>,
    search: Arc<Search>,
}

/// Keeps the store's writer.
pub struct StoreHandle {
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store in `dir`, making it if need be.
    pub fn open(dir: &Path) -> Result<(Self, StoreHandle), StoreError> {
        let writer = Writer::open(dir, FILE)?;
        let search = Arc::new(Search::open(dir)?);
        let (commands, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("guard-store".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|error| StoreError::Folder { path: dir.to_owned(), error })?;
        Ok((Self { commands: commands.clone(), search }, StoreHandle { commands, thread: Some(thread) }))
    }

    /// Notes that an agent is there; says which of its records is the last that is stored.
    pub async fn hello(&self, hello: Hello) -> Result<u64, StoreError> {
        self.ask(|reply| Command::Hello(Box::new(hello), reply)).await
    }

    /// Verifies and stores a batch: all of it or nothing.
    pub async fn append(&self, batch: Batch) -> Result<Appended, StoreError> {
        self.ask(|reply| Command::Append(batch, reply)).await
    }

    /// Adds a record to the control plane's own chain.
    pub async fn note(&self, body: Body) -> Result<(), StoreError> {
        self.ask(|reply| Command::Note(Box::new(body), reply)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Searches decisions, the newest first.
    pub async fn decisions(&self, request: DecisionsRequest) -> Result<DecisionsResponse, StoreError> {
        self.read(move |search| search.decisions(&request)).await
    }

    /// All agents that were ever seen, by host. Who is connected is not known here.
    pub async fn agents(&self) -> Result<Vec<Agent>, StoreError> {
        self.read(Search::agents).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Search) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let search = self.search.clone();
        tokio::task::spawn_blocking(move || work(&search)).await.map_err(|_| StoreError::Closed)?
    }
}

impl StoreHandle {
    /// Ends the writer after what was handed over before, and waits for it. Blocks: not for async code.
    pub fn close(mut self) {
        let _ = self.commands.blocking_send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer ended in a panic");
        }
    }
}
