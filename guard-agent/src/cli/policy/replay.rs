//! Recorded connections and statements, decided on anew by other policies.
//!
//! A journal or an export of it enters; what would be decided differently leaves. Effects are taken from the record: no
//! text is read again, so literals that were never recorded are not missed. Rates are counted along the record's clock.

mod input;
mod scene;
mod tally;

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use guard_policy::PolicySet;

use self::{
    input::{Input, InputError},
    scene::Scene,
    tally::Tally,
};
use super::super::{audit::JOURNAL, fail, print};
use crate::config::Config;

/// Something that ran would be refused.
const WOULD_REFUSE: u8 = 3;

/// How often progress is shown.
const PROGRESS: Duration = Duration::from_millis(500);

const AFTER_HELP: &str = "\
Examples:
  guard-agent policy replay --policies policies/             what new policies would do to this host's record
  guard-agent policy replay /var/lib/guard/journal           the policies in force, all of them enforced
  guard-agent audit search --json > week.jsonl; guard-agent policy replay week.jsonl --policies new/ --json

A journal folder, a state folder with one in it, or JSON lines as `guard-agent audit search --json` writes them
(`-`: from standard input).

Exit codes: 0 nothing that policy allowed would be refused; 3 something would; 1 it could not be replayed;
2 the command line is wrong.";

/// Decide on recorded statements anew.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ReplayArgs {
    /// Journal folder, or an export [default: this host's journal]
    journal: Option<PathBuf>,
    /// The policies to decide by [default: those in force]
    #[arg(long, value_name = "FOLDER")]
    pub(super) policies: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs `guard-agent policy replay`.
pub(super) fn run(args: &ReplayArgs, policies: &PolicySet, config: &Config) -> ExitCode {
    let journal = args.journal.clone().unwrap_or_else(|| config.paths.state.join(JOURNAL));
    let tally = match Input::open(&journal).and_then(|input| replay(input, policies)) {
        Ok(tally) => tally,
        Err(error) => return fail(error),
    };
    let printed = print(|out| {
        if args.json {
            return writeln!(out, "{}", tally.as_json(policies));
        }
        out.write_all(tally.describe(policies).as_bytes())
    });
    if printed == ExitCode::SUCCESS && tally.refuses_more() { ExitCode::from(WOULD_REFUSE) } else { printed }
}

fn replay(mut input: Input, policies: &PolicySet) -> Result<Tally, InputError> {
    let mut scene = Scene::default();
    let mut tally = Tally::default();
    let mut progress = Progress::new();
    while let Some((sequence, record)) = input.next_record()? {
        scene.take(sequence, record, policies, &mut tally);
        progress.at(tally.records());
    }
    progress.done();
    Ok(tally)
}

/// Says on a terminal how far it is.
struct Progress {
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self { shown: None, terminal: std::io::stderr().is_terminal() }
    }

    fn at(&mut self, records: u64) {
        if !self.terminal || !records.is_multiple_of(1024) {
            return;
        }
        if self.shown.is_none_or(|shown| shown.elapsed() >= PROGRESS) {
            self.shown = Some(Instant::now());
            // A terminal that has gone misses nothing.
            let _ = write!(std::io::stderr(), "\r{records} records ..");
        }
    }

    fn done(&self) {
        if self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests;
