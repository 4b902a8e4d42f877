//! The thread that takes what the probes report: joins it to its connection, reads it, decides, records.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use ahash::RandomState;
use guard_common::audit::v1::{self as record, Decision, decision::Verdict, record::Body};
use guard_policy::vocabulary::{Action, Effect, Object, ObjectKind, Parse};

use super::{
    Rooms, Shared,
    backend::{Backend, Waiting, is_transaction_control},
    record::statement as statement_record,
    runs::Known,
    text::{Source, is_replication_command, modes},
};
use crate::{
    decide::DecisionCache,
    sensor::{BackendSeen, Level, RunsSeen, Seen, StatementReader, StatementSeen},
    session::{caps, function_call, replication_statement},
    sql::{Classifier, Room, Statement, Touched},
};

/// How long it sleeps at most.
const TICK: Duration = Duration::from_millis(250);
/// How long repeats are counted before they are recorded.
const WINDOW: Duration = Duration::from_secs(1);
/// Backends that are known.
const BACKENDS: usize = 20_000;
/// Bytes of what statements were sent with that may be held at once.
const TEXTS: usize = 64 * 1024 * 1024;
/// A backend that has been silent for this long may have ended.
const SILENT: Duration = Duration::from_secs(30);

/// With the time of its start, a process id is one process's for good.
type Key = (u32, u64);

/// The thread's own.
pub struct Worker {
    reader: StatementReader,
    shared: Arc<Shared>,
    rooms: Rooms,
    classifier: Classifier,
    decisions: DecisionCache,
    replication: Arc<Statement>,
    /// For what statements were sent with.
    room: Room,
    backends: HashMap<Key, Backend, RandomState>,
    /// By server, since the last turn: statements, refused ones, lost ones.
    counts: HashMap<String, [u64; 3]>,
    /// Policy reads how many statements there are: each is told of by itself.
    each: bool,
}

impl Worker {
    pub(super) fn new(reader: StatementReader, shared: Arc<Shared>, rooms: Rooms) -> Self {
        Self {
            reader,
            shared,
            classifier: Classifier::new(caps(&rooms.limits)),
            decisions: DecisionCache::new(Arc::clone(&rooms.decider)),
            replication: Arc::new(replication_statement()),
            room: Room::new(TEXTS),
            rooms,
            backends: HashMap::default(),
            counts: HashMap::new(),
            each: false,
        }
    }

    /// Works until the agent stops.
    pub(super) fn run(mut self) {
        let mut seen = Vec::new();
        let mut window = Instant::now();
        while !self.shared.ended.load(Ordering::Acquire) {
            if self.shared.changed.swap(false, Ordering::AcqRel) {
                self.reader.look_again();
            }
            let each = self.decisions.reads_rates();
            if each != self.each {
                self.each = each;
                self.reader.tell_each(each);
            }
            self.reader.wait(TICK);
            while self.reader.read(&mut seen) {
                seen.drain(..).for_each(|one| self.take(one));
            }
            self.join_waiting();
            if window.elapsed() >= WINDOW {
                window = Instant::now();
                self.look_up_runs();
                self.record_repeats();
            }
            self.tell();
        }
        while self.reader.read(&mut seen) {
            seen.drain(..).for_each(|one| self.take(one));
        }
        self.look_up_runs();
        let keys: Vec<Key> = self.backends.keys().copied().collect();
        keys.into_iter().for_each(|key| self.forget(key));
        self.tell();
    }

    fn take(&mut self, seen: Seen) {
        match seen {
            Seen::Backend(seen) => self.backend(seen),
            Seen::Statement(seen) => self.statement(seen),
            Seen::Runs(seen) => self.runs(seen),
        }
    }

    fn backend(&mut self, seen: BackendSeen) {
        let key = (seen.pid, seen.start_ns);
        match self.backends.get_mut(&key) {
            Some(backend) => {
                // What waits was sent before the change.
                if !backend.waiting.is_empty() {
                    self.release(key);
                }
                if let Some(backend) = self.backends.get_mut(&key) {
                    backend.told(seen);
                }
            }
            None => {
                if self.backends.len() >= BACKENDS {
                    self.tidy(Duration::ZERO);
                }
                let server = self.shared.state().servers.get(&seen.server_pid).cloned();
                self.backends.insert(key, Backend::new(seen, server, &self.rooms.decider));
                self.join(key);
            }
        }
    }

    fn statement(&mut self, seen: StatementSeen) {
        let key = (seen.pid, seen.start_ns);
        let Some(backend) = self.backends.get_mut(&key) else {
            // Its introduction was lost: the next one comes with its next statement.
            let counted = self.reader.introduce_again(seen.pid, seen.start_ns);
            self.counts.entry(String::new()).or_default()[2] += 1 + counted;
            return;
        };
        backend.last = Instant::now();
        if backend.is_ready() && backend.waiting.is_empty() {
            self.decide(key, seen);
        } else {
            backend.waiting.push_back(Waiting::Statement(seen));
            self.join(key);
        }
    }

    /// Statements that were told of before have run again.
    fn runs(&mut self, seen: RunsSeen) {
        let key = (seen.pid, seen.start_ns);
        let Some(backend) = self.backends.get_mut(&key) else { return };
        backend.last = Instant::now();
        if backend.waiting.is_empty() {
            self.decide_again(key, &seen);
        } else {
            backend.waiting.push_back(Waiting::Runs(seen));
        }
    }

    /// Takes over what the kernel side has counted.
    fn look_up_runs(&mut self) {
        let keys: Vec<Key> = self.backends.keys().copied().collect();
        for key in keys {
            let Some(seen) = self.reader.runs(key.0, key.1) else { continue };
            let due = self.backends.get_mut(&key).is_some_and(|backend| {
                let sequence = backend.sequence();
                backend.waiting.is_empty() && backend.runs.is_due(&seen, sequence)
            });
            if due {
                self.decide_again(key, &seen);
            }
        }
    }

    /// Looks for the connection of a backend, and goes on with what waits for it.
    fn join(&mut self, key: Key) {
        let Some(backend) = self.backends.get_mut(&key) else { return };
        if backend.is_alone() {
            let (cookie, inode) = (backend.seen().cookie, backend.seen().inode);
            if let Some(joined) = self.rooms.connections.joined(cookie, inode) {
                backend.join(joined, &self.rooms.decider);
                if backend.is_proxied() {
                    self.reader.only_nested(key.0, key.1);
                }
            }
        }
        if backend.is_ready() && !backend.waiting.is_empty() {
            self.release(key);
        }
    }

    fn join_waiting(&mut self) {
        let waiting = self.backends.iter().filter(|(_, backend)| !backend.waiting.is_empty());
        let keys: Vec<Key> = waiting.map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.join(key));
    }

    fn release(&mut self, key: Key) {
        let Some(backend) = self.backends.get_mut(&key) else { return };
        let waiting = std::mem::take(&mut backend.waiting);
        for one in waiting {
            match one {
                Waiting::Statement(seen) => self.decide(key, seen),
                Waiting::Runs(seen) => self.decide_again(key, &seen),
            }
        }
    }

    /// Reads a statement, decides on it, records it; what runs again of it is counted from now on.
    fn decide(&mut self, key: Key, seen: StatementSeen) {
        let (counted, utility) = (seen.counted, seen.level == Level::Utility);
        let known = self.decide_first(key, seen);
        if let (Some(counted), Some(backend)) = (counted, self.backends.get_mut(&key)) {
            let utility = backend.last_utility().filter(|_| utility);
            backend.runs.begin(counted, known, utility);
        }
    }

    /// Gives what its repeats are; nothing where they are nothing to be recorded.
    fn decide_first(&mut self, key: Key, mut seen: StatementSeen) -> Option<Known> {
        let backend = self.backends.get_mut(&key)?;
        let lost_before = backend.lost_before(seen.sequence);
        let count = self.counts.entry(backend.server_name().to_owned()).or_default();
        count[2] += lost_before;
        if backend.is_part(&seen) || (seen.level == Level::Replication && !is_replication_command(&seen.text))
        {
            return None;
        }
        let source = Source::of(&mut seen);
        let statement = match seen.level {
            Level::Replication => Arc::clone(&self.replication),
            Level::Function(number) => {
                let text = function_call(number);
                self.classifier.classify(text.as_bytes(), &modes(text.as_bytes(), true))
            }
            Level::Executor | Level::Utility => {
                let modes = modes(&source.text, seen.standard_strings);
                let statement = self.classifier.classify(&source.text, &modes);
                if !source.loss.is_empty() {
                    Arc::new(not_whole(&statement))
                } else if self.rooms.audit.literals().wants() {
                    // Its parameters are not seen, nor what columns its tables have.
                    statement.as_sent(&source.text, &modes, Touched::default(), &self.room)
                } else {
                    statement
                }
            }
        };
        if seen.nested && is_transaction_control(&statement) {
            seen.nested = false;
        }
        if backend.is_proxied() && !seen.nested {
            return None; // The proxy's own record tells of it.
        }
        let (session, scope) = backend.session();
        if !seen.nested {
            session.meter.statement();
        }
        let during = session.during(&statement);
        let (session, scope) = during.as_ref().map_or((session, scope), |during| (during, during.scope()));
        let decision = Arc::clone(self.decisions.rule(session, scope, &statement).decision());
        let elsewhere = !backend.is_proxied() && self.rooms.held.contains(backend.seen().server_pid);
        let did_not_run = elsewhere && would_not_run(&decision);
        if !did_not_run {
            count[0] += 1;
            count[1] += u64::from(would_not_run(&decision));
            backend.ran(&statement, 1);
        }
        let sole = lost_before > 0 || !source.loss.is_empty() || !source.sha256.is_empty();
        let counted = did_not_run || (!sole && !backend.tally.counts(&statement, &decision, seen.nested));
        if counted && seen.counted.is_none() {
            return None;
        }
        let literals = self.rooms.audit.literals().of(&statement);
        let entry = Arc::new(statement_record(backend, &seen, &source, &statement, &decision, literals));
        let known = Known { statement, nested: seen.nested, entry: Arc::clone(&entry) };
        if counted {
            return Some(known); // Where it did not run it was held, and its record tells of that.
        }
        let more = if sole {
            Vec::new()
        } else {
            backend.tally.recorded(&known.statement, &decision, seen.nested, Arc::clone(&entry))
        };
        more.into_iter().for_each(|counted| self.record_counted(counted));
        self.rooms.audit.record(Body::Statement(record::Statement { lost_before, ..(*entry).clone() }));
        Some(known)
    }

    /// Decides on statements that have run again, and records each with how often.
    fn decide_again(&mut self, key: Key, seen: &RunsSeen) {
        let Some(backend) = self.backends.get_mut(&key) else { return };
        for (known, times) in backend.runs.again(&seen.runs) {
            if backend.is_proxied() && !known.nested {
                continue; // The proxy's own record tells of it.
            }
            backend.last = Instant::now();
            let (session, scope) = backend.session();
            let during = session.during(&known.statement);
            let (session, scope) =
                during.as_ref().map_or((session, scope), |during| (during, during.scope()));
            let decision = self.decisions.rule(session, scope, &known.statement);
            let decision = decision.decision();
            let refused = would_not_run(decision);
            if refused && !backend.is_proxied() && self.rooms.held.contains(backend.seen().server_pid) {
                continue; // It did not run, as above.
            }
            let count = self.counts.entry(backend.server_name().to_owned()).or_default();
            count[0] += times;
            count[1] += if refused { times } else { 0 };
            let ordinal = backend.ran(&known.statement, times);
            self.rooms.audit.record(Body::Statement(record::Statement {
                ordinal,
                executions: times,
                decision: Some((**decision).clone()),
                ..(*known.entry).clone()
            }));
        }
    }

    fn record_counted(&self, (entry, executions): (Arc<record::Statement>, u64)) {
        self.rooms.audit.record(Body::Statement(record::Statement { executions, ..(*entry).clone() }));
    }

    fn record_repeats(&mut self) {
        let due: Vec<_> = self.backends.values_mut().flat_map(|backend| backend.tally.due()).collect();
        due.into_iter().for_each(|counted| self.record_counted(counted));
        self.tidy(SILENT);
    }

    /// Forgets backends that have ended: those that said nothing for `silent` and are processes no more.
    fn tidy(&mut self, silent: Duration) {
        let gone = |(pid, _): &Key| !std::path::Path::new("/proc").join(pid.to_string()).exists();
        let ended: Vec<Key> = self
            .backends
            .iter_mut()
            .filter(|(_, backend)| backend.last.elapsed() >= silent)
            .filter_map(|(key, backend)| {
                // Asked again after the same time at the earliest.
                backend.last = Instant::now();
                gone(key).then_some(*key)
            })
            .collect();
        ended.into_iter().for_each(|key| self.forget(key));
        if self.backends.len() >= BACKENDS {
            let some: Vec<Key> = self.backends.keys().take(BACKENDS / 8).copied().collect();
            for key in some {
                self.forget(key);
                // What was counted has just been looked up.
                self.reader.introduce_again(key.0, key.1);
            }
        }
    }

    fn forget(&mut self, key: Key) {
        self.release(key);
        if let Some(seen) = self.reader.runs(key.0, key.1) {
            self.decide_again(key, &seen);
        }
        if let Some(mut backend) = self.backends.remove(&key) {
            backend.tally.all().into_iter().for_each(|counted| self.record_counted(counted));
        }
    }

    /// Adds up for the status.
    fn tell(&mut self) {
        for (server, [statements, refused, lost]) in self.counts.drain() {
            self.shared.count(&server, statements, refused, lost);
        }
    }
}

fn would_not_run(decision: &Decision) -> bool {
    matches!(decision.verdict(), Verdict::WouldRefuse | Verdict::WouldHold)
}

/// What is missing of a text may do anything.
fn not_whole(statement: &Statement) -> Statement {
    let mut whole = statement.clone();
    whole.parse = Parse::None;
    whole.effects.push(Effect::new(Action::Unreadable, Object::any(ObjectKind::Unknown)));
    whole.effects.sort();
    whole.effects.dedup();
    whole
}
