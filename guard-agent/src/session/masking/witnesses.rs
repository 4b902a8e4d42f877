//! What many values of a column show together: rows of results enter, columns that are known by their values leave.
//!
//! The first rows of a result wait, for a moment and while they may still tell something, until they have been looked at
//! together: what they show holds for them as well. What is seen of one column in several results counts together, and
//! what has been shown is remembered with the database's catalog. Keeps no value.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    super::{SessionError, relay::Relay},
    Masking,
    results::RowsNow,
};
use crate::{
    catalog::Database,
    mask::{
        detect::{Seed, Verdict, Witnesses},
        plan::Plan,
        rewrite::{Base, Column, Format},
    },
    wire::postgres::{Backend, DataRow, HEADER_BYTES, Header, MAX_MESSAGE_BYTES},
};

/// How long the first rows of a result wait for more of them.
const PATIENCE: Duration = Duration::from_millis(20);

/// Rows and bytes that are looked at together, at most.
const ROWS: usize = 128;
const BYTES: usize = 64 * 1024;

/// Columns of one result, and of all databases, whose values are gathered.
const COLUMNS: usize = 16;
const KNOWN: usize = 4_096;

/// A column of a database.
type Id = (usize, u32, i16);

/// What values have shown, shared by all sessions.
#[derive(Debug, Default)]
pub struct Seen {
    seed: Seed,
    columns: Mutex<HashMap<Id, Known, ahash::RandomState>>,
}

#[derive(Debug, Default)]
struct Known {
    witnesses: Witnesses,
    /// The values have nothing to say, as of this version of the catalog.
    nothing: Option<u64>,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, HashMap<Id, Known, ahash::RandomState>> {
        self.columns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a column up to now; `None` where more would not help.
    fn known(&self, id: Id, version: u64) -> Option<Witnesses> {
        match self.lock().get_mut(&id) {
            None => Some(Witnesses::default()),
            Some(known) if known.nothing == Some(version) => None,
            Some(known) => {
                // Values may have changed since.
                if known.nothing.take().is_some() {
                    known.witnesses = Witnesses::default();
                }
                Some(known.witnesses.clone())
            }
        }
    }

    /// Adds what a result has shown of a column.
    fn add(&self, id: Id, version: u64, witnesses: &Witnesses) -> Verdict {
        let mut columns = self.lock();
        if columns.len() >= KNOWN && !columns.contains_key(&id) {
            columns.retain(|_, known| known.nothing.is_none());
            if columns.len() >= KNOWN {
                return witnesses.verdict();
            }
        }
        let known = columns.entry(id).or_default();
        known.witnesses.merge(witnesses);
        let verdict = known.witnesses.verdict();
        // What they are is kept here as well: the catalog may not know the relation yet.
        if verdict == Verdict::Nothing {
            *known = Known { witnesses: Witnesses::default(), nothing: Some(version) };
        }
        verdict
    }
}

/// A column of the result under way.
#[derive(Debug)]
struct Gathered {
    /// Its place among those of the plan.
    unknown: usize,
    witnesses: Witnesses,
}

/// What the rows of one result show.
#[derive(Debug)]
pub(super) struct Gathering {
    columns: Vec<Gathered>,
    rows: usize,
    /// Bytes of rows that wait and have been looked at.
    looked: usize,
    /// Until when they wait.
    until: Option<Instant>,
    /// They need not wait any more.
    released: bool,
}

impl Gathering {
    /// For a result under `plan`; `None` where nothing is to be gathered.
    pub(super) fn begin(plan: &Plan, masking: &Masking) -> Option<Box<Self>> {
        let mut columns = Vec::new();
        let wanted = plan.unknown.iter().enumerate().filter(|(_, unknown)| unknown.is_worth_it());
        for (at, unknown) in wanted.take(COLUMNS) {
            match masking.masks.seen.known(masking.column_id(unknown.id), masking.version) {
                Some(witnesses) => columns.push(Gathered { unknown: at, witnesses }),
                None => unknown.give_up(),
            }
        }
        let gathering = Self { columns, rows: 0, looked: 0, until: None, released: false };
        (!gathering.columns.is_empty()).then(|| Box::new(gathering))
    }

    /// Looks at the values of a row. What is no row is no business of this.
    fn row(&mut self, body: &[u8], plan: &Plan, seed: &Seed) {
        self.rows += 1;
        let Ok(row) = DataRow::read(body) else { return };
        let mut values = row.enumerate();
        for gathered in &mut self.columns {
            let at = plan.unknown[gathered.unknown].at;
            let Some((_, value)) = values.by_ref().find(|(number, _)| *number == at) else { return };
            if let (Some(value), Some(column)) = (value, plan.columns.get(at))
                && let Some(text) = digits_of(column, value).as_deref()
            {
                gathered.witnesses.add(text, seed);
            }
        }
    }

    /// True once more rows would tell nothing new.
    fn is_over(&self) -> bool {
        self.rows >= ROWS || self.columns.iter().all(|column| column.witnesses.verdict() != Verdict::Open)
    }

    /// True where more rows may tell something.
    fn is_hopeful(&self) -> bool {
        self.columns.iter().any(|column| column.witnesses.is_hopeful())
    }

    /// Looks at the rows that stand in `unread` from `at` on. True: they need not wait for more.
    fn look(&mut self, unread: &[u8], at: usize, (plan, seed): (&Plan, &Seed)) -> bool {
        while !self.is_over() && self.looked < BYTES {
            let rest = unread.get(at + self.looked..).unwrap_or_default();
            let Ok(Some(header)) = Header::read(rest, MAX_MESSAGE_BYTES) else { return false };
            if Backend::from_tag(header.tag) != Ok(Backend::DataRow) || header.total() > BYTES {
                return true;
            }
            let Some(body) = rest.get(HEADER_BYTES..header.total()) else { return false };
            self.row(body, plan, seed);
            self.looked += header.total();
        }
        true
    }
}

/// A value as text, where it may be digits alone.
fn digits_of<'v>(column: &Column, value: &'v [u8]) -> Option<std::borrow::Cow<'v, [u8]>> {
    match (&column.value_type.base, column.format) {
        (Base::Text | Base::Int8 | Base::Numeric, Format::Text) | (Base::Text, Format::Binary) => {
            Some(value.into())
        }
        (Base::Bpchar, _) => Some(value.trim_ascii_end().into()),
        (Base::Int8, Format::Binary) => {
            let number = i64::from_be_bytes(value.try_into().ok()?);
            Some(number.to_string().into_bytes().into())
        }
        _ => None,
    }
}

impl Masking {
    fn column_id(&self, (relation, number): (u32, i16)) -> Id {
        (Arc::<Database>::as_ptr(&self.database).addr(), relation, number)
    }

    /// Whether the rows from `at` on have to wait for more of them.
    pub(super) fn first_rows_wait(&mut self, rows: &mut RowsNow, unread: &[u8], at: usize) -> bool {
        let Some(gathering) = rows.gathering.as_deref_mut().filter(|gathering| !gathering.released) else {
            return false;
        };
        let known = (&*rows.planned.plan, &self.masks.seen.seed);
        let now = Instant::now();
        let looked = gathering.look(unread, at, known);
        let enough = looked || !gathering.is_hopeful() || !self.enforces || self.impatient;
        let until = *gathering.until.get_or_insert(now + PATIENCE);
        if !enough && now < until {
            self.rows_wait = Some(until);
            return true;
        }
        self.rows_wait = None;
        gathering.released = true;
        self.conclude(rows, false);
        false
    }

    /// A row that did not wait.
    pub(super) fn later_row(&mut self, rows: &mut RowsNow, body: &[u8]) {
        let Some(gathering) = rows.gathering.as_deref_mut() else { return };
        // Those that waited were looked at.
        let length = HEADER_BYTES + body.len();
        if gathering.looked >= length {
            gathering.looked -= length;
            return;
        }
        gathering.looked = 0;
        gathering.row(body, &rows.planned.plan, &self.masks.seen.seed);
        self.conclude(rows, false);
    }

    /// Draws conclusions where there are some, and in any case where the result `ends`.
    pub(super) fn conclude(&mut self, rows: &mut RowsNow, ends: bool) {
        let Some(gathering) = rows.gathering.as_deref_mut() else { return };
        let plan = std::rc::Rc::clone(&rows.planned.plan);
        let full = gathering.rows >= ROWS;
        gathering.columns.retain(|gathered| {
            let unknown = &plan.unknown[gathered.unknown];
            if gathered.witnesses.verdict() == Verdict::Open && !ends && !full {
                return true;
            }
            if !gathered.witnesses.is_hopeful() {
                unknown.tried();
            }
            let id = self.column_id(unknown.id);
            let verdict = self.masks.seen.add(id, self.version, &gathered.witnesses);
            if verdict == Verdict::Nothing {
                unknown.give_up();
            }
            if let Verdict::Is(kind) = verdict {
                self.database.shown_by_values(unknown.id, kind);
                rows.rewriter.expect(unknown.at, kind);
            }
            false
        });
        if gathering.columns.is_empty() {
            rows.gathering = None;
        }
    }
}

impl Relay<'_> {
    /// Until when rows wait for more of them.
    pub(in super::super) fn rows_wait(&self) -> Option<Instant> {
        self.masking.as_ref().and_then(|masking| masking.rows_wait)
    }

    /// No more will come: rows that wait go on.
    pub(in super::super) fn release_rows(&mut self) -> Result<(), SessionError> {
        let Some(masking) = self.masking.as_deref_mut() else { return Ok(()) };
        if masking.rows_wait.is_none() {
            return Ok(());
        }
        masking.impatient = true;
        self.on_server()
    }
}
