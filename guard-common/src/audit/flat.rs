//! A record as one flat row: what leaves to SIEMs, streams and files of columns.
//!
//! Enters: a sealed record and whose it is. Leaves: named fields, each text, number, time or bytes. The names and types are a
//! contract with whoever queries them: fields are only ever added, at the end. Nothing is here that the record does not say.

mod of;

use serde_json::{Map, Value};

pub use self::of::time;

/// How a field is read.
#[derive(Clone, Copy, Debug)]
pub enum Get {
    /// UTF-8.
    Text(fn(&Flat) -> Option<&String>),
    /// A whole number.
    Int(fn(&Flat) -> Option<&i64>),
    /// Microseconds since 1970, UTC.
    Time(fn(&Flat) -> Option<&i64>),
    /// Bytes.
    Bytes(fn(&Flat) -> Option<&Vec<u8>>),
}

/// A field.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name everywhere.
    pub name: &'static str,
    /// Its type, and how it is read.
    pub get: Get,
}

macro_rules! flat {
    (@Text) => { String };
    (@Int) => { i64 };
    (@Time) => { i64 };
    (@Bytes) => { Vec<u8> };
    ($($(#[$doc:meta])* $name:ident: $kind:ident,)*) => {
        /// One row. What a kind of record does not say is absent.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Flat {
            $($(#[$doc])* pub $name: Option<flat!(@$kind)>,)*
        }

        /// All fields, in the order in which they stand in files.
        pub const COLUMNS: &[Column] = &[
            $(Column { name: stringify!($name), get: Get::$kind(|flat| flat.$name.as_ref()) },)*
        ];
    };
}

flat! {
    /// `agent_id:sequence`: the same for the same record however often it comes.
    key: Text,
    /// UUID of the agent; of the control plane for its own chain.
    agent_id: Text,
    /// Number in the agent's chain.
    sequence: Int,
    /// The agent's host.
    host: Text,
    /// When it happened, by that host's clock.
    occurred_at: Time,
    /// statement, connection-opened, gap, ..
    kind: Text,
    /// SHA-256 in the agent's chain, hex.
    hash: Text,
    /// UUID of the connection.
    connection_id: Text,
    /// proxied, non-proxied
    access: Text,
    /// Name of the database server.
    server: Text,
    /// postgresql, ..
    engine: Text,
    /// production, ..
    environment: Text,
    /// Database.
    database: Text,
    /// Who logged in to the database.
    db_user: Text,
    /// What the client calls itself.
    application_name: Text,
    /// The client's end.
    client_address: Text,
    /// The server's end.
    server_address: Text,
    /// allowed, refused, would-refuse, held, would-hold
    verdict: Text,
    /// The policy that decided.
    policy: Text,
    /// Its reason.
    reason: Text,
    /// What the refusal was about.
    decision_subject: Text,
    /// monitor, enforce
    mode: Text,
    /// SHA-256 of the policy set, hex.
    policy_hash: Text,
    /// The statement, as redacted as the record has it.
    statement: Text,
    /// The same for statements that differ in literals alone.
    fingerprint: Text,
    /// What it does: `delete drop`.
    actions: Text,
    /// To what: `public.customers public.orders`.
    objects: Text,
    /// full, tokens, none
    parse: Text,
    /// Which statement of its connection.
    ordinal: Int,
    /// How it is known: proxy, probe, hold.
    evidence: Text,
    /// How often it ran.
    executions: Int,
    /// Short name of the client's workload.
    workload: Text,
    /// How the workload is known: attested, reported, address.
    workload_evidence: Text,
    /// The client's program.
    executable: Text,
    /// Its arguments.
    command_line: Text,
    /// Its process id.
    pid: Int,
    /// Its user id.
    uid: Int,
    /// That user's name.
    os_user: Text,
    /// The person who logged in to the host.
    login_user: Text,
    /// systemd unit.
    unit: Text,
    /// Container's name, or id.
    container: Text,
    /// Its image.
    image: Text,
    /// Pod's name.
    pod: Text,
    /// Its namespace.
    pod_namespace: Text,
    /// The AI agent that it runs under.
    ai_agent: Text,
    /// The CI runner that it runs under.
    ci_runner: Text,
    /// Statements that have ended, in a record of outcomes.
    outcomes: Int,
    /// How many of them failed.
    failed: Int,
    /// The first failure's SQLSTATE.
    sqlstate: Text,
    /// Rows of all of them.
    rows: Int,
    /// Values that were masked in their results.
    masked_values: Int,
    /// The longest of them; the connection's time where it has closed.
    duration_us: Int,
    /// Of a connection that has closed.
    bytes_from_client: Int,
    /// Of a connection that has closed.
    bytes_to_client: Int,
    /// Statements of a connection that has closed.
    statements: Int,
    /// What a gap has lost.
    lost: Int,
    /// Of an approval, a person's action, the control plane, a gap's source.
    event: Text,
    /// Who did it.
    person: Text,
    /// The request for approval.
    request_id: Text,
    /// What it was done to.
    subject: Text,
    /// In words.
    detail: Text,
    /// The whole record as JSON.
    record: Text,
    /// The whole record as the hash covers it: protobuf, `guard.audit.v1.Record`.
    payload: Bytes,
}

impl Flat {
    /// As a JSON object without what is absent, and without the whole record; each text at most `limit` bytes long. The second:
    /// whether something was cut.
    pub fn json(&self, limit: usize) -> (Map<String, Value>, bool) {
        let (mut object, mut cut) = (Map::new(), false);
        for column in COLUMNS.iter().filter(|column| column.name != "record") {
            let value = match column.get {
                Get::Text(get) => get(self).map(|text| {
                    let end = text.floor_char_boundary(limit);
                    cut |= end < text.len();
                    Value::from(&text[..end])
                }),
                Get::Int(get) => get(self).map(|number| Value::from(*number)),
                Get::Time(get) => get(self).map(|micros| Value::from(time(*micros))),
                Get::Bytes(_) => None,
            };
            if let Some(value) = value {
                object.insert(column.name.to_owned(), value);
            }
        }
        (object, cut)
    }
}
