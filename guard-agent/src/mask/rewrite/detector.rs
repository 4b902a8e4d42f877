//! What the rewriters ask of the detectors.

use guard_policy::vocabulary::DataKind;

use crate::mask::{columns, detect};
pub use crate::mask::{
    columns::Named,
    detect::{Hint, Hit, Hits, KeyNames, Look as Seen},
};

/// Finds what is sensitive in values.
pub trait Detector {
    /// Puts what `cell` holds into `hits`, in place of what they held.
    fn scan(&self, cell: &[u8], hint: Hint, hits: &mut Hits);

    /// True where [`Self::scan`] finds nothing in the value that ends with `bytes` and begins at `start` in it, nor in
    /// any part of it, whatever the hint. False says nothing; it is much faster.
    fn is_clean(&self, bytes: &[u8], start: usize) -> bool {
        let _ = (bytes, start);
        false
    }

    /// What the value that ends with `bytes` and begins at `start` in it is, where nothing is known of its column and it is
    /// told at once: the same as [`Self::scan`] says.
    fn look(&self, bytes: &[u8], start: usize) -> Seen {
        if self.is_clean(bytes, start) { Seen::Nothing } else { Seen::Closer }
    }

    /// Digits up to which [`Self::scan_integer`] finds nothing in any whole number, without a hint of a kind.
    fn small_digits(&self) -> usize {
        0
    }

    /// The same for [`Self::scan`].
    fn short_digits(&self) -> usize {
        0
    }

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

    fn is_clean(&self, bytes: &[u8], start: usize) -> bool {
        detect::is_clean(bytes, start)
    }

    fn look(&self, bytes: &[u8], start: usize) -> Seen {
        detect::look(bytes, start)
    }

    fn small_digits(&self) -> usize {
        detect::SMALL_DIGITS
    }

    fn short_digits(&self) -> usize {
        detect::SHORT_DIGITS
    }

    fn scan_integer(&self, value: i64, hint: Hint) -> Option<DataKind> {
        detect::scan_integer(value, hint)
    }
}
