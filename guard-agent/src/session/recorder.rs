//! What a session leaves in the record: its start, its statements with their decisions, how they ended.

use std::sync::Arc;

use guard_common::audit::v1::{
    self as record, Decision, Outcome, Outcomes, SessionStarted,
    outcome::Status,
    record::Body,
    statement::{Parse, Protocol},
};
use guard_policy::vocabulary::{self, Action};

use super::pending::Running;
use crate::{
    audit::{AuditError, AuditLog},
    sql::Statement,
};

/// Outcomes that are kept together in one record.
const BATCH: usize = 32;

/// What every statement record of a session says.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) connection_id: String,
    pub(super) db_user: String,
    pub(super) database: String,
    pub(super) workload: Arc<str>,
}

/// Writes the records of one session.
#[derive(Debug)]
pub(super) struct Recorder {
    audit: AuditLog,
    context: Arc<Context>,
    ordinal: u64,
    outcomes: Vec<Outcome>,
}

impl Recorder {
    pub(super) fn new(audit: AuditLog, context: Context) -> Self {
        Self { audit, context: Arc::new(context), ordinal: 0, outcomes: Vec::new() }
    }

    /// Statements so far.
    pub(super) fn statements(&self) -> u64 {
        self.ordinal
    }

    pub(super) fn started(&self, started: SessionStarted) {
        self.audit.record(Body::SessionStarted(started));
    }

    /// Records a statement that is not waited for.
    pub(super) fn note(
        &mut self,
        statement: &Arc<Statement>,
        decision: &Arc<Decision>,
        protocol: Protocol,
    ) -> u64 {
        let body = self.body(statement, decision, protocol);
        // It holds the statement until it is written: the queue is bounded in bytes as well.
        self.audit.record_with(statement.text.len(), body);
        self.ordinal
    }

    /// Records a statement and returns when the record is durable.
    pub(super) async fn commit(
        &mut self,
        statement: &Arc<Statement>,
        decision: &Arc<Decision>,
        protocol: Protocol,
    ) -> Result<u64, AuditError> {
        let body = self.body(statement, decision, protocol)();
        self.audit.commit(body).await?;
        Ok(self.ordinal)
    }

    /// The record, built when the journal takes it: not on the session's thread.
    fn body(
        &mut self,
        statement: &Arc<Statement>,
        decision: &Arc<Decision>,
        protocol: Protocol,
    ) -> impl FnOnce() -> Body + Send + 'static {
        self.ordinal += 1;
        let ordinal = self.ordinal;
        let (context, statement, decision) =
            (Arc::clone(&self.context), Arc::clone(statement), Arc::clone(decision));
        move || Body::Statement(statement_record(&context, ordinal, &statement, &decision, protocol))
    }

    /// A statement has ended.
    pub(super) fn ended(&mut self, running: Running, otherwise: Status) {
        let status = match (running.ended, running.failure.is_empty()) {
            (_, false) => Status::Failed,
            (true, true) => Status::Completed,
            (false, true) => otherwise,
        };
        self.outcomes.push(Outcome {
            ordinal: running.ordinal,
            status: status.into(),
            command_tag: running.tag,
            rows: running.rows,
            sqlstate: running.failure,
            duration_us: u64::try_from(running.since.elapsed().as_micros()).unwrap_or(u64::MAX),
        });
        if self.outcomes.len() >= BATCH {
            self.flush();
        }
    }

    /// True while outcomes wait to be recorded.
    pub(super) fn waiting(&self) -> bool {
        !self.outcomes.is_empty()
    }

    /// Records the outcomes that wait.
    pub(super) fn flush(&mut self) {
        if self.outcomes.is_empty() {
            return;
        }
        let connection_id = self.context.connection_id.clone();
        let outcomes = std::mem::take(&mut self.outcomes);
        self.audit.record(Body::Outcomes(Outcomes { connection_id, outcomes }));
    }
}

/// True for what must be on record before it runs: it writes, defines, grants, administers, exports, or could.
pub(super) fn must_be_durable(statement: &Statement) -> bool {
    statement.effects.iter().any(|effect| match effect.action {
        Action::Connect
        | Action::Select
        | Action::Explain
        | Action::Show
        | Action::Set
        | Action::Transaction
        | Action::Session
        | Action::Sleep
        | Action::Function
        | Action::Lock => false,
        Action::CopyOut
        | Action::Insert
        | Action::Update
        | Action::Delete
        | Action::Merge
        | Action::Truncate
        | Action::CopyIn
        | Action::WriteObject
        | Action::Create
        | Action::Alter
        | Action::Drop
        | Action::Comment
        | Action::Grant
        | Action::Revoke
        | Action::Role
        | Action::Configure
        | Action::Maintain
        | Action::Terminate
        | Action::Load
        | Action::Replicate
        | Action::File
        | Action::Program
        | Action::Outbound
        | Action::Do
        | Action::Call
        | Action::Execute
        | Action::Assume
        | Action::Unreadable => true,
    })
}

fn statement_record(
    context: &Context,
    ordinal: u64,
    statement: &Statement,
    decision: &Decision,
    protocol: Protocol,
) -> record::Statement {
    let parse = match statement.parse {
        vocabulary::Parse::Full => Parse::Full,
        vocabulary::Parse::Tokens => Parse::Tokens,
        vocabulary::Parse::None => Parse::None,
    };
    record::Statement {
        connection_id: context.connection_id.clone(),
        ordinal,
        text: statement.text.clone(),
        text_bytes: statement.text.len() as u64,
        fingerprint: statement.fingerprint.clone(),
        parse: parse.into(),
        effects: statement.effects.iter().map(effect_record).collect(),
        decision: Some(decision.clone()),
        protocol: protocol.into(),
        db_user: context.db_user.clone(),
        database: context.database.clone(),
        workload: context.workload.to_string(),
        parts: statement.parts,
    }
}

fn effect_record(effect: &vocabulary::Effect) -> record::Effect {
    record::Effect {
        action: effect.action.to_string(),
        object: effect.object.to_string(),
        object_kind: effect.object.kind.to_string(),
        has_where: effect.has_where,
        object_schema: effect.object.schema.clone(),
    }
}
