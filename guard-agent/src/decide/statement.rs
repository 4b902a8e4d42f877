//! Decisions on statements: all effects must be allowed, the first that is not names the refusal.

use std::{borrow::Cow, sync::Arc, time::Instant};

use guard_common::audit::v1::{Decision, decision::Verdict};
use guard_policy::{
    Conditions, Facts, Ground, Outcome, PolicySet, Principal, Rates, Target, Wait,
    vocabulary::{Effect, Object, ObjectKind, Parse},
};
use sha2::{Digest, Sha256};

use super::{AppliedMode, Decider, Meter, ModeFrom};
use crate::{
    approval::{Broken, Claim},
    config::Mode,
    sql::{Change, Roles, SearchPath, Statement},
};

/// What holds for every statement of a session: all that policies read beside the statement itself.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who connects.
    pub principal: Principal,
    /// The database that they logged in to.
    pub target: Target,
    /// The database's mode.
    pub mode: Mode,
    /// What set it.
    pub mode_from: ModeFrom,
    /// Counts what the principal does on this server.
    pub meter: Arc<Meter>,
    /// Through the proxy, or round it.
    pub proxied: bool,
    /// `tcp` or `unix`.
    pub transport: &'static str,
    /// Who logged in.
    pub db_user: String,
    /// What the client calls itself; it may change it.
    pub application_name: String,
    /// Where the server looks for names without a schema.
    pub search_path: SearchPath,
    /// The roles in whose name its statements may run.
    pub roles: Roles,
}

/// Names a [`Session`] by everything that policies read of it: a part of the decision cache's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scope([u8; 16]);

impl Session {
    /// The path that names of `statement` may be looked for on. What the server puts for the user's own schema is not
    /// known where a role may have taken the place of who logged in.
    pub fn path_within(&self, statement: &Statement) -> Cow<'_, SearchPath> {
        let path = self.search_path.within(statement);
        let takes = |change: &Change| matches!(change, Change::Role { .. } | Change::Authorization { .. });
        let other_role = self.roles != Roles::of(&self.db_user) || statement.changes.iter().any(takes);
        if other_role && *path == SearchPath::Initial { Cow::Owned(SearchPath::Unknown) } else { path }
    }

    /// The scope of this session as it stands now.
    pub fn scope(&self) -> Scope {
        // Every field by its name: one that is added later must find its place here.
        let Self {
            principal,
            target,
            mode,
            mode_from,
            meter: _,
            proxied,
            transport,
            db_user,
            application_name,
            search_path,
            roles,
        } = self;
        let mut hasher = Sha256::new();
        hasher.update(principal.fingerprint());
        let (path, roles) = (search_path.as_key(), roles.as_key());
        let parts = [
            target.id(),
            mode.as_str(),
            mode_from.as_str(),
            if *proxied { "proxied" } else { "non-proxied" },
            *transport,
            db_user.as_str(),
            application_name,
            &path,
            &roles,
        ];
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let mut scope = [0; 16];
        scope.copy_from_slice(&hasher.finalize()[..16]);
        Scope(scope)
    }

    /// What this session brings to each of its decisions.
    pub(crate) fn ground(&self) -> Ground {
        let roles = self.roles.names();
        let facts = Facts {
            proxied: self.proxied,
            transport: self.transport,
            db_user: &self.db_user,
            roles: &roles,
            application_name: &self.application_name,
        };
        Ground::new(&self.principal, &self.target, &facts)
    }

    /// The session as it may be while `statement` runs: a text that takes a role may go on in its name. `None`: as it is.
    pub(crate) fn during(&self, statement: &Statement) -> Option<Self> {
        if statement.changes.is_empty() {
            return None;
        }
        let mut roles = self.roles.clone();
        for change in &statement.changes {
            if let Change::Role { to: Some(to), .. } | Change::Authorization { to: Some(to), .. } = change {
                roles = roles.or(&Roles::of(to));
            }
        }
        (roles != self.roles).then(|| Self { roles, ..self.clone() })
    }

    pub(super) fn applied_mode(&self) -> AppliedMode {
        AppliedMode { mode: self.mode, from: self.mode_from }
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

/// A statement that waits for people. It becomes a permit by what they say, and by nothing else.
#[derive(Clone, Debug)]
pub struct Held {
    decision: Arc<Decision>,
}

impl Held {
    /// What was decided, with what people have to say.
    pub fn decision(&self) -> &Arc<Decision> {
        &self.decision
    }

    /// Both: what either asks for has to be said.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut decision = (*self.decision).clone();
        decision.cached = false;
        if let (Some(needs), Some(more)) = (&mut decision.needs, &other.decision.needs) {
            for requirement in &more.requirements {
                if !needs.requirements.contains(requirement) {
                    needs.requirements.push(requirement.clone());
                }
            }
            if more.wait == Wait::Retry.as_str() {
                needs.wait.clone_from(&more.wait);
            }
            let given =
                [needs.within_seconds, more.within_seconds].into_iter().filter(|seconds| *seconds > 0);
            needs.within_seconds = given.min().unwrap_or(0);
        }
        if other.decision.break_glass.is_none() {
            decision.break_glass = None;
        }
        Self { decision: Arc::new(decision) }
    }

    /// Leave to prepare it, which runs nothing: it waits when it is to be run.
    pub fn to_prepare(&self) -> Permit {
        Permit { decision: Arc::clone(&self.decision) }
    }

    /// Leave to run it, by what `grant` stands for.
    pub fn granted(&self, grant: Grant) -> Permit {
        let mut decision = (*self.decision).clone();
        decision.set_verdict(Verdict::Allowed);
        // It was made for this run alone.
        decision.cached = false;
        if let Grant::Approved(claim) = grant {
            decision.approval_request = claim.into_request();
        }
        Permit { decision: Arc::new(decision) }
    }

    /// What is on record where it is not to run after all.
    pub fn refused(&self, request: &str) -> Arc<Decision> {
        let mut decision = (*self.decision).clone();
        decision.set_verdict(Verdict::Refused);
        decision.cached = false;
        request.clone_into(&mut decision.approval_request);
        Arc::new(decision)
    }
}

/// Why a statement that has to wait may run.
#[derive(Debug)]
pub enum Grant {
    /// People have approved it.
    Approved(Claim),
    /// A policy lets its principal go at once.
    BreakGlass(Broken),
}

/// What came of a statement.
#[derive(Debug)]
pub enum Ruling {
    /// It may run.
    Permitted(Permit),
    /// It may run once people have approved it.
    Held(Held),
    /// It must not.
    Refused(Arc<Decision>),
}

impl Ruling {
    pub(super) fn of(decision: Arc<Decision>) -> Self {
        match decision.verdict() {
            Verdict::Allowed | Verdict::WouldRefuse | Verdict::WouldHold => {
                Self::Permitted(Permit { decision })
            }
            Verdict::Held => Self::Held(Held { decision }),
            Verdict::Refused | Verdict::Unspecified => Self::Refused(decision),
        }
    }

    /// What was decided, for the record.
    pub fn decision(&self) -> &Arc<Decision> {
        match self {
            Self::Permitted(permit) => permit.decision(),
            Self::Held(held) => held.decision(),
            Self::Refused(decision) => decision,
        }
    }
}

/// What is asked for: the part of a statement that policies read.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Everything that it does.
    pub effects: &'a [Effect],
    /// How well it was understood.
    pub parse: Parse,
    /// Statements in the same string.
    pub parts: u32,
    /// A reason is given.
    pub justified: bool,
}

impl<'a> Asked<'a> {
    /// `statement`, whose `effects` are those with its names resolved.
    pub(crate) fn of(statement: &Statement, effects: &'a [Effect]) -> Self {
        Self { effects, parse: statement.parse, parts: statement.parts, justified: false }
    }

    fn outcome(&self, policies: &PolicySet, ground: &mut Ground, effect: &Effect, rates: Rates) -> Outcome {
        let Self { parse, parts, justified, .. } = *self;
        let conditions = Conditions { has_where: effect.has_where, parse, parts, rates, justified };
        policies.decide(ground, effect.action, &effect.object, &conditions)
    }
}

impl Decider {
    /// Decides on `statement` without a cache.
    pub fn statement(&self, session: &Session, statement: &Statement, rates: Rates) -> Decision {
        self.with_reason(session, statement, rates, false)
    }

    /// The same; `justified` where a reason is given.
    pub fn with_reason(
        &self,
        session: &Session,
        statement: &Statement,
        rates: Rates,
        justified: bool,
    ) -> Decision {
        let during = session.during(statement);
        let session = during.as_ref().unwrap_or(session);
        let effects = session.search_path.resolve(statement);
        let asked = Asked { justified, ..Asked::of(statement, &effects) };
        evaluate(&self.policies(), &mut session.ground(), session.applied_mode(), asked, rates)
    }

    /// What the policies say of each effect of `statement`, in their order: all that a person wants to know.
    pub fn effects(&self, session: &Session, statement: &Statement, rates: Rates) -> Vec<(Effect, Outcome)> {
        let (policies, mut ground) = (self.policies(), session.ground());
        let effects = session.search_path.resolve(statement).into_owned();
        let asked = Asked::of(statement, &effects);
        let outcomes: Vec<_> =
            effects.iter().map(|effect| asked.outcome(&policies, &mut ground, effect, rates)).collect();
        effects.into_iter().zip(outcomes).collect()
    }
}

/// Decides on what is asked: the first effect that is refused decides. `rates` are those of the moment.
pub(crate) fn evaluate(
    policies: &PolicySet,
    ground: &mut Ground,
    mode: AppliedMode,
    asked: Asked<'_>,
    rates: Rates,
) -> Decision {
    let started = Instant::now();
    let (mut refused, mut held, mut would_refuse, mut allowed) = (None, None, None, None);
    for effect in asked.effects {
        let outcome = asked.outcome(policies, ground, effect, rates);
        if !outcome.allowed && outcome.needs.is_some() {
            also_held(&mut held, outcome, effect);
            continue;
        }
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
    let (outcome, subject) = match refused.or(held).or(would_refuse).or(allowed) {
        Some((outcome, effect)) => (outcome, subject(effect)),
        // An empty statement does nothing to anything.
        None => (
            Outcome { allowed: true, policy: "nothing-to-decide".to_owned(), ..Outcome::default() },
            String::new(),
        ),
    };
    let mut decision = super::decision(outcome, mode, policies.hash(), subject);
    decision.evaluation_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    decision
}

/// One effect more that waits: all that is asked for has to be said, and glass is broken for all or for none.
fn also_held<'a>(held: &mut Option<(Outcome, &'a Effect)>, outcome: Outcome, effect: &'a Effect) {
    match held {
        None => *held = Some((outcome, effect)),
        Some((first, _)) => {
            first.needs = match (first.needs.take(), outcome.needs) {
                (Some(one), Some(two)) => Some(one.and(two)),
                (one, two) => one.or(two),
            };
            if outcome.break_glass.is_none() {
                first.break_glass = None;
            }
        }
    }
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
