//! Decisions on statements: all effects must be allowed, the first that is not names the refusal.

use std::{sync::Arc, time::Instant};

use guard_common::audit::v1::{Decision, decision::Verdict};
use guard_policy::{
    Conditions, Outcome, PolicySet, Principal, Target,
    vocabulary::{Effect, Object, ObjectKind},
};
use sha2::{Digest, Sha256};

use super::Decider;
use crate::{
    config::Mode,
    sql::{SearchPath, Statement},
};

/// What holds for every statement of a session: all that policies read beside the statement itself.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who connects.
    pub principal: Principal,
    /// The database that they logged in to.
    pub target: Target,
    /// The server's mode.
    pub mode: Mode,
    /// `tcp` or `unix`.
    pub transport: &'static str,
    /// Who logged in.
    pub db_user: String,
    /// What the client calls itself; it may change it.
    pub application_name: String,
    /// Where the server looks for names without a schema.
    pub search_path: SearchPath,
}

/// Names a [`Session`] by everything that policies read of it: a part of the decision cache's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scope([u8; 16]);

impl Session {
    /// The scope of this session as it stands now.
    pub fn scope(&self) -> Scope {
        let mut hasher = Sha256::new();
        hasher.update(self.principal.fingerprint());
        let mode = if self.mode == Mode::Enforce { "enforce" } else { "monitor" };
        let path = self.search_path.as_key();
        let parts = [
            self.target.id(),
            mode,
            self.transport,
            self.db_user.as_str(),
            self.application_name.as_str(),
            &path,
        ];
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let mut scope = [0; 16];
        scope.copy_from_slice(&hasher.finalize()[..16]);
        Scope(scope)
    }
}

/// Leave to run one statement. Sending a statement upstream takes it.
#[derive(Debug)]
#[must_use = "a permit that nobody uses is a statement that never runs"]
pub struct Permit {
    decision: Arc<Decision>,
}

impl Permit {
    /// What was decided, for the record.
    pub fn decision(&self) -> &Arc<Decision> {
        &self.decision
    }
}

/// What came of a statement.
#[derive(Debug)]
pub enum Ruling {
    /// It may run.
    Permitted(Permit),
    /// It must not.
    Refused(Arc<Decision>),
}

impl Ruling {
    pub(super) fn of(decision: Arc<Decision>) -> Self {
        match decision.verdict() {
            Verdict::Allowed | Verdict::WouldRefuse => Self::Permitted(Permit { decision }),
            Verdict::Refused | Verdict::Unspecified => Self::Refused(decision),
        }
    }

    /// What was decided, for the record.
    pub fn decision(&self) -> &Arc<Decision> {
        match self {
            Self::Permitted(permit) => permit.decision(),
            Self::Refused(decision) => decision,
        }
    }
}

impl Decider {
    /// Decides on `statement` without a cache.
    pub fn statement(&self, session: &Session, statement: &Statement) -> Decision {
        evaluate(&self.policies(), session, statement)
    }
}

pub(super) fn evaluate(policies: &PolicySet, session: &Session, statement: &Statement) -> Decision {
    let started = Instant::now();
    let mut would_refuse = None;
    let mut allowed = None;
    let mut refused = None;
    let effects = session.search_path.resolve(statement);
    for effect in effects.iter() {
        let outcome = decide_effect(policies, session, statement, effect);
        let slot = match (outcome.allowed, outcome.would_refuse) {
            (false, _) => &mut refused,
            (true, true) => &mut would_refuse,
            (true, false) => &mut allowed,
        };
        slot.get_or_insert((outcome, effect));
        if refused.is_some() {
            break;
        }
    }
    let (outcome, subject) = match refused.or(would_refuse).or(allowed) {
        Some((outcome, effect)) => (outcome, subject(effect)),
        // An empty statement does nothing to anything.
        None => (
            Outcome { allowed: true, policy: "nothing-to-decide".to_owned(), ..Outcome::default() },
            String::new(),
        ),
    };
    let mut decision = super::decision(outcome, session.mode, policies.hash(), subject);
    decision.evaluation_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    decision
}

fn decide_effect(policies: &PolicySet, session: &Session, statement: &Statement, effect: &Effect) -> Outcome {
    let conditions = Conditions {
        proxied: true,
        transport: session.transport,
        db_user: &session.db_user,
        application_name: &session.application_name,
        has_where: effect.has_where,
        parse: statement.parse,
        parts: statement.parts,
    };
    policies.decide(&session.principal, &session.target, effect.action, &effect.object, &conditions)
}

/// In words, such as `drop of table public.customers`.
pub fn subject(effect: &Effect) -> String {
    let Effect { action, object, has_where } = effect;
    let action = action.as_str().replace('_', " ");
    let Object { kind, name, .. } = object;
    let tail = if *has_where == Some(false) { " without WHERE" } else { "" };
    let kind_name = kind.as_str().replace('_', " ");
    match (kind, name.as_str()) {
        (ObjectKind::Unknown, _) => format!("{action}{tail}"),
        (_, "*") => format!("{action} of some {kind_name}{tail}"),
        _ => format!("{action} of {kind_name} {object}{tail}"),
    }
}
