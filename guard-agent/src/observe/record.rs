//! A statement that was seen, as its record.

use guard_common::audit::v1::{self as record, Decision, statement::Parse, statement::Protocol};
use guard_policy::vocabulary;

use super::{backend::Backend, text::Source};
use crate::{
    audit::effect_record,
    sensor::{Level, StatementSeen},
    sql::Statement,
};

/// What stands in records for statements that were seen in the server itself.
const EVIDENCE: &str = "probe";

/// The record of one run.
pub fn statement(
    backend: &Backend,
    seen: &StatementSeen,
    source: &Source,
    statement: &Statement,
    decision: &Decision,
    literals: Option<record::Literals>,
) -> record::Statement {
    let parse = match statement.parse {
        vocabulary::Parse::Full => Parse::Full,
        vocabulary::Parse::Tokens => Parse::Tokens,
        vocabulary::Parse::None => Parse::None,
    };
    // How the client sent it is not seen in the server, but for these.
    let protocol = match seen.level {
        Level::Function(_) => Protocol::FunctionCall,
        Level::Replication => Protocol::Replication,
        Level::Executor | Level::Utility => Protocol::Unspecified,
    };
    record::Statement {
        connection_id: backend.connection_id(),
        ordinal: backend.ordinal(),
        text: statement.text.clone(),
        text_bytes: statement.text.len() as u64,
        fingerprint: statement.fingerprint.clone(),
        parse: parse.into(),
        effects: statement.effects.iter().map(effect_record).collect(),
        decision: Some(decision.clone()),
        protocol: protocol.into(),
        db_user: backend.seen().user.clone(),
        database: backend.seen().database.clone(),
        workload: backend.workload().label(),
        parts: statement.parts,
        evidence: EVIDENCE.to_owned(),
        nested: seen.nested,
        executions: 0,
        source_bytes: source.bytes,
        source_sha256: source.sha256.clone(),
        text_loss: source.loss.to_owned(),
        lost_before: 0,
        backend_pid: backend.seen().pid,
        literals,
    }
}
