//! Decisions on columns: how they are seen, and whether a statement may depend on what is not seen.
//!
//! A forbid counts before any permit; among several forbids the one that shows least names the rule, among several
//! permits the one that shows most. Where nothing permits, or a policy errs, the column is masked by the default rule.

use cedar_policy::{Decision, Entities, Policy, PolicyId, Request, ResourceConstraint};

use super::{Outcome, PolicySet, Slice};
use crate::{
    columns::{Column, ColumnAction, Mask, Sight, Use},
    ground::Ground,
};

/// The policy that is named when nothing permits.
pub(crate) const NOT_REVEALED: &str = "not-revealed";

impl PolicySet {
    /// True where some policy could reveal something: without one nobody needs to ask for what.
    pub fn reveals(&self) -> bool {
        self.slices.of_column(ColumnAction::Reveal).is_some_and(|slice| {
            slice.policies.policies().any(|policy| policy.effect() == cedar_policy::Effect::Permit)
        })
    }

    /// True where what a policy reveals may depend on where a column stands or what it is called, and not on the kind
    /// of its data alone.
    pub fn reveals_by_place(&self) -> bool {
        let Some(slice) = self.slices.of_column(ColumnAction::Reveal) else { return false };
        slice.policies.policies().any(reads_place)
    }

    /// True where a policy names `infer`: without one nobody needs to ask.
    pub fn decides_inference(&self) -> bool {
        self.slices.of_column(ColumnAction::Infer).is_some()
    }

    /// How the principal of `ground` sees `column`; `default` is the rule where policies name none.
    pub fn reveal(&self, ground: &mut Ground, column: &Column, default: &Mask) -> Sight {
        let Some(slice) = self.slices.of_column(ColumnAction::Reveal) else {
            return nothing_permits(default);
        };
        match ground.column_request(ColumnAction::Reveal, column, None) {
            Ok((request, entities)) => self.sight(slice, &request, &entities, default),
            Err(error) => by_error(vec![error], default),
        }
    }

    /// Whether a statement may use `column`, which the principal does not see in clear. Allowed where no policy names
    /// `infer`: who wrote policies before there was masking did not mean to forbid it.
    pub fn infer(&self, ground: &mut Ground, column: &Column, used: &Use) -> Outcome {
        let Some(slice) = self.slices.of_column(ColumnAction::Infer) else {
            return Outcome { allowed: true, policy: "nothing-to-decide".to_owned(), ..Outcome::default() };
        };
        match ground.column_request(ColumnAction::Infer, column, Some(used)) {
            Ok((request, entities)) => self.answer(slice, &request, &entities),
            Err(error) => super::refused_by_error(vec![error]),
        }
    }

    fn sight(&self, slice: &Slice, request: &Request, entities: &Entities, default: &Mask) -> Sight {
        // Policies that only watch hide nothing.
        let policies = slice.enforced.as_ref().unwrap_or(&slice.policies);
        let response = self.authorizer.is_authorized(request, policies, entities);
        let errors: Vec<String> = response.diagnostics().errors().map(ToString::to_string).collect();
        if !errors.is_empty() {
            return by_error(errors, default);
        }
        let mut ids: Vec<&PolicyId> = response.diagnostics().reason().collect();
        ids.sort();
        let told = ids.into_iter().filter_map(|id| self.told.get_key_value(id));
        let permitted = response.decision() == Decision::Allow;
        let chosen = if permitted {
            // The first of those that show most: `max_by_key` would take the last.
            told.min_by_key(|(_, told)| u8::MAX - told.mask.as_ref().map_or(u8::MAX, Mask::shows))
        } else {
            told.min_by_key(|(_, told)| told.mask.as_ref().unwrap_or(default).shows())
        };
        let Some((id, told)) = chosen else {
            return nothing_permits(default);
        };
        let mask = if permitted {
            told.mask.clone()
        } else {
            Some(told.mask.clone().unwrap_or_else(|| default.clone()))
        };
        Sight { mask, policy: id.to_string(), reason: told.reason.clone(), errors: Vec::new() }
    }
}

/// Whether `policy` reads where a column stands. A policy without a JSON form could read anything, and what has an
/// attribute of the same name elsewhere is taken for it.
fn reads_place(policy: &Policy) -> bool {
    let Ok(json) = policy.to_json() else { return true };
    let json = json.to_string();
    policy.resource_constraint() != ResourceConstraint::Any
        || ["name", "table", "schema"]
            .iter()
            .any(|attribute| json.contains(&format!("\"attr\":\"{attribute}\"")))
        || json.contains("\"Slot\"")
        || reads_resource_itself(&json)
}

/// Whether a condition compares the resource as a whole: `resource in ..`, `resource == ..`, `resource is ..`.
fn reads_resource_itself(json: &str) -> bool {
    let variable = "{\"Var\":\"resource\"}";
    json.match_indices(variable).any(|(at, _)| !json[..at].ends_with("{\".\":{\"left\":"))
}

fn nothing_permits(default: &Mask) -> Sight {
    Sight {
        mask: Some(default.clone()),
        policy: NOT_REVEALED.to_owned(),
        reason: "no policy permits to reveal it".to_owned(),
        errors: Vec::new(),
    }
}

fn by_error(errors: Vec<String>, default: &Mask) -> Sight {
    Sight {
        mask: Some(default.clone()),
        policy: "policy-error".to_owned(),
        reason: "a policy could not be evaluated, and what cannot be decided is masked".to_owned(),
        errors,
    }
}
