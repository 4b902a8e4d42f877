//! COPY data enters as the server sends it, in pieces of any size; CopyData messages leave, whose data is valid for the
//! same options.
//!
//! Holds one row at most: a row that is longer than the limit is an error. A piece in which nothing changes is not
//! copied. As the server does, a row is given a message of its own.

mod binary;
mod csv;
mod marks;
mod text;

use std::sync::Arc;

use self::marks::Marks;
use super::{
    Base, Column, Detector, Format, Letters, RewriteError, Rewritten, RowRewriter, Rule, Rules, Settings,
    Tally, Treatment, clean::Look, engine::Outcome,
};
use crate::wire::postgres::{HEADER_BYTES, MAX_MESSAGE_BYTES};

/// Bytes of a row that are held unless the caller says otherwise.
pub const MAX_ROW_BYTES: usize = 64 * 1024 * 1024;

/// The form of COPY data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// Lines with backslashes.
    Text,
    /// Lines with quotes.
    Csv,
    /// Tuples.
    Binary,
}

/// The options of a `COPY .. TO STDOUT` that decide what its data looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// FORMAT.
    pub format: CopyFormat,
    /// DELIMITER.
    pub delimiter: u8,
    /// NULL: what stands for NULL.
    pub null: Vec<u8>,
    /// QUOTE, of CSV.
    pub quote: u8,
    /// ESCAPE, of CSV.
    pub escape: u8,
    /// HEADER: the first line holds the names of the columns.
    pub header: bool,
}

impl CopyOptions {
    /// What the server takes where a statement names the format alone.
    pub fn of(format: CopyFormat) -> Self {
        let (delimiter, null) = match format {
            CopyFormat::Csv => (b',', Vec::new()),
            CopyFormat::Text | CopyFormat::Binary => (b'\t', b"\\N".to_vec()),
        };
        Self { format, delimiter, null, quote: b'"', escape: b'"', header: false }
    }
}

/// How far the end of the row under way has been looked for.
#[derive(Clone, Copy, Debug, Default)]
struct Looked {
    at: usize,
    quoted: bool,
    /// The next byte stands behind an escape.
    escaped: bool,
}

/// Rewrites the data of one COPY.
#[derive(Debug)]
pub struct CopyRewriter<D> {
    rows: RowRewriter<D>,
    options: CopyOptions,
    limit: usize,
    /// The beginning of a row whose end has not come.
    held: Vec<u8>,
    looked: Looked,
    /// What stands before the first row has passed: the binary header, the line of names.
    begun: bool,
    /// The binary trailer has passed.
    ended: bool,
    /// A value without its quotes or escapes.
    plain: Vec<u8>,
    /// What takes a value's place, while it is escaped.
    aside: Vec<u8>,
    /// What takes a row's place.
    row: Vec<u8>,
    /// The data under way without what stands in its letters.
    shape: Vec<u8>,
    /// Of each column, whether what is written in place of a value that has no escapes needs none.
    verbatim: Box<[bool]>,
}

impl<D: Detector> CopyRewriter<D> {
    /// A rewriter for data of these columns, holding `limit` bytes of a row.
    ///
    /// # Errors
    /// Where it is not known how letters are made in this encoding.
    pub fn new(
        mut columns: Vec<Column>,
        options: CopyOptions,
        (rules, detector): (Arc<Rules>, D),
        settings: Settings,
        limit: usize,
    ) -> Result<Self, RewriteError> {
        let format = if options.format == CopyFormat::Binary { Format::Binary } else { Format::Text };
        columns.iter_mut().for_each(|column| column.format = format);
        let rows = RowRewriter::new(columns, rules, settings, detector);
        if format == Format::Text && settings.letters == Letters::Unknown && !rows.passes_all() {
            return Err(RewriteError::Encoding);
        }
        let begun = format == Format::Text && !options.header;
        let verbatim = rows.columns.iter().map(|column| is_verbatim(column, &options)).collect();
        Ok(Self {
            rows,
            options,
            limit,
            held: Vec::new(),
            looked: Looked::default(),
            begun,
            ended: false,
            plain: Vec::new(),
            aside: Vec::new(),
            row: Vec::new(),
            shape: Vec::new(),
            verbatim,
        })
    }

    /// True where all data passes as it is: there is no need to look at any.
    pub fn passes_all(&self) -> bool {
        self.rows.passes_all()
    }

    /// What has been masked up to now.
    pub fn tally(&self) -> &Tally {
        self.rows.tally()
    }

    /// Takes the tally, and begins to count anew.
    pub fn take_tally(&mut self) -> Tally {
        self.rows.take_tally()
    }

    /// Rewrites a piece of data: the body of a CopyData message or a part of it. Appends whole CopyData messages to
    /// `out` unless the piece is to be passed on as it is. What is held back comes with a later piece.
    ///
    /// # Errors
    /// Where the data is not in its form, or a row is too long. The COPY cannot go on then.
    pub fn data(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<Rewritten, RewriteError> {
        if self.held.is_empty() {
            let (rewritten, taken) = self.rows_of(data, true, out)?;
            self.held.extend_from_slice(&data[taken..]);
            return Ok(rewritten);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(data);
        let result = self.rows_of(&held, false, out);
        if let Ok((_, taken)) = result {
            held.drain(..taken);
        }
        self.held = held;
        result.map(|(rewritten, _)| rewritten)
    }

    /// The data ends here: CopyDone.
    ///
    /// # Errors
    /// Where it ends within a row.
    pub fn finish(&self) -> Result<(), RewriteError> {
        let whole = self.options.format != CopyFormat::Binary || self.ended;
        if self.held.is_empty() && whole { Ok(()) } else { Err(RewriteError::Copy("it ends within a row")) }
    }

    /// Rewrites the rows that stand whole in `bytes`; returns how many bytes they are. `passable`: where nothing
    /// changes, nothing need be written.
    fn rows_of(
        &mut self,
        bytes: &[u8],
        passable: bool,
        out: &mut Vec<u8>,
    ) -> Result<(Rewritten, usize), RewriteError> {
        let letters = self.rows.settings.letters;
        if letters == Letters::Plain || self.options.format == CopyFormat::Binary {
            return self.shaped_rows_of((bytes, bytes), passable, out);
        }
        let mut shape = std::mem::take(&mut self.shape);
        letters.shape(bytes, &mut shape);
        let result = self.shaped_rows_of((bytes, &shape), passable, out);
        self.shape = shape;
        result
    }

    /// The same; `shape` is what tells rows and values apart.
    fn shaped_rows_of(
        &mut self,
        (bytes, shape): (&[u8], &[u8]),
        passable: bool,
        out: &mut Vec<u8>,
    ) -> Result<(Rewritten, usize), RewriteError> {
        let start = out.len();
        // Rows between `from` and `at` stay as they are and have not been written.
        let (mut from, mut at) = (0, 0);
        while at < bytes.len() {
            let Some(length) = self.row_length(&shape[at..])? else {
                break;
            };
            let end = at + length;
            if self.row_behind(&bytes[from..at], (&bytes[at..end], &shape[at..end]), out)?
                == Rewritten::Changed
            {
                from = end;
            }
            at = end;
            self.looked = Looked::default();
        }
        if bytes.len() - at > self.limit {
            return Err(RewriteError::TooLong { limit: self.limit });
        }
        if passable && out.len() == start && at == bytes.len() {
            return Ok((Rewritten::Untouched, at));
        }
        passed(&bytes[from..at], out)?;
        Ok((Rewritten::Changed, at))
    }

    /// Rewrites a row; where it changes, `before`, which stays as it is, is written and then what takes the row's place.
    fn row_behind(
        &mut self,
        before: &[u8],
        row: (&[u8], &[u8]),
        out: &mut Vec<u8>,
    ) -> Result<Rewritten, RewriteError> {
        if before.is_empty() {
            // What most rows are: written where it stays.
            let place = out.len();
            out.extend_from_slice(&[b'd', 0, 0, 0, 0]);
            let rewritten = self.row(row, out)?;
            match rewritten {
                Rewritten::Untouched => out.truncate(place),
                Rewritten::Changed => {
                    let length = message_length(out.len() - place - HEADER_BYTES)?;
                    out[place + 1..place + HEADER_BYTES].copy_from_slice(&length);
                }
            }
            return Ok(rewritten);
        }
        let mut written = std::mem::take(&mut self.row);
        written.clear();
        let rewritten = self.row(row, &mut written)?;
        if rewritten == Rewritten::Changed {
            passed(before, out)?;
            passed(&written, out)?;
        }
        self.row = written;
        Ok(rewritten)
    }

    /// Bytes of the row at the beginning of `bytes`; `None` where its end has not come.
    fn row_length(&mut self, bytes: &[u8]) -> Result<Option<usize>, RewriteError> {
        match self.options.format {
            CopyFormat::Text => Ok(text::row_length(bytes, &mut self.looked)),
            CopyFormat::Csv => Ok(csv::row_length(bytes, &self.options, &mut self.looked)),
            CopyFormat::Binary if self.ended => Err(RewriteError::Copy("there is data behind its end")),
            CopyFormat::Binary => binary::length(bytes, self.begun),
        }
    }

    /// Rewrites a row with all that belongs to it.
    fn row(&mut self, row: (&[u8], &[u8]), out: &mut Vec<u8>) -> Result<Rewritten, RewriteError> {
        if self.options.format == CopyFormat::Binary {
            return self.binary_row(row.0, out);
        }
        if !self.begun {
            self.begun = true;
            return Ok(Rewritten::Untouched);
        }
        self.line(row, out)
    }

    /// Rewrites a line of text or CSV.
    fn line(&mut self, (row, shape): (&[u8], &[u8]), out: &mut Vec<u8>) -> Result<Rewritten, RewriteError> {
        let line = row.strip_suffix(b"\n").unwrap_or(row);
        let shape = &shape[..line.len()];
        let csv = self.options.format == CopyFormat::Csv;
        let escape = if csv { self.options.quote } else { b'\\' };
        if memchr::memchr(escape, shape).is_none()
            && let Some(rewritten) = self.simple_line((row, line, shape), out)
        {
            return Ok(rewritten);
        }
        let count = self.rows.columns.len();
        let (mut at, mut from, mut changed) = (0, 0, false);
        let mut plain = std::mem::take(&mut self.plain);
        let delimiter = self.options.delimiter;
        let mut marks = Marks::of(shape, (delimiter, if csv { delimiter } else { b'\\' }));
        for number in 0..count {
            let field = if csv {
                csv::field(shape, at, &self.options, &mut marks)
            } else {
                text::field(shape, at, &self.options, &mut marks)
            };
            let field = field.ok_or(RewriteError::Copy("a value does not end"))?;
            let last = field.end == line.len();
            if last != (number + 1 == count) {
                let rest = &shape[field.end..];
                let found = if last {
                    number + 1
                } else {
                    count + rest.iter().filter(|byte| **byte == self.options.delimiter).count()
                };
                self.plain = plain;
                return Err(RewriteError::Columns { expected: count, found });
            }
            let start = at + usize::from(field.quoted);
            let raw = &line[start..start + field.raw.len()];
            let (look, detector) = (self.rows.looks[number], &self.rows.detector);
            let clean = field.null
                || look == Look::Pass
                || field.plain && look.is_clean(detector, &line[..start + raw.len()], start);
            if !clean {
                plain.clear();
                let value = match (field.plain, csv) {
                    (true, _) => raw,
                    (false, true) => csv::unquote((raw, field.raw), &self.options, &mut plain),
                    (false, false) => text::unescape((raw, field.raw), &mut plain),
                };
                let placed = Placed { number, verbatim: false, quoted: field.quoted };
                if self.put(placed, (&line[from..at], value), out) {
                    (from, changed) = (field.end, true);
                }
            }
            at = field.end + 1;
        }
        self.plain = plain;
        if count == 0 && !line.is_empty() {
            return Err(RewriteError::Columns { expected: 0, found: 1 });
        }
        self.rows.state.tally.row(changed);
        if !changed {
            return Ok(Rewritten::Untouched);
        }
        out.extend_from_slice(&row[from..]);
        Ok(Rewritten::Changed)
    }
}

impl<D: Detector> CopyRewriter<D> {
    /// Rewrites a line in which nothing is escaped and nothing quoted. `None` where it has another number of values than
    /// there are columns: then nothing was written.
    fn simple_line(
        &mut self,
        (row, line, shape): (&[u8], &[u8], &[u8]),
        out: &mut Vec<u8>,
    ) -> Option<Rewritten> {
        let count = self.rows.columns.len();
        let delimiter = self.options.delimiter;
        let mut marks = Marks::of(shape, (delimiter, delimiter));
        let (begin, mut at, mut from, mut changed) = (out.len(), 0, 0, false);
        for number in 0..count {
            let end = marks.from(at).unwrap_or(line.len());
            if (end == line.len()) != (number + 1 == count) {
                out.truncate(begin);
                return None;
            }
            let value = &line[at..end];
            let stays = match self.rows.looks[number] {
                Look::Pass => true,
                _ if *value == *self.options.null => true,
                Look::Exact | Look::Hash(_) => false,
                look => look.is_clean(&self.rows.detector, &line[..end], at),
            };
            if !stays {
                let placed = Placed { number, verbatim: self.verbatim[number], quoted: false };
                if self.put(placed, (&line[from..at], value), out) {
                    (from, changed) = (end, true);
                }
            }
            at = end + 1;
        }
        // Without columns a line is empty.
        if count == 0 && !line.is_empty() {
            return None;
        }
        self.rows.state.tally.row(changed);
        if !changed {
            return Some(Rewritten::Untouched);
        }
        out.extend_from_slice(&row[from..]);
        Some(Rewritten::Changed)
    }

    /// Writes what takes a value's place, behind what stands before it; nothing where the value stays.
    #[inline]
    fn put(&mut self, placed: Placed, (before, value): (&[u8], &[u8]), out: &mut Vec<u8>) -> bool {
        let begin = out.len();
        match before {
            [] => {}
            [one] => out.push(*one),
            more => out.extend_from_slice(more),
        }
        let written = out.len();
        let outcome = self.rows.single(placed.number, value, out);
        match outcome {
            Outcome::Same => out.truncate(begin),
            Outcome::Null => out.extend_from_slice(&self.options.null),
            Outcome::Written if placed.verbatim => {}
            Outcome::Written if self.options.format == CopyFormat::Csv => {
                let of_row = (placed.quoted, self.rows.columns.len());
                csv::escape(&self.options, of_row, (written, &mut self.aside), out);
            }
            Outcome::Written => text::escape(&self.options, (written, &mut self.aside), out),
        }
        outcome != Outcome::Same
    }
}

/// Whether what takes the place of a value of `column` that has nothing to escape has nothing to escape either: it is made
/// of bytes of the value and of stars, blanks, digits and signs of addresses alone.
fn is_verbatim(column: &Column, options: &CopyOptions) -> bool {
    let Treatment::Mask { rule: Rule::Full | Rule::Partial | Rule::Hash(_), .. } = column.treatment else {
        return false;
    };
    let plain = matches!(column.value_type.base, Base::Text) && column.value_type.characters().is_none();
    let usual = |byte: u8| matches!(byte, b'\t' | b',' | b';' | b'|');
    let null = options.null.is_empty() || options.null == b"\\N";
    plain && null && usual(options.delimiter) && matches!(options.quote, b'"' | b'\'')
}

/// Whether a byte is `special`. All are looked at, sixteen at once: nearly all values have none.
#[inline(always)]
fn any(value: &[u8], special: impl Fn(u8) -> bool) -> bool {
    let any_of = |block: &[u8; 16]| block.iter().fold(false, |found, byte| found | special(*byte));
    let (blocks, tail) = value.as_chunks();
    if blocks.iter().fold(false, |found, block| found | any_of(block)) {
        return true;
    }
    match (value.last_chunk(), tail) {
        (_, []) => false,
        // Some of them once more.
        (Some(last), _) => any_of(last),
        // Zeros are nothing special.
        (None, _) => any_of(&crate::mask::bits::padded(tail)),
    }
}

/// How a value stands in its row.
#[derive(Clone, Copy)]
struct Placed {
    number: usize,
    /// What takes its place has nothing to escape.
    verbatim: bool,
    quoted: bool,
}

/// A value in a line.
struct Field<'a> {
    /// Its shape as it stands there, without quotes around all of it.
    raw: &'a [u8],
    /// The byte after it.
    end: usize,
    null: bool,
    /// It stands for itself.
    plain: bool,
    quoted: bool,
}

/// Writes `data`, if any, as a CopyData message.
fn passed(data: &[u8], out: &mut Vec<u8>) -> Result<(), RewriteError> {
    if data.is_empty() {
        return Ok(());
    }
    let length = message_length(data.len())?;
    out.push(b'd');
    out.extend_from_slice(&length);
    out.extend_from_slice(data);
    Ok(())
}

/// The length of a message with so many bytes of data, as it stands in it.
fn message_length(data: usize) -> Result<[u8; 4], RewriteError> {
    let length = u32::try_from(data + 4).ok().filter(|_| data < MAX_MESSAGE_BYTES);
    Ok(length.ok_or(RewriteError::TooLong { limit: MAX_MESSAGE_BYTES })?.to_be_bytes())
}
