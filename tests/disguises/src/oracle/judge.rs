//! A reading and what truly changed enter, what the reading does not explain leaves.

use guard_policy::vocabulary::{Action, Effect};

use super::snapshot::{Change, How};
use crate::truth::is_opaque;

pub(super) const GONE: How = How::Gone;

/// What a reading leaves unexplained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Something changed that no effect speaks of.
    Unexplained(Change),
    /// A table lost every row, and the reading says that a WHERE selects them.
    EmptiedWithWhere(Change),
}

/// Compares. Empty: everything that changed was said.
///
/// A reading that says that unknown code runs, or that it could not read the text, explains everything.
pub fn judge(effects: &[Effect], changes: &[Change]) -> Vec<Finding> {
    if effects.iter().any(|effect| is_opaque(effect) || effect.action == Action::Unreadable) {
        return Vec::new();
    }
    changes.iter().filter_map(|change| finding(effects, change)).collect()
}

fn finding(effects: &[Effect], change: &Change) -> Option<Finding> {
    let mut explaining = effects.iter().filter(|effect| explains(effect, change)).peekable();
    if explaining.peek().is_none() {
        return Some(Finding::Unexplained(change.clone()));
    }
    let emptied = change.how == How::Emptied;
    let filtered = explaining.all(|effect| effect.action == Action::Delete && effect.has_where == Some(true));
    (emptied && filtered).then(|| Finding::EmptiedWithWhere(change.clone()))
}

fn explains(effect: &Effect, change: &Change) -> bool {
    use Action::{Alter, CopyIn, Create, Delete, Drop, Insert, Maintain, Merge, Role, Truncate, Update};
    let actions: &[Action] = match (change.kind.as_str(), change.how) {
        ("rows", How::Fewer | How::Emptied) => &[Delete, Truncate, Merge, Maintain],
        ("rows", How::More) => &[Insert, CopyIn, Merge, Maintain],
        ("rows", How::Changed) => &[Update, Merge, Alter, Drop, Maintain],
        ("rows", How::Gone | How::New) => &[Drop, Alter, Create, Maintain],
        ("table" | "view" | "materialized_view" | "index" | "schema" | "function", How::Gone) => {
            &[Drop, Alter]
        }
        ("table" | "view" | "materialized_view" | "index" | "schema" | "function", How::New) => {
            &[Create, Alter, Action::Load]
        }
        ("table", How::Changed) => &[Alter, Drop, Create, Role, Action::Grant],
        _ => return !is_harmless(effect.action),
    };
    actions.contains(&effect.action) && (names(effect, change) || spreads(effect.action))
}

/// DROP and ALTER reach what depends on their object, TRUNCATE what refers to it.
fn spreads(action: Action) -> bool {
    matches!(action, Action::Drop | Action::Alter | Action::Truncate | Action::Create | Action::Role)
}

/// In the scratch database: whose rows a change of the first one reaches.
const LEADS_TO: &[(&str, &str)] =
    &[("parent", "child"), ("base", "derived"), ("customer_names", "customers")];

fn names(effect: &Effect, change: &Change) -> bool {
    let bare = change.name.split_once('.').map_or(change.name.as_str(), |(_, name)| name);
    effect.object.name == "*"
        || effect.object.name == bare
        || effect.object.to_string() == change.name
        || LEADS_TO.iter().any(|(from, to)| effect.object.name == *from && *to == bare)
}

fn is_harmless(action: Action) -> bool {
    matches!(
        action,
        Action::Select
            | Action::Explain
            | Action::Show
            | Action::CopyOut
            | Action::Set
            | Action::Transaction
            | Action::Session
            | Action::Sleep
    )
}

#[cfg(test)]
mod tests {
    use guard_agent::sql::{Classifier, Limits, Modes};

    use super::*;

    fn findings(sql: &str, kind: &str, name: &str, how: How) -> Vec<Finding> {
        let statement = Classifier::new(Limits::default()).classify(sql.as_bytes(), &Modes::default());
        judge(&statement.effects, &[Change { kind: kind.into(), name: name.into(), how }])
    }

    #[test]
    fn what_the_reading_does_not_say_is_found() {
        assert!(findings("DROP TABLE a", "table", "public.a", How::Gone).is_empty());
        assert_eq!(findings("SELECT 1 FROM a", "table", "public.a", How::Gone).len(), 1);
        assert!(findings("DELETE FROM a", "rows", "public.a", How::Emptied).is_empty());
        assert_eq!(findings("DELETE FROM a", "rows", "public.b", How::Emptied).len(), 1);
        assert_eq!(findings("UPDATE a SET b = 1", "rows", "public.a", How::Fewer).len(), 1);
        assert!(matches!(
            findings("DELETE FROM a WHERE b = 1", "rows", "public.a", How::Emptied)[..],
            [Finding::EmptiedWithWhere(_)]
        ));
    }
}
