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
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in"),
            Self::Folder(path) => path.display().fmt(f),
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
}

impl Told {
    fn of(policy: &Policy) -> Self {
        let text = |key| policy.annotation(key).unwrap_or_default().to_owned();
        // It was checked when it was loaded.
        let mask = policy.annotation("mask").and_then(|mask| mask.parse().ok());
        Self { reason: text("reason"), hint: text("hint"), mask }
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

    /// The same for rates that lead to the same decisions.
    pub fn rates_key(&self, rates: Rates) -> RatesKey {
        self.slices.reading.key(rates)
    }

    /// Decides whether `principal` may connect to the server of `target`.
    pub fn connect(&self, principal: &Principal, target: &Target, proxied: bool, transport: &str) -> Outcome {
        match ground::connect(principal, target, proxied, transport) {
            Ok((request, entities)) => self.answer(self.slices.of(Action::Connect), &request, &entities),
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
        match &slice.enforced {
            // Refused, and not by an error: would it be without the policies that only watch?
            Some(enforced) if !outcome.allowed && outcome.errors.is_empty() => {
                let enforced = self.evaluate(enforced, request, entities);
                if enforced.allowed {
                    Outcome { allowed: true, would_refuse: true, ..outcome }
                } else {
                    enforced
                }
            }
            _ => outcome,
        }
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
        Outcome {
            allowed,
            policy: policy.to_string(),
            reason: told.reason.clone(),
            hint: told.hint.clone(),
            ..Outcome::default()
        }
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
