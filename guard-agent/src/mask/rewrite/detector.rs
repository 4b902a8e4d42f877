//! What the rewriters ask of the detectors.

use guard_policy::vocabulary::DataKind;

pub use super::super::{columns::Named, detect::Hint};

/// Something sensitive in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// What it is.
    pub kind: DataKind,
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

/// What was found in a cell: sorted, without overlaps.
pub type Hits = Vec<Hit>;

/// Finds what is sensitive in values.
pub trait Detector {
    /// Puts what `cell` holds into `hits`.
    fn scan(&self, cell: &[u8], hint: Hint, hits: &mut Hits);

    /// What a whole number is, if anything.
    fn scan_integer(&self, value: i64, hint: Hint) -> Option<DataKind>;

    /// What a key says of its value, in JSON or hstore.
    fn by_key(&self, key: &str) -> Named;
}
