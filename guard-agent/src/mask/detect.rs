//! What in a value is sensitive: the bytes of a cell enter, [`Hits`] leave: spans with their kind and their evidence.
//!
//! One vectorised pass counts classes of bytes; only the detectors whose characters are there look closer, and an exact
//! form decides. Work per byte is bounded and nothing is allocated per cell. It keeps no value and knows no columns:
//! what a column's name says comes in as a [`Hint`].

mod card;
mod census;
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
mod token;
mod words;

use guard_policy::vocabulary::DataKind;

use self::census::Census;
pub use self::{
    column::{Seed, Verdict, Witnesses},
    hits::{Hit, Hits},
    key_names::KeyNames,
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
    let census = Census::of(cell);
    // A whole number that is shorter than any that has a form.
    if usize::try_from(census.digits).is_ok_and(|digits| digits == cell.len()) && is_short(cell, hint) {
        return;
    }
    // Cells that are nothing else: most of those in which there is something.
    if census.at == 1 && email::is_whole(cell) {
        return hits.push(DataKind::Email, 0..cell.len(), Evidence::Format);
    }
    if cell[0] == b'+' && hint == Hint::default() && phone::is_whole(cell) {
        return hits.push(DataKind::Phone, 0..cell.len(), Evidence::Format);
    }
    if document::is_document(cell) && (census.colons > 0 || census.equals > 0) {
        document::scan(cell, hint, hits);
    }
    if census.at > 0 {
        email::scan(cell, hits);
    } else if census.percent > 0 {
        email::scan_escaped(cell, hits);
    }
    if census.colons > 0 || census.equals > 0 {
        secret::scan_assignments(cell, hits);
    }
    if cell.len() >= token::SHORTEST {
        token::scan(cell, &census, hits);
    }
    if census.colons > 1 || census.dashes > 4 {
        network::scan(cell, &census, hits);
    }
    // Numbers within mail addresses and keys are parts of them.
    if census.digits >= 4 && (hits.is_empty() || hits.strong_digits(cell) < census.digits) {
        number::scan(cell, hint, hits);
    }
    hits.settle();
}

/// Digits alone that nothing says anything about, and too few for a check digit to tell.
fn is_short(cell: &[u8], hint: Hint) -> bool {
    cell.len() < 9 && hint.kind.is_none()
}

/// Finds what an integer is. Without a hint only payment cards are numbers that nothing else has.
pub fn scan_integer(value: i64, hint: Hint) -> Option<DataKind> {
    number::scan_integer(value, hint)
}

#[cfg(test)]
mod tests;
