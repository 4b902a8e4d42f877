//! Two readings of one text enter, the more dangerous one leaves.
//!
//! An effect that either of them sees counts. Where they contradict each other the result says that it was not fully
//! understood. What the first could not read is the second's to tell, if that one is certain.

use guard_policy::vocabulary::{Action, Effect, ObjectKind, Parse};

use super::effects::Findings;
use super::postgres::Reading;

/// Puts the server's grammar's reading beside ours.
pub fn reconcile(ours: Findings, parts: u32, theirs: Reading) -> (Findings, u32) {
    match theirs {
        Reading::Read { mut findings, parts: counted, exact } if ours.parse == Parse::Tokens && exact => {
            // Only the first reading follows these.
            (findings.code, findings.changes) = (ours.code, ours.changes);
            (findings, counted)
        }
        Reading::Read { findings, parts: counted, .. } => union(ours, parts, findings, counted),
        Reading::Refused | Reading::Silent => (ours, parts),
    }
}

fn union(mut ours: Findings, parts: u32, theirs: Findings, counted: u32) -> (Findings, u32) {
    let missed: Vec<Effect> =
        theirs.effects().iter().filter(|effect| !covers(ours.effects(), effect)).cloned().collect();
    // Bodies of functions hold semicolons: to have seen more statements than there are is only caution.
    if !missed.is_empty() || counted > parts {
        ours.at_best(Parse::Tokens);
    }
    for effect in missed {
        ours.add_effect(effect);
    }
    (ours, parts.max(counted))
}

/// Whether `known` holds an effect at least as bad.
fn covers(known: &[Effect], effect: &Effect) -> bool {
    let somewhere = |effect: &Effect| effect.object.name == "*";
    known.iter().any(|known| {
        known.action == effect.action
            && (known.object == effect.object || somewhere(known) || somewhere(effect))
            && !(effect.has_where == Some(false) && known.has_where == Some(true))
    })
}

/// What is left of a text that the server's own grammar refuses: nothing in it runs. Words that would change something
/// still count: the server may be of another version than the grammar.
pub fn refused(ours: Findings) -> Findings {
    let mut left = Findings::default();
    left.at_best(Parse::Tokens);
    for effect in ours.into_effects() {
        if effect.action != Action::Unreadable {
            left.add_effect(effect);
        }
    }
    if left.added() == 0 {
        left.add_any(Action::Select, ObjectKind::Session);
    }
    left
}

#[cfg(test)]
mod tests {
    use guard_policy::vocabulary::Object;

    use super::*;

    fn found(effects: &[(Action, &str)]) -> Findings {
        let mut findings = Findings::default();
        for (action, name) in effects {
            findings.add(*action, Object::named(ObjectKind::Table, None, name));
        }
        findings
    }

    fn read(findings: Findings, exact: bool) -> Reading {
        Reading::Read { findings, parts: 1, exact }
    }

    #[test]
    fn what_either_sees_counts_and_a_contradiction_shows() {
        let (both, _) =
            reconcile(found(&[(Action::Select, "t")]), 1, read(found(&[(Action::Drop, "t")]), true));
        assert_eq!(both.parse, Parse::Tokens);
        let actions: Vec<Action> = both.into_effects().iter().map(|effect| effect.action).collect();
        assert_eq!(actions, [Action::Select, Action::Drop]);
    }

    #[test]
    fn agreement_is_full() {
        let (both, parts) =
            reconcile(found(&[(Action::Drop, "t")]), 1, read(found(&[(Action::Drop, "*")]), false));
        assert_eq!((both.parse, parts), (Parse::Full, 1));
        let two = Reading::Read { findings: found(&[(Action::Drop, "t")]), parts: 2, exact: true };
        let (both, parts) = reconcile(found(&[(Action::Drop, "t")]), 1, two);
        assert_eq!((both.parse, parts), (Parse::Tokens, 2), "a statement more is a contradiction too");
    }

    #[test]
    fn a_missing_where_beats_a_where() {
        let with = |has_where| {
            let mut findings = Findings::default();
            findings.add_filtered(Action::Delete, Object::named(ObjectKind::Table, None, "t"), has_where);
            findings
        };
        let (both, _) = reconcile(with(true), 1, read(with(false), true));
        assert!(both.effects().iter().any(|effect| effect.has_where == Some(false)));
        let (both, _) = reconcile(with(false), 1, read(with(true), true));
        assert_eq!(both.parse, Parse::Full);
    }

    #[test]
    fn tokens_give_way_to_a_certain_reading_alone() {
        let tokens = || {
            let mut findings = found(&[(Action::Select, "*")]);
            findings.at_best(Parse::Tokens);
            findings
        };
        let (certain, _) = reconcile(tokens(), 1, read(found(&[(Action::Select, "t")]), true));
        assert_eq!((certain.parse, certain.effects().len()), (Parse::Full, 1));
        assert_eq!(certain.effects()[0].object.name, "t");
        let (vague, _) = reconcile(tokens(), 1, read(found(&[(Action::Select, "t")]), false));
        assert_eq!(vague.effects()[0].object.name, "*");
    }
}
