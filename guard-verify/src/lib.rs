//! Verifies exported records away from the host that wrote them.
//!
//! Lines of an export enter; how far the chain holds and is signed leaves, or the first line that is wrong. It needs no
//! agent, no network and no secret, and believes nothing that the export says of itself.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use guard_common::audit::{
    checkpoint::PublicKey,
    export::{Header, Line, LineError, MAX_LINE},
    verifier::{Before, Fault, Verdict, Verifier},
};
use serde_json::json;

/// How often the progress is said.
const PROGRESS: Duration = Duration::from_secs(2);

/// Prove that exported audit records are as a guard agent wrote them, and that none is missing between them
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
    guard-verify --key 3f2a..c1 records.jsonl\n  \
    guard-verify --key kept.pub --json < records.jsonl\n\n\
    Keep the key of `guard-agent audit key` away from the host when you install it; without a key that you kept, the\n\
    proof rests on the chain's own word.\n\n\
    Exit codes: 0 it holds, 1 it does not (the first wrong record is named), 2 wrong usage."
)]
pub struct Arguments {
    /// A public key that you kept, in hex, or a file with one; may be said more than once
    #[arg(long = "key", value_name = "KEY|FILE")]
    keys: Vec<String>,
    /// Say the verdict as a JSON object
    #[arg(long)]
    json: bool,
    /// The export; standard input where it is not said
    file: Option<PathBuf>,
}

/// Why there is no good verdict.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// What was given is no key.
    #[error("`{key}` cannot be used as a public key: {reason}")]
    Key {
        /// As it was given.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The export can't be read.
    #[error("cannot read the export: {0}")]
    Read(#[from] io::Error),
    /// It ends before it begins.
    #[error("this is no export: `guard-agent audit export` writes one")]
    Empty,
    /// A line is not as it was written.
    #[error("line {line}: {error}")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong.
        error: LineError,
    },
    /// A line is longer than any record.
    #[error("line {0} is longer than any record")]
    TooLong(u64),
    /// The chain does not hold.
    #[error("line {line}: {fault}")]
    Chain {
        /// From 1.
        line: u64,
        /// What is wrong.
        fault: Fault,
    },
    /// Signed for another agent than the export names.
    #[error("the export says that it is agent {said}'s, but it is signed by agent {signed}")]
    Agent {
        /// In the first line.
        said: String,
        /// In the checkpoints.
        signed: String,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.file {
        None => verify(io::stdin().lock(), &arguments.keys),
        Some(path) => File::open(path)
            .map_err(VerifyError::from)
            .and_then(|file| verify(BufReader::with_capacity(1 << 20, file), &arguments.keys)),
    };
    let mut out = io::stdout().lock();
    let (text, code) = match &result {
        Ok(verdict) => (told(verdict, arguments.json), ExitCode::SUCCESS),
        Err(error) if arguments.json => {
            (json!({ "holds": false, "reason": error.to_string() }).to_string(), ExitCode::FAILURE)
        }
        Err(error) => {
            eprintln!("guard-verify: {error}");
            return ExitCode::FAILURE;
        }
    };
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn told(verdict: &Verdict, json: bool) -> String {
    if json {
        return json!({
            "holds": true,
            "agent_id": verdict.agent_id,
            "first": verdict.first,
            "before": match &verdict.before {
                Before::Nothing => "nothing",
                Before::Deleted(_) => "deleted",
                Before::Unknown => "unknown",
            },
            "last": verdict.head.sequence,
            "hash": hex::encode(verdict.head.hash),
            "signed_until": verdict.signed.as_ref().map(|signed| signed.sequence),
            "key_id": verdict.signed.as_ref().map(|signed| signed.key.id()),
            "checkpoints": verdict.checkpoints,
            "by_given_key": verdict.by_given_key,
        })
        .to_string();
    }
    if verdict.first == 0 {
        return "the export holds no record".to_owned();
    }
    let before = verdict.before_first().map(|before| format!("\n{before}")).unwrap_or_default();
    format!(
        "records {} to {} are as they were written{before}\nhash of record {}: {}\n{}",
        verdict.first,
        verdict.head.sequence,
        verdict.head.sequence,
        hex::encode(verdict.head.hash),
        verdict.signed_until()
    )
}

/// Verifies the lines of `export` with `keys`, which are keys in hex or names of files that hold one.
pub fn verify(mut export: impl BufRead, keys: &[String]) -> Result<Verdict, VerifyError> {
    let keys = keys.iter().map(|key| read_key(key)).collect::<Result<Vec<_>, _>>()?;
    let mut verifier = Verifier::new(keys);
    let mut line = String::new();
    if !next_line(&mut export, &mut line, 1)? {
        return Err(VerifyError::Empty);
    }
    let header = Header::read(&line).map_err(|error| VerifyError::Line { line: 1, error })?;
    let (mut number, mut told) = (1_u64, Instant::now());
    while next_line(&mut export, &mut line, number + 1)? {
        number += 1;
        let sealed = Line::read(&line).map_err(|error| VerifyError::Line { line: number, error })?;
        verifier.accept(&sealed).map_err(|fault| VerifyError::Chain { line: number, fault })?;
        if told.elapsed() >= PROGRESS && io::stderr().is_terminal() {
            eprintln!("guard-verify: record {} ..", sealed.sequence);
            told = Instant::now();
        }
    }
    let verdict = verifier.verdict().map_err(|fault| VerifyError::Chain { line: number, fault })?;
    match &verdict.agent_id {
        Some(signed) if *signed != header.agent_id => {
            Err(VerifyError::Agent { said: header.agent_id, signed: signed.clone() })
        }
        _ => Ok(verdict),
    }
}

/// The next line without its end; false where there is none.
fn next_line(export: &mut impl BufRead, line: &mut String, number: u64) -> Result<bool, VerifyError> {
    line.clear();
    let limit = MAX_LINE as u64;
    if export.by_ref().take(limit).read_line(line)? == 0 {
        return Ok(false);
    }
    if !line.ends_with('\n') && line.len() as u64 == limit {
        return Err(VerifyError::TooLong(number));
    }
    Ok(true)
}

fn read_key(text: &str) -> Result<PublicKey, VerifyError> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let wrong = |reason: String| VerifyError::Key { key: text.to_owned(), reason };
    let mut content = String::new();
    let file = File::open(text).map_err(|error| wrong(format!("neither a key nor a file: {error}")))?;
    file.take(4_096).read_to_string(&mut content).map_err(|error| wrong(error.to_string()))?;
    content.parse().map_err(|error: guard_common::audit::checkpoint::NoKey| wrong(error.to_string()))
}

#[cfg(test)]
mod tests;
