//! A set of policies: loaded, checked against the schema, evaluated.
//!
//! A folder (or the policies built into the binary) enters; a [`PolicySet`] that has passed every check leaves.

mod load;
mod reveal;
mod slices;

use std::{collections::HashMap, fmt, path::PathBuf};

use ahash::RandomState;
use cedar_policy::{Authorizer, Decision, Entities, Policy, PolicyId, Request};

use self::slices::{Slice, Slices};
use crate::{
    approval::{self, BreakGlass, Needs},
    columns::Mask,
    ground::{self, Ground},
    rates::{Rates, RatesKey},
    request::{Conditions, Principal, Target},
    vocabulary::{Action, Object},
};
pub use load::{EXAMPLES, PolicyError, built_in_cases, is_left_out};

/// The policy that is named when nothing permits.
const DEFAULT_DENY: &str = "default-deny";

/// Where a set came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built into the binary.
    BuiltIn,
    /// A folder.
    Folder(PathBuf),
    /// A version that the control plane handed down.
    Control(u64),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in"),
            Self::Folder(path) => path.display().fmt(f),
            Self::Control(version) => write!(f, "control plane, version {version}"),
        }
    }
}

/// What policies say of one action on one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// It may go on.
    pub allowed: bool,
    /// It would have been refused, by policies that are in `@mode("monitor")` alone.
    pub would_refuse: bool,
    /// The policy that decided: `@id`.
    pub policy: String,
    /// Its `@reason`.
    pub reason: String,
    /// Its `@hint`: what to do.
    pub hint: String,
    /// Evaluation errors. Each one is a refusal, whatever the other policies say.
    pub errors: Vec<String>,
    /// It is not allowed yet, and will be once people have approved it. With `would_refuse`: it would have waited.
    pub needs: Option<Needs>,
    /// It need not wait where a justification is given.
    pub break_glass: Option<BreakGlass>,
}

/// Policies that have passed every check. Immutable: a change is a new set.
pub struct PolicySet {
    authorizer: Authorizer,
    policies: cedar_policy::PolicySet,
    slices: Slices,
    told: HashMap<PolicyId, Told, RandomState>,
    hash: String,
    origin: Origin,
}

/// What a policy says to the people whom it concerns. Cedar parses an annotation's key at each look-up, which would cost
/// more than deciding.
#[derive(Debug)]
struct Told {
    reason: String,
    hint: String,
    /// Its `@mask`.
    mask: Option<Mask>,
    needs: Option<Needs>,
    break_glass: Option<BreakGlass>,
}

impl Told {
    fn of(policy: &Policy) -> Self {
        let text = |key| policy.annotation(key).unwrap_or_default().to_owned();
        // It was checked when it was loaded.
        let mask = policy.annotation("mask").and_then(|mask| mask.parse().ok());
        // INVARIANT: they were checked when the policy was read.
        let mut needs = approval::needs(policy).ok().flatten();
        let mut break_glass = approval::break_glass(policy).ok().flatten();
        let id = || policy.id().to_string();
        needs.iter_mut().flat_map(|needs| &mut needs.requirements).for_each(|one| one.policy = id());
        break_glass.iter_mut().for_each(|glass| glass.policy = id());
        Self { reason: text("reason"), hint: text("hint"), mask, needs, break_glass }
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySet")
            .field("origin", &self.origin)
            .field("hash", &self.hash)
            .field("policies", &self.len())
            .finish_non_exhaustive()
    }
}

impl PolicySet {
    /// SHA-256 over the names and contents of the policy files, hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Where it came from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Number of policies; never 0.
    pub fn len(&self) -> usize {
        self.policies.num_of_policies()
    }

    /// Always false: a set without policies would refuse everything and does not load.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True where a policy reads rates: without one nobody needs to count.
    pub fn reads_rates(&self) -> bool {
        self.slices.reading.any()
    }

    /// True where a policy reads `context.justified`: without one nobody needs to look for reasons.
    pub fn reads_reasons(&self) -> bool {
        self.slices.reads_reasons
    }

    /// True where a policy reads the hash of a program: without one nobody needs to wait for it.
    pub fn reads_hashes(&self) -> bool {
        self.slices.reads_hashes
    }

    /// True where a policy can make a statement wait.
    pub fn asks_people(&self) -> bool {
        self.told.values().any(|told| told.needs.is_some())
    }

    /// The same for rates that lead to the same decisions.
    pub fn rates_key(&self, rates: Rates) -> RatesKey {
        self.slices.reading.key(rates)
    }

    /// Decides whether `principal` may connect to the server of `target`.
    pub fn connect(&self, principal: &Principal, target: &Target, proxied: bool, transport: &str) -> Outcome {
        match ground::connect(principal, target, proxied, transport) {
            Ok((request, entities)) => {
                let outcome = self.answer(self.slices.of(Action::Connect), &request, &entities);
                // A connection cannot wait.
                Outcome { needs: None, break_glass: None, ..outcome }
            }
            Err(error) => refused_by_error(vec![error]),
        }
    }

    /// Decides whether the principal of `ground` may do `action` to `object`.
    pub fn decide(
        &self,
        ground: &mut Ground,
        action: Action,
        object: &Object,
        conditions: &Conditions,
    ) -> Outcome {
        let slice = self.slices.of(action);
        let rates = slice.reads_rates.then_some(conditions.rates);
        match ground.request(action, object, conditions, rates) {
            Ok((request, entities)) => self.answer(slice, &request, entities),
            Err(error) => refused_by_error(vec![error]),
        }
    }

    fn answer(&self, slice: &Slice, request: &Request, entities: &Entities) -> Outcome {
        let outcome = self.evaluate(&slice.policies, request, entities);
        if outcome.allowed || !outcome.errors.is_empty() {
            return outcome;
        }
        let refused = match &slice.enforced {
            // Would it be without the policies that only watch?
            Some(enforced) => {
                let enforced = self.evaluate(enforced, request, entities);
                if enforced.allowed {
                    return Outcome { allowed: true, would_refuse: true, ..outcome };
                }
                enforced
            }
            None => outcome,
        };
        self.waiting(slice, refused, request, entities)
    }

    /// What is refused by policies alone that ask for an approval waits, if nothing else stands against it.
    fn waiting(&self, slice: &Slice, refused: Outcome, request: &Request, entities: &Entities) -> Outcome {
        let Some(unheld) = &slice.unheld else { return Outcome { needs: None, ..refused } };
        let without = self.evaluate(unheld, request, entities);
        if !without.allowed {
            // Such as what nothing permits: nobody can approve that.
            return Outcome { needs: None, ..without };
        }
        let glass = slice.break_glass.as_ref().and_then(|permits| {
            let response = self.authorizer.is_authorized(request, permits, entities);
            let certain = response.diagnostics().errors().next().is_none();
            let id = response.diagnostics().reason().min().filter(|_| certain)?;
            self.told.get(id)?.break_glass.clone()
        });
        Outcome { break_glass: glass, ..refused }
    }

    fn evaluate(
        &self,
        policies: &cedar_policy::PolicySet,
        request: &Request,
        entities: &Entities,
    ) -> Outcome {
        let response = self.authorizer.is_authorized(request, policies, entities);
        let errors: Vec<String> = response.diagnostics().errors().map(ToString::to_string).collect();
        if !errors.is_empty() {
            // Cedar skips a policy that errs, so a `forbid` that errs would open a door.
            return refused_by_error(errors);
        }
        let allowed = response.decision() == Decision::Allow;
        let Some((policy, told)) =
            response.diagnostics().reason().min().and_then(|id| self.told.get_key_value(id))
        else {
            return Outcome {
                allowed: false,
                policy: DEFAULT_DENY.to_owned(),
                reason: "no policy permits this".to_owned(),
                hint: "add a permit for it to the policy folder, or ask whoever owns the policies".to_owned(),
                ..Outcome::default()
            };
        };
        let needs = if allowed { None } else { self.needs(response.diagnostics().reason()) };
        Outcome {
            allowed,
            needs,
            policy: policy.to_string(),
            reason: told.reason.clone(),
            hint: told.hint.clone(),
            ..Outcome::default()
        }
    }
}

impl PolicySet {
    /// What the policies that determine a refusal ask for; `None` where one of them asks for nothing.
    fn needs<'a>(&self, determining: impl Iterator<Item = &'a PolicyId>) -> Option<Needs> {
        let mut ids: Vec<&PolicyId> = determining.collect();
        ids.sort();
        let all: Option<Vec<Needs>> =
            ids.into_iter().map(|id| self.told.get(id).and_then(|told| told.needs.clone())).collect();
        all?.into_iter().reduce(Needs::and)
    }
}

fn refused_by_error(errors: Vec<String>) -> Outcome {
    Outcome {
        policy: "policy-error".to_owned(),
        reason: "a policy could not be evaluated, and what cannot be decided is refused".to_owned(),
        hint: "run `guard-agent policy check`, and look at `errors` in the record".to_owned(),
        errors,
        ..Outcome::default()
    }
}

#[cfg(test)]
mod tests;
