//! Agents that are refused come again every half minute, for as long as nobody looks after them. What is refused enters; what
//! goes on record leaves: the first of its kind at once, and after that once an hour, with how often it was.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use guard_common::audit::v1::ControlEvent;

/// How long the same is only counted.
const QUIET: Duration = Duration::from_secs(3_600);
/// Agents of which it is remembered. Beyond these all is recorded: whoever is one has a certificate, or is on this host.
const MOST: usize = 20_000;

/// What was refused, and how often since it was recorded.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<HashMap<(String, String), Counted>>>);

#[derive(Debug)]
struct Counted {
    told: Instant,
    /// As it came last, with the count.
    event: ControlEvent,
}

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody was refused: the event, where it is to be recorded now.
    pub fn refused(&self, event: ControlEvent, now: Instant) -> Option<ControlEvent> {
        let mut all = self.lock();
        let key = (event.event.clone(), event.agent_id.clone());
        if let Some(known) = all.get_mut(&key) {
            let count = known.event.count + 1;
            known.event = ControlEvent { count, ..event };
            return None;
        }
        if all.len() < MOST {
            all.insert(key, Counted { told: now, event: ControlEvent { count: 0, ..event.clone() } });
        }
        Some(event)
    }

    /// What has been counted for an hour and is to be recorded now; what has not come again is forgotten.
    pub fn due(&self, now: Instant) -> Vec<ControlEvent> {
        self.take(|told| now.duration_since(told) >= QUIET, now)
    }

    /// All that was counted, at the end.
    pub fn rest(&self) -> Vec<ControlEvent> {
        self.take(|_| true, Instant::now())
    }

    fn take(&self, is_due: impl Fn(Instant) -> bool, now: Instant) -> Vec<ControlEvent> {
        let mut events = Vec::new();
        self.lock().retain(|_, one| {
            if !is_due(one.told) {
                return true;
            }
            let again = one.event.count > 0;
            if again {
                events.push(one.event.clone());
                (one.told, one.event.count) = (now, 0);
            }
            again
        });
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_goes_on_record_once_an_hour_with_its_count() {
        let refusals = Refusals::default();
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let event = |agent: &str| ControlEvent {
            event: "revoked-connects".to_owned(),
            agent_id: agent.to_owned(),
            ..ControlEvent::default()
        };
        let mut recorded = Vec::new();
        // Three hours, every half minute.
        for second in (0..3 * 3_600).step_by(30) {
            recorded.extend(refusals.refused(event("a"), at(second)));
            recorded.extend(refusals.due(at(second)));
        }
        let counts: Vec<u64> = recorded.iter().map(|event| event.count).collect();
        assert_eq!(counts, [0, 120, 120]);
        assert_eq!(refusals.refused(event("b"), at(10_800)).unwrap().count, 0, "another agent's is its own");
        assert_eq!(refusals.rest().iter().map(|event| event.count).sum::<u64>(), 119);
        // Whoever has stayed away for an hour is told at once when they come again.
        assert!(refusals.due(at(20_000)).is_empty());
        assert!(refusals.refused(event("b"), at(20_001)).is_some());
    }
}
