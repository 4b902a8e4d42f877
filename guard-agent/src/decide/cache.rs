//! Decisions that were already made, kept per session thread.
//!
//! INVARIANT: the key holds everything that policies read: the [`Scope`] of the session and the statement itself.

use std::{collections::HashMap, sync::Arc};

use ahash::RandomState;
use guard_common::audit::v1::Decision;
use guard_policy::PolicySet;

use super::{Decider, Ruling, Scope, Session, statement::evaluate};
use crate::sql::Statement;

/// Most decisions that one thread keeps; then it starts afresh.
const CAPACITY: usize = 8_192;

/// Decisions of one session thread, valid for one policy set.
#[derive(Debug)]
pub struct DecisionCache {
    decider: Arc<Decider>,
    policies: Arc<PolicySet>,
    epoch: u64,
    decisions: HashMap<(Scope, *const Statement), Decided, RandomState>,
}

#[derive(Debug)]
struct Decided {
    decision: Arc<Decision>,
    /// Held so that its address stays its own.
    _statement: Arc<Statement>,
}

impl DecisionCache {
    /// An empty cache in front of `decider`.
    pub fn new(decider: Arc<Decider>) -> Self {
        let epoch = decider.epoch();
        let policies = decider.policies();
        Self { decider, policies, epoch, decisions: HashMap::default() }
    }

    /// Decides on `statement` in `session`, whose scope is `scope`.
    pub fn rule(&mut self, session: &Session, scope: Scope, statement: &Arc<Statement>) -> Ruling {
        let epoch = self.decider.epoch();
        if epoch != self.epoch {
            // The epoch is read before the set: at worst the set is newer than the epoch says, and is read again.
            self.epoch = epoch;
            self.policies = self.decider.policies();
            self.decisions.clear();
        }
        let key = (scope, Arc::as_ptr(statement));
        if let Some(decided) = self.decisions.get(&key) {
            return Ruling::of(Arc::clone(&decided.decision));
        }
        let fresh = evaluate(&self.policies, session, statement);
        if self.decisions.len() >= CAPACITY {
            self.decisions.clear();
        }
        let kept = Decision { cached: true, ..fresh.clone() };
        self.decisions.insert(key, Decided { decision: Arc::new(kept), _statement: Arc::clone(statement) });
        Ruling::of(Arc::new(fresh))
    }
}
