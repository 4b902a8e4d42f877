//! What statements are decided against, once for all sessions of a database: built anew for each it would be the largest
//! part of a quiet session.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use ahash::RandomState;
use guard_policy::Target;

use crate::servers::Server;

/// Targets that are kept; then it starts afresh. Clients name databases as they like.
const KEPT: usize = 1_024;

/// By environment, server, engine and database.
type Key = [String; 4];

/// The targets of sessions.
#[derive(Debug, Default)]
pub(super) struct Targets(Mutex<HashMap<Key, Target, RandomState>>);

impl Targets {
    /// `database` on `server`; an empty one is the server as a whole.
    pub(super) fn of(&self, server: &Server, database: &str) -> Target {
        let parts = [&server.environment, &server.name, server.engine.as_str(), database];
        let key = parts.map(str::to_owned);
        // A target that was half added is not there.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = kept.get(&key) {
            return target.clone();
        }
        let [environment, name, engine, database] = parts;
        let target = Target::new(environment, name, engine, database);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, target.clone());
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_database_has_its_own_and_they_are_bounded() {
        let targets = Targets::default();
        let one = Server { name: "one".to_owned(), ..Server::default() };
        let two = Server { environment: "test".to_owned(), ..one.clone() };
        let of = |server: &Server, database: &str| targets.of(server, database).id().to_owned();
        assert_eq!(of(&one, "shop"), of(&one, "shop"));
        assert_eq!(targets.0.lock().unwrap().len(), 1);
        assert_ne!(of(&one, "shop"), of(&one, ""));
        assert_ne!(of(&one, "shop"), of(&two, "shop"));
        for number in 0..3 * KEPT {
            of(&one, &number.to_string());
        }
        assert!(targets.0.lock().unwrap().len() <= KEPT);
    }
}
