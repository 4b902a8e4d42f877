//! The reading side of the store. Filters enter, decisions leave, the newest first; it never writes.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use guard_common::{
    api::control::{Agent, DecisionsRequest, DecisionsResponse},
    audit::chain::Hash,
};
use pbjson_types::Timestamp;
use rusqlite::{Connection, OpenFlags, params};

use super::{
    FILE, OWN, SEARCH_TIME, StoreError, find, hash,
    id::RANGE,
    remote, schema,
    sql::{Line, Sql},
    sqlite::run_one,
};

/// Idle connections that are kept.
const IDLE: usize = 4;

/// Instructions of SQLite between looks at the clock.
const STEPS: i32 = 20_000;

/// Interrupts what runs on the connection once `time` is over.
fn limit_time(connection: &mut Connection, time: Duration) -> Result<(), StoreError> {
    let until = Instant::now() + time;
    Ok(connection.progress_handler(STEPS, Some(move || Instant::now() > until))?)
}

/// Searches one store.
#[derive(Debug)]
pub struct Search {
    path: std::path::PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Search {
    /// For the store in `dir`, which must be there. It may be in use by a server.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        if !path.exists() {
            return Err(StoreError::Absent(dir.to_owned()));
        }
        let search = Self { path, idle: Mutex::default() };
        let connection = search.connect()?;
        schema::check_readable(&connection)?;
        search.put_back(connection);
        Ok(search)
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        let connection = Connection::open_with_flags(
            &self.path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.busy_timeout(Duration::from_secs(10))?;
        Ok(connection)
    }

    fn put_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(connection);
        }
    }

    /// Runs `work` on a connection of its own, interrupted when it takes longer than `time`.
    fn with<T>(
        &self,
        time: Duration,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        limit_time(&mut connection, time)?;
        match work(&mut connection) {
            Err(StoreError::Sqlite(error))
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) =>
            {
                Err(StoreError::TooSlow)
            }
            Err(error) => Err(error),
            Ok(value) => {
                self.put_back(connection);
                Ok(value)
            }
        }
    }

    /// Questions that change nothing, of one state of the store.
    pub(super) fn look(&self, questions: &[Sql], within: Duration) -> Result<Vec<Vec<Line>>, StoreError> {
        self.with(within, |connection| {
            // After an error it ends with the connection, which is not used again.
            connection.execute_batch("BEGIN")?;
            let mut answers = Vec::with_capacity(questions.len());
            for question in questions {
                limit_time(connection, within)?;
                answers.push(run_one(connection, question)?);
            }
            connection.execute_batch("COMMIT")?;
            Ok(answers)
        })
    }

    /// Decisions that match, the newest first.
    pub fn decisions(&self, request: &DecisionsRequest) -> Result<DecisionsResponse, StoreError> {
        let until = Instant::now() + SEARCH_TIME;
        self.with(SEARCH_TIME, |connection| find::decisions(connection, request, until))
    }

    /// The same, with what other hosts' agents report of the clients.
    pub fn joined(&self, request: &DecisionsRequest) -> Result<DecisionsResponse, StoreError> {
        let mut found = self.decisions(request)?;
        // Nothing in there waits.
        let _ = remote::fill(remote::Asked::Search(self), &mut found.decisions).now_or_never();
        Ok(found)
    }

    /// All agents, by host.
    pub fn agents(&self) -> Result<Vec<Agent>, StoreError> {
        self.with(SEARCH_TIME, |connection| {
            let lines = run_one(connection, &Sql::new(AGENTS, [OWN.into()]))?;
            Ok(lines.iter().map(agent).collect())
        })
    }
}

impl Search {
    /// The hashes of an agent's records from `first` to `last`, as far as they are stored.
    pub(super) fn hashes(&self, agent_id: &str, first: u64, last: u64) -> Result<Vec<Hash>, StoreError> {
        self.with(SEARCH_TIME, |connection| {
            let mut statement = connection.prepare_cached(HASHES_SQLITE)?;
            let values = params![agent_id, RANGE, first.cast_signed(), last.cast_signed()];
            let mut rows = statement.query(values)?;
            let mut hashes = Vec::new();
            while let Some(row) = rows.next()? {
                hashes.push(hash(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?);
            }
            Ok(hashes)
        })
    }
}

const HASHES_SQLITE: &str = "SELECT r.hash FROM records r, agents a
    WHERE a.agent_id = ?1 AND r.id BETWEEN a.id * ?2 + ?3 AND a.id * ?2 + ?4 ORDER BY r.id";

/// All agents with what their certificates say.
pub(super) const AGENTS: &str = "SELECT a.agent_id, a.host, version, mode, first_seen, last_seen, head_sequence, alarm,
        gaps, missing, signed_sequence, key_alarm, c.expires, CASE WHEN c.good = 0 THEN 1 ELSE 0 END, policy_version,
        policy_hash, policy_error
    FROM agents a LEFT JOIN (
        SELECT agent_id, count(*) FILTER (WHERE revoked IS NULL) AS good,
            max(expires) FILTER (WHERE revoked IS NULL) AS expires
        FROM certificates GROUP BY agent_id
    ) c ON c.agent_id = a.agent_id
    WHERE mode <> $1 ORDER BY a.host, a.agent_id";

/// One line of [`AGENTS`].
pub(super) fn agent(line: &Line) -> Agent {
    let alarms = [line.text(7), line.text(11)].into_iter().filter(|alarm| !alarm.is_empty());
    Agent {
        agent_id: line.text(0).to_owned(),
        host: line.text(1).to_owned(),
        agent_version: line.text(2).to_owned(),
        mode: line.text(3).to_owned(),
        first_seen: Some(time(line.int(4))),
        last_seen: Some(time(line.int(5))),
        stored_sequence: line.int(6).cast_unsigned(),
        connected: false,
        alarm: alarms.collect::<Vec<_>>().join("; "),
        gaps: line.int(8).cast_unsigned(),
        missing: line.int(9).cast_unsigned(),
        signed_sequence: line.int(10).cast_unsigned(),
        certificate_expires: line.maybe_int(12).map(time),
        revoked: line.int(13) != 0,
        policy_version: line.int(14).cast_unsigned(),
        policy_hash: line.text(15).to_owned(),
        policy_error: line.text(16).to_owned(),
    }
}

pub(super) fn time(micros: i64) -> Timestamp {
    let nanos = i32::try_from(micros.rem_euclid(1_000_000)).unwrap_or(0) * 1_000;
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}
