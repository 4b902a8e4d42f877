//! Decisions that were already made, kept per session thread, and what sessions bring to those that are not.
//!
//! INVARIANT: the key holds everything that policies read: the [`Scope`] of the session, the statement itself, and the
//! rates of the moment as far as the policies in force can tell them apart.

use std::{collections::HashMap, sync::Arc};

use ahash::RandomState;
use guard_common::audit::v1::Decision;
use guard_policy::{Ground, PolicySet, Rates, RatesKey};

use super::{
    Decider, Ruling, Scope, Session,
    statement::{Asked, evaluate},
};
use crate::sql::Statement;

/// Most decisions that one thread keeps; then it starts afresh.
const CAPACITY: usize = 8_192;

/// Most scopes whose ground one thread keeps; then it starts afresh.
const GROUNDS: usize = 64;

/// Decisions of one session thread, valid for one policy set.
#[derive(Debug)]
pub struct DecisionCache {
    pub(super) decider: Arc<Decider>,
    pub(super) policies: Arc<PolicySet>,
    pub(super) epoch: u64,
    decisions: HashMap<Key, Decided, RandomState>,
    /// They hold nothing of the policies.
    pub(super) grounds: HashMap<Scope, Ground, RandomState>,
}

/// With whether a reason is given.
type Key = (Scope, *const Statement, RatesKey, bool);

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
        Self { decider, policies, epoch, decisions: HashMap::default(), grounds: HashMap::default() }
    }

    /// Decides on `statement` in `session`, whose scope is `scope`.
    pub fn rule(&mut self, session: &Session, scope: Scope, statement: &Arc<Statement>) -> Ruling {
        self.rule_with_reason(session, scope, statement, false)
    }

    /// The same; `justified` where a reason is given.
    pub fn rule_with_reason(
        &mut self,
        session: &Session,
        scope: Scope,
        statement: &Arc<Statement>,
        justified: bool,
    ) -> Ruling {
        self.follow();
        // What it was sent with is nothing that policies read.
        let statement = statement.shared();
        let rates = if self.policies.reads_rates() { session.meter.read() } else { Rates::default() };
        let key = (scope, Arc::as_ptr(statement), self.policies.rates_key(rates), justified);
        if let Some(decided) = self.decisions.get(&key) {
            return Ruling::of(Arc::clone(&decided.decision));
        }
        self.make_room(scope);
        let ground = self.grounds.entry(scope).or_insert_with(|| session.ground());
        let effects = session.search_path.resolve(statement);
        let asked = Asked { justified, ..Asked::of(statement, &effects) };
        let fresh = evaluate(&self.policies, ground, session.applied_mode(), asked, rates);
        if self.decisions.len() >= CAPACITY {
            self.decisions.clear();
        }
        let kept = Decision { cached: true, ..fresh.clone() };
        self.decisions.insert(key, Decided { decision: Arc::new(kept), _statement: Arc::clone(statement) });
        Ruling::of(Arc::new(fresh))
    }

    /// Whether a policy in force reads how many statements there are.
    pub fn reads_rates(&mut self) -> bool {
        self.follow();
        self.policies.reads_rates()
    }

    /// Keeps the grounds within bounds before one for `scope` is added.
    pub(super) fn make_room(&mut self, scope: Scope) {
        if self.grounds.len() >= GROUNDS && !self.grounds.contains_key(&scope) {
            self.grounds.clear();
        }
    }

    /// Takes the policy set in force, if it is another than before.
    pub(super) fn follow(&mut self) {
        let epoch = self.decider.epoch();
        if epoch != self.epoch {
            // The epoch is read before the set: at worst the set is newer than the epoch says, and is read again.
            self.epoch = epoch;
            self.policies = self.decider.policies();
            self.decisions.clear();
        }
    }
}
