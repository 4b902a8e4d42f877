//! One value enters with its type, its format and what to do; the value that takes its place leaves, if it is another.
//!
//! Each family of types has its file, with the part of [`Engine`] that rewrites it. A part answers `None` for what it
//! cannot read, and that becomes NULL.

use guard_policy::vocabulary::DataKind;

use super::{
    Base, Detector, Format, Hint, Hits, KeyNames, Named, Rule, Rules, Settings, Tally, Treatment, ValueType,
};

/// How deep values may lie within values: arrays of rows of arrays.
const MAX_DEPTH: usize = 16;

/// Longest value whose parts are kept in memory from row to row.
const KEPT_BYTES: usize = 256 * 1024;

/// What is to be done with a value.
#[derive(Clone, Copy)]
pub(super) enum Job<'a> {
    /// Nothing.
    Pass,
    /// Rewrite what is found in it.
    Scan(Hint),
    /// Rewrite all of it.
    Mask(DataKind, &'a Rule),
}

impl<'a> Job<'a> {
    pub(super) fn of(treatment: &'a Treatment) -> Self {
        match treatment {
            Treatment::Pass => Self::Pass,
            Treatment::Scan(hint) => Self::Scan(*hint),
            Treatment::Mask { kind, rule } => Self::Mask(*kind, rule),
        }
    }
}

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It stays. Nothing was written.
    Same,
    /// What was written takes its place.
    Written,
    /// NULL takes its place.
    Null,
}

/// What is kept from value to value.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) tally: Tally,
    /// The column under way.
    pub(super) column: usize,
    /// It comes from an expression: keys may be values.
    pub(super) computed: bool,
    /// The text under way, where it is no value.
    pub(super) text: Vec<u8>,
    hits: Hits,
    pub(super) keys: KeyNames,
    spare: Vec<Vec<u8>>,
    depth: usize,
}

/// Rewrites values.
pub(super) struct Engine<'a, D> {
    pub(super) detector: &'a D,
    pub(super) rules: &'a Rules,
    pub(super) settings: Settings,
    pub(super) state: &'a mut State,
}

impl<'a, D: Detector> Engine<'a, D> {
    /// Rewrites `value`: appends what takes its place to `out`, if it is written.
    pub(super) fn value(
        &mut self,
        value_type: &'a ValueType,
        format: Format,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Outcome {
        if let Job::Mask(kind, rule) = job {
            if matches!(rule, Rule::Null) {
                self.count(kind);
                return Outcome::Null;
            }
            // What most masked columns are.
            if matches!(value_type.base, Base::Text) && value_type.characters().is_none() {
                self.masked_text(kind, rule, value, out);
                return Outcome::Written;
            }
        }
        let start = out.len();
        self.state.depth += 1;
        let outcome = if self.state.depth > MAX_DEPTH {
            None
        } else {
            self.dispatch(value_type, format, job, value, out)
        };
        self.state.depth -= 1;
        let outcome = outcome.unwrap_or_else(|| {
            self.state.tally.could_not_read();
            Outcome::Null
        });
        if outcome != Outcome::Written {
            out.truncate(start);
        }
        outcome
    }

    fn dispatch(
        &mut self,
        value_type: &'a ValueType,
        format: Format,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        // An array or a row may have parts with treatments of their own.
        if matches!(job, Job::Pass) && !matches!(value_type.base, Base::Composite(_) | Base::Array(_)) {
            return Some(Outcome::Same);
        }
        if !self.settings.ascii_is_ascii()
            && format == Format::Text
            && let Base::Array(_) | Base::Composite(_) | Base::Hstore | Base::Json | Base::Jsonb | Base::Xml =
                value_type.base
        {
            // A part of it is to be hidden, and cannot be found.
            if matches!(job, Job::Pass) && value_type.has_own_treatments() {
                return None;
            }
            return self.whole(job, value);
        }
        match &value_type.base {
            Base::Text => self.text(value_type.characters(), job, value, out),
            Base::Name => self.name(job, value, out),
            Base::Bpchar => self.bpchar(value_type.characters(), job, value, out),
            Base::Bytea => self.bytea(format, job, value, out),
            Base::Xml => self.xml(job, value, out),
            Base::Json => self.json(job, value, out),
            Base::Jsonb if format == Format::Text => self.json(job, value, out),
            Base::Jsonb => {
                // Version 1 is text: <https://github.com/postgres/postgres/blob/REL_17_0/src/backend/utils/adt/jsonb.c>.
                let text = value.strip_prefix(&[1])?;
                out.push(1);
                self.json(job, text, out)
            }
            Base::Int2 | Base::Int4 | Base::Int8 | Base::Float4 | Base::Float8 | Base::Money | Base::Bool => {
                self.number(&value_type.base, format, job, value, out)
            }
            Base::Numeric => self.numeric(value_type.whole_digits(), format, job, value, out),
            Base::Date | Base::Timestamp | Base::Timestamptz | Base::Time | Base::Timetz | Base::Interval => {
                self.time(&value_type.base, format, job, value, out)
            }
            Base::Uuid | Base::Inet | Base::Cidr | Base::Macaddr | Base::Macaddr8 => {
                self.address(&value_type.base, format, job, value, out)
            }
            Base::Hstore => self.hstore(format, job, value, out),
            Base::Array(element) => self.array(element, format, job, value, out),
            Base::Composite(fields) => self.composite(fields.as_deref(), format, job, value, out),
            Base::Range(element) | Base::Multirange(element) => {
                let several = matches!(value_type.base, Base::Multirange(_));
                self.range((element, several), format, job, value, out)
            }
            Base::Enum => match job {
                Job::Mask(..) => self.whole(job, value),
                Job::Scan(_) | Job::Pass => Some(Outcome::Same),
            },
            Base::Unknown => self.whole(job, value),
        }
    }

    /// What cannot be taken apart: NULL where it is to be masked, or where something is found in its bytes.
    pub(super) fn whole(&mut self, job: Job<'a>, value: &[u8]) -> Option<Outcome> {
        let kind = match job {
            Job::Pass => return Some(Outcome::Same),
            Job::Mask(kind, _) => kind,
            Job::Scan(hint) => match self.finds(hint, value) {
                Some(kind) => kind,
                None => return Some(Outcome::Same),
            },
        };
        self.count(kind);
        Some(Outcome::Null)
    }

    /// The first kind found in `value` that is not to be seen in clear.
    pub(super) fn finds(&mut self, hint: Hint, value: &[u8]) -> Option<DataKind> {
        let hits = self.scan(hint, value);
        let found = hits.as_slice().iter().map(|hit| hit.kind).find(|kind| self.rules.rule(*kind).is_some());
        self.state.hits = hits;
        found
    }

    /// What the detectors find. Give the buffer back with [`Self::scanned`].
    pub(super) fn scan(&mut self, hint: Hint, value: &[u8]) -> Hits {
        let mut hits = std::mem::take(&mut self.state.hits);
        self.detector.scan(value, hint, &mut hits);
        hits
    }

    pub(super) fn scanned(&mut self, hits: Hits) {
        self.state.hits = hits;
    }

    /// What to do with the value of `key`, within an object with which `job` is to be done. `first` is its first byte.
    pub(super) fn job_of_key(&mut self, key: &[u8], job: Job<'a>, first: u8) -> Job<'a> {
        let Job::Scan(outer) = job else {
            return job;
        };
        let number = first == b'-' || first.is_ascii_digit();
        let named = self.detector.by_key(key, number, outer.people, &mut self.state.keys);
        let nested = matches!(first, b'{' | b'[');
        let about_people = || std::str::from_utf8(key).is_ok_and(|key| self.detector.is_about_people(key));
        let people = outer.people || nested && about_people();
        match named {
            Named::Sensitive(kind) => match self.rules.rule(kind) {
                Some(rule) => Job::Mask(kind, rule),
                None => Job::Scan(Hint { people, ..outer }),
            },
            Named::Hint(hint) => Job::Scan(Hint { people, ..hint }),
            Named::Plain => Job::Scan(Hint { people, ..outer }),
        }
    }

    /// Counts a value of the column under way as masked.
    pub(super) fn count(&mut self, kind: DataKind) {
        self.state.tally.add(self.state.column, kind);
    }

    /// An empty buffer. Give it back with [`Self::done`].
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.state.spare.pop().unwrap_or_default()
    }

    pub(super) fn done(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= KEPT_BYTES && self.state.spare.len() < 2 * MAX_DEPTH {
            buffer.clear();
            self.state.spare.push(buffer);
        }
    }
}
