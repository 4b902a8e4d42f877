//! Coverage-guided fuzzing of what peers' bytes go through: build, run, sum up.

mod report;
mod run;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, bail, ensure};

use crate::{
    setup::{self, Group},
    shell, style,
};
use run::{Outcome, Target};

/// Fuzz what the bytes of clients and servers go through.
///
/// Targets: startup, frontend and backend (messages), guards and classify (statements), session (a client and a lying
/// server with guard between them), split (any cut of the bytes gives the same messages). What is found stays in
/// target/fuzz: the corpus, which the next run goes on from, and inputs that fail. A table sums up, as does
/// target/bench/fuzz.json. Ends with 1 where an input fails.
///
/// Examples: `cargo xtask fuzz --seconds 60`, `cargo xtask fuzz session --seconds 600`,
/// `cargo xtask fuzz session --reproduce target/fuzz/crashes/session/crash-0123`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Seconds in all; the targets share them
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Targets that run at once; one per core if it is not said
    #[arg(long)]
    jobs: Option<usize>,
    /// Run this one input, in full view
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seconds", "jobs"])]
    reproduce: Option<PathBuf>,
    /// Targets; all if none is named
    targets: Vec<String>,
}

/// Runs the task.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Group::Build, Group::Fuzz])?;
    let fuzzer = run::build()?;
    let targets = selected(fuzzer.targets()?, &arguments.targets)?;
    if let Some(input) = &arguments.reproduce {
        let [target] = &targets[..] else {
            bail!("--reproduce needs the name of the one target that it is for")
        };
        return Ok(if fuzzer.reproduce(target, input)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let outcomes = fuzz(&fuzzer, &targets, arguments)?;
    println!("{}", report::table(&outcomes));
    println!("figures: {}", report::write(&outcomes)?.display());
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.good()).collect();
    for outcome in &failed {
        report::explain(outcome);
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A short run of every target: `(passed, failed)`.
pub fn smoke(seconds: u64) -> Result<(usize, usize)> {
    let arguments = Arguments { seconds, jobs: None, reproduce: None, targets: Vec::new() };
    setup::ensure(&[Group::Build, Group::Fuzz])?;
    let fuzzer = run::build()?;
    let outcomes = fuzz(&fuzzer, &fuzzer.targets()?, &arguments)?;
    println!("{}", report::table(&outcomes));
    outcomes.iter().filter(|outcome| !outcome.good()).for_each(report::explain);
    let passed = outcomes.iter().filter(|outcome| outcome.good()).count();
    Ok((passed, outcomes.len() - passed))
}

fn fuzz(fuzzer: &run::Fuzzer, targets: &[Target], arguments: &Arguments) -> Result<Vec<Outcome>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or(cores).clamp(1, targets.len());
    let share = arguments.seconds * u64::try_from(jobs)? / u64::try_from(targets.len())?;
    let share = Duration::from_secs(share.max(1));
    println!(
        "{} {} targets, {} s each, {jobs} at once",
        style::strong("fuzz:"),
        targets.len(),
        share.as_secs()
    );
    fuzzer.run_all(targets, share, jobs)
}

/// The targets that `names` name; all where it names none.
fn selected(all: Vec<Target>, names: &[String]) -> Result<Vec<Target>> {
    let known: Vec<String> = all.iter().map(|target| target.name.clone()).collect();
    for name in names {
        ensure!(known.contains(name), "there is no target `{name}`; there are {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|target| names.is_empty() || names.contains(&target.name)).collect())
}

/// Where corpora and failing inputs are kept.
fn folder() -> PathBuf {
    shell::target().join("fuzz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_chosen_by_name() {
        let all = || {
            ["startup", "session"]
                .map(|name| Target { name: name.to_owned(), max_len: 1, sql: false })
                .to_vec()
        };
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            selected(all(), &names).map(|targets| targets.len())
        };
        assert_eq!(names(&[]).unwrap(), 2);
        assert_eq!(names(&["session"]).unwrap(), 1);
        let error = names(&["sesion"]).unwrap_err().to_string();
        assert!(error.contains("startup, session"), "{error}");
    }
}
