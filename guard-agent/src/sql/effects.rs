//! What a reader of statements finds enters piece by piece, sorted effects and the worst degree of understanding leave.
//!
//! Never forgets an effect; dialects share it.

use guard_policy::vocabulary::{Action, Effect, Object, ObjectKind, Parse};

use super::{Change, Prepared};

/// What has been found so far.
#[derive(Debug)]
pub struct Findings {
    effects: Vec<Effect>,
    added: usize,
    /// The worst so far.
    pub parse: Parse,
    /// SQL-level handling of prepared statements, in order.
    pub prepared: Vec<Prepared>,
    /// Texts that the statement hands to functions which run them.
    pub code: Vec<String>,
    /// Changes of the session, in order.
    pub changes: Vec<Change>,
}

impl Default for Findings {
    fn default() -> Self {
        Self {
            effects: Vec::new(),
            added: 0,
            parse: Parse::Full,
            prepared: Vec::new(),
            code: Vec::new(),
            changes: Vec::new(),
        }
    }
}

impl Findings {
    /// An effect on an object.
    pub fn add(&mut self, action: Action, object: Object) {
        self.push(Effect::new(action, object));
    }

    /// An effect that another reading found.
    pub fn add_effect(&mut self, effect: Effect) {
        self.push(effect);
    }

    /// An effect on some object of `kind`.
    pub fn add_any(&mut self, action: Action, kind: ObjectKind) {
        self.add(action, Object::any(kind));
    }

    /// An update or delete.
    pub fn add_filtered(&mut self, action: Action, object: Object, has_where: bool) {
        self.push(Effect { action, object, has_where: Some(has_where) });
    }

    fn push(&mut self, effect: Effect) {
        self.added += 1;
        // Long statements repeat the same effect: most repeats are neighbours.
        if self.effects.last() != Some(&effect) {
            self.effects.push(effect);
        }
    }

    /// Notes that a part was understood no better than this.
    pub fn at_best(&mut self, parse: Parse) {
        self.parse = self.parse.max(parse);
    }

    /// How often an effect was added: to tell whether a part added any.
    pub fn added(&self) -> usize {
        self.added
    }

    /// The effects so far, unsorted.
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// Adds all of another reading's findings.
    pub fn merge(&mut self, other: Self) {
        self.at_best(other.parse);
        self.prepared.extend(other.prepared);
        self.code.extend(other.code);
        self.changes.extend(other.changes);
        self.added += other.added;
        self.effects.extend(other.effects);
    }

    /// Sorted, without repeats.
    pub fn into_effects(self) -> Vec<Effect> {
        let mut effects = self.effects;
        effects.sort_unstable();
        effects.dedup();
        effects
    }
}
