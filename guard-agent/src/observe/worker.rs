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
    backend::{Backend, is_transaction_control},
    record::statement as statement_record,
    text::{Source, is_replication_command, modes},
};
use crate::{
    decide::DecisionCache,
    sensor::{BackendSeen, Level, Seen, StatementReader, StatementSeen},
    session::{caps, function_call, replication_statement},
    sql::{Classifier, Statement},
};

/// How long it sleeps at most.
const TICK: Duration = Duration::from_millis(250);
/// How long repeats are counted before they are recorded.
const WINDOW: Duration = Duration::from_secs(1);
/// Backends that are known.
const BACKENDS: usize = 20_000;
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
    backends: HashMap<Key, Backend, RandomState>,
    /// By server, since the last turn: statements, refused ones, lost ones.
    counts: HashMap<String, [u64; 3]>,
}

impl Worker {
    pub(super) fn new(reader: StatementReader, shared: Arc<Shared>, rooms: Rooms) -> Self {
        Self {
            reader,
            shared,
            classifier: Classifier::new(caps(&rooms.limits)),
            decisions: DecisionCache::new(Arc::clone(&rooms.decider)),
            replication: Arc::new(replication_statement()),
            rooms,
            backends: HashMap::default(),
            counts: HashMap::new(),
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
            self.reader.wait(TICK);
            while self.reader.read(&mut seen) {
                seen.drain(..).for_each(|one| self.take(one));
            }
            self.join_waiting();
            if window.elapsed() >= WINDOW {
                window = Instant::now();
                self.record_repeats();
            }
            self.tell();
        }
        while self.reader.read(&mut seen) {
            seen.drain(..).for_each(|one| self.take(one));
        }
        let keys: Vec<Key> = self.backends.keys().copied().collect();
        keys.into_iter().for_each(|key| self.forget(key));
        self.tell();
    }

    fn take(&mut self, seen: Seen) {
        match seen {
            Seen::Backend(seen) => self.backend(seen),
            Seen::Statement(seen) => self.statement(seen),
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
            self.reader.introduce_again(seen.pid);
            self.counts.entry(String::new()).or_default()[2] += 1;
            return;
        };
        backend.last = Instant::now();
        if backend.is_ready() && backend.waiting.is_empty() {
            self.decide(key, seen);
        } else {
            backend.waiting.push_back(seen);
            self.join(key);
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
        waiting.into_iter().for_each(|seen| self.decide(key, seen));
    }

    /// Reads a statement, decides on it, records it.
    fn decide(&mut self, key: Key, mut seen: StatementSeen) {
        let Some(backend) = self.backends.get_mut(&key) else { return };
        let lost_before = backend.lost_before(seen.sequence);
        let count = self.counts.entry(backend.server_name().to_owned()).or_default();
        count[2] += lost_before;
        if backend.is_part(&seen) || (seen.level == Level::Replication && !is_replication_command(&seen.text))
        {
            return;
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
                if source.loss.is_empty() { statement } else { Arc::new(not_whole(&statement)) }
            }
        };
        if seen.nested && is_transaction_control(&statement) {
            seen.nested = false;
        }
        if backend.is_proxied() && !seen.nested {
            return; // The proxy's own record tells of it.
        }
        let (session, scope) = backend.session();
        if !seen.nested {
            session.meter.statement();
        }
        let during = session.during(&statement);
        let (session, scope) = during.as_ref().map_or((session, scope), |during| (during, during.scope()));
        let decision = Arc::clone(self.decisions.rule(session, scope, &statement).decision());
        let elsewhere = !backend.is_proxied() && self.rooms.held.contains(backend.seen().server_pid);
        if elsewhere && would_not_run(&decision) {
            return; // It did not run: it was held, and its record tells of that.
        }
        count[0] += 1;
        count[1] += u64::from(would_not_run(&decision));
        backend.runs(&statement);
        let sole = lost_before > 0 || !source.loss.is_empty() || !source.sha256.is_empty();
        if !sole && !backend.tally.counts(&statement, &decision, seen.nested) {
            return;
        }
        let mut entry = statement_record(backend, &seen, &source, &statement, &decision);
        let more = if sole {
            Vec::new()
        } else {
            backend.tally.recorded(&statement, &decision, seen.nested, Arc::new(entry.clone()))
        };
        entry.lost_before = lost_before;
        more.into_iter().for_each(|counted| self.record_counted(counted));
        self.rooms.audit.record(Body::Statement(entry));
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
                self.reader.introduce_again(key.0);
                self.forget(key);
            }
        }
    }

    fn forget(&mut self, key: Key) {
        self.release(key);
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
