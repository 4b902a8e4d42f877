//! `guard-agent audit`: reads the journal of this host, with or without a running agent.
//!
//! Text that clients chose is shown with its control characters escaped.

mod export;
mod key;
mod line;
mod literals;
mod output;
mod search;
mod show;
mod tail;
mod verify;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};

use crate::audit::ReadError;

/// Name of the journal's folder in the state folder.
pub const JOURNAL: &str = "journal";

/// Read and verify the audit journal of this host
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    guard-agent audit tail -f\n  \
    guard-agent audit search --verdict refused --since 1h\n  \
    guard-agent audit search --non-proxied --json | jq -r .connection_opened.workload.executable\n  \
    guard-agent audit show 4711\n  \
    guard-agent audit verify --key kept.pub\n  \
    guard-agent audit export --output records.jsonl\n  \
    guard-agent audit export --format parquet --output records.parquet\n  \
    guard-agent audit literals-key --output literals.key\n  \
    guard-agent audit open --key literals.key --export records.jsonl\n\n\
    Exit codes: 0 done, 1 failed (`verify`: the journal is not as it was written; `show`: no such record;\n\
    `open`: something stayed sealed), 2 wrong usage.")]
pub struct AuditArgs {
    /// The agent's state folder, with the journal in it
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the last records
    Tail(tail::TailArgs),
    /// Show the records that match
    Search(search::SearchArgs),
    /// Show one record in full
    Show(show::ShowArgs),
    /// Check every record of the journal against its hash chain and the signatures over it
    Verify(verify::VerifyArgs),
    /// Write records in a form that can be verified on another machine
    Export(export::ExportArgs),
    /// Show the public key that verifies this host's records, or ask for a new one
    Key(key::KeyArgs),
    /// Make a pair of keys for `journal.literals = "encrypted"`: what it seals, only the private one opens
    LiteralsKey(literals::KeyArgs),
    /// Show statements as they were sent, literals and parameters included, where the journal keeps them
    Open(literals::OpenArgs),
}

/// What a command can come to, beside success.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// There is no journal.
    #[error("there is no journal in `{}`: name the agent's state folder with --state", .0.display())]
    NoJournal(PathBuf),
    /// Only its owner may read the journal.
    #[error("may not read the journal in `{}`: try it as root, or as the agent's user", .0.display())]
    NotPermitted(PathBuf),
    /// The journal can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The journal is not as it was written.
    #[error("the journal is not as it was written. {0}")]
    Wrong(#[from] crate::audit::Wrong),
    /// What was given is no public key.
    #[error("`{key}` cannot be used as a public key: {reason}")]
    Key {
        /// As it was given.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing is signed.
    #[error(
        "there is no public key beside the journal ({0}): the agent makes one when it starts, unless `journal.sign_seconds` is 0"
    )]
    NoKey(io::Error),
    /// The file can't be made.
    #[error("cannot write `{}`: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file can't be read.
    #[error("cannot read `{}`: {error}", path.display())]
    Unread {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file holds something else.
    #[error("`{}` holds no private key for literals: name the file that `audit literals-key` wrote", .0.display())]
    NoPrivateKey(PathBuf),
    /// A line of an export is none.
    #[error("line {0}: {1}")]
    Line(u64, String),
    /// Something could not be opened.
    #[error("{0} statements stayed sealed; the first: {1}")]
    Sealed(u64, String),
    /// There is no such record.
    #[error("record {0} is not in the journal; it holds {1} to {2}")]
    NoRecord(u64, u64, u64),
    /// The output can't be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// Runs an audit command on the journal in `state`, unless the command line names another folder.
pub fn run(args: &AuditArgs, state: &Path) -> ExitCode {
    let journal = args.state.as_deref().unwrap_or(state).join(JOURNAL);
    let reads_journal = match &args.command {
        Command::LiteralsKey(_) => false,
        Command::Open(open) => open.reads_journal(),
        _ => true,
    };
    let ready = if reads_journal { readable(&journal) } else { Ok(()) };
    let result = ready.and_then(|()| match &args.command {
        Command::Tail(tail) => tail::run(tail, &journal),
        Command::Search(search) => search::run(search, &journal),
        Command::Show(show) => show::run(show, &journal),
        Command::Verify(verify) => verify::run(verify, &journal),
        Command::Export(export) => export::run(export, &journal),
        Command::Key(key) => key::run(key, &journal),
        Command::LiteralsKey(key) => literals::make_key(key),
        Command::Open(open) => literals::run(open, &journal),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // `guard-agent audit tail | head` is no failure.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guard-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn readable(journal: &Path) -> Result<(), CommandError> {
    match std::fs::read_dir(journal) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(CommandError::NotPermitted(journal.to_owned()))
        }
        Err(_) => Err(CommandError::NoJournal(journal.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::{
        audit::AuditLog,
        config::{JournalConfig, Sync},
    };
    use guard_common::audit::v1::{AgentStopped, record::Body};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        audit: AuditArgs,
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_end_with_the_code_that_scripts_rely_on() {
        let state = tempfile::tempdir().unwrap();
        let run = |line: &[&str]| {
            let cli = Cli::try_parse_from([&["audit"], line].concat()).expect("a command line");
            super::run(&cli.audit, state.path())
        };
        assert_eq!(run(&["verify"]), ExitCode::FAILURE);
        let config = JournalConfig { sync: Sync::Os, sign_seconds: 0, ..JournalConfig::default() };
        let (log, handle) = AuditLog::open(&config, &state.path().join(JOURNAL)).unwrap();
        for n in 0..5 {
            log.record(Body::AgentStopped(AgentStopped { reason: format!("reason {n}\x1b[2J") }));
        }
        drop((log, handle));
        assert_eq!(run(&["verify"]), ExitCode::SUCCESS);
        assert_eq!(run(&["show", "3"]), ExitCode::SUCCESS);
        assert_eq!(run(&["show", "6"]), ExitCode::FAILURE);
        assert_eq!(run(&["tail", "-n", "2"]), ExitCode::SUCCESS);
        assert_eq!(run(&["tail", "--json"]), ExitCode::SUCCESS);
        assert_eq!(run(&["search", "reason", "--since", "1h", "--kind", "agent"]), ExitCode::SUCCESS);
        assert_eq!(run(&["--state", "/nonexistent", "verify"]), ExitCode::FAILURE);
        let segment = state.path().join(JOURNAL).join("journal-00000000000000000001.seg");
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[200] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
        assert_eq!(run(&["verify"]), ExitCode::FAILURE);
    }

    #[test]
    fn wrong_usage_is_told_apart() {
        for line in [
            &["search", "--since", "yesterday-ish"][..],
            &["search", "--verdict", "maybe"],
            &["show", "x"],
            &[],
        ] {
            let error = Cli::try_parse_from([&["audit"], line].concat()).expect_err("wrong usage");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
