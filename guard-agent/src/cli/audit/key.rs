//! `audit key`: the public key that this host's records are signed with.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
};

use clap::Args;
use guard_common::audit::checkpoint::PublicKey;
use serde_json::json;

use super::CommandError;
use crate::audit as journal;

/// Longest key file in bytes.
const MAX_KEY_FILE: u64 = 4_096;

/// Options of `key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Ask the agent for a new key; it takes it with its next checkpoint, and the old one hands over to it
    #[arg(long)]
    rotate: bool,
    /// As a JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the key, or asks for a new one.
pub fn run(args: &KeyArgs, folder: &Path) -> Result<(), CommandError> {
    let key = journal::public_key(folder).map_err(CommandError::NoKey)?;
    let mut out = io::stdout().lock();
    if args.rotate {
        journal::ask_for_new_key(folder)?;
    }
    if args.json {
        let key = json!({ "public_key": key.to_string(), "key_id": key.id(), "rotation_asked": args.rotate });
        writeln!(out, "{key}")?;
    } else if args.rotate {
        writeln!(out, "asked for a new key: the agent takes it with its next checkpoint\nuntil then: {key}")?;
    } else {
        writeln!(out, "{key}")?;
    }
    Ok(out.flush()?)
}

/// Keys of the command line: in hex, or files that hold one.
pub fn read_keys(texts: &[String]) -> Result<Vec<PublicKey>, CommandError> {
    texts.iter().map(|text| read_key(text)).collect()
}

fn read_key(text: &str) -> Result<PublicKey, CommandError> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let wrong = |reason: String| CommandError::Key { key: text.to_owned(), reason };
    let mut content = String::new();
    let file = fs::File::open(text).map_err(|error| wrong(format!("neither a key nor a file: {error}")))?;
    file.take(MAX_KEY_FILE).read_to_string(&mut content).map_err(|error| wrong(error.to_string()))?;
    content.parse().map_err(|error: guard_common::audit::checkpoint::NoKey| wrong(error.to_string()))
}
