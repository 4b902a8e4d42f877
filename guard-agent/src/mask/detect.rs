//! What in a value is sensitive: the bytes of a cell enter, [`Hits`] leave: spans with their kind and their evidence.
//!
//! One vectorised pass sees which classes of bytes there are; only the detectors whose characters are there look closer,
//! and an exact form decides. Work per byte is bounded and nothing is allocated per cell. It keeps no value and knows no
//! columns: what a column's name says comes in as a [`Hint`].

mod card;
mod checksum;
mod column;
mod context;
mod dates;
mod document;
mod email;
mod figure;
mod hits;
mod iban;
mod ids;
mod key_names;
mod network;
mod number;
mod password_hash;
mod phone;
mod secret;
mod sieve;
mod token;
mod words;

use guard_policy::vocabulary::DataKind;

use self::sieve::Seen;
pub use self::{
    column::{Seed, Verdict, Witnesses},
    hits::{Hit, Hits},
    key_names::KeyNames,
    number::SMALL_DIGITS,
    sieve::is_clean,
};

/// Why a span is taken for what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Evidence {
    /// Luhn's check digit and an issuer of cards.
    Luhn,
    /// Check digits, or a form that contains some.
    Checksum,
    /// A form that nothing else has.
    Format,
    /// What it contains was decoded: the header of a JSON web token.
    Decoded,
    /// Words before it.
    Context,
    /// A key of the document that it is in.
    Key,
    /// What the column's name says, together with a plausible form.
    ColumnName,
}

impl Evidence {
    /// The word as records spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Luhn => "luhn",
            Self::Checksum => "checksum",
            Self::Format => "format",
            Self::Decoded => "decoded",
            Self::Context => "context",
            Self::Key => "key",
            Self::ColumnName => "column name",
        }
    }
}

/// What is known of a column before its values are read; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hint {
    /// Its name speaks of this kind: a plausible form is enough.
    pub kind: Option<DataKind>,
    /// Its name speaks of other numbers (orders, versions, amounts): only forms that nothing else has count.
    pub numbers: bool,
    /// Its table is about people: `name` in a document in it is a person's.
    pub people: bool,
}

impl Hint {
    /// The name speaks of a kind.
    pub const fn of(kind: DataKind) -> Self {
        Self { kind: Some(kind), numbers: false, people: false }
    }

    /// The name speaks of numbers that are nobody's.
    pub const fn of_numbers() -> Self {
        Self { kind: None, numbers: true, people: false }
    }
}

/// Finds what is sensitive in a cell of text. `hits` is emptied first; what it holds then is sorted and does not overlap.
pub fn scan(cell: &[u8], hint: Hint, hits: &mut Hits) {
    hits.clear();
    // The shortest thing that any detector knows has five characters: a telephone number where the column says so.
    if cell.len() < 5 {
        return;
    }
    let seen = Seen::in_cell(cell, 0);
    if !seen.is_clean() {
        scan_closely(cell, hint, seen, hits);
    }
}

/// What a cell of which nothing is known holds, as far as it is told at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing: [`scan`] with [`Hint::default`] finds nothing.
    Nothing,
    /// It is this, all of it: that is all that [`scan`] finds.
    Whole(DataKind),
    /// Only [`scan`] tells.
    Closer,
}

/// Looks at the cell that ends with `bytes` and begins at `start` in it: most values are told so in one pass.
pub fn look(bytes: &[u8], start: usize) -> Look {
    let cell = bytes.get(start..).unwrap_or_default();
    let seen = Seen::in_cell(bytes, start);
    if seen.is_clean() || cell.len() < 5 {
        return Look::Nothing;
    }
    let digits = usize::try_from(seen.digits).is_ok_and(|digits| digits == cell.len());
    if digits {
        return if is_short(cell, Hint::default()) { Look::Nothing } else { Look::Closer };
    }
    match whole(cell, Hint::default(), seen) {
        None => Look::Closer,
        Some(None) => Look::Nothing,
        Some(Some((kind, _))) => Look::Whole(kind),
    }
}

/// The same for a cell that is not clean.
fn scan_closely(cell: &[u8], hint: Hint, seen: Seen, hits: &mut Hits) {
    // A whole number that is shorter than any that has a form.
    if usize::try_from(seen.digits).is_ok_and(|digits| digits == cell.len()) && is_short(cell, hint) {
        return;
    }
    if let Some(found) = whole(cell, hint, seen) {
        if let Some((kind, evidence)) = found {
            hits.push(kind, 0..cell.len(), evidence);
        }
        return;
    }
    scan_parts(cell, hint, seen, hits);
}

/// What a cell is that is nothing else: most of those in which there is something. The outer `None`: it may be or hold
/// anything.
fn whole(cell: &[u8], hint: Hint, seen: Seen) -> Option<Option<(DataKind, Evidence)>> {
    if seen.has_at() && email::is_whole(cell) {
        return Some(Some((DataKind::Email, Evidence::Format)));
    }
    if hint != Hint::default() {
        return None;
    }
    if cell.first() == Some(&b'+') && phone::is_whole(cell) {
        return Some(Some((DataKind::Phone, Evidence::Format)));
    }
    card::is_whole(cell).map(|card| card.then_some((DataKind::PaymentCard, Evidence::Luhn)))
}

/// Looks for everything in a cell.
fn scan_parts(cell: &[u8], hint: Hint, seen: Seen, hits: &mut Hits) {
    if seen.has_sign() && document::is_document(cell) {
        document::scan(cell, hint, hits);
    }
    if seen.has_at() {
        email::scan(cell, hits);
    } else if seen.has_percent() {
        email::scan_escaped(cell, hits);
    }
    if seen.has_sign() {
        secret::scan_assignments(cell, hits);
    }
    if seen.may_hold_token() {
        token::scan(cell, seen, hits);
    }
    let two_colons = || memchr::memchr_iter(b':', cell).nth(1).is_some();
    if seen.dashes > 4 || seen.has_sign() && two_colons() {
        network::scan(cell, hits);
    }
    // Numbers within mail addresses and keys are parts of them.
    if seen.digits >= 4 && (hits.is_empty() || hits.strong_digits(cell) < seen.digits) {
        number::scan(cell, hint, hits);
    }
    hits.settle();
}

/// Digits alone that nothing says anything about are nothing up to here: too few for a check digit to tell.
pub const SHORT_DIGITS: usize = 8;

fn is_short(cell: &[u8], hint: Hint) -> bool {
    cell.len() <= SHORT_DIGITS && hint.kind.is_none()
}

/// Finds what an integer is. Without a hint only payment cards are numbers that nothing else has.
pub fn scan_integer(value: i64, hint: Hint) -> Option<DataKind> {
    number::scan_integer(value, hint)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::telling;
