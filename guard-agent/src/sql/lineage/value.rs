//! What an expression shows: sensitive columns enter by their place in a table of them, sets of places leave.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::Column;

/// A set of columns by their places, sorted.
pub type Set = SmallVec<[u32; 4]>;

/// What the value of an expression shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// Columns whose values can be seen in it.
    pub shows: Set,
    /// Columns that decide what is seen.
    pub steers: Set,
    /// It is changed: no longer a column's value as it stands there.
    pub changed: bool,
    /// Code that no text shows has made it.
    pub opaque: bool,
    /// It could not be followed.
    pub lost: bool,
}

impl Value {
    /// One column as it is.
    pub fn column(place: u32) -> Self {
        Self { shows: Set::from_slice(&[place]), ..Self::default() }
    }

    /// What cannot be followed.
    pub fn lost() -> Self {
        Self { lost: true, changed: true, ..Self::default() }
    }

    /// Adds what another value shows.
    pub fn add(&mut self, other: &Self) {
        union(&mut self.shows, &other.shows);
        union(&mut self.steers, &other.steers);
        self.changed |= other.changed;
        self.opaque |= other.opaque;
        self.lost |= other.lost;
    }

    /// Adds what another value shows to what decides about this one.
    pub fn steer_by(&mut self, other: &Self) {
        union(&mut self.steers, &other.shows);
        union(&mut self.steers, &other.steers);
        self.lost |= other.lost && !other.shows.is_empty();
    }
}

fn union(into: &mut Set, from: &Set) {
    for place in from {
        if let Err(at) = into.binary_search(place) {
            into.insert(at, *place);
        }
    }
}

/// The sensitive columns of all relations that a text names.
#[derive(Debug, Default)]
pub struct Sources {
    columns: Vec<Column>,
    places: HashMap<Column, u32, ahash::RandomState>,
    booleans: Set,
    /// Set operations so far: a measure of the work.
    work: usize,
}

/// Texts that name more sensitive columns, or that move them about more often, are not followed.
const MAX_COLUMNS: usize = 8192;
const MAX_WORK: usize = 200_000;

impl Sources {
    /// The place of a column; `None` where there are too many. `boolean`: true and false are all that it holds.
    pub fn place(&mut self, column: Column, boolean: bool) -> Option<u32> {
        if let Some(place) = self.places.get(&column) {
            return Some(*place);
        }
        let place = u32::try_from(self.columns.len()).ok().filter(|_| self.columns.len() < MAX_COLUMNS)?;
        self.columns.push(column.clone());
        self.places.insert(column, place);
        if boolean {
            self.booleans.push(place);
        }
        Some(place)
    }

    /// Whether the column holds nothing but true and false.
    pub fn is_boolean(&self, place: u32) -> bool {
        self.booleans.binary_search(&place).is_ok()
    }

    /// The columns at these places.
    pub fn columns(&self, set: &Set) -> Vec<Column> {
        set.iter().filter_map(|place| self.columns.get(*place as usize)).cloned().collect()
    }

    /// The column at a place.
    pub fn get(&self, place: u32) -> Option<&Column> {
        self.columns.get(place as usize)
    }

    /// All that were named so far.
    pub fn all(&self) -> Vec<Column> {
        self.columns.clone()
    }

    /// Notes that so much was done; false where it has become too much.
    pub fn spend(&mut self, work: usize) -> bool {
        self.work = self.work.saturating_add(work);
        self.work <= MAX_WORK
    }
}
