//! Statements whose repeats the kernel side counts in place of telling of each: which they are, and how often they have
//! run. Counts that only grow enter, what has come to them since leaves. A count is believed only where it stands for the
//! statement that was told of last in its place.

use std::sync::Arc;

use guard_common::{
    audit::v1 as record,
    kernel::statement::{RUNS, Run},
};

use super::backend::Utility;
use crate::{sensor::RunsSeen, sql::Statement};

/// A statement that may run again.
#[derive(Clone, Debug)]
pub struct Known {
    /// As it was read.
    pub statement: Arc<Statement>,
    /// It runs inside of another.
    pub nested: bool,
    /// The record of its first run.
    pub entry: Arc<record::Statement>,
}

/// One of a backend's counted statements.
#[derive(Debug)]
struct Place {
    identity: u64,
    /// Runs that were taken over.
    taken: u64,
    /// Nothing for what is a part of another statement.
    known: Option<Known>,
    utility: Option<Arc<Utility>>,
}

/// All of a backend's.
#[derive(Debug, Default)]
pub struct Runs {
    places: [Option<Place>; RUNS],
    /// The event that the kernel side had counted, and this side had not seen, when it was looked the last time.
    unseen: Option<u32>,
}

impl Runs {
    /// From now on `counted` (identity and place) stands for this statement.
    pub fn begin(&mut self, counted: (u64, usize), known: Option<Known>, utility: Option<Arc<Utility>>) {
        let (identity, place) = counted;
        if let Some(place) = self.places.get_mut(place) {
            *place = Some(Place { identity, taken: 0, known, utility });
        }
    }

    /// What has run again since the last time.
    pub fn again(&mut self, runs: &[Run; RUNS]) -> Vec<(Known, u64)> {
        let mut again = Vec::new();
        for (place, run) in self.places.iter_mut().zip(runs) {
            let Some(place) = place.as_mut().filter(|place| place.identity == run.identity) else { continue };
            let more = run.again.saturating_sub(place.taken);
            place.taken = place.taken.max(run.again);
            if let (true, Some(known)) = (more > 0, &place.known) {
                again.push((known.clone(), more));
            }
        }
        again
    }

    /// Whether what was looked up stands for what was told of: all events before it have been seen, the last of which was
    /// `sequence`. One that never comes was lost: it is waited for once.
    pub fn is_due(&mut self, seen: &RunsSeen, sequence: u32) -> bool {
        let waited = self.unseen.replace(seen.sequence) == Some(seen.sequence);
        waited || seen.sequence == sequence
    }

    /// The utility statement of that identity.
    pub fn utility(&self, identity: u64) -> Option<Arc<Utility>> {
        let place = self.places.iter().flatten().find(|place| place.identity == identity)?;
        place.utility.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Classifier, Limits, Modes};

    fn known(text: &str) -> Option<Known> {
        let statement = Classifier::new(Limits::default()).classify(text.as_bytes(), &Modes::default());
        Some(Known { statement, nested: false, entry: Arc::default() })
    }

    fn counts(counts: &[(usize, u64, u64)]) -> [Run; RUNS] {
        let mut runs = [Run::default(); RUNS];
        for (place, identity, again) in counts {
            runs[*place] = Run { identity: *identity, again: *again };
        }
        runs
    }

    fn sum(again: &[(Known, u64)]) -> u64 {
        again.iter().map(|(_, more)| more).sum()
    }

    #[test]
    fn each_run_is_taken_over_once() {
        let mut runs = Runs::default();
        runs.begin((7, 0), known("select 1"), None);
        runs.begin((9, 3), known("select 2"), None);
        assert_eq!(sum(&runs.again(&counts(&[(0, 7, 5), (3, 9, 1)]))), 6);
        assert_eq!(sum(&runs.again(&counts(&[(0, 7, 5), (3, 9, 1)]))), 0);
        assert_eq!(sum(&runs.again(&counts(&[(0, 7, 8), (3, 9, 1)]))), 3);
        // It made room for another and came back.
        runs.begin((7, 0), known("select 1"), None);
        assert_eq!(sum(&runs.again(&counts(&[(0, 7, 2)]))), 2);
    }

    #[test]
    fn a_count_of_another_statement_is_not_believed() {
        let mut runs = Runs::default();
        runs.begin((7, 0), known("select 1"), None);
        assert_eq!(sum(&runs.again(&counts(&[(0, 8, 100), (1, 7, 100)]))), 0);
        // Half written: the count of a statement that makes room goes first.
        assert_eq!(sum(&runs.again(&counts(&[(0, 7, 4)]))), 4);
        assert_eq!(sum(&runs.again(&counts(&[(0, 7, 0)]))), 0);
        assert_eq!(sum(&runs.again(&counts(&[(0, 7, 4)]))), 0);
    }

    #[test]
    fn parts_of_others_are_not_counted() {
        let mut runs = Runs::default();
        runs.begin((7, 0), None, None);
        runs.begin((8, RUNS), known("select 1"), None);
        assert!(runs.again(&counts(&[(0, 7, 5)])).is_empty());
    }

    #[test]
    fn what_was_looked_up_too_early_waits_for_the_next_look() {
        let seen = |sequence| RunsSeen { pid: 1, start_ns: 2, sequence, runs: counts(&[]) };
        let mut runs = Runs::default();
        assert!(runs.is_due(&seen(4), 4));
        assert!(!runs.is_due(&seen(6), 5), "an event is on its way");
        assert!(!runs.is_due(&seen(7), 6), "another one");
        assert!(runs.is_due(&seen(7), 6), "it was lost");
    }
}
