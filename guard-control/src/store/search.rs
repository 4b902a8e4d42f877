//! The reading side of the store. Filters enter, decisions leave, the newest first; it never writes.

use std::{
    fmt::Write,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use guard_common::{
    api::control::{Agent, DecisionsRequest, DecisionsResponse, StoredDecision, stored_decision::Subject},
    audit::{
        chain::Hash,
        v1::{Record, connection_opened::Access, decision::Verdict, record::Body},
    },
};
use pbjson_types::Timestamp;
use prost::Message;
use rusqlite::{Connection, OpenFlags, OptionalExtension, ToSql, params, params_from_iter, types::Value};

use super::{
    FILE, OWN, SEARCH_TIME, StoreError, hash,
    id::{RANGE, record_id, sequence_of},
    remote,
    row::kind,
    schema,
    sql::{Line, Sql},
    sqlite::run_one,
};

/// Decisions in an answer where the question names no number.
const DEFAULT_LIMIT: u32 = 100;
/// At most.
const MAX_LIMIT: u32 = 10_000;
/// Bytes of records in an answer; more go to the next page.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Idle connections that are kept.
const IDLE: usize = 4;

/// How far a report may lie from the connection that is found by it, in microseconds.
const NEAR: i64 = 86_400_000_000;
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
        let limit = limit(request);
        self.with(SEARCH_TIME, |connection| {
            let Some(filter) = Filter::new(connection, request)? else {
                return Ok(DecisionsResponse::default());
            };
            page(connection, &filter, limit)
        })
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

fn micros_of(moment: &Timestamp) -> i64 {
    moment.seconds.saturating_mul(1_000_000).saturating_add(i64::from(moment.nanos) / 1_000)
}

/// Conditions in SQL with their values.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// With `?1` ..
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

impl Filter {
    /// Nothing: no decision can match.
    fn new(connection: &Connection, request: &DecisionsRequest) -> Result<Option<Self>, StoreError> {
        if request.agent_id.is_empty() {
            return Self::of(None, request).map(Some);
        }
        let agent: Option<i64> = connection
            .prepare_cached("SELECT id FROM agents WHERE agent_id = ?1")?
            .query_row([&request.agent_id], |row| row.get(0))
            .optional()?;
        agent.map(|agent| Self::of(Some(agent), request)).transpose()
    }

    /// `agent`: the one that the request names, by its number in the store.
    pub(super) fn of(agent: Option<i64>, request: &DecisionsRequest) -> Result<Self, StoreError> {
        let mut filter = Self::default();
        // The literal terms are what lets SQLite use the partial indexes.
        match request.verdict.as_str() {
            "" => filter.sql.push_str("r.verdict IS NOT NULL"),
            "allowed" => filter.verdict("r.verdict IS NOT NULL", Verdict::Allowed),
            "refused" => filter.verdict("r.verdict > 1", Verdict::Refused),
            "would_refuse" => filter.verdict("r.verdict > 1", Verdict::WouldRefuse),
            "would_hold" => filter.verdict("r.verdict > 1", Verdict::WouldHold),
            _ => {
                return Err(StoreError::Request(
                    "the verdict must be allowed, refused, would_refuse or would_hold",
                ));
            }
        }
        match request.kind.as_str() {
            "" => {}
            "connection" => filter.and("r.kind = ", kind::CONNECTION_OPENED.into()),
            "statement" => filter.and("r.kind = ", kind::STATEMENT.into()),
            _ => return Err(StoreError::Request("the kind must be connection or statement")),
        }
        if request.non_proxied {
            let _ = write!(filter.sql, " AND r.access = {}", i32::from(Access::NonProxied));
        }
        if let Some(agent) = agent {
            filter.and("r.id >= ", record_id(agent, 0).unwrap_or(i64::MAX).into());
            filter.and("r.id < ", record_id(agent + 1, 0).unwrap_or(i64::MAX).into());
        }
        for (condition, moment) in [("r.at >= ", &request.since), ("r.at < ", &request.until)] {
            if let Some(moment) = moment {
                filter.and(condition, micros_of(moment).into());
            }
        }
        filter.contains(&request.contains)?;
        filter.behind(&request.page)?;
        Ok(filter)
    }

    fn verdict(&mut self, index: &str, verdict: Verdict) {
        self.sql.push_str(index);
        self.and("r.verdict = ", i64::from(i32::from(verdict)).into());
    }

    fn and(&mut self, condition: &str, value: Value) {
        self.values.push(value);
        let _ = write!(self.sql, " AND {condition}?{}", self.values.len());
    }

    fn contains(&mut self, part: &str) -> Result<(), StoreError> {
        if part.is_empty() {
            return Ok(());
        }
        if part.len() > 1024 {
            return Err(StoreError::Request("the text to look for must be shorter than 1024 bytes"));
        }
        let mut pattern = String::from("%");
        for letter in part.chars() {
            if matches!(letter, '%' | '_' | '\\') {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        pattern.push('%');
        self.values.push(pattern.into());
        let at = self.values.len();
        let columns = ["text", "executable", "db_user", "policy", "workload"];
        let like = columns.map(|column| format!("r.{column} LIKE ?{at} ESCAPE '\\'"));
        // Whoever is reported to be the other end is found by what it is, too.
        let reported = format!(
            "r.kind = 20 AND r.text IN (SELECT c.text FROM records c WHERE c.kind = 23
                 AND (c.executable LIKE ?{at} ESCAPE '\\' OR c.workload LIKE ?{at} ESCAPE '\\'))
             AND EXISTS (SELECT 1 FROM records c WHERE c.kind = 23 AND c.text = r.text
                 AND abs(c.at - r.at) < {NEAR})"
        );
        let _ = write!(self.sql, " AND ({} OR ({reported}))", like.join(" OR "));
        Ok(())
    }

    fn behind(&mut self, page: &str) -> Result<(), StoreError> {
        if page.is_empty() {
            return Ok(());
        }
        let (at, id) = page
            .split_once('.')
            .and_then(|(at, id)| Some((at.parse::<i64>().ok()?, id.parse::<i64>().ok()?)))
            .ok_or(StoreError::Request("the page is not one that an answer named"))?;
        self.values.extend([at.into(), id.into()]);
        let last = self.values.len();
        let _ = write!(self.sql, " AND (r.at, r.id) < (?{}, ?{last})", last - 1);
        Ok(())
    }
}

/// What finds a page: ids, times, payloads, agents and hosts, one more than fits.
pub(super) fn page_sql(filter: &str, limit: usize) -> String {
    format!(
        "SELECT r.id, r.at, r.payload, a.agent_id, a.host
         FROM records r JOIN agents a ON a.id = r.id >> 44
         WHERE {filter} ORDER BY r.at DESC, r.id DESC LIMIT {}",
        limit + 1
    )
}

/// Decisions in an answer to `request`.
pub(super) fn limit(request: &DecisionsRequest) -> usize {
    match request.limit {
        0 => DEFAULT_LIMIT as usize,
        limit => limit.min(MAX_LIMIT) as usize,
    }
}

/// An answer that is being put together.
#[derive(Debug)]
pub(super) struct Page {
    limit: usize,
    bytes: usize,
    last: Option<(i64, i64)>,
    pub(super) answer: DecisionsResponse,
}

impl Page {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, last: None, answer: DecisionsResponse::default() }
    }

    /// Takes the next row; false where the page is full.
    pub(super) fn take(
        &mut self,
        (id, at): (i64, i64),
        payload: &[u8],
        whose: impl FnOnce() -> Result<(String, String), StoreError>,
    ) -> Result<bool, StoreError> {
        self.bytes += payload.len();
        let full = self.answer.decisions.len() == self.limit || self.bytes > MAX_BYTES;
        if let Some((at, id)) = self.last.filter(|_| full) {
            self.answer.next_page = format!("{at}.{id}");
            return Ok(false);
        }
        self.last = Some((at, id));
        // Only what was decodable has a verdict.
        if let Some((at, subject)) = subject(payload) {
            let (agent_id, host) = whose()?;
            self.answer.decisions.push(StoredDecision {
                agent_id,
                host,
                sequence: sequence_of(id),
                at,
                subject: Some(subject),
                remote: None,
            });
        }
        Ok(true)
    }
}

fn page(connection: &Connection, filter: &Filter, limit: usize) -> Result<DecisionsResponse, StoreError> {
    let mut statement = connection.prepare_cached(&page_sql(&filter.sql, limit))?;
    let mut rows =
        statement.query(params_from_iter(filter.values.iter().map(|value| value as &dyn ToSql)))?;
    let mut page = Page::new(limit);
    while let Some(row) = rows.next()? {
        let payload = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        if !page.take((row.get(0)?, row.get(1)?), payload, || Ok((row.get(3)?, row.get(4)?)))? {
            break;
        }
    }
    Ok(page.answer)
}

fn subject(payload: &[u8]) -> Option<(Option<Timestamp>, Subject)> {
    let record = Record::decode(payload).ok()?;
    match record.body? {
        Body::ConnectionOpened(connection) => Some((record.at, Subject::Connection(connection))),
        Body::Statement(statement) => Some((record.at, Subject::Statement(statement))),
        _ => None,
    }
}
