//! `audit show`: one record in full.

use std::{
    io::{self, Write},
    path::Path,
};

use clap::Args;

use super::{
    CommandError,
    output::{JsonLine, open},
};
use crate::audit::Reader;

/// Options of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Number of the record, as `tail` and `search` show it
    #[arg(value_name = "SEQUENCE", value_parser = clap::value_parser!(u64).range(1..))]
    sequence: u64,
}

/// Prints the record as indented JSON.
pub fn run(args: &ShowArgs, journal: &Path) -> Result<(), CommandError> {
    let mut reader = Reader::open(journal, args.sequence)?;
    let sealed = reader.next_record()?.filter(|sealed| sealed.sequence == args.sequence);
    let Some(sealed) = sealed else {
        let first = Reader::open(journal, 1)?.position();
        let last = Reader::open_last(journal, 0)?.position() - 1;
        return Err(CommandError::NoRecord(args.sequence, first, last));
    };
    let record = open(&sealed);
    let text = serde_json::to_string_pretty(&JsonLine::new(&sealed, &record)).map_err(io::Error::from)?;
    let mut out = io::stdout().lock();
    // JSON escapes what a terminal would act on, but for the upper control characters and those that reorder text.
    let safe = text.lines().map(guard_common::audit::display::visible);
    for line in safe {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}
