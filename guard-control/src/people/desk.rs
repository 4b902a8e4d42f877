//! Where the people's book lies: in a file of its own beside the embedded store, or in the tables of a store that several
//! replicas share.
//!
//! Statements enter, rows leave: of one call all of it, or nothing. Blocks, so it is for threads that may wait.

use std::{
    fs::{DirBuilder, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use guard_common::audit::v1::{PersonAction, record::Body};
use rusqlite::{Connection, TransactionBehavior};
use tokio::runtime::Handle;

use super::{PeopleError, schema};
use crate::store::{
    Store, run_one,
    sql::{Line, Sql},
};

/// Name of the database in the data folder.
pub(super) const FILE: &str = "people.sqlite";
/// Any number: what the replicas lock while they change several things about people at once.
const LOCK: i64 = 0x7065_6f70_6c65;

/// Where it lies.
pub(super) enum Desk {
    /// In a file, for one server.
    File(Mutex<Connection>),
    /// In the shared store.
    Shared {
        /// The store.
        store: Store,
        /// What drives its connections.
        runtime: Handle,
    },
}

impl Desk {
    /// Opens or makes the file in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, PeopleError> {
        let path = dir.join(FILE);
        let failed = |error| PeopleError::Folder { path: path.display().to_string(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        // SQLite would make it readable for everybody.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", "on")?;
        schema::migrate(&mut connection)?;
        Ok(Self::File(Mutex::new(connection)))
    }

    /// Runs statements; several of them alone among all who change the book.
    pub(super) fn run(&self, mut statements: Vec<Sql>) -> Result<Vec<Vec<Line>>, PeopleError> {
        match self {
            Self::File(connection) => {
                let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                if let [one] = &statements[..] {
                    return Ok(vec![run_one(&connection, one)?]);
                }
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let answers: Result<_, _> = statements.iter().map(|one| run_one(&transaction, one)).collect();
                let answers = answers?;
                transaction.commit()?;
                Ok(answers)
            }
            Self::Shared { store, runtime } => {
                let several = statements.len() > 1;
                if several {
                    let lock = "SELECT 1 WHERE pg_advisory_xact_lock($1) IS NOT NULL";
                    statements.insert(0, Sql::new(lock, [LOCK.into()]));
                }
                let mut answers = runtime.block_on(store.run(statements))?;
                if several {
                    answers.remove(0);
                }
                Ok(answers)
            }
        }
    }

    /// Puts an action on record at once, where the store takes it from any process; false where it has to wait for the server.
    pub(super) fn record(&self, action: &PersonAction) -> Result<bool, PeopleError> {
        match self {
            Self::File(_) => Ok(false),
            Self::Shared { store, runtime } => {
                runtime.block_on(store.note(Body::PersonAction(action.clone())))?;
                Ok(true)
            }
        }
    }
}
