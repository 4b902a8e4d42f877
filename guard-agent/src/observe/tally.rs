//! The same statement again and again becomes few records: the first run at once, those that follow within a second as
//! one that counts them. Nothing is left out of the count.

use std::{collections::HashMap, sync::Arc};

use ahash::RandomState;
use guard_common::audit::v1::Decision;

use crate::sql::Statement;

/// Statements that one backend's repeats are counted of; then all counts are recorded and it starts afresh.
const KEPT: usize = 512;

/// By the address of the statement, which is held, and whether it is nested.
type Key = (usize, bool);

/// Runs that are counted and not recorded yet.
#[derive(Debug, Default)]
pub struct Tally<E> {
    runs: HashMap<Key, Runs<E>, RandomState>,
}

#[derive(Debug)]
struct Runs<E> {
    /// Held so that its address stays its own.
    _statement: Arc<Statement>,
    decision: Arc<Decision>,
    /// Makes the record.
    entry: E,
    more: u64,
}

impl<E: Clone> Tally<E> {
    /// A run of `statement`; true where it is to be recorded now, false where it was counted.
    pub fn counts(&mut self, statement: &Arc<Statement>, decision: &Arc<Decision>, nested: bool) -> bool {
        let key = (Arc::as_ptr(statement).addr(), nested);
        match self.runs.get_mut(&key) {
            Some(runs) if same(&runs.decision, decision) => {
                runs.more += 1;
                false
            }
            _ => true,
        }
    }

    /// `entry` was recorded: what follows of the same is counted. Returns counts that have to be recorded for it.
    pub fn recorded(
        &mut self,
        statement: &Arc<Statement>,
        decision: &Arc<Decision>,
        nested: bool,
        entry: E,
    ) -> Vec<(E, u64)> {
        let flushed = if self.runs.len() >= KEPT { self.all() } else { Vec::new() };
        let key = (Arc::as_ptr(statement).addr(), nested);
        let runs = Runs { _statement: Arc::clone(statement), decision: Arc::clone(decision), entry, more: 0 };
        let before = self.runs.insert(key, runs).filter(|before| before.more > 0);
        flushed.into_iter().chain(before.map(|before| (before.entry, before.more))).collect()
    }

    /// A second is over: what was counted, and what did not come again is forgotten.
    pub fn due(&mut self) -> Vec<(E, u64)> {
        let mut due = Vec::new();
        self.runs.retain(|_, runs| {
            if runs.more == 0 {
                return false;
            }
            due.push((runs.entry.clone(), std::mem::take(&mut runs.more)));
            true
        });
        due
    }

    /// Everything that was counted; nothing is kept.
    pub fn all(&mut self) -> Vec<(E, u64)> {
        let runs = std::mem::take(&mut self.runs);
        runs.into_values().filter(|runs| runs.more > 0).map(|runs| (runs.entry, runs.more)).collect()
    }
}

/// Decided alike: when it was decided and how long that took does not matter.
fn same(one: &Arc<Decision>, other: &Arc<Decision>) -> bool {
    Arc::ptr_eq(one, other)
        || (one.verdict == other.verdict
            && one.policy == other.policy
            && one.policy_hash == other.policy_hash
            && one.subject == other.subject)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Classifier, Limits, Modes};

    fn read(text: &str) -> Arc<Statement> {
        Classifier::new(Limits::default()).classify(text.as_bytes(), &Modes::default())
    }

    fn decision(policy: &str) -> Arc<Decision> {
        Arc::new(Decision { policy: policy.to_owned(), ..Decision::default() })
    }

    #[test]
    fn every_run_is_recorded_or_counted() {
        let (statement, other) = (read("select 1"), read("delete from t"));
        let mut tally = Tally::default();
        let mut recorded = 0;
        for round in 0..1000 {
            let statement = if round % 3 == 0 { &other } else { &statement };
            let decision = decision(if round < 500 { "a" } else { "b" });
            if tally.counts(statement, &decision, round % 7 == 0) {
                recorded += 1;
                let flushed = tally.recorded(statement, &decision, round % 7 == 0, ());
                recorded += flushed.iter().map(|(_, more)| more).sum::<u64>();
            }
            if round % 100 == 0 {
                recorded += tally.due().iter().map(|(_, more)| more).sum::<u64>();
            }
        }
        recorded += tally.all().iter().map(|(_, more)| more).sum::<u64>();
        assert_eq!(recorded, 1000);
    }

    #[test]
    fn what_does_not_come_again_is_forgotten_and_the_rest_is_bounded() {
        let mut tally = Tally::default();
        let statements: Vec<_> = (0..3 * KEPT).map(|number| read(&format!("select a{number}"))).collect();
        for statement in &statements {
            assert!(tally.counts(statement, &decision("a"), false));
            tally.recorded(statement, &decision("a"), false, ());
            assert!(tally.runs.len() <= KEPT);
        }
        assert!(tally.due().is_empty());
        assert!(tally.runs.is_empty());
    }
}
