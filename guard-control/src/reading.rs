//! What pages ask of the record beyond searching it. Questions enter, decoded records and counts leave; it never writes.
//!
//! Asks any store through its one door for questions, each within a time of its own: whoever looks never holds up what is
//! stored. The SQL is what both stores read.

mod actions;
mod connection;
mod facts;
mod history;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use self::{
    actions::Acted,
    connection::Course,
    facts::{Facts, Level, level},
    history::{Bucket, Cause, History},
};
use crate::store::{
    LOOK_TIME, Store, StoreError,
    sql::{Line, Sql},
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadingError {
    /// The store can't.
    #[error(transparent)]
    Store(StoreError),
    /// It took too long.
    #[error("that is too much to count within {} seconds: ask for less", LOOK_TIME.as_secs())]
    TooSlow,
}

impl From<StoreError> for ReadingError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooSlow => Self::TooSlow,
            error => Self::Store(error),
        }
    }
}

struct Room {
    store: Store,
    facts: Mutex<HashMap<String, (u64, Facts)>>,
    history: Mutex<HashMap<Duration, (Instant, History)>>,
}

/// Reads one store; cheap to clone.
#[derive(Clone)]
pub struct Readings(Arc<Room>);

impl Readings {
    /// Of this store.
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Room { store, facts: Mutex::default(), history: Mutex::default() }))
    }

    /// One question of somebody who waits.
    async fn ask(&self, question: Sql) -> Result<Vec<Line>, ReadingError> {
        Ok(self.0.store.look(vec![question]).await?.pop().unwrap_or_default())
    }

    /// An agent in the store: its number and the last record.
    async fn agent(&self, agent_id: &str) -> Result<Option<(i64, i64)>, ReadingError> {
        let select = "SELECT id, head_sequence FROM agents WHERE agent_id = $1";
        let lines = self.ask(Sql::new(select, [agent_id.into()])).await?;
        Ok(lines.first().map(|line| (line.int(0), line.int(1))))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many of an agent's records lie before `since` (microseconds since 1970), by halving: they lie in the order of time.
pub(crate) async fn first_since(
    store: &Store,
    (base, last): (i64, i64),
    since: i64,
) -> Result<i64, StoreError> {
    let select = "SELECT at FROM records WHERE id >= $1 AND id <= $2 ORDER BY id LIMIT 1";
    let (mut low, mut high) = (0, last);
    while low < high {
        let middle = low + (high - low) / 2;
        let values = [(base + 1 + middle).into(), (base + last).into()];
        let lines = store.look_up(Sql::new(select, values)).await?;
        match lines.first() {
            Some(line) if line.int(0) < since => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}
