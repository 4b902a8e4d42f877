//! What the rewriters ask of the detectors.

use guard_policy::vocabulary::DataKind;

use crate::mask::{columns, detect};
pub use crate::mask::{
    columns::Named,
    detect::{Hint, Hit, Hits, KeyNames},
};

/// Finds what is sensitive in values.
pub trait Detector {
    /// Puts what `cell` holds into `hits`, in place of what they held.
    fn scan(&self, cell: &[u8], hint: Hint, hits: &mut Hits);

    /// What a whole number is, if anything.
    fn scan_integer(&self, value: i64, hint: Hint) -> Option<DataKind>;

    /// What a key of JSON or hstore says of its value, which is a number or a text, in a document that is about people
    /// or not.
    fn by_key(&self, key: &[u8], number: bool, people: bool, names: &mut KeyNames) -> Named {
        names.named(key, number, people)
    }

    /// Whether what stands under this key is about people.
    fn is_about_people(&self, key: &str) -> bool {
        columns::is_about_people(key)
    }
}

/// guard's own detectors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Detectors;

impl Detector for Detectors {
    fn scan(&self, cell: &[u8], hint: Hint, hits: &mut Hits) {
        detect::scan(cell, hint, hits);
    }

    fn scan_integer(&self, value: i64, hint: Hint) -> Option<DataKind> {
        detect::scan_integer(value, hint)
    }
}
