//! What the sessions of one thread share: the reading of statements, and decisions already made. It belongs to its thread,
//! so there is no lock.

use std::{
    cell::{RefCell, RefMut},
    sync::Arc,
};

use guard_policy::vocabulary::{Action, Effect, Object, ObjectKind, Parse};

use super::masking::Plans;
use crate::{
    config::ProxyConfig,
    decide::{Decider, DecisionCache, Ruling, Scope, Session},
    sql::{Classifier, LargeTexts, Limits, Modes, Statement},
};

/// Large-object functions, which libpq calls by number (`pg_proc.dat`).
const FUNCTIONS: [(u32, &str); 15] = [
    (715, "lo_create"),
    (764, "lo_import"),
    (765, "lo_export"),
    (952, "lo_open"),
    (953, "lo_close"),
    (954, "loread"),
    (955, "lowrite"),
    (956, "lo_lseek"),
    (957, "lo_creat"),
    (958, "lo_tell"),
    (964, "lo_unlink"),
    (1004, "lo_truncate"),
    (3170, "lo_lseek64"),
    (3171, "lo_tell64"),
    (3172, "lo_truncate64"),
];

/// One session thread's own.
#[derive(Debug)]
pub struct Worker {
    inner: RefCell<Inner>,
    /// `None`: this thread reads long texts too.
    large: Option<LargeTexts>,
    unknown: Arc<Statement>,
    replication: Arc<Statement>,
    oversized: Arc<Statement>,
}

#[derive(Debug)]
pub(super) struct Inner {
    classifier: Classifier,
    pub(super) decisions: DecisionCache,
    pub(super) plans: Plans,
}

impl Worker {
    /// A worker with empty caches.
    pub fn new(limits: &ProxyConfig, decider: Arc<Decider>) -> Self {
        let limits = caps(limits);
        Self {
            large: None,
            inner: RefCell::new(Inner {
                classifier: Classifier::new(limits),
                decisions: DecisionCache::new(decider),
                plans: Plans::default(),
            }),
            unknown: Arc::new(stand_in(
                Action::Execute,
                Object::any(ObjectKind::Unknown),
                "unknown prepared statement",
            )),
            replication: Arc::new(replication_statement()),
            oversized: Arc::new(stand_in(
                Action::Unreadable,
                Object::any(ObjectKind::Unknown),
                "statement over the size limit",
            )),
        }
    }

    /// Leaves long texts to `large`.
    #[must_use]
    pub fn with(self, large: LargeTexts) -> Self {
        Self { large: Some(large), ..self }
    }

    /// INVARIANT: never held across an await, and nothing inside calls back: it is never borrowed twice.
    pub(super) fn inner(&self) -> RefMut<'_, Inner> {
        self.inner.borrow_mut()
    }

    /// Reads a statement.
    pub(super) fn classify(&self, text: &[u8], modes: Modes) -> Arc<Statement> {
        self.inner().classifier.classify(text, &modes)
    }

    /// Reads a statement of a client, which may be long.
    pub(crate) async fn read(&self, text: &[u8], modes: Modes) -> Arc<Statement> {
        match &self.large {
            Some(large) if text.len() >= LargeTexts::FROM_BYTES => large.classify(text, modes).await,
            _ => self.classify(text, modes),
        }
    }

    /// Reads a call of the function with this object id.
    pub(super) fn classify_function(&self, oid: u32, modes: Modes) -> Arc<Statement> {
        self.classify(function_call(oid).as_bytes(), modes)
    }

    /// Decides on a statement.
    pub(super) fn rule(&self, session: &Session, scope: Scope, statement: &Arc<Statement>) -> Ruling {
        self.rule_with_reason(session, scope, statement, false)
    }

    /// The same; `justified` where a reason is given.
    pub(crate) fn rule_with_reason(
        &self,
        session: &Session,
        scope: Scope,
        statement: &Arc<Statement>,
        justified: bool,
    ) -> Ruling {
        let during = session.during(statement);
        let (session, scope) = during.as_ref().map_or((session, scope), |during| (during, during.scope()));
        self.inner().decisions.rule_with_reason(session, scope, statement, justified)
    }

    /// A prepared statement or portal of which nobody knows the text.
    pub(super) fn unknown_statement(&self) -> Arc<Statement> {
        Arc::clone(&self.unknown)
    }

    /// A command of the walsender.
    pub(super) fn replication_command(&self) -> Arc<Statement> {
        Arc::clone(&self.replication)
    }

    /// A statement that is too long to be read.
    pub(crate) fn oversized(&self) -> Arc<Statement> {
        Arc::clone(&self.oversized)
    }
}

/// The statement that stands for a call of the function with this object id.
pub fn function_call(oid: u32) -> String {
    match FUNCTIONS.iter().find(|(known, _)| *known == oid) {
        Some((_, name)) => format!("SELECT pg_catalog.{name}()"),
        None => format!("SELECT \"function {oid}\"()"),
    }
}

/// The statement that stands for any command of the replication protocol.
pub fn replication_statement() -> Statement {
    stand_in(Action::Replicate, Object::any(ObjectKind::Server), "replication command")
}

/// Caps on the reading of statements, as configured.
pub fn caps(limits: &ProxyConfig) -> Limits {
    Limits { max_statement_bytes: limits.max_statement_bytes, ..Limits::default() }
}

/// Stands for a statement whose text is not known.
fn stand_in(action: Action, object: Object, text: &str) -> Statement {
    Statement {
        text: format!("<{text}>"),
        fingerprint: String::new(),
        parse: Parse::None,
        parts: 1,
        effects: vec![Effect::new(action, object)],
        prepared: Vec::new(),
        changes: Vec::new(),
        origin: Default::default(),
        sent: None,
    }
}

#[cfg(test)]
mod tests {
    use guard_policy::PolicySet;

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn long_texts_are_left_to_other_threads_and_short_ones_are_not() {
        let limits = ProxyConfig::default();
        let decider = Decider::new(PolicySet::built_in().unwrap(), &Config::default());
        // Threads that read nothing show which texts come to them.
        let blind = LargeTexts::start(Limits { max_statement_bytes: 0, ..caps(&limits) }).unwrap();
        let worker = Worker::new(&limits, Arc::new(decider)).with(blind);
        let short = worker.read(b"DROP TABLE t", Modes::default()).await;
        assert_eq!(short.effects[0].action, Action::Drop);
        let long = format!("SELECT '{}'", "x".repeat(LargeTexts::FROM_BYTES));
        let long = worker.read(long.as_bytes(), Modes::default()).await;
        assert_eq!(long.effects[0].action, Action::Unreadable);
    }
}
