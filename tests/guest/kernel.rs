//! The kernel tests of this build, run as they are.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use super::{Work, counted, run};

/// Runs them, a few at a time: the machine may be an emulated one.
pub fn run_all(work: &Work) -> Result<()> {
    let skips = work.path("skips");
    let mut command = Command::new(work.path("kernel-tests"));
    command.arg("--test-threads=2").env("GUARD_SKIPS", &skips).env("GUARD_EMULATED", "1").current_dir("/tmp");
    let (_, output) = run(&mut command)?;
    let line = output.lines().find(|line| line.starts_with("test result:"));
    let line = line.with_context(|| format!("the kernel tests did not come to their end: {output}"))?;
    let skipped = fs::read_to_string(&skips).unwrap_or_default().lines().count();
    let skipped = i64::try_from(skipped)?;
    let (passed, failed) = (before(line, "passed") - skipped, before(line, "failed"));
    counted("kernel tests", [passed, failed, skipped], &failures(&output));
    Ok(())
}

/// The number right before a word of the summary.
fn before(line: &str, word: &str) -> i64 {
    line.split([';', '.']).find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok()).unwrap_or(0)
}

/// The messages of what failed.
fn failures(output: &str) -> String {
    output.split_once("\nfailures:\n").map(|(_, rest)| rest.trim().to_owned()).unwrap_or_default()
}
