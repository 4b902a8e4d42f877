//! `audit tail`: the last records, and what comes after them.

use std::{path::Path, time::Duration};

use clap::Args;

use super::{
    CommandError,
    output::{Output, open},
};
use crate::audit::{ReadError, Reader};

/// How often to look for more.
const LOOK: Duration = Duration::from_millis(100);

/// Options of `tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// Go on with what is recorded from now on, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// How many records
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    lines: u64,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// Prints the last records.
pub fn run(args: &TailArgs, journal: &Path) -> Result<(), CommandError> {
    let mut reader = Reader::open_last(journal, args.lines)?;
    let mut output = Output::new(args.json);
    loop {
        match reader.next_record() {
            Ok(Some(sealed)) => output.record(&sealed, &open(&sealed))?,
            Ok(None) if args.follow => {
                output.flush()?;
                std::thread::sleep(LOOK);
            }
            Ok(None) => return Ok(output.flush()?),
            // Deleted to stay within the limit, faster than it was read here.
            Err(ReadError::Missing { expected }) if args.follow => {
                reader = Reader::open(journal, expected)?;
                eprintln!("guard-agent: records {expected} to {} were deleted unread", reader.position() - 1);
            }
            Err(error) => {
                output.flush()?;
                return Err(error.into());
            }
        }
    }
}
