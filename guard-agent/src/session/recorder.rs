//! What a session leaves in the record: its start, its statements with their decisions, how they ended.

use std::sync::Arc;

use guard_common::audit::v1::{Decision, SessionStarted, outcome::Status, record::Body, statement::Protocol};
use guard_policy::vocabulary::Action;

use super::pending::Running;
use crate::{
    audit::{AuditError, AuditLog, OutcomeBatch, OutcomeFields, SessionStamp, StatementEntry},
    config::Mode,
    sql::Statement,
};

/// Outcomes that are kept together in one record.
const BATCH: usize = 32;

/// Writes the records of one session.
#[derive(Debug)]
pub(super) struct Recorder {
    audit: AuditLog,
    stamp: Arc<SessionStamp>,
    ordinal: u64,
    outcomes: OutcomeBatch,
    /// The mode is monitor: what would be masked is not.
    only_records: bool,
}

impl Recorder {
    pub(super) fn new(audit: AuditLog, stamp: SessionStamp, mode: Mode) -> Self {
        Self {
            audit,
            stamp: Arc::new(stamp),
            ordinal: 0,
            outcomes: OutcomeBatch::default(),
            only_records: mode == Mode::Monitor,
        }
    }

    /// Statements so far.
    pub(super) fn statements(&self) -> u64 {
        self.ordinal
    }

    pub(super) fn started(&self, started: SessionStarted) {
        self.audit.record(Body::SessionStarted(started));
    }

    /// The record holds what statements are sent with.
    pub(super) fn keeps_literals(&self) -> bool {
        self.audit.literals().wants()
    }

    /// Records a statement that is not waited for.
    pub(super) fn note(
        &mut self,
        statement: &Arc<Statement>,
        decision: &Arc<Decision>,
        protocol: Protocol,
    ) -> u64 {
        let entry = self.entry(statement, decision, protocol);
        self.audit.record_statement(entry);
        self.ordinal
    }

    /// Records a statement and returns when the record is durable.
    pub(super) async fn commit(
        &mut self,
        statement: &Arc<Statement>,
        decision: &Arc<Decision>,
        protocol: Protocol,
    ) -> Result<u64, AuditError> {
        let entry = self.entry(statement, decision, protocol);
        self.audit.commit_statement(entry).await?;
        Ok(self.ordinal)
    }

    fn entry(
        &mut self,
        statement: &Arc<Statement>,
        decision: &Arc<Decision>,
        protocol: Protocol,
    ) -> StatementEntry {
        self.ordinal += 1;
        StatementEntry {
            session: Arc::clone(&self.stamp),
            ordinal: self.ordinal,
            statement: Arc::clone(statement),
            decision: Arc::clone(decision),
            protocol,
        }
    }

    /// A statement has ended.
    pub(super) fn ended(&mut self, mut running: Running, otherwise: Status) {
        let masking = running.results.record(self.only_records);
        if running.results.again && masking.is_empty() {
            return;
        }
        let sqlstate = running.failure.as_str();
        let status = match (running.ended, sqlstate.is_empty()) {
            (_, false) => Status::Failed,
            (true, true) => Status::Completed,
            (false, true) => otherwise,
        };
        self.outcomes.push(&OutcomeFields {
            ordinal: running.ordinal,
            status,
            command_tag: running.tag.as_str(),
            rows: running.rows,
            sqlstate,
            duration_us: u64::try_from(running.since.elapsed().as_micros()).unwrap_or(u64::MAX),
            masking: &masking,
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
        if !self.outcomes.is_empty() {
            self.audit.record_outcomes(&self.stamp, std::mem::take(&mut self.outcomes));
        }
    }
}

/// True for what must be on record before it runs: it writes, defines, grants, administers, exports, or could.
pub(crate) fn must_be_durable(statement: &Statement) -> bool {
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
