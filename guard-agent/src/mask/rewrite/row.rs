//! Rows enter, as bodies of DataRow or tuples of a binary COPY; the message that takes a row's place leaves.
//!
//! A row in which nothing changes is not copied. A row whose counts or lengths lie is an error, never passed.

use std::sync::Arc;

use guard_policy::vocabulary::DataKind;
use smallvec::SmallVec;

use super::{
    Base, Column, Detector, RewriteError, Rules, Seen, Settings, Tally, Treatment,
    array::Fields,
    clean::Look,
    engine::{Engine, Job, Outcome, State},
    hashed::{self, Hashed},
};
use crate::wire::postgres::MAX_MESSAGE_BYTES;

/// The length of a hash, as it stands before a value.
const HASH_LENGTH: [u8; 4] = (hashed::DIGITS as u32).to_be_bytes();

/// What stands for NULL in the place of a length.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// Nothing changes: pass on what came. Nothing was written.
    Untouched,
    /// What was written takes its place.
    Changed,
}

/// Rewrites the rows of one result.
#[derive(Debug)]
pub struct RowRewriter<D> {
    pub(super) columns: Arc<[Column]>,
    /// INVARIANT: one for each column, always as the column is.
    pub(super) looks: SmallVec<[Look; 16]>,
    hashed: Option<Box<Hashed>>,
    pub(super) rules: Arc<Rules>,
    pub(super) settings: Settings,
    pub(super) detector: D,
    pub(super) state: State,
}

impl<D: Detector> RowRewriter<D> {
    /// A rewriter for rows of these columns. `rules` says what becomes of what `detector` finds in them.
    /// Executions of one statement share its columns.
    pub fn new(
        columns: impl Into<Arc<[Column]>>,
        rules: Arc<Rules>,
        settings: Settings,
        detector: D,
    ) -> Self {
        let columns = columns.into();
        let hashed = Hashed::of(&columns);
        Self {
            looks: Look::of_all(&columns, hashed.as_deref()),
            hashed,
            columns,
            rules,
            settings,
            detector,
            state: State::default(),
        }
    }

    /// True where every row passes as it is: there is no need to look at any.
    pub fn passes_all(&self) -> bool {
        self.columns.iter().all(passes)
    }

    /// What the rows consist of.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// From now on the values of a column that was searched are taken for what many of them have shown it to be.
    pub fn expect(&mut self, column: usize, kind: DataKind) {
        let mut columns = self.columns.to_vec();
        if let Some(Column { treatment: Treatment::Scan(hint), .. }) = columns.get_mut(column) {
            hint.kind = Some(kind);
            self.looks = Look::of_all(&columns, self.hashed.as_deref());
            self.columns = columns.into();
        }
    }

    /// What has been masked up to now.
    pub fn tally(&self) -> &Tally {
        &self.state.tally
    }

    /// Takes the tally, and begins to count anew.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.state.tally)
    }

    /// Rewrites the body of a DataRow: appends a whole DataRow message to `out` where it changes.
    ///
    /// # Errors
    /// Where `body` is no row of this result. Then nothing was written.
    pub fn row(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Rewritten, RewriteError> {
        let start = out.len();
        let result = self.message(b'D', body, out);
        if !matches!(result, Ok(Rewritten::Changed)) {
            out.truncate(start);
        }
        result
    }

    fn message(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Result<Rewritten, RewriteError> {
        let start = out.len();
        out.extend_from_slice(&[tag, 0, 0, 0, 0]);
        let (rewritten, end) = self.tuple(body, out)?;
        if end != body.len() {
            return Err(RewriteError::Malformed);
        }
        let length = out.len() - start - 1;
        if length > MAX_MESSAGE_BYTES {
            return Err(RewriteError::TooLong { limit: MAX_MESSAGE_BYTES });
        }
        let length = u32::try_from(length).map_err(|_| RewriteError::Malformed)?;
        out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
        Ok(rewritten)
    }

    /// Rewrites one value of a column as text: appends what takes its place to `out`, if it is written.
    #[inline]
    pub(super) fn single(&mut self, number: usize, text: &[u8], out: &mut Vec<u8>) -> Outcome {
        let Some(column) = self.columns.get(number) else {
            return Outcome::Null;
        };
        self.state.column = number;
        self.state.computed = column.computed;
        let mut engine = Engine {
            detector: &self.detector,
            rules: &self.rules,
            settings: self.settings,
            state: &mut self.state,
        };
        let job = Job::of(&column.treatment);
        engine.value(&column.value_type, column.format, job, text, out)
    }

    /// Rewrites the tuple at the beginning of `bytes`: a count, and values with their lengths. Where it changes it is
    /// appended whole to `out`. Returns where it ends as well.
    pub(super) fn tuple(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(Rewritten, usize), RewriteError> {
        let count = bytes.first_chunk().map(|count| usize::from(u16::from_be_bytes(*count)));
        let count = count.ok_or(RewriteError::Malformed)?;
        if count != self.columns.len() {
            return Err(RewriteError::Columns { expected: self.columns.len(), found: count });
        }
        let mut engine = Engine {
            detector: &self.detector,
            rules: &self.rules,
            settings: self.settings,
            state: &mut self.state,
        };
        let mut hashed = self.hashed.as_deref_mut();
        if let Some(hashed) = &mut hashed {
            hashed.begin();
        }
        let mut fields = Fields { value: bytes, at: 2 };
        let mut from = 0;
        for (number, (column, look)) in self.columns.iter().zip(&self.looks).enumerate() {
            let at = fields.at;
            let field = fields.next().ok_or(RewriteError::Malformed)?;
            let Some(field) = field else { continue };
            let mut job = Job::of(&column.treatment);
            match look {
                Look::Pass => continue,
                Look::Open => match engine.detector.look(&bytes[..fields.at], at + 4) {
                    Seen::Nothing => continue,
                    Seen::Whole(kind) if engine.settings.ascii_is_ascii() => match engine.rules.rule(kind) {
                        Some(rule) => job = Job::Mask(kind, rule),
                        None => continue,
                    },
                    Seen::Whole(_) | Seen::Closer => {}
                },
                Look::Exact => {}
                Look::Hash(kind) => {
                    let Some(hashed) = &mut hashed else { return Err(RewriteError::Malformed) };
                    out.extend_from_slice(&bytes[from..at]);
                    from = fields.at;
                    out.extend_from_slice(&HASH_LENGTH);
                    hashed.add(*kind, field, out);
                    engine.state.tally.add(number, *kind);
                    continue;
                }
                look if look.is_clean(&self.detector, &bytes[..fields.at], at + 4) => continue,
                _ => {}
            }
            engine.state.column = number;
            engine.state.computed = column.computed;
            // Written in place, behind what stands before it, unless it stays.
            let start = out.len();
            if from < at {
                out.extend_from_slice(&bytes[from..at]);
            }
            let place = out.len();
            out.extend_from_slice(&NULL);
            match engine.value(&column.value_type, column.format, job, field, out) {
                Outcome::Same => {
                    out.truncate(start);
                    continue;
                }
                Outcome::Null => {}
                Outcome::Written => {
                    let length = out.len() - place - NULL.len();
                    let length = i32::try_from(length).map_err(|_| RewriteError::Malformed)?;
                    out[place..place + NULL.len()].copy_from_slice(&length.to_be_bytes());
                }
            }
            from = fields.at;
        }
        engine.state.tally.row(from > 0);
        if from == 0 {
            return Ok((Rewritten::Untouched, fields.at));
        }
        if let Some(hashed) = hashed {
            hashed.finish(out);
        }
        out.extend_from_slice(&bytes[from..fields.at]);
        Ok((Rewritten::Changed, fields.at))
    }
}

/// True where no value of the column can change.
pub(super) fn passes(column: &Column) -> bool {
    let plain = !matches!(column.value_type.base, Base::Composite(_) | Base::Array(_));
    matches!(column.treatment, Treatment::Pass) && plain
}
