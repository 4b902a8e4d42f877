//! Records to replay: from a journal, or from the lines of an export.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use guard_common::audit::v1::Record;
use prost::Message;

use crate::audit::{ReadError, Reader};

use super::JOURNAL;

/// Longest line of an export: far more than the longest record.
const MAX_LINE: u64 = 64 * 1024 * 1024;

/// Why there is nothing to replay.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    /// The file or folder cannot be read.
    #[error("cannot read `{}`: {error}; try it as root, or as the agent's user", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A folder without a journal.
    #[error("there is no record in `{}`: name a journal folder, or a file of JSON lines", .0.display())]
    Empty(PathBuf),
    /// The journal cannot be read further.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// A line is not a record.
    #[error("line {line} is not a record: {error}; expected what `guard-agent audit search --json` writes")]
    Line {
        /// Counts from 1.
        line: u64,
        /// What is wrong with it.
        error: String,
    },
}

/// Where records come from.
pub(super) enum Input {
    Journal(Reader),
    Lines { lines: Box<dyn BufRead>, line: u64 },
}

impl Input {
    /// Opens a journal folder, a state folder, a file of JSON lines, or `-`.
    pub(super) fn open(path: &Path) -> Result<Self, InputError> {
        if path == Path::new("-") {
            return Ok(Self::lines(BufReader::new(io::stdin())));
        }
        let failed = |error| InputError::Open { path: path.to_owned(), error };
        if !std::fs::metadata(path).map_err(failed)?.is_dir() {
            return Ok(Self::lines(BufReader::new(File::open(path).map_err(failed)?)));
        }
        let within = path.join(JOURNAL);
        let folder = if within.is_dir() { within } else { path.to_owned() };
        std::fs::read_dir(&folder).map_err(failed)?;
        if Reader::open(&folder, 1)?.next_record()?.is_none() {
            return Err(InputError::Empty(folder));
        }
        Ok(Self::Journal(Reader::open(&folder, 1)?))
    }

    pub(super) fn lines(lines: impl BufRead + 'static) -> Self {
        Self::Lines { lines: Box::new(lines), line: 0 }
    }

    /// The next record and its number in the journal.
    pub(super) fn next_record(&mut self) -> Result<Option<(u64, Record)>, InputError> {
        match self {
            Self::Journal(reader) => {
                let sealed = reader.next_record()?;
                // One that this version cannot read has no body, and is counted as such.
                let open = |payload: &[u8]| Record::decode(payload).unwrap_or_default();
                Ok(sealed.map(|sealed| (sealed.sequence, open(&sealed.payload))))
            }
            Self::Lines { lines, line } => loop {
                *line += 1;
                let wrong = |error: String| InputError::Line { line: *line, error };
                let mut text = String::new();
                let read = lines.as_mut().take(MAX_LINE).read_line(&mut text);
                if read.map_err(|error| wrong(error.to_string()))? == 0 {
                    return Ok(None);
                }
                if !text.trim().is_empty() {
                    return parse(&text).map(Some).map_err(wrong);
                }
            },
        }
    }
}

/// One line: the record's fields, with its place in the chain beside them.
fn parse(line: &str) -> Result<(u64, Record), String> {
    let mut value: serde_json::Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let fields = value.as_object_mut().ok_or("it is no JSON object")?;
    let sequence = fields.remove("sequence").and_then(|sequence| sequence.as_u64()).unwrap_or_default();
    fields.remove("hash");
    let record = serde_json::from_value(value).map_err(|error| error.to_string())?;
    Ok((sequence, record))
}
