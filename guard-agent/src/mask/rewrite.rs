//! Values enter, values of the same type leave, with what is sensitive in them rewritten.
//!
//! The caller says per column what to do ([`Treatment`]) and of which type it is ([`ValueType`]); here rows, COPY data
//! and texts of errors are rewritten by it, in the server's text and binary formats. Nothing is read that is passed.
//! Never lets a value out that it should rewrite and cannot read: that becomes NULL. A row whose counts or lengths lie
//! is an error. Works within buffers that are kept from row to row.

mod array;
mod calendar;
mod canonical;
mod clean;
mod composite;
mod copy;
mod decimal;
mod detector;
mod engine;
mod hashed;
mod hstore;
mod json;
mod lanes;
mod letters;
mod network;
mod number;
mod numeric;
mod quoting;
mod range;
mod row;
mod rule;
mod scrub;
mod shape;
mod tally;
mod text;
mod time;
mod value_type;
mod xml;

#[cfg(test)]
mod tests;

pub use self::{
    clean::Clean,
    copy::{CopyFormat, CopyOptions, CopyRewriter, MAX_ROW_BYTES},
    detector::{Detector, Detectors, Hint, Hit, Hits, KeyNames, Named, Seen},
    letters::Letters,
    row::{Rewritten, RowRewriter},
    rule::{HashKey, Rule, Rules},
    scrub::{About, Scrubber},
    tally::{Masked, Tally},
    value_type::{Base, Field, ValueType},
};
use guard_policy::vocabulary::DataKind;

/// What is done with the values of a column.
#[derive(Clone, Debug)]
pub enum Treatment {
    /// They are passed on unread.
    Pass,
    /// What the detectors find in them is rewritten by the rule of its kind.
    Scan(Hint),
    /// All of every value is rewritten.
    Mask {
        /// As what it counts, and what `partial` keeps of it.
        kind: DataKind,
        /// How.
        rule: Rule,
    },
}

/// In which of the two formats the values of a column stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As the type's output function writes them.
    Text,
    /// As its send function does.
    Binary,
}

impl Format {
    /// The format that a code of the protocol names: 0 or 1.
    pub fn from_code(code: i16) -> Option<Self> {
        match code {
            0 => Some(Self::Text),
            1 => Some(Self::Binary),
            _ => None,
        }
    }
}

/// One column of a result.
#[derive(Clone, Debug)]
pub struct Column {
    /// What is done with it.
    pub treatment: Treatment,
    /// Of which type its values are.
    pub value_type: ValueType,
    /// How they are written.
    pub format: Format,
    /// True where an expression made it: then keys of JSON objects and of hstore may be values as well, and are
    /// rewritten like values where all of the column is to be masked. Of stored columns keys are kept.
    pub computed: bool,
}

impl Column {
    /// A column that is passed on unread.
    pub fn pass() -> Self {
        Self {
            treatment: Treatment::Pass,
            value_type: ValueType::unknown(),
            format: Format::Text,
            computed: false,
        }
    }
}

/// What the form of values depends on beside their types: settings of the session that the server reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `DateStyle` ends in DMY: days stand before months where a year does not stand first.
    pub day_first: bool,
    /// How letters are written in the client's encoding. Where bytes of ASCII stand in them (SJIS, BIG5, GBK, UHC, GB18030,
    /// JOHAB) no value is taken apart, and what holds something sensitive is rewritten whole.
    pub letters: Letters,
    /// The client's encoding is UTF-8: texts of rules that are not ASCII can be written.
    pub utf8: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { day_first: false, letters: Letters::Plain, utf8: true }
    }
}

impl Settings {
    /// From the reported values of `DateStyle` and `client_encoding`.
    pub fn reported(date_style: &str, client_encoding: &str) -> Self {
        let day_first = date_style.to_ascii_uppercase().contains("DMY");
        Self { day_first, ..Self::default() }.in_encoding(client_encoding)
    }

    /// The same for data in this encoding, by any of the names that the server takes.
    pub fn in_encoding(self, encoding: &str) -> Self {
        let name: String =
            encoding.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_uppercase();
        Self {
            day_first: self.day_first,
            letters: Letters::of(encoding),
            utf8: matches!(name.as_str(), "UTF8" | "UNICODE"),
        }
    }

    /// A byte below 128 is always the ASCII character.
    pub(super) fn ascii_is_ascii(&self) -> bool {
        self.letters == Letters::Plain
    }
}

/// Why rows cannot be rewritten. The session cannot go on: what came is no row of this result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// It has another number of values than the result has columns.
    #[error("a row has {found} values where {expected} columns were announced")]
    Columns {
        /// Columns of the result.
        expected: usize,
        /// Values of the row.
        found: usize,
    },
    /// A length in it does not fit.
    #[error("a row is malformed: a length does not fit")]
    Malformed,
    /// It is longer than what is held in memory to be rewritten.
    #[error(
        "a row is longer than {limit} bytes, which is what masking holds; leave out or shorten its large columns"
    )]
    TooLong {
        /// Bytes that are held.
        limit: usize,
    },
    /// COPY data that is not in the form that was announced.
    #[error("COPY data is malformed: {0}")]
    Copy(&'static str),
    /// COPY data in an encoding of which it is not known how its letters are made.
    #[error("COPY data in this client encoding cannot be masked; use `SET client_encoding = 'UTF8'`")]
    Encoding,
}
