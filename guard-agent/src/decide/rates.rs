//! How many statements and rows each principal had on each server in the last minute.
//!
//! Statements and rows enter as they happen; [`Rates`] leave for policies that read them. Counting takes no lock and
//! allocates nothing, and nothing is counted while no policy reads rates. A principal keeps its count when its sessions
//! end, for as long as it matters. What does not fit shares one count: it can only refuse too early.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use ahash::RandomState;
use guard_policy::{Principal, Rates};

/// Seconds that one slot of a window counts.
const SLOT_SECONDS: u64 = 5;

/// Slots that make the last minute: the one that runs and twelve whole ones, so never less than 60 seconds.
const SLOTS: usize = 13;

/// Bits of a slot's word that count; the others say which slot of time it is.
const COUNT_BITS: u32 = 40;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// Most principals that have a count of their own.
const MAX_PRINCIPALS: usize = 16_384;

/// Sliding sum over the last minute.
#[derive(Debug, Default)]
struct Window([AtomicU64; SLOTS]);

impl Window {
    fn slot(&self, number: u64) -> &AtomicU64 {
        // The remainder is below SLOTS.
        &self.0[usize::try_from(number % SLOTS as u64).unwrap_or_default()]
    }

    /// The part of a slot's number that its word keeps: enough for 2.6 years of slots.
    fn mark(number: u64) -> u64 {
        (number + 1) << COUNT_BITS
    }

    fn add(&self, second: u64, amount: u64) {
        let number = second / SLOT_SECONDS;
        let mark = Self::mark(number);
        let added = |word: u64| {
            let count = if word & !COUNT_MAX == mark { word & COUNT_MAX } else { 0 };
            Some(mark | count.saturating_add(amount).min(COUNT_MAX))
        };
        // It always gives a word, so it cannot fail.
        let _ = self.slot(number).fetch_update(Relaxed, Relaxed, added);
    }

    fn sum(&self, second: u64) -> u64 {
        let newest = second / SLOT_SECONDS;
        let oldest = newest.saturating_sub(SLOTS as u64 - 1);
        (oldest..=newest)
            .map(|number| {
                let word = self.slot(number).load(Relaxed);
                if word & !COUNT_MAX == Self::mark(number) { word & COUNT_MAX } else { 0 }
            })
            .sum()
    }
}

/// The counts of one principal on one server. A session holds it.
#[derive(Debug)]
pub struct Meter {
    clock: Arc<Clock>,
    statements: Window,
    rows: Window,
    /// Second in which it last counted or was handed out.
    touched: AtomicU64,
}

/// What all meters share.
#[derive(Debug)]
struct Clock {
    started: Instant,
    /// Whether a policy reads rates.
    wanted: AtomicBool,
}

impl Clock {
    fn second(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

impl Meter {
    fn new(clock: &Arc<Clock>) -> Self {
        let touched = AtomicU64::new(clock.second());
        Self { clock: Arc::clone(clock), statements: Window::default(), rows: Window::default(), touched }
    }

    /// The principal asks for a statement.
    pub fn statement(&self) {
        self.count(&self.statements, 1);
    }

    /// The principal was sent rows, or changed some.
    pub fn rows(&self, rows: u64) {
        if rows > 0 {
            self.count(&self.rows, rows);
        }
    }

    /// The same for a statement of long ago: `second` counts from any moment, and never goes back far.
    pub(crate) fn statement_at(&self, second: u64) {
        self.count_at(&self.statements, 1, second);
    }

    /// The same for rows of long ago.
    pub(crate) fn rows_at(&self, rows: u64, second: u64) {
        self.count_at(&self.rows, rows, second);
    }

    fn count(&self, window: &Window, amount: u64) {
        if self.clock.wanted.load(Relaxed) {
            self.count_at(window, amount, self.clock.second());
        }
    }

    fn count_at(&self, window: &Window, amount: u64, second: u64) {
        window.add(second, amount);
        self.touched.store(second, Relaxed);
    }

    /// The last minute.
    pub fn read(&self) -> Rates {
        self.read_at(self.clock.second())
    }

    /// The minute before `second`.
    pub(crate) fn read_at(&self, second: u64) -> Rates {
        Rates { statements: self.statements.sum(second), rows: self.rows.sum(second) }
    }

    fn is_idle(&self, second: u64) -> bool {
        second.saturating_sub(self.touched.load(Relaxed)) > SLOT_SECONDS * SLOTS as u64
    }
}

/// All meters.
#[derive(Debug)]
pub struct Meters {
    clock: Arc<Clock>,
    known: Mutex<Known>,
    /// Of those for whom there was no room.
    rest: Arc<Meter>,
    max: usize,
}

#[derive(Debug, Default)]
struct Known {
    meters: HashMap<([u8; 16], String), Arc<Meter>, RandomState>,
    /// Second in which room was last looked for: that takes a look at every meter.
    tidied: u64,
}

impl Known {
    fn make_room(&mut self, second: u64) {
        if second > self.tidied {
            self.tidied = second;
            self.meters.retain(|_, meter| Arc::strong_count(meter) > 1 || !meter.is_idle(second));
        }
    }
}

impl Default for Meters {
    fn default() -> Self {
        Self::new(MAX_PRINCIPALS)
    }
}

impl Meters {
    fn new(max: usize) -> Self {
        let clock = Arc::new(Clock { started: Instant::now(), wanted: AtomicBool::new(false) });
        let rest = Arc::new(Meter::new(&clock));
        Self { clock, known: Mutex::default(), rest, max }
    }

    /// Whether to count from now on.
    pub fn want(&self, wanted: bool) {
        self.clock.wanted.store(wanted, Relaxed);
    }

    /// The meter of `principal` on `server`: once per session, so this may take a lock.
    pub fn of(&self, principal: &Principal, server: &str) -> Arc<Meter> {
        self.of_at(principal, server, self.clock.second())
    }

    /// The same at a moment of long ago.
    pub(crate) fn of_at(&self, principal: &Principal, server: &str, second: u64) -> Arc<Meter> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (*principal.counted_as(), server.to_owned());
        if let Some(meter) = known.meters.get(&key) {
            meter.touched.store(second, Relaxed);
            return Arc::clone(meter);
        }
        if known.meters.len() >= self.max {
            known.make_room(second);
        }
        if known.meters.len() >= self.max {
            return Arc::clone(&self.rest);
        }
        let meter = Arc::new(Meter::new(&self.clock));
        meter.touched.store(second, Relaxed);
        known.meters.insert(key, Arc::clone(&meter));
        meter
    }
}

#[cfg(test)]
mod tests {
    use guard_common::audit::v1::Workload;

    use super::*;

    #[test]
    fn a_minute_slides() {
        let window = Window::default();
        window.add(3, 10);
        window.add(4, 1);
        window.add(50, 100);
        assert_eq!(window.sum(4), 11);
        assert_eq!(window.sum(60), 111);
        assert_eq!(window.sum(64), 111, "never less than the last minute");
        assert_eq!(window.sum(65), 100);
        assert_eq!(window.sum(109), 100);
        assert_eq!(window.sum(200), 0);
        // The slot of second 3 comes round again.
        window.add(65, 7);
        assert_eq!(window.sum(65), 107);
    }

    #[test]
    fn a_count_stops_at_its_end() {
        let window = Window::default();
        window.add(0, u64::MAX);
        window.add(0, 5);
        assert_eq!(window.sum(0), COUNT_MAX);
    }

    #[test]
    fn threads_lose_nothing() {
        let window = Window::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| window.add(7, 1)));
            }
        });
        assert_eq!(window.sum(7), 40_000);
    }

    fn principal(uid: u32) -> Principal {
        Principal::new(&Workload { uid, executable: "/bin/psql".to_owned(), ..Workload::default() })
    }

    #[test]
    fn sessions_of_one_principal_share_a_count_that_outlives_them() {
        let meters = Meters::new(8);
        let counted = |uid, server| meters.of(&principal(uid), server).read().statements;
        meters.of(&principal(1), "a").statement();
        assert_eq!(counted(1, "a"), 0, "counted although nobody reads it");
        meters.want(true);
        meters.of(&principal(1), "a").statement();
        meters.of(&principal(1), "a").statement();
        assert_eq!((counted(1, "a"), counted(1, "b"), counted(2, "a")), (2, 0, 0));
    }

    #[test]
    fn an_agents_children_are_counted_together() {
        let child = |executable: &str| {
            Principal::new(&Workload {
                executable: executable.to_owned(),
                ai_agent: "claude".to_owned(),
                ..Workload::default()
            })
        };
        assert_eq!(child("/usr/bin/psql").counted_as(), child("/tmp/copy").counted_as());
        assert_ne!(child("/usr/bin/psql").fingerprint(), child("/tmp/copy").fingerprint());
    }

    #[test]
    fn principals_are_bounded_and_idle_ones_make_room() {
        let meters = Meters::new(4);
        meters.want(true);
        let held = meters.of_at(&principal(0), "a", 0);
        (1..100).for_each(|uid| drop(meters.of_at(&principal(uid), "a", 0)));
        assert_eq!(meters.known.lock().unwrap().meters.len(), 4);
        assert!(Arc::ptr_eq(&meters.of_at(&principal(50), "a", 0), &meters.rest));
        let late = meters.of_at(&principal(50), "a", 1_000);
        assert!(!Arc::ptr_eq(&late, &meters.rest));
        assert!(Arc::ptr_eq(&meters.of_at(&principal(0), "a", 1_000), &held), "a count in use was dropped");
    }
}
