//! The two records that every statement makes, in their encoded form.
//!
//! A session, a statement and a decision enter as they are shared; the bytes of a [`Record`] leave. What is the same for
//! every run of a statement is encoded once. The bytes are those of the messages in `record.proto`, in another order of
//! fields, which protobuf leaves free.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use ahash::RandomState;
use guard_common::audit::{
    RECORD_VERSION, timestamp,
    v1::{self as record, Decision, outcome::Status, statement::Parse, statement::Protocol},
};
use guard_policy::vocabulary;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len, message},
};

use super::{RECORD_BYTES, literals::Keeper};
use crate::sql::Statement;

/// Pairs of statement and decision whose encoded form is kept; then it starts afresh.
const KEPT: usize = 2_048;

/// Field numbers of `Record`, `Statement` and `Outcomes`.
mod field {
    pub(super) const VERSION: u32 = 1;
    pub(super) const AT: u32 = 2;
    pub(super) const STATEMENT: u32 = 30;
    pub(super) const OUTCOMES: u32 = 31;
    pub(super) const ORDINAL: u32 = 2;
    pub(super) const PROTOCOL: u32 = 9;
    pub(super) const LITERALS: u32 = 48;
    pub(super) const OUTCOME: u32 = 2;
    pub(super) const MASKING: u32 = 20;
}

/// What every record of a session's statements says.
#[derive(Debug)]
pub struct SessionStamp {
    /// Fields of `Statement`.
    statement: Box<[u8]>,
    /// Fields of `Outcomes`.
    outcomes: Box<[u8]>,
}

impl SessionStamp {
    /// The stamp of the session on `connection_id`.
    pub fn new(connection_id: &str, db_user: &str, database: &str, workload: &str) -> Self {
        Self::of(record::Statement {
            connection_id: connection_id.to_owned(),
            db_user: db_user.to_owned(),
            database: database.to_owned(),
            workload: workload.to_owned(),
            ..record::Statement::default()
        })
    }

    /// What `statement` says of its session; nothing else in it may be set.
    pub fn of(statement: record::Statement) -> Self {
        let connection_id = &statement.connection_id;
        let outcomes =
            record::Outcomes { connection_id: connection_id.clone(), ..record::Outcomes::default() };
        Self { statement: statement.encode_to_vec().into(), outcomes: outcomes.encode_to_vec().into() }
    }
}

/// One statement on its way to the journal.
#[derive(Debug)]
pub struct StatementEntry {
    /// Whose.
    pub session: Arc<SessionStamp>,
    /// Its number in the session, from 1.
    pub ordinal: u64,
    /// What it does.
    pub statement: Arc<Statement>,
    /// What was decided.
    pub decision: Arc<Decision>,
    /// How it came.
    pub protocol: Protocol,
}

impl StatementEntry {
    /// About what it holds in memory until it is written.
    pub(super) fn size(&self) -> usize {
        let sent = self.statement.sent.as_ref().map_or(0, |sent| sent.size());
        RECORD_BYTES + self.statement.text.len() + sent
    }
}

/// How statements of one session ended, gathered for one record.
#[derive(Debug, Default)]
pub struct OutcomeBatch {
    encoded: Vec<u8>,
    count: usize,
}

impl OutcomeBatch {
    /// Adds one.
    pub fn push(&mut self, outcome: &OutcomeFields<'_>) {
        // What a usual batch takes, at once.
        const USUAL: usize = 768;
        if self.is_empty() {
            self.encoded.reserve(USUAL);
        }
        self.count += 1;
        let length = outcome.encoded_len();
        encode_key(field::OUTCOME, WireType::LengthDelimited, &mut self.encoded);
        encode_varint(length as u64, &mut self.encoded);
        outcome.encode(&mut self.encoded);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// An `Outcome` that borrows its texts.
#[derive(Clone, Copy, Debug)]
pub struct OutcomeFields<'a> {
    /// The statement's number.
    pub ordinal: u64,
    /// How it ended.
    pub status: Status,
    /// As the server sent it.
    pub command_tag: &'a str,
    /// Rows returned or changed.
    pub rows: u64,
    /// Of its failure; empty where it did not fail.
    pub sqlstate: &'a str,
    /// From sending it to its end.
    pub duration_us: u64,
    /// What its results held of sensitive data: an encoded `Masking`; empty for none.
    pub masking: &'a [u8],
}

impl OutcomeFields<'_> {
    fn encoded_len(&self) -> usize {
        varint_len(1, self.ordinal)
            + varint_len(2, i32::from(self.status).cast_unsigned().into())
            + text_len(3, self.command_tag)
            + varint_len(4, self.rows)
            + text_len(5, self.sqlstate)
            + varint_len(6, self.duration_us)
            + bytes_len(field::MASKING, self.masking)
    }

    fn encode(&self, buffer: &mut Vec<u8>) {
        put_varint(1, self.ordinal, buffer);
        put_varint(2, i32::from(self.status).cast_unsigned().into(), buffer);
        put_text(3, self.command_tag, buffer);
        put_varint(4, self.rows, buffer);
        put_text(5, self.sqlstate, buffer);
        put_varint(6, self.duration_us, buffer);
        put_bytes(field::MASKING, self.masking, buffer);
    }
}

/// Encodes entries and remembers what repeats. One writer's own.
#[derive(Debug, Default)]
pub struct Encoder {
    /// By the addresses of both.
    known: HashMap<(usize, usize), Known, RandomState>,
    literals: Arc<Keeper>,
}

#[derive(Debug)]
struct Known {
    encoded: Box<[u8]>,
    /// Held so that their addresses stay their own.
    _held: (Arc<Statement>, Arc<Decision>),
}

impl Encoder {
    /// Literals stand in records as `literals` says.
    pub fn new(literals: Arc<Keeper>) -> Self {
        Self { known: HashMap::default(), literals }
    }

    /// Appends the record of `entry` to `buffer`.
    pub fn statement(&mut self, entry: &StatementEntry, at: SystemTime, buffer: &mut Vec<u8>) {
        let StatementEntry { session, ordinal, statement, decision, protocol } = entry;
        let protocol = i32::from(*protocol).cast_unsigned().into();
        let literals =
            self.literals.of(statement).map(|literals| literals.encode_to_vec()).unwrap_or_default();
        let own = varint_len(field::ORDINAL, *ordinal)
            + varint_len(field::PROTOCOL, protocol)
            + bytes_len(field::LITERALS, &literals);
        // What it was sent with stands for itself: the rest repeats.
        let statement = statement.shared();
        let mut append = |repeating: &[u8]| {
            let length = session.statement.len() + own + repeating.len();
            head(at, buffer);
            encode_key(field::STATEMENT, WireType::LengthDelimited, buffer);
            encode_varint(length as u64, buffer);
            buffer.extend_from_slice(&session.statement);
            put_varint(field::ORDINAL, *ordinal, buffer);
            put_varint(field::PROTOCOL, protocol, buffer);
            put_bytes(field::LITERALS, &literals, buffer);
            buffer.extend_from_slice(repeating);
        };
        if !decision.cached {
            // It was made for this statement alone: it will not come again.
            append(&repeating(statement, decision));
            return;
        }
        let key = (Arc::as_ptr(statement).addr(), Arc::as_ptr(decision).addr());
        if let Some(known) = self.known.get(&key) {
            append(&known.encoded);
            return;
        }
        let encoded: Box<[u8]> = repeating(statement, decision).into();
        append(&encoded);
        if self.known.len() >= KEPT {
            self.known.clear();
        }
        self.known.insert(key, Known { encoded, _held: (Arc::clone(statement), Arc::clone(decision)) });
    }
}

/// Appends the record of how statements of `session` ended.
pub fn outcomes(session: &SessionStamp, batch: &OutcomeBatch, at: SystemTime, buffer: &mut Vec<u8>) {
    head(at, buffer);
    encode_key(field::OUTCOMES, WireType::LengthDelimited, buffer);
    encode_varint((session.outcomes.len() + batch.encoded.len()) as u64, buffer);
    buffer.extend_from_slice(&session.outcomes);
    buffer.extend_from_slice(&batch.encoded);
}

fn head(at: SystemTime, buffer: &mut Vec<u8>) {
    put_varint(field::VERSION, RECORD_VERSION.into(), buffer);
    message::encode(field::AT, &timestamp(at), buffer);
}

/// What every run of the same statement under the same decision says.
fn repeating(statement: &Statement, decision: &Decision) -> Vec<u8> {
    let parse = match statement.parse {
        vocabulary::Parse::Full => Parse::Full,
        vocabulary::Parse::Tokens => Parse::Tokens,
        vocabulary::Parse::None => Parse::None,
    };
    let fields = record::Statement {
        text: statement.text.clone(),
        text_bytes: statement.text.len() as u64,
        fingerprint: statement.fingerprint.clone(),
        parse: parse.into(),
        effects: statement.effects.iter().map(effect_record).collect(),
        decision: Some(decision.clone()),
        parts: statement.parts,
        ..record::Statement::default()
    };
    fields.encode_to_vec()
}

/// An effect as records have it.
pub(crate) fn effect_record(effect: &vocabulary::Effect) -> record::Effect {
    record::Effect {
        action: effect.action.to_string(),
        object: effect.object.to_string(),
        object_kind: effect.object.kind.to_string(),
        has_where: effect.has_where,
        object_schema: effect.object.schema.clone(),
    }
}

fn put_varint(number: u32, value: u64, buffer: &mut Vec<u8>) {
    if value != 0 {
        encode_key(number, WireType::Varint, buffer);
        encode_varint(value, buffer);
    }
}

fn varint_len(number: u32, value: u64) -> usize {
    if value == 0 { 0 } else { key_len(number) + encoded_len_varint(value) }
}

fn put_text(number: u32, text: &str, buffer: &mut Vec<u8>) {
    put_bytes(number, text.as_bytes(), buffer);
}

fn text_len(number: u32, text: &str) -> usize {
    bytes_len(number, text.as_bytes())
}

fn put_bytes(number: u32, bytes: &[u8], buffer: &mut Vec<u8>) {
    if !bytes.is_empty() {
        encode_key(number, WireType::LengthDelimited, buffer);
        encode_varint(bytes.len() as u64, buffer);
        buffer.extend_from_slice(bytes);
    }
}

fn bytes_len(number: u32, bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { key_len(number) + encoded_len_varint(bytes.len() as u64) + bytes.len() }
}

#[cfg(test)]
mod tests {
    use guard_common::audit::v1::{Outcome, Record, decision::Verdict, record::Body};
    use guard_policy::vocabulary::{Action, Effect, Object, ObjectKind};

    use super::*;
    use crate::sql::{Classifier, Limits, Modes};

    fn decision(cached: bool) -> Arc<Decision> {
        Arc::new(Decision {
            verdict: Verdict::Allowed.into(),
            policy: "reads".to_owned(),
            policy_hash: "ab".repeat(32),
            evaluation_ns: 1234,
            cached,
            ..Decision::default()
        })
    }

    fn read(text: &str) -> Arc<Statement> {
        Classifier::new(Limits::default()).classify(text.as_bytes(), &Modes::default())
    }

    #[test]
    fn a_statement_reads_back_as_what_it_was_also_when_it_repeats() {
        let session = Arc::new(SessionStamp::new("id", "alice", "shop", "web.service"));
        let statement = read("DELETE FROM public.t; SELECT 1");
        let mut encoder = Encoder::default();
        let at = SystemTime::now();
        for (ordinal, cached) in [(1, false), (2, true), (300, true), (u64::MAX, true)] {
            let entry = StatementEntry {
                session: Arc::clone(&session),
                ordinal,
                statement: Arc::clone(&statement),
                decision: decision(cached),
                protocol: Protocol::Extended,
            };
            let mut bytes = Vec::new();
            encoder.statement(&entry, at, &mut bytes);
            let expected = Record {
                version: RECORD_VERSION,
                at: Some(timestamp(at)),
                body: Some(Body::Statement(record::Statement {
                    connection_id: "id".to_owned(),
                    ordinal,
                    db_user: "alice".to_owned(),
                    database: "shop".to_owned(),
                    workload: "web.service".to_owned(),
                    protocol: Protocol::Extended.into(),
                    ..record::Statement::decode(&*repeating(&statement, &entry.decision)).unwrap()
                })),
            };
            assert_eq!(Record::decode(&*bytes).unwrap(), expected);
        }
        assert_eq!(encoder.known.len(), 3, "each decision stands for itself, uncached ones are not kept");
    }

    #[test]
    fn every_effect_is_in_the_record() {
        let effect = Effect::new(Action::Drop, Object::any(ObjectKind::Table));
        let known = effect_record(&effect);
        assert_eq!((known.action.as_str(), known.object.as_str()), ("drop", "*"));
        let all = record::Statement::decode(&*repeating(&read("DROP TABLE a, b"), &decision(true))).unwrap();
        assert_eq!(all.effects.len(), 2);
    }

    #[test]
    fn outcomes_read_back_as_what_they_were() {
        let masking =
            record::Masking { rows: 7, care: "no catalog".to_owned(), ..record::Masking::default() };
        let encoded = masking.encode_to_vec();
        let mut batch = OutcomeBatch::default();
        let mut expected = Vec::new();
        for number in (0..64).map(|bit| (1_u64 << bit) - 1) {
            let tag = "INSERT 0 1".repeat((number % 40) as usize);
            let fields = OutcomeFields {
                ordinal: number,
                status: Status::try_from((number % 6) as i32).unwrap(),
                command_tag: &tag,
                rows: number.rotate_left(7),
                sqlstate: if number % 2 == 0 { "" } else { "42P01" },
                duration_us: number.rotate_left(13),
                masking: &encoded[..if number % 3 == 0 { encoded.len() } else { 0 }],
            };
            batch.push(&fields);
            expected.push(Outcome {
                ordinal: fields.ordinal,
                status: fields.status.into(),
                command_tag: tag.clone(),
                rows: fields.rows,
                sqlstate: fields.sqlstate.to_owned(),
                duration_us: fields.duration_us,
                masking: (!fields.masking.is_empty()).then(|| masking.clone()),
            });
        }
        assert_eq!(batch.len(), expected.len());
        let mut bytes = Vec::new();
        super::outcomes(&SessionStamp::new("id", "u", "d", "w"), &batch, SystemTime::now(), &mut bytes);
        let Some(Body::Outcomes(read)) = Record::decode(&*bytes).unwrap().body else { panic!() };
        assert_eq!(read.connection_id, "id");
        assert_eq!(read.outcomes, expected);
    }
}
