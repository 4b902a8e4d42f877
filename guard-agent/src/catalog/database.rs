//! The catalogs of all databases: sessions ask them, one session at a time reads, everybody sees what it read.
//!
//! Asking costs an atomic load. A reading that fails is tried again later, at growing distances, and can be seen.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use guard_policy::vocabulary::DataKind;

use super::build::{Facts, Known, Limits, build};
use super::tags::Pattern;
use super::{Catalog, Evidence, Learned, Mark, Names, Oid, Reader, Sensitive};
use crate::sql::lineage::{Column, Target};

/// How catalogs are kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Between two readings where nothing is known to have changed.
    pub interval: Duration,
    /// How much is kept of each.
    pub limits: Limits,
    /// What names of columns say.
    pub names: Arc<dyn Names>,
}

/// The catalogs of the databases of all servers.
#[derive(Debug)]
pub struct Catalogs {
    settings: Settings,
    /// What the configuration says of columns, by server.
    patterns: HashMap<String, Vec<Pattern>>,
    databases: Mutex<HashMap<(String, String), Arc<Database>>>,
}

/// Databases beyond this share a catalog that is never read.
const MAX_DATABASES: usize = 1024;

impl Catalogs {
    /// Of no database yet. `patterns`: what the configuration says of columns, by the names of servers; under the empty
    /// name what it says of all of them.
    pub fn new(settings: Settings, patterns: HashMap<String, Vec<Pattern>>) -> Self {
        Self { settings, patterns, databases: Mutex::default() }
    }

    /// The catalog of a database; a session asks once.
    pub fn database(&self, server: &str, database: &str) -> Arc<Database> {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (server.to_owned(), database.to_owned());
        if let Some(known) = databases.get(&key) {
            return Arc::clone(known);
        }
        let patterns = [server, ""].into_iter().filter_map(|server| self.patterns.get(server)).flatten();
        let patterns = patterns.filter(|pattern| pattern.is_of(database)).cloned().collect();
        let new = Arc::new(Database::new(&self.settings, patterns, format!("{server}/{database}")));
        if databases.len() < MAX_DATABASES {
            databases.insert(key, Arc::clone(&new));
        }
        new
    }

    /// How the readings went, by server and database.
    pub fn health(&self) -> Vec<(String, Health)> {
        let databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> =
            databases.values().map(|database| (database.name.clone(), database.health())).collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }
}

/// How the readings of a catalog went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Readings that ended well.
    pub readings: u64,
    /// Readings that did not.
    pub failures: u64,
    /// Why the last one failed, where it did.
    pub last_failure: Option<String>,
    /// Relations that are known.
    pub relations: usize,
    /// Sensitive columns among them.
    pub sensitive: usize,
    /// Nothing was left out.
    pub complete: bool,
}

/// The catalog of one database, shared by its sessions.
#[derive(Debug)]
pub struct Database {
    name: String,
    interval: Duration,
    limits: Limits,
    patterns: Vec<Pattern>,
    names: Arc<dyn Names>,
    began: Instant,
    version: AtomicU64,
    /// Milliseconds after `began`; the greatest number while a session reads.
    due: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    catalog: Catalog,
    health: Health,
    reading: bool,
    /// Something changed while it was being read.
    again: bool,
    /// In a row.
    failures: u32,
    /// No reading before this, whatever changes.
    not_before: u64,
}

/// No session reads because of the time.
const NEVER: u64 = u64::MAX;

impl Database {
    fn new(settings: &Settings, patterns: Vec<Pattern>, name: String) -> Self {
        let catalog = Catalog::empty(Arc::clone(&settings.names));
        Self {
            name,
            interval: settings.interval,
            limits: settings.limits,
            patterns,
            names: Arc::clone(&settings.names),
            began: Instant::now(),
            version: AtomicU64::new(0),
            due: AtomicU64::new(0),
            state: Mutex::new(State {
                catalog,
                health: Health::default(),
                reading: false,
                again: false,
                failures: 0,
                not_before: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.began))
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// The newest catalog; an empty one before the first reading.
    pub fn catalog(&self) -> Catalog {
        self.lock().catalog.clone()
    }

    /// Changes with every new catalog: a session that holds one looks at this first.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// How the readings went.
    pub fn health(&self) -> Health {
        self.lock().health.clone()
    }

    /// Something passed by that may have changed the catalogue: it has to be read again.
    pub fn changed(&self) {
        let mut state = self.lock();
        if state.reading {
            state.again = true;
        } else {
            self.due.store(state.not_before, Ordering::Release);
        }
    }

    /// Whether a session that is about to run a statement should read first: never read, changed, or old.
    pub fn is_due(&self, now: Instant) -> bool {
        self.at(now) >= self.due.load(Ordering::Acquire)
    }

    /// The right to read, which one session at a time has; `None` where nothing is due or another one reads.
    pub fn begin(self: &Arc<Self>, now: Instant) -> Option<Reader> {
        if !self.is_due(now) {
            return None;
        }
        let mut state = self.lock();
        if state.reading {
            return None;
        }
        (state.reading, state.again) = (true, false);
        self.due.store(NEVER, Ordering::Release);
        Some(Reader::new(Arc::clone(self)))
    }

    /// A reading ended well, but for the definitions of views perhaps.
    pub(super) fn finished(&self, facts: Facts, began: Instant, problem: Option<&str>) {
        // Other sessions go on with what they have while this one builds.
        let (before, mut learned) = {
            let state = self.lock();
            (state.catalog.clone(), Learned::clone(&state.catalog.learned))
        };
        settle(&mut learned, &before, &facts);
        keep_renamed(&mut learned, &before, &facts);
        let known = Known { patterns: &self.patterns, names: &self.names, learned: &learned };
        let base = build(facts, &known);
        let now = Instant::now();
        let mut state = self.lock();
        let health = &mut state.health;
        health.readings += 1;
        health.relations = base.relations.len();
        let columns = base.relations.values().flat_map(|relation| &relation.columns);
        health.sensitive = columns.filter(|column| column.sensitive().is_some()).count();
        health.complete = base.complete;
        health.last_failure = problem.map(str::to_owned);
        if let Some(problem) = problem {
            health.failures += 1;
            tracing::warn!(database = %self.name, problem, "the definitions of views could not be read");
        } else if !base.complete {
            tracing::warn!(database = %self.name, "the catalogue is larger than what is kept of it");
        }
        // What was learned meanwhile.
        for (table, columns) in &state.catalog.learned.by_name {
            if !before.learned.by_name.contains_key(table) {
                learned.by_name.insert(table.clone(), columns.clone());
            }
        }
        for (id, sensitive) in &state.catalog.learned.by_id {
            learned.by_id.entry(*id).or_insert_with(|| sensitive.clone());
        }
        let version = state.catalog.version + 1;
        state.catalog = Catalog {
            base: Arc::new(base),
            learned: Arc::new(learned),
            names: Arc::clone(&self.names),
            version,
        };
        self.version.store(version, Ordering::Release);
        state.failures = 0;
        // Reading takes no more than half of anybody's time.
        state.not_before = self.at(now) + millis(now.saturating_duration_since(began));
        let next = match (state.again, problem) {
            (true, _) => state.not_before,
            (false, Some(_)) => self.at(now) + 5_000,
            (false, None) => self.at(now) + millis(self.interval),
        };
        state.reading = false;
        self.due.store(next, Ordering::Release);
    }

    /// Whoever read is gone: the next session reads.
    pub(super) fn abandoned(&self) {
        let mut state = self.lock();
        state.reading = false;
        self.due.store(state.not_before, Ordering::Release);
    }

    pub(super) fn failed(&self, why: &str) {
        const FIRST: u64 = 500;
        const LONGEST: u64 = 300_000;
        let now = self.at(Instant::now());
        let mut state = self.lock();
        state.reading = false;
        state.health.failures += 1;
        state.health.last_failure = Some(why.to_owned());
        let wait = FIRST.saturating_mul(1 << state.failures.min(16)).min(LONGEST);
        state.failures = state.failures.saturating_add(1);
        state.not_before = now + wait;
        self.due.store(state.not_before, Ordering::Release);
        tracing::warn!(database = %self.name, why, again_in_ms = wait, "the catalogue could not be read");
    }

    /// Remembers where sensitive values were written to, once that has happened.
    pub fn learn(&self, targets: &[Target]) {
        if targets.is_empty() {
            return;
        }
        let mut state = self.lock();
        let mut learned = Learned::clone(&state.catalog.learned);
        let mut new = false;
        for target in targets {
            new |= learn_one(&mut learned, &state.catalog, target);
        }
        if new {
            let version = state.catalog.version + 1;
            state.catalog = Catalog { learned: Arc::new(learned), version, ..state.catalog.clone() };
            self.version.store(version, Ordering::Release);
        }
    }

    /// Remembers what many values of a column have shown. Views over it are known when the catalogue has been read again.
    pub fn shown_by_values(&self, id: (Oid, i16), kind: DataKind) {
        let mut state = self.lock();
        let catalog = &state.catalog;
        let free = catalog.column(id.0, id.1).is_some_and(|column| column.mark == Mark::None);
        if !free || catalog.learned.by_id.contains_key(&id) || catalog.learned.by_id.len() >= MAX_LEARNED {
            return;
        }
        let mut learned = Learned::clone(&catalog.learned);
        learned.by_id.insert(id, Sensitive::new(kind, Evidence::Values));
        let version = catalog.version + 1;
        state.catalog = Catalog { learned: Arc::new(learned), version, ..state.catalog.clone() };
        self.version.store(version, Ordering::Release);
        drop(state);
        self.changed();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(NEVER)
}

/// Most columns, and most relations that the catalog does not know, of which something is remembered.
const MAX_LEARNED: usize = 20_000;

fn learn_one(learned: &mut Learned, catalog: &Catalog, target: &Target) -> bool {
    let Some(source) = target.sources.iter().find(|source| !source.is_any()).or(target.sources.first())
    else {
        return false;
    };
    let sensitive = learned_from(catalog, source);
    let id =
        target.relation.and_then(|oid| Some((oid, catalog.relation(oid)?.by_name(&target.column)?.number)));
    if let Some((relation, number)) = id {
        let free = catalog.column(relation, number).is_some_and(|column| column.mark == Mark::None);
        if !free || learned.by_id.contains_key(&(relation, number)) || learned.by_id.len() >= MAX_LEARNED {
            return false;
        }
        learned.by_id.insert((relation, number), sensitive);
        return true;
    }
    if learned.by_name.len() >= MAX_LEARNED && !learned.by_name.contains_key(&target.table) {
        return false;
    }
    let columns = learned.by_name.entry(target.table.clone()).or_default();
    const MAX_COLUMNS: usize = 1600;
    if columns.len() >= MAX_COLUMNS || columns.contains_key(&target.column) {
        return false;
    }
    columns.insert(target.column.clone(), sensitive);
    true
}

fn learned_from(catalog: &Catalog, source: &Column) -> Sensitive {
    let known = source.id.and_then(|(relation, number)| catalog.sensitive(relation, number));
    let tags = known.map(|sensitive| sensitive.tags.clone()).unwrap_or_default();
    Sensitive { kind: source.kind, tags, evidence: Evidence::Learned }
}

/// What was learned of relations by name is from now on known by their identifiers; of those that are gone it is
/// forgotten.
fn settle(learned: &mut Learned, before: &Catalog, facts: &Facts) {
    learned.by_id.retain(|(relation, _), _| facts.has(*relation));
    for relation in facts.relations() {
        let Some(columns) = learned.by_name.get(&*relation.name) else { continue };
        // One of that name that was there all the time is another one.
        if before.relation(relation.oid).is_some() || relation.is_system() {
            continue;
        }
        for column in &relation.columns {
            // `*`: of a table that was filled with nobody knows what.
            if let Some(sensitive) = columns.get(&*column.name).or_else(|| columns.get("*")) {
                learned.by_id.insert((relation.oid, column.number), sensitive.clone());
            }
        }
    }
    let settled: Vec<Box<str>> = facts
        .relations()
        .filter(|relation| {
            before.relation(relation.oid).is_none() && learned.by_name.contains_key(&*relation.name)
        })
        .map(|relation| (&*relation.name).into())
        .collect();
    for name in settled {
        learned.by_name.remove(&name);
    }
}

/// A column, or a table, that got another name holds what it held.
fn keep_renamed(learned: &mut Learned, before: &Catalog, facts: &Facts) {
    for old in before.relations().filter(|relation| relation.kind != 'v') {
        let Some(new) = facts.relation_of(old.oid) else { continue };
        for (column, sensitive) in before.sensitive_columns(old) {
            let said =
                matches!(sensitive.evidence, Evidence::Configured | Evidence::Comment | Evidence::BuiltIn);
            let now = new.columns.iter().find(|now| now.number == column.number);
            let renamed = now.is_some_and(|now| now.name != column.name || new.name != old.name);
            if renamed && !said && learned.by_id.len() < MAX_LEARNED {
                let sensitive = Sensitive { evidence: Evidence::Learned, ..sensitive.clone() };
                learned.by_id.entry((old.oid, column.number)).or_insert(sensitive);
            }
        }
    }
}
