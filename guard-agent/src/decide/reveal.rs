//! Decisions on columns with sensitive data: how a session sees them, and whether it may use what it does not see.
//!
//! Nothing is cached here: what is decided becomes a part of the plan of a result, which is.

use guard_common::audit::v1::Decision;
use guard_policy::{Column, Sight, Use};

use super::{Decider, DecisionCache, Scope, Session};

impl Decider {
    /// How `session` sees `column`.
    pub fn reveal(&self, session: &Session, column: &Column) -> Sight {
        self.policies().reveal(&mut session.ground(), column, &self.default_mask)
    }

    /// Whether a statement of `session` may use `column`, which it does not see in clear.
    pub fn infer(&self, session: &Session, column: &Column, used: &Use) -> Decision {
        let policies = self.policies();
        let outcome = policies.infer(&mut session.ground(), column, used);
        super::decision(outcome, session.applied_mode(), policies.hash(), subject(column, used))
    }
}

impl DecisionCache {
    /// Counts the policy sets: what was decided under another one no longer holds.
    pub fn policy_epoch(&mut self) -> u64 {
        self.follow();
        self.epoch
    }

    /// True where some policy could reveal something.
    pub fn reveals(&self) -> bool {
        self.policies.reveals()
    }

    /// True where what is revealed may depend on more than the kind of data.
    pub fn reveals_by_place(&self) -> bool {
        self.policies.reveals_by_place()
    }

    /// True where a policy names `infer`.
    pub fn decides_inference(&self) -> bool {
        self.policies.decides_inference()
    }

    /// How `session`, whose scope is `scope`, sees `column`.
    pub fn reveal(&mut self, session: &Session, scope: Scope, column: &Column) -> Sight {
        self.follow();
        self.make_room(scope);
        let Self { decider, policies, grounds, .. } = self;
        let ground = grounds.entry(scope).or_insert_with(|| session.ground());
        policies.reveal(ground, column, &decider.default_mask)
    }

    /// Whether a statement of `session`, whose scope is `scope`, may use `column`, which it does not see in clear.
    pub fn infer(&mut self, session: &Session, scope: Scope, column: &Column, used: &Use) -> Decision {
        self.follow();
        self.make_room(scope);
        let Self { policies, grounds, .. } = self;
        let ground = grounds.entry(scope).or_insert_with(|| session.ground());
        let outcome = policies.infer(ground, column, used);
        super::decision(outcome, session.applied_mode(), policies.hash(), subject(column, used))
    }
}

/// In words, such as `where by column public.customers.email (email)`.
fn subject(column: &Column, used: &Use) -> String {
    format!("{} by column {column} ({})", used.words.join(", "), column.kind)
}
