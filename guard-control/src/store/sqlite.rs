//! The writing side of the store, on SQLite.
//!
//! Commands enter one thread; answers leave only after the commit. A batch is verified against the stored end of the
//! agent's chain and stored in a savepoint of its own, so that one bad agent does not undo another's batch.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    time::{Duration, SystemTime},
};

use guard_common::{
    api::control::Hello,
    audit::{
        chain::{GENESIS, Head},
        v1::{Record, record::Body},
    },
};
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Savepoint, TransactionBehavior, params};
use tokio::sync::mpsc;

use super::{
    Appended, Batch, Command, OWN, Reply, StoreError,
    row::{Row, kind},
    schema,
};

/// Commands that share one transaction, and with it one fsync.
const GROUP: usize = 32;

/// An agent's records are numbered within its own range of ids.
const SEQUENCE_BITS: u32 = 44;

/// The id of a record; nothing where the number is out of range.
pub fn record_id(agent: i64, sequence: u64) -> Option<i64> {
    let sequence = i64::try_from(sequence).ok().filter(|sequence| *sequence < 1 << SEQUENCE_BITS)?;
    let fits = (0..1 << (63 - SEQUENCE_BITS)).contains(&agent);
    fits.then_some((agent << SEQUENCE_BITS) | sequence)
}

/// The sequence number within a record's id.
pub fn sequence_of(id: i64) -> u64 {
    (id & ((1 << SEQUENCE_BITS) - 1)).cast_unsigned()
}

/// Owns the only connection that writes.
#[derive(Debug)]
pub struct Writer {
    connection: Connection,
    /// Keeps a second server out. The operating system gives it up with the process.
    _lock: File,
}

impl Writer {
    /// Opens or makes the database `file` in `dir`.
    pub fn open(dir: &Path, file: &str) -> Result<Self, StoreError> {
        let folder = |error| StoreError::Folder { path: dir.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(folder)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(dir.join("lock")).map_err(folder)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::InUse(dir.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(folder(error)),
        }
        let path = dir.join(file);
        // SQLite would make it readable for everybody; its other files take this one's mode.
        options.open(&path).map_err(|error| StoreError::Folder { path: path.clone(), error })?;
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", "on")?;
        connection.set_prepared_statement_cache_capacity(32);
        schema::migrate(&mut connection)?;
        Ok(Self { connection, _lock: lock })
    }

    /// Works until it is told to stop, or every sender of the queue is gone.
    pub fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut group = Vec::with_capacity(GROUP);
        while queue.blocking_recv_many(&mut group, GROUP) > 0 {
            let stop = group.iter().position(|command| matches!(command, Command::Stop));
            group.truncate(stop.unwrap_or(group.len()));
            self.work(&mut group);
            if stop.is_some() {
                return;
            }
        }
    }

    /// One transaction for all commands; nobody is told before it is durable.
    fn work(&mut self, group: &mut Vec<Command>) {
        let mut answers = Vec::with_capacity(group.len());
        let result = self.transact(group, &mut answers);
        if let Err(error) = &result {
            tracing::error!(%error, "the store cannot be written");
        }
        for answer in answers {
            answer.send(result.is_ok());
        }
        // Left in the group: never begun.
        group.clear();
    }

    fn transact(&mut self, group: &mut Vec<Command>, answers: &mut Vec<Answer>) -> Result<(), StoreError> {
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for command in group.drain(..) {
            let savepoint = transaction.savepoint()?;
            answers.push(match command {
                Command::Hello(hello, reply) => {
                    Answer::Hello(in_savepoint(savepoint, |at| greet(at, &hello)), reply)
                }
                Command::Note(body, reply) => {
                    Answer::Note(in_savepoint(savepoint, |at| note(at, *body)), reply)
                }
                Command::Stop => continue,
                Command::Append(batch, reply) => {
                    let mut result = in_savepoint(savepoint, |at| append(at, &batch));
                    if let Ok(Err(refused)) = &result
                        && let Err(error) = alarm(&transaction, &batch.agent_id, refused)
                    {
                        result = Err(error);
                    }
                    Answer::Append(
                        result.map(|outcome| outcome.unwrap_or_else(Refused::into_appended)),
                        reply,
                    )
                }
            });
            // A full disk makes SQLite roll back everything, and what follows would run outside of the transaction.
            if transaction.is_autocommit() {
                return Err(StoreError::Unwritten);
            }
        }
        Ok(transaction.commit()?)
    }
}

/// An answer that waits for the commit.
enum Answer {
    Hello(Result<u64, StoreError>, Reply<u64>),
    Append(Result<Appended, StoreError>, Reply<Appended>),
    Note(Result<(), StoreError>, Reply<()>),
}

impl Answer {
    fn send(self, committed: bool) {
        // Whoever has gone away asks again.
        match self {
            Self::Hello(result, reply) => {
                _ = reply.send(if committed { result } else { Err(StoreError::Unwritten) })
            }
            Self::Append(result, reply) => {
                _ = reply.send(if committed { result } else { Err(StoreError::Unwritten) })
            }
            Self::Note(result, reply) => {
                _ = reply.send(if committed { result } else { Err(StoreError::Unwritten) })
            }
        }
    }
}

/// Why a batch is not kept.
#[derive(Debug)]
struct Refused {
    sequence: u64,
    reason: String,
}

impl Refused {
    fn into_appended(self) -> Appended {
        Appended::Rejected { sequence: self.sequence, reason: self.reason }
    }
}

/// What a step inside a savepoint comes to: only a success is kept.
trait Keep {
    fn keep(&self) -> bool;
}

impl Keep for u64 {
    fn keep(&self) -> bool {
        true
    }
}

impl Keep for () {
    fn keep(&self) -> bool {
        true
    }
}

impl Keep for Result<Appended, Refused> {
    fn keep(&self) -> bool {
        self.is_ok()
    }
}

fn in_savepoint<T: Keep>(
    savepoint: Savepoint<'_>,
    step: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let result = step(&savepoint);
    match &result {
        Ok(value) if value.keep() => savepoint.commit()?,
        // Dropped, it rolls back.
        _ => drop(savepoint),
    }
    result
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn greet(at: &Connection, hello: &Hello) -> Result<u64, StoreError> {
    let labels = serde_json::to_string(&hello.labels).unwrap_or_default();
    let mut statement = at.prepare_cached(
        "INSERT INTO agents (agent_id, host, version, mode, labels, first_seen, last_seen, head_hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7)
         ON CONFLICT (agent_id) DO UPDATE SET host = ?2, version = ?3, mode = ?4, labels = ?5, last_seen = ?6
         RETURNING head_sequence",
    )?;
    let row = params![hello.agent_id, hello.host, hello.agent_version, hello.mode, labels, now(), GENESIS];
    Ok(statement.query_row(row, |row| row.get::<_, i64>(0))?.cast_unsigned())
}

/// Adds a record to the control plane's own chain, which begins with the first one.
fn note(at: &Connection, body: Body) -> Result<(), StoreError> {
    let known: Option<String> = at
        .prepare_cached("SELECT agent_id FROM agents WHERE mode = ?1")?
        .query_row([OWN], |row| row.get(0))
        .optional()?;
    let agent_id = match known {
        Some(agent_id) => agent_id,
        None => {
            let hello = Hello {
                agent_id: uuid::Uuid::now_v7().to_string(),
                host: "control plane".to_owned(),
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                mode: OWN.to_owned(),
                ..Hello::default()
            };
            greet(at, &hello)?;
            hello.agent_id
        }
    };
    let mut head = stored(at, &agent_id)?.head;
    let row = Row::new(head.seal(Record::now(body).encode_to_vec().into()));
    match append(at, &Batch { agent_id, oldest: 1, rows: vec![row] })? {
        Ok(_) => Ok(()),
        Err(_) => Err(StoreError::Unwritten),
    }
}

/// Where an agent's chain stands.
struct Stored {
    agent: i64,
    head: Head,
}

fn stored(at: &Connection, agent_id: &str) -> Result<Stored, StoreError> {
    let mut statement =
        at.prepare_cached("SELECT id, head_sequence, head_hash FROM agents WHERE agent_id = ?1")?;
    let found = statement.query_row([agent_id], |row| {
        let head = Head { sequence: row.get::<_, i64>(1)?.cast_unsigned(), hash: row.get(2)? };
        Ok(Stored { agent: row.get(0)?, head })
    });
    found.optional()?.ok_or(StoreError::Request("the agent has not said hello"))
}

/// Checks and stores a batch. A refusal leaves the savepoint to be rolled back.
fn append(at: &Connection, batch: &Batch) -> Result<Result<Appended, Refused>, StoreError> {
    let Stored { agent, mut head } = stored(at, &batch.agent_id)?;
    let known = batch.rows.partition_point(|row| row.sealed.sequence <= head.sequence);
    let (repeated, new) = batch.rows.split_at(known);
    for row in repeated {
        if let Some(refused) = differs(at, agent, row)? {
            return Ok(Err(refused));
        }
    }
    let missing = skip_hole(at, agent, batch.oldest, new, &mut head)?;
    let (mut gaps, mut malformed) = (u64::from(missing > 0), 0_u64);
    let mut insert = at.prepare_cached(INSERT)?;
    for row in new {
        let sequence = row.sealed.sequence;
        let accepted = head.accept(&row.sealed).map_err(|error| error.to_string());
        let id = record_id(agent, sequence).ok_or_else(|| "its number is out of range".to_owned());
        let id = match accepted.and(id) {
            Ok(id) => id,
            Err(reason) => return Ok(Err(Refused { sequence, reason })),
        };
        let columns = &row.columns;
        insert.execute(params![
            id,
            columns.at,
            columns.kind,
            &row.sealed.hash[..],
            &row.sealed.payload[..],
            columns.malformed,
            columns.verdict,
            columns.access,
            columns.policy,
            columns.executable,
            columns.db_user,
            columns.workload,
            columns.text
        ])?;
        gaps += u64::from(columns.kind == kind::GAP);
        malformed += u64::from(columns.malformed);
    }
    let mut update = at.prepare_cached(
        "UPDATE agents SET head_sequence = ?2, head_hash = ?3, gaps = gaps + ?4, missing = missing + ?5,
             malformed = malformed + ?6, last_seen = ?7, alarm = NULL WHERE id = ?1",
    )?;
    let sequence = head.sequence.cast_signed();
    let (gaps, missing) = (gaps.cast_signed(), missing.cast_signed());
    update.execute(params![agent, sequence, head.hash, gaps, missing, malformed.cast_signed(), now()])?;
    if malformed > 0 {
        tracing::warn!(agent = batch.agent_id, malformed, "stored records that this version cannot decode");
    }
    Ok(Ok(Appended::Stored(head.sequence)))
}

const INSERT: &str = "INSERT INTO records
    (id, at, kind, hash, payload, malformed, verdict, access, policy, executable, db_user, workload, text)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";

/// A repeated record must be the one that is stored.
fn differs(at: &Connection, agent: i64, row: &Row) -> Result<Option<Refused>, StoreError> {
    let sequence = row.sealed.sequence;
    let refused = |reason: &str| Ok(Some(Refused { sequence, reason: reason.to_owned() }));
    let Some(id) = record_id(agent, sequence) else { return refused("its number is out of range") };
    let mut statement = at.prepare_cached("SELECT hash, payload FROM records WHERE id = ?1")?;
    let same = statement.query_row([id], |stored| {
        Ok(stored.get_ref(0)?.as_blob()? == &row.sealed.hash[..]
            && stored.get_ref(1)?.as_blob()? == &row.sealed.payload[..])
    });
    match same.optional()? {
        Some(true) => Ok(None),
        Some(false) => refused("another record with this number is stored: the agent's chain has forked"),
        None => refused("it was reported as deleted before"),
    }
}

/// Where the agent's journal had to delete records before they were sent, goes on behind them, and says so.
fn skip_hole(
    at: &Connection,
    agent: i64,
    oldest: u64,
    new: &[Row],
    head: &mut Head,
) -> Result<u64, StoreError> {
    let Some(first) = new.first().map(|row| &row.sealed) else { return Ok(0) };
    let expected = head.sequence.saturating_add(1);
    let Ok(previous) = first.previous[..].try_into() else { return Ok(0) };
    if first.sequence != oldest || oldest <= expected {
        return Ok(0);
    }
    let last = oldest - 1;
    let mut insert = at.prepare_cached(
        "INSERT INTO holes (agent, first, last, previous, found) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    insert.execute(params![agent, expected.cast_signed(), last.cast_signed(), &first.previous[..], now()])?;
    tracing::warn!(first = expected, last, "records were deleted on the agent's host before they were sent");
    *head = Head { sequence: last, hash: previous };
    Ok(oldest - expected)
}

fn alarm(at: &Connection, agent_id: &str, refused: &Refused) -> Result<(), StoreError> {
    let Refused { sequence, reason } = refused;
    tracing::error!(agent = agent_id, sequence, reason, "rejected a batch: the agent's chain does not fit");
    let alarm = format!("record {sequence} does not fit: {reason}");
    at.prepare_cached("UPDATE agents SET alarm = ?2, last_seen = ?3 WHERE agent_id = ?1")?
        .execute(params![agent_id, alarm, now()])?;
    Ok(())
}
