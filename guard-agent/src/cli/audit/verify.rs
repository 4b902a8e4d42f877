//! `audit verify`: checks every record against the hash chain.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use super::CommandError;
use crate::audit as journal;

/// How long a running agent may take to finish the record that it is writing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Prints how long the chain is, or fails with the first record that is wrong.
pub fn run(folder: &Path) -> Result<(), CommandError> {
    let verified = journal::verify(folder, PATIENCE)?;
    let mut out = io::stdout().lock();
    match verified.head.sequence {
        last if last < verified.first => writeln!(out, "the journal is empty")?,
        last => writeln!(
            out,
            "records {} to {last} in {} segments are as they were written\nhash of record {last}: {}",
            verified.first,
            verified.segments,
            hex::encode(verified.head.hash)
        )?,
    }
    Ok(out.flush()?)
}
