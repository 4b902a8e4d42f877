//! `audit verify`: checks every record against the hash chain and the signatures.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use clap::Args;
use guard_common::audit::checkpoint::PublicKey;

use super::{CommandError, key::read_keys};
use crate::audit as journal;

/// How long a running agent may take to finish the record that it is writing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Options of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A public key that you kept, in hex, or a file with one; may be said more than once. Without it the chain's own
    /// first key is believed
    #[arg(long = "key", value_name = "KEY|FILE")]
    keys: Vec<String>,
}

/// Prints how long the chain is and how far it is signed, or fails with the first record that is wrong.
pub fn run(args: &VerifyArgs, folder: &Path) -> Result<(), CommandError> {
    let keys: Vec<PublicKey> = read_keys(&args.keys)?;
    let verified = journal::verify(folder, &keys, PATIENCE)?;
    let verdict = &verified.verdict;
    let before = verdict.before_first().map(|before| format!("\n{before}")).unwrap_or_default();
    let mut out = io::stdout().lock();
    match verdict.head.sequence {
        last if last < verified.first => writeln!(out, "the journal is empty{before}")?,
        last => writeln!(
            out,
            "records {} to {last} in {} segments are as they were written{before}\nhash of record {last}: {}\n{}",
            verified.first,
            verified.segments,
            hex::encode(verdict.head.hash),
            verdict.signed_until()
        )?,
    }
    Ok(out.flush()?)
}
