//! What waits for a moment before it leaves the sensor: events whose workload is not complete yet. Pure: it is told the
//! time.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::event::SensorEvent;
use crate::identity::Identifier;

/// How long an event or an answer waits for the hash of a program file.
pub const PENDING_FOR: Duration = Duration::from_millis(100);
/// Events that wait for it.
const OUTBOX_LIMIT: usize = 4_096;

/// Events on their way out. One that waits for something about its workload holds back those behind it, for a moment.
#[derive(Debug, Default)]
pub struct Outbox {
    events: VecDeque<(Instant, SensorEvent)>,
}

impl Outbox {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Behind all that waits.
    pub fn push(&mut self, event: SensorEvent, now: Instant) {
        self.events.push_back((now + PENDING_FOR, event));
    }

    /// The next one that may go out.
    pub fn next(&mut self, now: Instant, identifier: &mut Identifier) -> Option<SensorEvent> {
        let crowded = self.events.len() > OUTBOX_LIMIT;
        let (deadline, event) = self.events.front_mut()?;
        let ready = match event {
            SensorEvent::Accepted(accepted) => identifier.settle(&mut accepted.workload),
            SensorEvent::Refused(refused) => identifier.settle(&mut refused.workload),
            SensorEvent::Connected(connected) => identifier.settle(&mut connected.workload),
            SensorEvent::Closed(_) | SensorEvent::Lost(_) | SensorEvent::State(_) => true,
        };
        if !ready && !crowded && now < *deadline {
            return None;
        }
        self.events.pop_front().map(|(_, event)| event)
    }
}
