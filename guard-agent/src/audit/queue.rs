//! The bounded queue between those who record and the journal's writer.
//!
//! What happened enters from any thread, in the order of the calls; batches leave to one writer. Recording never
//! waits for the disk; what does not fit is counted, never dropped in silence.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use guard_common::audit::v1::record::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    AuditError,
    statement::{OutcomeBatch, SessionStamp, StatementEntry},
};

/// How long the writer lets records gather that nobody waits for: it bounds wake-ups to twenty per second. Each of them
/// takes a core from whoever runs, and so adds to the latency of every statement that is under way.
const GATHER: Duration = Duration::from_millis(50);
/// Bytes that may wait, by the estimates of those who record.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What is to be recorded.
pub enum Content {
    /// As it will stand in the record.
    Body(Box<Body>),
    /// A statement, encoded by the writer.
    Statement(StatementEntry),
    /// How statements of a session ended.
    Outcomes(Arc<SessionStamp>, OutcomeBatch),
    /// Made by the writer.
    #[cfg(test)]
    Deferred(Box<dyn FnOnce() -> Body + Send>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content")
    }
}

/// Someone who goes on only when the record is durable.
#[derive(Debug)]
pub struct Waiter {
    pub(super) done: oneshot::Sender<Result<(), AuditError>>,
    /// Given back when the answer is given: bounds how many wait.
    pub(super) slot: OwnedSemaphorePermit,
}

/// One record on its way to the writer.
#[derive(Debug)]
pub struct Item {
    /// When it happened.
    pub at: SystemTime,
    /// What happened.
    pub content: Content,
    /// Who waits for it.
    pub waiter: Option<Waiter>,
}

/// Records that are not in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// How many.
    pub lost: u64,
    /// When the first of them happened.
    pub since: SystemTime,
    /// When the last of them happened.
    pub until: SystemTime,
}

impl Loss {
    /// Adds `lost` records that happened around `at` to `loss`.
    pub fn add(loss: &mut Option<Self>, lost: u64, at: SystemTime) {
        match loss {
            Some(loss) => {
                loss.lost += lost;
                loss.since = loss.since.min(at);
                loss.until = loss.until.max(at);
            }
            None if lost == 0 => {}
            None => *loss = Some(Self { lost, since: at, until: at }),
        }
    }

    /// Adds another loss to `loss`.
    pub fn merge(loss: &mut Option<Self>, other: Option<Self>) {
        if let Some(other) = other {
            Self::add(loss, other.lost, other.since);
            Self::add(loss, 0, other.until);
        }
    }
}

/// What the writer took.
#[derive(Debug, Default)]
pub struct Taken {
    /// In the order of the calls.
    pub items: Vec<Item>,
    /// What did not fit meanwhile.
    pub loss: Option<Loss>,
    /// Nothing will come any more.
    pub closed: bool,
}

#[derive(Debug, Default)]
struct State {
    items: Vec<Item>,
    bytes: usize,
    loss: Option<Loss>,
    /// Someone waits, or much has gathered: the writer should come at once.
    urgent: bool,
    /// The writer sleeps until it is woken.
    idle: bool,
    closed: bool,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    capacity: usize,
    slots: Arc<Semaphore>,
}

impl Queue {
    /// A queue for `capacity` records that nobody waits for, and as many that someone waits for.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            capacity,
            slots: Arc::new(Semaphore::new(capacity)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record that nobody waits for. False: it did not fit, or came after the end, and was counted.
    pub fn push(&self, content: Content, bytes: usize) -> bool {
        let at = SystemTime::now();
        let mut state = self.lock();
        let full = state.items.len() >= self.capacity || state.bytes.saturating_add(bytes) > MAX_BYTES;
        if state.closed || full {
            Loss::add(&mut state.loss, 1, at);
            return false;
        }
        state.bytes += bytes;
        state.items.push(Item { at, content, waiter: None });
        let crowded = state.items.len() >= (self.capacity / 4).max(1) || state.bytes >= MAX_BYTES / 4;
        if state.idle || (crowded && !state.urgent) {
            state.idle = false;
            state.urgent |= crowded;
            drop(state);
            self.wake.notify_one();
        }
        true
    }

    /// Takes a record whose caller waits for the answer, and a place where that answer will be.
    pub async fn push_durable(
        &self,
        content: Content,
        bytes: usize,
    ) -> Result<oneshot::Receiver<Result<(), AuditError>>, AuditError> {
        let at = SystemTime::now();
        let slot = self.slots.clone().acquire_owned().await.map_err(|_| AuditError::Closed)?;
        let (done, answer) = oneshot::channel();
        let mut state = self.lock();
        if state.closed {
            return Err(AuditError::Closed);
        }
        state.bytes += bytes;
        state.items.push(Item { at, content, waiter: Some(Waiter { done, slot }) });
        state.urgent = true;
        state.idle = false;
        drop(state);
        self.wake.notify_one();
        Ok(answer)
    }

    /// Waits for records, at most until `deadline`, and takes what has gathered.
    pub fn take(&self, deadline: Option<Instant>) -> Taken {
        let mut state = self.lock();
        let mut gathered = None;
        while !state.closed && !state.urgent {
            let until = match (state.items.is_empty() && state.loss.is_none(), deadline) {
                (true, None) => None,
                (true, Some(deadline)) => Some(deadline),
                (false, deadline) => {
                    let gathered = *gathered.get_or_insert_with(|| Instant::now() + GATHER);
                    Some(deadline.map_or(gathered, |deadline| deadline.min(gathered)))
                }
            };
            let Some(until) = until else {
                state.idle = true;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // With an empty queue a record must be able to start the gathering.
            state.idle = state.items.is_empty();
            state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.urgent = false;
        state.idle = false;
        state.bytes = 0;
        Taken { items: std::mem::take(&mut state.items), loss: state.loss.take(), closed: state.closed }
    }

    /// Takes nothing more; the writer is given what is there, and then the end.
    pub fn close(&self) {
        self.lock().closed = true;
        self.slots.close();
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use guard_common::audit::v1::AgentStopped;

    use super::*;

    fn content(reason: &str) -> Content {
        Content::Body(Box::new(Body::AgentStopped(AgentStopped { reason: reason.to_owned() })))
    }

    #[test]
    fn what_does_not_fit_is_counted_once() {
        let queue = Queue::new(2);
        assert!(queue.push(content("1"), 1));
        assert!(queue.push(content("2"), 1));
        assert!(!queue.push(content("3"), 1));
        assert!(!queue.push(content("4"), 1));
        let taken = queue.take(None);
        assert_eq!(taken.items.len(), 2);
        assert_eq!(taken.loss.map(|loss| loss.lost), Some(2));
        assert!(queue.push(content("5"), 1));
        assert_eq!(queue.take(None).loss, None);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let queue = Queue::new(100);
        assert!(queue.push(content("1"), MAX_BYTES));
        assert!(!queue.push(content("2"), 1));
        assert_eq!(queue.take(None).items.len(), 1);
        assert!(queue.push(content("3"), 1));
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let queue = Queue::new(1);
        let taken = queue.take(Some(Instant::now() + Duration::from_millis(5)));
        assert!(taken.items.is_empty() && !taken.closed);
        queue.close();
        assert!(queue.take(None).closed);
        assert!(!queue.push(content("late"), 1));
    }
}
