//! The reading of statements with the caps of production, and its cache.

use std::cell::RefCell;

use guard_agent::sql::{Classifier, Limits};
use guard_policy::vocabulary::{Action, Parse};

use crate::{guards, input::Input};

thread_local! {
    /// Remembers the inputs before: what it says must not depend on them.
    static VETERAN: RefCell<Classifier> = RefCell::new(Classifier::new(Limits::default()));
}

/// What holds: a reading depends on text and settings alone, and a statement that stands behind another one takes none of
/// its effects away.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let modes = guards::modes(input.byte().unwrap_or(0));
    let text = input.rest();
    let fresh = guards::read(text, &modes, Limits::default());
    guards::check(&fresh);
    let again = VETERAN.with_borrow_mut(|classifier| classifier.classify(text, &modes));
    assert_eq!(
        (&fresh.effects, &fresh.parts, &fresh.parse, &fresh.prepared, &fresh.fingerprint),
        (&again.effects, &again.parts, &again.parse, &again.prepared, &again.fingerprint),
        "two texts with one canonical spelling are read in two ways"
    );
    if fresh.parse != Parse::Full {
        return;
    }
    let both = guards::read(&[b"TRUNCATE t;\n", text].concat(), &modes, Limits::default());
    guards::check(&both);
    let truncates = both.effects.iter().any(|effect| effect.action == Action::Truncate);
    assert!(truncates || guards::is_unreadable(&both), "{both:?}");
    if both.parse == Parse::Full {
        for effect in &fresh.effects {
            // What touches nothing is a `select` on the session: said only where there is nothing else to say.
            let said = both.effects.contains(effect) || effect.action == Action::Select;
            assert!(said, "{effect:?} is lost behind another statement");
        }
    }
}

/// As for the guards.
pub fn seeds() -> Vec<Vec<u8>> {
    guards::seeds()
}
