//! Counts: from what test runners print, and from what tests write down about skipping.

use std::{fmt, fs, ops::AddAssign, path::Path};

use anyhow::Result;
use tempfile::NamedTempFile;

use crate::style;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: i64,
    pub failed: i64,
    pub skipped: i64,
}

impl Counts {
    /// One check.
    pub fn of(ok: bool) -> Self {
        Self { passed: ok.into(), failed: (!ok).into(), skipped: 0 }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Adds up the summary lines of cargo test, cargo nextest and `guard-agent policy test`. `None`: there is none.
pub fn parse(output: &str) -> Option<Counts> {
    let lines: Vec<String> = output.lines().map(without_colours).collect();
    let is_summary = |line: &&String| {
        line.starts_with("test result:") || line.trim_start().starts_with("Summary [") || is_plain(line)
    };
    let mut found = None;
    for line in lines.iter().filter(is_summary) {
        let counts = found.get_or_insert_with(Counts::default);
        let number = |word| before(line, word).unwrap_or(0);
        // nextest lists what timed out apart; cargo test calls a skipped test ignored.
        *counts += Counts {
            passed: number("passed"),
            failed: number("failed") + number("timed out") + number("exec failed"),
            skipped: number("ignored") + number("skipped"),
        };
    }
    found
}

/// A line such as `12 passed, 0 failed`, as guard's own commands print it.
fn is_plain(line: &str) -> bool {
    line.split_once(' ')
        .is_some_and(|(first, rest)| first.parse::<u64>().is_ok() && rest.starts_with("passed"))
}

/// The number right before `word`, up to punctuation.
fn before(line: &str, word: &str) -> Option<i64> {
    line.split([',', ';', ':', '.', '(']).find_map(|part| {
        let number = part.trim().strip_suffix(word)?.trim();
        number.rsplit(' ').next()?.parse().ok()
    })
}

/// Without terminal escape sequences.
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((text, escape)) = rest.split_once("\x1b[") {
        plain.push_str(text);
        rest = escape.split_once('m').map_or("", |(_, after)| after);
    }
    plain + rest
}

/// What tests write down when they cannot run here: see `guard_tests::skip`.
#[derive(Debug)]
pub struct Skips {
    file: NamedTempFile,
}

impl Skips {
    pub fn new() -> Result<Self> {
        Ok(Self { file: NamedTempFile::new()? })
    }

    /// For the environment variable `GUARD_SKIPS`.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Says what was skipped. To be added to the counts of the runners, which took those tests for passed.
    pub fn report(&self, on_ci: bool) -> Result<Counts> {
        let text = fs::read_to_string(self.file.path())?;
        let (counts, lines) = judge(&text, on_ci);
        for line in lines {
            println!("{} {line}", style::bad("SKIPPED"));
        }
        Ok(counts)
    }
}

fn judge(text: &str, on_ci: bool) -> (Counts, Vec<String>) {
    let mut counts = Counts::default();
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, '\t');
        let (Some(kind), Some(test), Some(reason)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        counts.passed -= 1;
        if on_ci && kind == "can" {
            counts.failed += 1;
            lines.push(format!("{test}: {reason} (a failure on CI)"));
        } else {
            counts.skipped += 1;
            lines.push(format!("{test}: {reason}"));
        }
    }
    (counts, lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: i64, failed: i64, skipped: i64) -> Option<Counts> {
        Some(Counts { passed, failed, skipped })
    }

    #[test]
    fn summaries_of_cargo_test_are_added_up() {
        let output = "test result: ok. 8 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.1s\n\
                      test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(parse(output), counts(11, 2, 1));
    }

    #[test]
    fn summaries_of_nextest_are_read_with_and_without_colours() {
        let plain = "     Summary [   6.608s] 16 tests run: 15 passed (1 slow), 1 failed, 3 skipped";
        assert_eq!(parse(plain), counts(15, 1, 3));
        let coloured = "\x1b[31;1m     Summary\x1b[0m [   6.608s] \x1b[1m3\x1b[0m tests run: \x1b[1m1\x1b[0m passed, \
                        \x1b[1m1\x1b[0m failed, \x1b[1m1\x1b[0m timed out, \x1b[1m0\x1b[0m skipped";
        assert_eq!(parse(coloured), counts(1, 2, 0));
    }

    #[test]
    fn guards_own_summary_is_read_and_other_lines_are_not() {
        assert_eq!(parse("ok  destructive\n12 passed, 1 failed\n"), counts(12, 1, 0));
        assert_eq!(parse("I have passed, 3 failed\n"), None);
    }

    #[test]
    fn a_skip_takes_the_place_of_a_pass_and_fails_on_ci_if_it_can_be_mended() {
        let text = "can\ta\tno psql\ncannot\tb\tno BPF\n";
        assert_eq!(Some(judge(text, false).0), counts(-2, 0, 2));
        assert_eq!(Some(judge(text, true).0), counts(-2, 1, 1));
    }
}
