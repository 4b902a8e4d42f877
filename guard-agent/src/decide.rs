//! Connections and statements enter, decisions leave. Any error on the way is a refusal.
//!
//! A decision that permits becomes a [`Permit`]; sending a statement upstream takes that value. Policies are read
//! without a lock: each session thread keeps its own [`DecisionCache`] and looks at one counter.

mod cache;
mod modes;
mod rates;
mod reveal;
mod statement;
mod targets;

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use guard_common::audit::v1::{
    ApprovalNeeds, ApprovalRequirement, BreakGlass, Decision, Workload, decision::Verdict,
};
use guard_policy::{Mask, Needs, Outcome, PolicySet, Principal, Requirement, Target};

pub(crate) use self::statement::evaluate;
use self::targets::Targets;
pub use self::{
    cache::DecisionCache,
    modes::{AppliedMode, ModeFrom},
    rates::{Meter, Meters},
    statement::{Asked, Grant, Held, Permit, Ruling, Scope, Session, subject},
};
use crate::{
    config::{Config, Mode},
    servers::Server,
};

/// What a decision on a new connection is about.
#[derive(Debug)]
pub struct ConnectRequest<'a> {
    /// Who connects.
    pub workload: &'a Workload,
    /// To which server.
    pub server: &'a Server,
    /// Through the proxy, or round it.
    pub proxied: bool,
    /// `tcp` or `unix`.
    pub transport: &'static str,
}

/// Decides by the policy set in force. Shared by the proxy and the connection table, so that they cannot drift.
#[derive(Debug)]
pub struct Decider {
    policies: RwLock<Arc<PolicySet>>,
    /// Counts the sets: what a cache compares before it trusts its entries.
    epoch: AtomicU64,
    modes: modes::Modes,
    meters: Meters,
    targets: Targets,
    /// The rule of masking where policies name none.
    default_mask: Mask,
    /// A policy reads whether a reason is given.
    reads_reasons: AtomicBool,
}

impl Decider {
    /// Decides by `policies`, in the modes that `config` names.
    pub fn new(policies: PolicySet, config: &Config) -> Self {
        let meters = Meters::default();
        meters.want(policies.reads_rates());
        Self {
            reads_reasons: AtomicBool::new(policies.reads_reasons()),
            policies: RwLock::new(Arc::new(policies)),
            epoch: AtomicU64::new(1),
            modes: modes::Modes::new(config),
            meters,
            targets: Targets::default(),
            default_mask: config.masking.default_mask(),
        }
    }

    /// The set in force.
    pub fn policies(&self) -> Arc<PolicySet> {
        self.policies.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts `policies` in force for every decision from now on; returns the set before.
    pub fn replace(&self, policies: PolicySet) -> Arc<PolicySet> {
        let mut current = self.policies.write().unwrap_or_else(PoisonError::into_inner);
        self.meters.want(policies.reads_rates());
        self.reads_reasons.store(policies.reads_reasons(), Ordering::Relaxed);
        let before = std::mem::replace(&mut *current, Arc::new(policies));
        self.epoch.fetch_add(1, Ordering::Release);
        before
    }

    /// Whether a policy reads that a reason is given: without one nobody needs to look for it.
    pub fn reads_reasons(&self) -> bool {
        self.reads_reasons.load(Ordering::Relaxed)
    }

    /// Counts the sets: another number is another set.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The mode of `database` on `server`, and what set it; an empty `database` is the server as a whole.
    pub fn mode(&self, server: &str, database: &str) -> AppliedMode {
        self.modes.of(server, database)
    }

    /// Counts the statements and rows of `principal` on `server`.
    pub fn meter(&self, principal: &Principal, server: &str) -> Arc<Meter> {
        self.meters.of(principal, server)
    }

    /// What statements on `database` of `server` are decided against; an empty `database` is the server as a whole.
    pub fn target(&self, server: &Server, database: &str) -> Target {
        self.targets.of(server, database)
    }

    /// Decides on `connect`, through the proxy or round it.
    pub fn connect(&self, request: &ConnectRequest<'_>) -> Arc<Decision> {
        let policies = self.policies();
        let server = request.server;
        let target = self.target(server, "");
        let principal = Principal::new(request.workload);
        let outcome = policies.connect(&principal, &target, request.proxied, request.transport);
        let mode = self.mode(&server.name, "");
        let way = if request.proxied { "through the proxy" } else { "round the proxy" };
        Arc::new(decision(outcome, mode, policies.hash(), format!("connect to {} {way}", server.name)))
    }
}

/// The record's form of `outcome`.
fn decision(outcome: Outcome, mode: AppliedMode, policy_hash: &str, subject: String) -> Decision {
    let waits = outcome.needs.is_some();
    let verdict = match (outcome.allowed, outcome.would_refuse, mode.mode) {
        (true, false, _) => Verdict::Allowed,
        (false, _, Mode::Enforce) if waits => Verdict::Held,
        (false, _, Mode::Enforce) => Verdict::Refused,
        (true, true, _) | (false, _, Mode::Monitor) if waits => Verdict::WouldHold,
        (true, true, _) | (false, _, Mode::Monitor) => Verdict::WouldRefuse,
    };
    // Where the mode would have refused, it is the policies' own mode that lets it run.
    let by_policy = outcome.would_refuse && mode.mode == Mode::Enforce;
    let mode = if by_policy { AppliedMode { mode: Mode::Monitor, from: ModeFrom::Policy } } else { mode };
    Decision {
        verdict: verdict.into(),
        policy: outcome.policy,
        reason: outcome.reason,
        hint: outcome.hint,
        policy_hash: policy_hash.to_owned(),
        errors: outcome.errors,
        subject,
        mode: mode.mode.as_str().to_owned(),
        mode_from: mode.from.as_str().to_owned(),
        needs: outcome.needs.map(needs),
        break_glass: outcome.break_glass.map(|glass| BreakGlass {
            policy: glass.policy,
            group: glass.group.unwrap_or_default(),
            reason: glass.reason,
        }),
        ..Decision::default()
    }
}

/// The record's form of what people have to say.
fn needs(needs: Needs) -> ApprovalNeeds {
    let requirement = |one: Requirement| ApprovalRequirement {
        policy: one.policy,
        groups: one.groups,
        approvers: one.approvers,
    };
    ApprovalNeeds {
        requirements: needs.requirements.into_iter().map(requirement).collect(),
        wait: needs.wait.as_str().to_owned(),
        within_seconds: needs.within.map_or(0, |within| u32::try_from(within.as_secs()).unwrap_or(u32::MAX)),
    }
}

#[cfg(test)]
mod tests;
