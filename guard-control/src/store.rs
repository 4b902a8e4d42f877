//! Keeps what agents send: verified, once, and durable before it is acknowledged.
//!
//! Batches enter, answers leave after the commit. The chain of every agent is checked here, against what is stored, and
//! nowhere else ([`fit`]). Where it is kept is behind [`Keep`].

mod embedded;
mod filter;
mod find;
mod fit;
mod forget;
pub(crate) mod id;
mod matter;
pub mod postgres;
pub(crate) mod remote;
pub mod row;
mod schema;
pub mod search;
pub mod sql;
mod sqlite;
mod tally;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use guard_common::{
    api::control::{Agent, DecisionsRequest, DecisionsResponse, Hello, RemoteClient, StoredDecision},
    audit::{
        chain::{ChainError, GENESIS, HASH_LEN, Hash},
        v1::{ControlEvent, SealedRecord, record::Body},
    },
};

pub use self::embedded::StoreHandle;
use self::{
    embedded::Embedded,
    matter::Matters,
    row::Row,
    sql::{Line, Sql},
};
pub(crate) use self::{sqlite::run_one, tally::SLOT};

/// The longest that a search may take.
const SEARCH_TIME: Duration = Duration::from_secs(30);
/// The longest that one question of a page may take.
pub(crate) const LOOK_TIME: Duration = Duration::from_secs(5);
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
    /// PostgreSQL refused, or is not there.
    #[error("the store cannot be used: {}", described(.0))]
    Postgres(tokio_postgres::Error),
    /// No connection is free.
    #[error("the store has no free connection: PostgreSQL answers too slowly")]
    Busy,
    /// PostgreSQL on another host, without TLS.
    #[error(
        "PostgreSQL is on another host, and nothing says whom to trust there: name its certificate authority with \
         --store-ca, or write `sslmode=disable` into the URL to go without TLS"
    )]
    PostgresTls,
    /// The authorities for PostgreSQL's certificate cannot be used.
    #[error("cannot use the certificate authorities in `{}`: {problem}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
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
    /// An earlier version of guard-control wrote it, and reading alone cannot bring it up to date.
    #[error(
        "the store was written by an earlier guard-control: `guard-control serve` brings it up to date when it starts"
    )]
    Older,
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
    /// A part of what belongs together is missing.
    #[error("the store has lost a part of its tree of records: put it back from a copy")]
    Torn,
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            // Nobody else ends statements here: it was the time.
            Some(&tokio_postgres::error::SqlState::QUERY_CANCELED) => Self::TooSlow,
            _ => Self::Postgres(error),
        }
    }
}

/// The server's own words, where there are some: the error alone only says that there are.
fn described(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(told) => format!("PostgreSQL says: {}", told.message()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("PostgreSQL: {error}: {source}"),
            None => format!("PostgreSQL: {error}"),
        },
    }
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
    agent_id: String,
    /// The oldest record that its journal had when it said hello.
    oldest: u64,
    /// In the order of the chain.
    rows: Vec<Row>,
    /// What they are about.
    matters: Matters,
    /// The first row that does not follow from the one before.
    broken: Option<(usize, ChainError)>,
}

impl Batch {
    /// A batch of an agent that has said hello. Reckons the hashes: not for a thread that others wait for, where it is
    /// large.
    pub fn new(agent_id: String, oldest: u64, rows: Vec<Row>) -> Self {
        let broken = fit::first_broken(&rows);
        let matters = Matters::among(&rows);
        Self { agent_id, oldest, rows, matters, broken }
    }

    /// The rows up to what is stored already.
    fn repeated(&self, stored: u64) -> &[Row] {
        &self.rows[..self.rows.partition_point(|row| row.sealed.sequence <= stored)]
    }
}

/// What every store does. One set of tests holds all of them to it: `tests/control/contract.rs`.
#[tonic::async_trait]
pub trait Keep: Send + Sync {
    /// Notes that an agent is there; says which of its records is the last that is stored.
    async fn hello(&self, hello: Hello) -> Result<u64, StoreError>;
    /// Verifies and stores a batch: all of it or nothing.
    async fn append(&self, batch: Batch) -> Result<Appended, StoreError>;
    /// Adds a record to the control plane's own chain.
    async fn note(&self, body: Body) -> Result<(), StoreError>;
    /// Runs statements in one transaction; the rows that each of them leads to. Nothing of it is kept after an error.
    async fn run(&self, statements: Vec<Sql>) -> Result<Vec<Vec<Line>>, StoreError>;
    /// Asks questions that change nothing, all of them of one state of the store, each within this time; the rows that
    /// each of them leads to. Never waits for what is being stored, nor holds it up. The two dialects have `instr(bytes,
    /// part)` in common.
    async fn look(&self, questions: Vec<Sql>, within: Duration) -> Result<Vec<Vec<Line>>, StoreError>;
    /// Searches decisions, the newest first.
    async fn decisions(&self, request: DecisionsRequest) -> Result<DecisionsResponse, StoreError>;
    /// All agents that were ever seen, by host. Who is connected is not known here.
    async fn agents(&self) -> Result<Vec<Agent>, StoreError>;
    /// Deletes what came, or happened, before `oldest` (microseconds since 1970); how much it was, in records or days.
    async fn forget(&self, oldest: i64) -> Result<u64, StoreError>;
    /// The hashes of an agent's records from `first` to `last`, as far as they are stored.
    async fn hashes(&self, agent_id: &str, first: u64, last: u64) -> Result<Vec<Hash>, StoreError>;
}

/// A handle on the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    keep: Arc<dyn Keep>,
    shared: bool,
}

impl Store {
    /// Opens the embedded store in `dir`, making it if need be.
    pub fn open(dir: &Path) -> Result<(Self, StoreHandle), StoreError> {
        let (keep, handle) = Embedded::open(dir, true)?;
        Ok((Self { keep: Arc::new(keep), shared: false }, handle))
    }

    /// Opens the embedded store in `dir` for a command, beside a server that may be running. It must be there: made by the
    /// wrong user, it would be of no use to the server.
    pub fn open_beside(dir: &Path) -> Result<(Self, StoreHandle), StoreError> {
        if !dir.join(FILE).exists() {
            return Err(StoreError::Absent(dir.to_owned()));
        }
        let (keep, handle) = Embedded::open(dir, false)?;
        Ok((Self { keep: Arc::new(keep), shared: false }, handle))
    }

    /// Connects to PostgreSQL, and makes its tables if need be. `authorities`: PEM, for TLS to it.
    pub async fn postgres(url: &postgres::Url, authorities: Option<PathBuf>) -> Result<Self, StoreError> {
        let keep = postgres::Postgres::open(url, authorities).await?;
        Ok(Self { keep: Arc::new(keep), shared: true })
    }

    /// Whether several replicas may work on it.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// See [`Keep::hello`].
    pub async fn hello(&self, hello: Hello) -> Result<u64, StoreError> {
        self.keep.hello(hello).await
    }

    /// See [`Keep::append`].
    pub async fn append(&self, batch: Batch) -> Result<Appended, StoreError> {
        self.keep.append(batch).await
    }

    /// See [`Keep::note`].
    pub async fn note(&self, body: Body) -> Result<(), StoreError> {
        self.keep.note(body).await
    }

    /// Says in the control plane's own chain what it did or noticed.
    pub async fn note_event(&self, event: ControlEvent) -> Result<(), StoreError> {
        self.note(Body::ControlEvent(event)).await
    }

    /// See [`Keep::run`].
    pub async fn run(&self, statements: Vec<Sql>) -> Result<Vec<Vec<Line>>, StoreError> {
        self.keep.run(statements).await
    }

    /// Runs one statement.
    pub async fn query(&self, statement: Sql) -> Result<Vec<Line>, StoreError> {
        Ok(self.run(vec![statement]).await?.pop().unwrap_or_default())
    }

    /// See [`Keep::look`]; for people who wait, so each within five seconds.
    pub async fn look(&self, questions: Vec<Sql>) -> Result<Vec<Vec<Line>>, StoreError> {
        self.keep.look(questions, LOOK_TIME).await
    }

    /// Asks one question, as long as a search may take: see [`Keep::look`].
    pub async fn look_up(&self, question: Sql) -> Result<Vec<Line>, StoreError> {
        Ok(self.keep.look(vec![question], SEARCH_TIME).await?.pop().unwrap_or_default())
    }

    /// See [`Keep::decisions`]; with what other hosts' agents report of the clients.
    pub async fn decisions(&self, request: DecisionsRequest) -> Result<DecisionsResponse, StoreError> {
        let mut found = self.keep.decisions(request).await?;
        remote::fill(remote::Asked::Keep(&*self.keep), &mut found.decisions).await;
        Ok(found)
    }

    /// What other hosts' agents report of the client of one connection, as a decision on it tells it.
    pub async fn remote(&self, connection: StoredDecision) -> Option<RemoteClient> {
        let mut one = [connection];
        remote::fill(remote::Asked::Keep(&*self.keep), &mut one).await;
        let [one] = one;
        one.remote
    }

    /// See [`Keep::agents`].
    pub async fn agents(&self) -> Result<Vec<Agent>, StoreError> {
        self.keep.agents().await
    }

    /// See [`Keep::forget`].
    pub async fn forget(&self, oldest: i64) -> Result<u64, StoreError> {
        self.keep.forget(oldest).await
    }

    /// See [`Keep::hashes`].
    pub async fn hashes(&self, agent_id: &str, first: u64, last: u64) -> Result<Vec<Hash>, StoreError> {
        self.keep.hashes(agent_id, first, last).await
    }

    /// One record of an agent, as it was sealed.
    pub async fn record(&self, agent_id: &str, sequence: u64) -> Result<Option<SealedRecord>, StoreError> {
        let select = "SELECT r.hash, r.payload,
                 coalesce(p.hash, (SELECT h.previous FROM holes h WHERE h.agent = a.id AND h.last = $2 - 1))
             FROM agents a
             JOIN records r ON r.id = a.id * $1 + $2
             LEFT JOIN records p ON p.id = a.id * $1 + $2 - 1
             WHERE a.agent_id = $3";
        let values = [id::RANGE.into(), sequence.cast_signed().into(), agent_id.into()];
        let lines = self.query(Sql::new(select, values)).await?;
        Ok(lines.first().map(|line| SealedRecord {
            sequence,
            previous: if sequence == 1 { GENESIS.to_vec() } else { line.bytes(2).to_vec() }.into(),
            hash: line.bytes(0).to_vec().into(),
            payload: line.bytes(1).to_vec().into(),
        }))
    }
}

/// Microseconds since 1970.
pub fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn now() -> i64 {
    micros(SystemTime::now())
}

/// A hash from a store; what is none cannot have been stored here.
pub(crate) fn hash(bytes: &[u8]) -> Result<Hash, StoreError> {
    <[u8; HASH_LEN]>::try_from(bytes).map_err(|_| StoreError::Unwritten)
}
