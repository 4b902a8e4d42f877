//! What is searchable of a record.
//!
//! A sealed record enters, its columns leave. What can't be decoded is kept as it is, and flagged: the chain covers
//! bytes, not meaning.

use std::net::SocketAddr;

use guard_common::audit::v1::{
    Checkpoint, ClientConnected, ConnectionOpened, Decision, KeyChange, Record, SealedRecord, Statement,
    connection_opened::Access, record::Body,
};
use prost::Message;

/// Longest text of a column in bytes; the payload keeps it whole.
const MAX_TEXT: usize = 64 * 1024;

/// Kinds of records, as stored: the field numbers of `Record.body`.
pub mod kind {
    /// Not known to this version, or not decodable.
    pub const UNKNOWN: i64 = 0;
    /// `Gap`
    pub const GAP: i64 = 14;
    /// `ConnectionOpened`
    pub const CONNECTION_OPENED: i64 = 20;
    /// `ClientConnected`
    pub const CLIENT_CONNECTED: i64 = 23;
    /// `Statement`
    pub const STATEMENT: i64 = 30;
    /// `PersonAction`
    pub const PERSON_ACTION: i64 = 70;
    /// `ControlEvent`
    pub const CONTROL_EVENT: i64 = 71;
}

/// The searchable part of a record.
#[derive(Debug, Default, PartialEq)]
pub struct Columns {
    /// Microseconds since 1970.
    pub at: i64,
    /// See [`kind`].
    pub kind: i64,
    /// The payload is no record.
    pub malformed: bool,
    /// As in `Decision.verdict`; nothing where the record is no decision.
    pub verdict: Option<i32>,
    /// As in `ConnectionOpened.access`.
    pub access: Option<i32>,
    /// The policy that decided.
    pub policy: Option<String>,
    /// The client's executable.
    pub executable: Option<String>,
    /// Who logged in.
    pub db_user: Option<String>,
    /// Short name of the client's workload.
    pub workload: Option<String>,
    /// The statement.
    pub text: Option<String>,
    /// Of a connection over TCP its ends, as [`flow`] writes them.
    pub flow: Option<String>,
}

/// What a record says about the signing of its chain.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// Another key signs from here on.
    KeyChange(KeyChange),
    /// The chain is vouched for up to here.
    Checkpoint(Checkpoint),
}

/// A record and what is searchable of it.
#[derive(Debug)]
pub struct Row {
    /// As the agent sent it.
    pub sealed: SealedRecord,
    /// Derived from its payload.
    pub columns: Columns,
    /// Where it is about signing.
    pub mark: Option<Box<Mark>>,
}

impl Row {
    /// The row of a record.
    pub fn new(sealed: SealedRecord) -> Self {
        match Record::decode(&*sealed.payload) {
            Ok(record) => {
                let mark = mark(&record).map(Box::new);
                Self { sealed, columns: columns(record), mark }
            }
            Err(_) => Self { sealed, columns: Columns { malformed: true, ..Columns::default() }, mark: None },
        }
    }
}

fn mark(record: &Record) -> Option<Mark> {
    match &record.body {
        Some(Body::KeyChange(change)) => Some(Mark::KeyChange(change.clone())),
        Some(Body::Checkpoint(checkpoint)) => Some(Mark::Checkpoint(checkpoint.clone())),
        _ => None,
    }
}

fn columns(record: Record) -> Columns {
    let at = record
        .at
        .map_or(0, |at| at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos) / 1_000));
    let mut columns = match record.body {
        Some(Body::ConnectionOpened(connection)) => of_connection(connection),
        Some(Body::ClientConnected(connected)) => of_client(connected),
        Some(Body::Statement(statement)) => of_statement(statement),
        body => Columns { kind: body.as_ref().map_or(kind::UNKNOWN, kind_of), ..Columns::default() },
    };
    columns.at = at;
    columns
}

fn kind_of(body: &Body) -> i64 {
    match body {
        Body::AgentStarted(_) => 10,
        Body::AgentStopped(_) => 11,
        Body::PolicyChange(_) => 12,
        Body::SensorState(_) => 13,
        Body::Gap(_) => kind::GAP,
        Body::ConnectionOpened(_) => kind::CONNECTION_OPENED,
        Body::ConnectionClosed(_) => 21,
        Body::SessionStarted(_) => 22,
        Body::ClientConnected(_) => kind::CLIENT_CONNECTED,
        Body::Statement(_) => kind::STATEMENT,
        Body::Outcomes(_) => 31,
        Body::Approval(_) => 50,
        Body::KeyChange(_) => 60,
        Body::Checkpoint(_) => 61,
        Body::Tombstone(_) => 62,
        Body::PersonAction(_) => kind::PERSON_ACTION,
        Body::ControlEvent(_) => kind::CONTROL_EVENT,
    }
}

fn of_connection(connection: ConnectionOpened) -> Columns {
    let workload = connection.workload.unwrap_or_default();
    let name = text(workload.label());
    Columns {
        kind: kind::CONNECTION_OPENED,
        access: Some(connection.access),
        executable: text(workload.executable),
        workload: name,
        flow: flow(&connection.client_address, &connection.server_address),
        ..of_decision(connection.decision)
    }
}

fn of_client(connected: ClientConnected) -> Columns {
    let workload = connected.workload.unwrap_or_default();
    Columns {
        kind: kind::CLIENT_CONNECTED,
        workload: text(workload.label()),
        executable: text(workload.executable),
        flow: flow(&connected.client_address, &connected.server_address),
        ..Columns::default()
    }
}

/// Both ends of a TCP connection, the client's first; the same from either side. Nothing where they are none.
pub fn flow(client: &str, server: &str) -> Option<String> {
    let end = |text: &str| {
        let address: SocketAddr = text.parse().ok()?;
        Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
    };
    Some(format!("{} > {}", end(client)?, end(server)?))
}

fn of_statement(statement: Statement) -> Columns {
    Columns {
        kind: kind::STATEMENT,
        // Only the proxy sees statements.
        access: Some(Access::Proxied.into()),
        db_user: text(statement.db_user),
        workload: text(statement.workload),
        text: text(statement.text),
        ..of_decision(statement.decision)
    }
}

fn of_decision(decision: Option<Decision>) -> Columns {
    let Some(decision) = decision else { return Columns::default() };
    Columns { verdict: Some(decision.verdict), policy: text(decision.policy), ..Columns::default() }
}

fn text(mut text: String) -> Option<String> {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_record_is_flagged_and_kept() {
        let sealed = SealedRecord { payload: vec![0xff; 9].into(), ..SealedRecord::default() };
        let row = Row::new(sealed.clone());
        assert!(row.columns.malformed);
        assert_eq!(row.sealed, sealed);
    }

    #[test]
    fn a_record_of_a_later_version_is_no_malformed_one() {
        // Field 99, a varint.
        let payload = vec![0x98, 0x06, 0x01];
        let row = Row::new(SealedRecord { payload: payload.into(), ..SealedRecord::default() });
        assert_eq!(row.columns, Columns::default());
    }

    #[test]
    fn a_connection_has_the_same_ends_from_either_side() {
        let flow = |client, server| super::flow(client, server);
        let ends = flow("10.0.0.2:40000", "10.0.0.1:5432");
        assert_eq!(ends.as_deref(), Some("10.0.0.2:40000 > 10.0.0.1:5432"));
        assert_eq!(flow("[::ffff:10.0.0.2]:40000", "10.0.0.1:5432"), ends);
        assert_eq!(flow("[fd77::2]:1", "[fd77:0::1]:2").as_deref(), Some("[fd77::2]:1 > [fd77::1]:2"));
        for (client, server) in
            [("", ""), ("10.0.0.2:1", ""), ("x' OR 1=1:1", "10.0.0.1:1"), ("10.0.0.2", "10.0.0.1")]
        {
            assert_eq!(flow(client, server), None);
        }
    }

    #[test]
    fn times_beyond_any_calendar_do_not_overflow() {
        let at = pbjson_types::Timestamp { seconds: i64::MAX, nanos: i32::MAX };
        assert_eq!(columns(Record { at: Some(at), ..Record::default() }).at, i64::MAX);
    }
}
