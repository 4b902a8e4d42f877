//! What others may know of the hold: which servers it holds right now, and why not the others.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

/// The servers that are to be held. Whoever only sees what comes later leaves to the hold what it does not let run.
#[derive(Clone, Debug, Default)]
pub struct HeldServers(Arc<RwLock<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    /// Names by postmasters.
    held: HashMap<u32, String>,
    /// Why others are not, by their names.
    errors: HashMap<String, String>,
}

impl HeldServers {
    /// Whether the statements of the server with this first process are held.
    pub fn contains(&self, postmaster: u32) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).held.contains_key(&postmaster)
    }

    /// `held`, or why the statements of the server of that name are not; empty where that is not wanted.
    pub fn of(&self, server: &str) -> String {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if shown.held.values().any(|name| name == server) {
            return "held".to_owned();
        }
        shown.errors.get(server).cloned().unwrap_or_default()
    }

    pub(super) fn set(&self, held: impl Iterator<Item = (u32, String)>, errors: &HashMap<String, String>) {
        let mut shown = self.0.write().unwrap_or_else(PoisonError::into_inner);
        shown.held = held.collect();
        shown.errors.clone_from(errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_are_held_and_why_others_are_not() {
        let shown = HeldServers::default();
        let errors = HashMap::from([("stock".to_owned(), "its process is not known".to_owned())]);
        shown.set([(7, "orders".to_owned())].into_iter(), &errors);
        assert!(shown.contains(7) && !shown.contains(8));
        assert_eq!(shown.of("orders"), "held");
        assert_eq!(shown.of("stock"), "its process is not known");
        assert_eq!(shown.of("other"), "");
    }
}
