//! Writes records as JSON lines or as lines for people.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use guard_common::audit::v1::{Record, SealedRecord};
use prost::Message;
use serde::Serialize;

use super::line;

/// A record as a JSON line: its place in the chain, and the fields of the record.
#[derive(Debug, Serialize)]
pub struct JsonLine<'a> {
    sequence: u64,
    hash: String,
    #[serde(flatten)]
    record: &'a Record,
}

impl<'a> JsonLine<'a> {
    /// The line of a record.
    pub fn new(sealed: &SealedRecord, record: &'a Record) -> Self {
        Self { sequence: sealed.sequence, hash: hex::encode(&sealed.hash), record }
    }
}

/// The record in a seal; one without a body where it can't be read.
pub fn open(sealed: &SealedRecord) -> Record {
    Record::decode(&*sealed.payload).unwrap_or_default()
}

/// Standard output.
#[derive(Debug)]
pub struct Output {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
    colours: bool,
}

impl Output {
    /// JSON lines, or lines for people, with colours on a terminal.
    pub fn new(json: bool) -> Self {
        let out = io::stdout();
        let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { out: BufWriter::new(out.lock()), json, colours }
    }

    /// Writes one record.
    pub fn record(&mut self, sealed: &SealedRecord, record: &Record) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut self.out, &JsonLine::new(sealed, record))?;
            self.out.write_all(b"\n")
        } else {
            writeln!(self.out, "{}", line::of(sealed.sequence, record, self.colours))
        }
    }

    /// Hands over what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
