//! The policies that can have a say in each action.
//!
//! A checked set enters; for each action the policies leave whose scope it matches. A policy whose action scope does not
//! match is false whatever else it says, so leaving it out changes no decision: a test compares both over generated sets.

use std::collections::HashMap;

use cedar_policy::{ActionConstraint, Effect, Policy, PolicyId, PolicySet, PolicySetError};

use crate::{
    columns::ColumnAction,
    rates::Reading,
    schema::{ACTIONS, AnyAction},
    vocabulary::Action,
};

/// What is asked about one action.
#[derive(Debug)]
pub(super) struct Slice {
    /// Every policy.
    pub(super) policies: PolicySet,
    /// Without those in `@mode("monitor")`; `None` where there are none of these.
    pub(super) enforced: Option<PolicySet>,
    /// One of them reads rates.
    pub(super) reads_rates: bool,
    /// Those that are enforced, without the forbids that ask for an approval; `None` where there are none of these.
    pub(super) unheld: Option<PolicySet>,
    /// Permits to go without an approval: no part of the other sets.
    pub(super) break_glass: Option<PolicySet>,
}

/// A slice for each action; actions that the same policies speak of share one.
#[derive(Debug)]
pub(super) struct Slices {
    slices: Vec<Slice>,
    /// In the order of [`Action::ALL`].
    of_action: Vec<usize>,
    /// In the order of [`ColumnAction::ALL`].
    of_column: Vec<Option<usize>>,
    /// What any policy reads of rates.
    pub(super) reading: Reading,
    /// Any policy reads whether a reason is given.
    pub(super) reads_reasons: bool,
    /// Any policy reads the hash of a program.
    pub(super) reads_hashes: bool,
}

impl Slices {
    pub(super) fn new(policies: &PolicySet) -> Result<Self, Box<PolicySetError>> {
        let mut all: Vec<(&Policy, Reading)> = policies
            .policies()
            // A policy without a JSON form could read anything.
            .map(|policy| {
                (policy, policy.to_json().map_or_else(|_| Reading::all(), |json| Reading::of(&json)))
            })
            .collect();
        all.sort_by(|(a, _), (b, _)| a.id().cmp(b.id()));
        let mut reading = Reading::default();
        all.iter().for_each(|(_, of_policy)| reading.merge(of_policy));
        // More than those that do, at worst: it is then looked for in vain.
        let says = |word: &str| all.iter().any(|(policy, _)| policy.to_string().contains(word));
        let (reads_reasons, reads_hashes) = (says("justified"), says("sha256"));
        let (mut slices, mut of_action) = (Vec::new(), Vec::new());
        let mut places: HashMap<Vec<&PolicyId>, usize> = HashMap::new();
        let statements = Action::ALL.iter().map(|action| AnyAction::Statement(*action));
        let columns = ColumnAction::ALL.iter().map(|action| AnyAction::Column(*action));
        for action in statements.chain(columns) {
            let chosen = all.iter().filter(|(policy, _)| matches(policy, action));
            let ids: Vec<&PolicyId> = chosen.clone().map(|(policy, _)| policy.id()).collect();
            let place = match places.get(&ids) {
                Some(place) => *place,
                None => {
                    slices.push(Slice::new(chosen)?);
                    places.insert(ids, slices.len() - 1);
                    slices.len() - 1
                }
            };
            of_action.push(place);
        }
        let named = |action: ColumnAction| all.iter().any(|(policy, _)| names(policy, action));
        let of_column = of_action.split_off(Action::ALL.len());
        let of_column =
            ColumnAction::ALL.iter().zip(of_column).map(|(action, at)| named(*action).then_some(at));
        let of_column = of_column.collect();
        Ok(Self { slices, of_action, of_column, reading, reads_reasons, reads_hashes })
    }

    pub(super) fn of(&self, action: Action) -> &Slice {
        &self.slices[self.of_action[action as usize]]
    }

    /// `None` where no policy names the action.
    pub(super) fn of_column(&self, action: ColumnAction) -> Option<&Slice> {
        self.of_column[action as usize].map(|at| &self.slices[at])
    }
}

impl Slice {
    fn new<'a>(chosen: impl Iterator<Item = &'a (&'a Policy, Reading)>) -> Result<Self, Box<PolicySetError>> {
        let [mut policies, mut enforced, mut unheld, mut break_glass] = [(); 4].map(|()| PolicySet::new());
        let (mut reads_rates, mut watching, mut holding) = (false, false, false);
        for (policy, reading) in chosen {
            reads_rates |= reading.any();
            if policy.annotation("break_glass").is_some() {
                break_glass.add((*policy).clone())?;
                continue;
            }
            policies.add((*policy).clone())?;
            if is_watching(policy) {
                watching = true;
                continue;
            }
            enforced.add((*policy).clone())?;
            if policy.annotation("approval").is_some() {
                holding = true;
            } else {
                unheld.add((*policy).clone())?;
            }
        }
        Ok(Self {
            policies,
            enforced: watching.then_some(enforced),
            reads_rates,
            unheld: holding.then_some(unheld),
            break_glass: (!break_glass.is_empty()).then_some(break_glass),
        })
    }
}

/// Whether `policy` is in `@mode("monitor")`.
pub(super) fn is_watching(policy: &Policy) -> bool {
    policy.annotation("mode") == Some("monitor")
}

/// Whether the scope of `policy` takes any action.
fn is_open(policy: &Policy) -> bool {
    policy.action_constraint() == ActionConstraint::Any
}

/// Whether the scope of `policy` takes `action`. To permit everything is not to say that anybody may see sensitive data
/// in clear: a permit of `reveal` names it.
fn matches(policy: &Policy, action: AnyAction) -> bool {
    match policy.action_constraint() {
        ActionConstraint::Any => {
            action != AnyAction::Column(ColumnAction::Reveal) || policy.effect() == Effect::Forbid
        }
        ActionConstraint::In(groups) => groups.iter().any(|group| ACTIONS.is_in(action, group)),
        ActionConstraint::Eq(one) => ACTIONS.is_in(action, &one),
    }
}

/// Whether `policy` names an action on columns.
pub(super) fn names(policy: &Policy, action: ColumnAction) -> bool {
    !is_open(policy) && matches(policy, AnyAction::Column(action))
}
