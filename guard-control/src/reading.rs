//! What pages ask of the record beyond searching it. Questions enter, decoded records and counts leave; it never writes.
//!
//! Reads over connections of its own, each question within a time of its own: whoever looks never holds up what is stored.
//! The SQL keeps to what PostgreSQL would read too.

mod actions;
mod connection;
mod facts;
mod history;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};

pub use self::{
    actions::Acted,
    connection::Course,
    facts::{Facts, Level, level},
    history::{Bucket, Cause, History},
};

/// Name of the store's database in the data folder.
const FILE: &str = "guard.sqlite";
/// How long one question may take.
const TIME: Duration = Duration::from_secs(5);
/// Idle connections that are kept.
const IDLE: usize = 4;
/// Instructions of SQLite between looks at the clock.
const STEPS: i32 = 20_000;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadingError {
    /// SQLite refused.
    #[error("the store cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// It took too long.
    #[error("that is too much to count within {} seconds: ask for less", TIME.as_secs())]
    TooSlow,
    /// The program is stopping.
    #[error("the control plane is stopping")]
    Closed,
}

struct Room {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    facts: Mutex<HashMap<String, (u64, Facts)>>,
    history: Mutex<HashMap<Duration, (Instant, History)>>,
}

/// Reads one store; cheap to clone.
#[derive(Clone)]
pub struct Readings(Arc<Room>);

impl Readings {
    /// Of the store in `dir`, which must be there.
    pub fn open(dir: &Path) -> Self {
        let path = dir.join(FILE);
        Self(Arc::new(Room {
            path,
            idle: Mutex::default(),
            facts: Mutex::default(),
            history: Mutex::default(),
        }))
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, ReadingError> + Send + 'static,
    ) -> Result<T, ReadingError> {
        let room = self.0.clone();
        let run = move || {
            let idle = lock(&room.idle).pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => connect(&room.path)?,
            };
            let until = Instant::now() + TIME;
            connection.progress_handler(STEPS, Some(move || Instant::now() > until))?;
            let result = work(&connection);
            let mut idle = lock(&room.idle);
            if result.is_ok() && idle.len() < IDLE {
                idle.push(connection);
            }
            match result {
                Err(ReadingError::Sqlite(error))
                    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) =>
                {
                    Err(ReadingError::TooSlow)
                }
                result => result,
            }
        };
        tokio::task::spawn_blocking(run).await.map_err(|_| ReadingError::Closed)?
    }
}

fn connect(path: &Path) -> Result<Connection, ReadingError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(TIME)?;
    Ok(connection)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The range of ids of an agent's records: as the store numbers them.
const SEQUENCE_BITS: u32 = 44;

fn first_id(agent: i64) -> i64 {
    agent << SEQUENCE_BITS
}

fn sequence_of(id: i64) -> u64 {
    (id & ((1 << SEQUENCE_BITS) - 1)).cast_unsigned()
}

/// An agent in the store: its number and the last record.
fn agent(connection: &Connection, agent_id: &str) -> Result<Option<(i64, i64)>, ReadingError> {
    let mut statement =
        connection.prepare_cached("SELECT id, head_sequence FROM agents WHERE agent_id = $1")?;
    let mut rows = statement.query([agent_id])?;
    Ok(match rows.next()? {
        Some(row) => Some((row.get(0)?, row.get(1)?)),
        None => None,
    })
}
