//! The writing side of the store, on SQLite.
//!
//! Commands enter one thread; answers leave only after the commit. A batch is verified against the stored end of the
//! agent's chain and stored in a savepoint of its own, so that one bad agent does not undo another's batch.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

use guard_common::{
    api::control::Hello,
    audit::{
        chain::{GENESIS, Hash, Head},
        checkpoint::PublicKey,
        v1::{ControlEvent, Record, record::Body},
    },
};
use prost::Message;
use rusqlite::{
    Connection, OptionalExtension, Savepoint, Statement, TransactionBehavior, params, types::ValueRef,
};
use tokio::sync::mpsc;

use super::{
    Appended, Batch, OWN, StoreError,
    embedded::{Command, Reply},
    fit::{Hole, Known, Refused, fit},
    forget::{Forgotten, forget},
    id::record_id,
    matter::Matter,
    now,
    row::{Columns, Row},
    schema,
    sql::{Line, Sql, Value},
    tally::Tally,
};

/// Commands that share one transaction, and with it one fsync.
const GROUP: usize = 32;

/// How SQLite works here. What is acknowledged is on disk: `synchronous` is `full`, and the log is synced with each commit. The
/// log goes into the database every 64 MiB, not every 4: pages that many transactions change are written once.
const SETTINGS: [(&str, &str); 7] = [
    // Of a new database.
    ("page_size", "8192"),
    ("journal_mode", "wal"),
    ("synchronous", "full"),
    ("foreign_keys", "on"),
    ("wal_autocheckpoint", "8192"),
    ("journal_size_limit", "134217728"),
    // Negative: KiB.
    ("cache_size", "-65536"),
];

/// Owns the only connection that writes.
#[derive(Debug)]
pub struct Writer {
    connection: Connection,
    /// Matters that were met before.
    matters: Numbers,
    /// Keeps a second server out. The operating system gives it up with the process.
    _lock: Option<File>,
}

impl Writer {
    /// Opens or makes the database `file` in `dir`; `alone`: as the only server, which commands may stand beside.
    pub fn open(dir: &Path, file: &str, alone: bool) -> Result<Self, StoreError> {
        let folder = |error| StoreError::Folder { path: dir.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(folder)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = match alone {
            true => Some(options.open(dir.join("lock")).map_err(folder)?),
            false => None,
        };
        match lock.as_ref().map_or(Ok(()), File::try_lock) {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::InUse(dir.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(folder(error)),
        }
        let path = dir.join(file);
        // SQLite would make it readable for everybody; its other files take this one's mode.
        options.open(&path).map_err(|error| StoreError::Folder { path: path.clone(), error })?;
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        for (name, value) in SETTINGS {
            connection.pragma_update(None, name, value)?;
        }
        connection.set_prepared_statement_cache_capacity(32);
        schema::migrate(&mut connection)?;
        Ok(Self { connection, matters: Numbers::default(), _lock: lock })
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
            self.matters.forget();
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
                Command::Forget(oldest, reply) => {
                    self.matters.forget();
                    Answer::Forget(in_savepoint(savepoint, |at| forget(at, oldest)), reply)
                }
                Command::Run(statements, reply) => {
                    Answer::Run(in_savepoint(savepoint, |at| run(at, &statements)), reply)
                }
                Command::Stop => continue,
                Command::Append(batch, reply) => {
                    let matters = &mut self.matters;
                    let mut result = in_savepoint(savepoint, |at| append(at, &batch, matters));
                    if !matches!(&result, Ok(Ok(_))) {
                        // Some of them may have been new, and are not kept.
                        matters.forget();
                    }
                    if let Ok(Err(refused)) = &result
                        && let Err(error) = alarm(&transaction, &batch.agent_id, refused)
                    {
                        result = Err(error);
                    }
                    Answer::Append(result.map(|outcome| outcome.unwrap_or_else(rejected)), reply)
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
    Run(Result<Vec<Vec<Line>>, StoreError>, Reply<Vec<Vec<Line>>>),
    Forget(Result<Forgotten, StoreError>, Reply<Forgotten>),
}

impl Answer {
    fn send(self, committed: bool) {
        fn tell<T>(result: Result<T, StoreError>, reply: Reply<T>, committed: bool) {
            // Whoever has gone away asks again.
            _ = reply.send(if committed { result } else { Err(StoreError::Unwritten) });
        }
        match self {
            Self::Hello(result, reply) => tell(result, reply, committed),
            Self::Append(result, reply) => tell(result, reply, committed),
            Self::Note(result, reply) => tell(result, reply, committed),
            Self::Run(result, reply) => tell(result, reply, committed),
            Self::Forget(result, reply) => tell(result, reply, committed),
        }
    }
}

fn rejected(refused: Refused) -> Appended {
    Appended::Rejected { sequence: refused.sequence, reason: refused.reason }
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

impl Keep for Forgotten {
    fn keep(&self) -> bool {
        true
    }
}

impl Keep for Vec<Vec<Line>> {
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

/// Where an agent's chain stands.
struct Stored {
    agent: i64,
    known: Known,
}

fn stored(at: &Connection, agent_id: &str) -> Result<Stored, StoreError> {
    let mut statement = at.prepare_cached(
        "SELECT id, head_sequence, head_hash, signing_key, signed_sequence, key_alarm FROM agents
         WHERE agent_id = ?1",
    )?;
    let found = statement.query_row([agent_id], |row| {
        let head = Head { sequence: row.get::<_, i64>(1)?.cast_unsigned(), hash: row.get(2)? };
        let key: Option<Vec<u8>> = row.get(3)?;
        let known = Known {
            head,
            key: key.and_then(|key| PublicKey::from_bytes(&key).ok()),
            signed: row.get::<_, i64>(4)?.cast_unsigned(),
            key_alarm: row.get(5)?,
        };
        Ok(Stored { agent: row.get(0)?, known })
    });
    found.optional()?.ok_or(StoreError::Request("the agent has not said hello"))
}

/// Checks and stores a batch. A refusal leaves the savepoint to be rolled back.
fn append(
    at: &Connection,
    batch: &Batch,
    matters: &mut Numbers,
) -> Result<Result<Appended, Refused>, StoreError> {
    let Stored { agent, known } = stored(at, &batch.agent_id)?;
    for row in batch.repeated(known.head.sequence) {
        if let Some(refused) = differs(at, agent, row)? {
            return Ok(Err(refused));
        }
    }
    let fitting = match fit(&known, batch) {
        Ok(fitting) => fitting,
        Err(refused) => return Ok(Err(refused)),
    };
    let missing = match &fitting.hole {
        Some(hole) => skip(at, agent, hole)?,
        None => 0,
    };
    if let Err(refused) = insert(at, agent, (batch, fitting.new), matters)? {
        return Ok(Err(refused));
    }
    let after = &fitting.after;
    let mut update = at.prepare_cached(
        "UPDATE agents SET head_sequence = ?2, head_hash = ?3, gaps = gaps + ?4, missing = missing + ?5,
             malformed = malformed + ?6, last_seen = ?7, alarm = NULL, signing_key = ?8, signed_sequence = ?9,
             key_alarm = ?10
         WHERE id = ?1",
    )?;
    update.execute(params![
        agent,
        after.head.sequence.cast_signed(),
        after.head.hash,
        fitting.gaps.cast_signed(),
        missing.cast_signed(),
        fitting.malformed.cast_signed(),
        now(),
        after.key.as_ref().map(|key| &key.as_bytes()[..]),
        after.signed.cast_signed(),
        after.key_alarm,
    ])?;
    if fitting.malformed > 0 {
        let malformed = fitting.malformed;
        tracing::warn!(agent = batch.agent_id, malformed, "stored records that this version cannot decode");
    }
    let head = after.head.sequence;
    for event in fitting.events {
        tracing::error!(agent = batch.agent_id, sequence = event.sequence, "{}", event.detail);
        note(at, Body::ControlEvent(event))?;
    }
    Ok(Ok(Appended::Stored(head)))
}

/// Stores records that fit: the last ones of a batch.
fn insert(
    at: &Connection,
    agent: i64,
    (batch, new): (&Batch, &[Row]),
    matters: &mut Numbers,
) -> Result<Result<(), Refused>, StoreError> {
    let mut tally = Tally::default();
    let mut numbers: Vec<Option<i64>> = vec![None; batch.matters.all.len()];
    let mut insert = at.prepare_cached(INSERT)?;
    let from = batch.rows.len() - new.len();
    for (row, matter) in new.iter().zip(&batch.matters.of[from..]) {
        let sequence = row.sealed.sequence;
        let Some(id) = record_id(agent, sequence) else {
            return Ok(Err(Refused::chain(sequence, "its number is out of range")));
        };
        let mut number = None;
        if let Some(place) = *matter {
            let matter = &batch.matters.all[place];
            if numbers[place].is_none() {
                numbers[place] = Some(matters.number(at, matter)?);
            }
            number = numbers[place];
            if row.columns.verdict.is_some() {
                tally.count(row.columns.at, matter);
            }
        }
        insert_record(&mut insert, id, (&row.columns, number), (&row.sealed.hash, &row.sealed.payload))?;
    }
    tally.keep(at)?;
    Ok(Ok(()))
}

/// Stores one record with its hash and payload.
pub(super) fn insert_record(
    insert: &mut Statement<'_>,
    id: i64,
    (columns, matter): (&Columns, Option<i64>),
    (hash, payload): (&[u8], &[u8]),
) -> Result<(), StoreError> {
    let Columns { at, kind, verdict, access, malformed, flow, .. } = columns;
    insert.execute(params![id, at, kind, verdict, access, matter, malformed, hash, payload, flow])?;
    Ok(())
}

pub(super) const INSERT: &str =
    "INSERT INTO records (id, at, kind, verdict, access, matter, malformed, hash, payload, flow)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// Matters that are remembered with their numbers.
const REMEMBERED: usize = 65_536;

/// The numbers of matters in the store, as far as they are remembered.
#[derive(Debug, Default)]
pub(super) struct Numbers(HashMap<Hash, i64>);

impl Numbers {
    /// The number of a matter, which is stored if it is new.
    pub(super) fn number(&mut self, at: &Connection, matter: &Matter) -> Result<i64, StoreError> {
        if let Some(number) = self.0.get(&matter.digest) {
            return Ok(*number);
        }
        let mut select = at.prepare_cached("SELECT id FROM matters WHERE digest = ?1")?;
        let number = match select.query_row([&matter.digest], |row| row.get(0)).optional()? {
            Some(number) => number,
            None => {
                let Matter { digest, kind, verdict, access, policy, words } = matter;
                at.prepare_cached(
                    "INSERT INTO matters (digest, kind, verdict, access, policy, words) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .insert(params![digest, kind, verdict, access, policy, words])?
            }
        };
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(matter.digest, number);
        Ok(number)
    }

    /// What is remembered may not hold any more.
    fn forget(&mut self) {
        self.0.clear();
    }
}

/// A repeated record must be the one that is stored.
fn differs(at: &Connection, agent: i64, row: &Row) -> Result<Option<Refused>, StoreError> {
    let sequence = row.sealed.sequence;
    let refused = |reason: &str| Ok(Some(Refused::chain(sequence, reason)));
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
fn skip(at: &Connection, agent: i64, hole: &Hole) -> Result<u64, StoreError> {
    let Hole { first, last, previous } = hole;
    let mut insert = at.prepare_cached(
        "INSERT INTO holes (agent, first, last, previous, found) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    insert.execute(params![agent, first.cast_signed(), last.cast_signed(), previous, now()])?;
    tracing::warn!(first, last, "records were deleted on the agent's host before they were sent");
    Ok(hole.records())
}

/// A batch was refused: the agent's row says why, and the control plane's own chain says it once.
fn alarm(at: &Connection, agent_id: &str, refused: &Refused) -> Result<(), StoreError> {
    let Refused { sequence, reason, event } = refused;
    let alarm = format!("record {sequence} does not fit: {reason}");
    let mut select = at.prepare_cached("SELECT host, alarm FROM agents WHERE agent_id = ?1")?;
    let (host, before): (String, Option<String>) =
        select.query_row([agent_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    at.prepare_cached("UPDATE agents SET alarm = ?2, last_seen = ?3 WHERE agent_id = ?1")?
        .execute(params![agent_id, alarm, now()])?;
    if before.as_ref() == Some(&alarm) {
        return Ok(());
    }
    tracing::error!(agent = agent_id, sequence, reason, "rejected a batch: the agent's chain does not fit");
    note(
        at,
        Body::ControlEvent(ControlEvent {
            event: (*event).to_owned(),
            agent_id: agent_id.to_owned(),
            host,
            sequence: *sequence,
            detail: reason.clone(),
            count: 0,
        }),
    )
}

/// Adds a record to the control plane's own chain, which begins with the first one.
fn note(at: &Connection, body: Body) -> Result<(), StoreError> {
    let select = || {
        at.prepare_cached("SELECT agent_id FROM agents WHERE mode = ?1")?
            .query_row([OWN], |row| row.get::<_, String>(0))
            .optional()
    };
    let own = match select()? {
        Some(own) => own,
        None => {
            let own = uuid::Uuid::new_v4().to_string();
            at.execute(
                "INSERT INTO agents (agent_id, host, version, mode, labels, first_seen, last_seen, head_hash)
                 VALUES (?1, 'guard-control', '', ?2, '{}', ?3, ?3, ?4)",
                params![own, OWN, now(), GENESIS],
            )?;
            own
        }
    };
    let Stored { agent, known } = stored(at, &own)?;
    let mut head = known.head;
    let row = Row::new(head.seal(Record::now(body).encode_to_vec().into()));
    // INVARIANT: what the control plane says itself is no decision, so it has no matter.
    let batch = Batch::new(own, 1, vec![row]);
    if let Err(refused) = insert(at, agent, (&batch, &batch.rows), &mut Numbers::default())? {
        tracing::error!(reason = refused.reason, "the control plane's own chain is full");
        return Err(StoreError::Unwritten);
    }
    at.prepare_cached("UPDATE agents SET head_sequence = ?2, head_hash = ?3, last_seen = ?4 WHERE id = ?1")?
        .execute(params![agent, head.sequence.cast_signed(), head.hash, now()])?;
    Ok(())
}

fn run(at: &Connection, statements: &[Sql]) -> Result<Vec<Vec<Line>>, StoreError> {
    statements.iter().map(|statement| run_one(at, statement)).collect()
}

/// Runs one statement.
pub(crate) fn run_one(at: &Connection, statement: &Sql) -> Result<Vec<Line>, StoreError> {
    // SQLite's own form of numbered placeholders.
    let mut prepared = at.prepare_cached(&statement.text.replace('$', "?"))?;
    let columns = prepared.column_count();
    let mut rows = prepared.query(rusqlite::params_from_iter(statement.values.iter()))?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        let values = (0..columns).map(|column| {
            Ok(match row.get_ref(column)? {
                ValueRef::Integer(number) => Value::Int(number),
                ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
                ValueRef::Null | ValueRef::Real(_) => Value::Null,
            })
        });
        lines.push(Line(values.collect::<Result<_, rusqlite::Error>>()?));
    }
    Ok(lines)
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}
