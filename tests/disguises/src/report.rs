//! Figures and problems enter, what a person reads leaves; the last line is the sum that the test stage adds up.

use std::process::ExitCode;

/// Most problems shown of one kind; the rest is counted.
const SHOWN: usize = 40;

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    passed: usize,
    problems: Vec<String>,
    gaps: Vec<String>,
}

impl Report {
    /// Notes `count` checks that went as they should.
    pub fn pass(&mut self, count: usize) {
        self.passed += count;
    }

    /// Notes one that did not.
    pub fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    /// Notes one that is known not to.
    pub fn gap(&mut self, text: String) {
        self.gaps.push(text);
    }

    /// Prints a figure.
    pub fn figure(&self, what: &str, value: impl std::fmt::Display) {
        println!("  {what:<46} {value}");
    }

    /// Prints what is wrong, in full if `all`, and the sum.
    pub fn end(self, all: bool) -> ExitCode {
        let shown = if all { usize::MAX } else { SHOWN };
        if !self.gaps.is_empty() {
            println!("KNOWN GAPS: {} dangerous statements are not read as what they are", self.gaps.len());
            self.gaps.iter().for_each(|gap| println!("  {gap}"));
        }
        for problem in self.problems.iter().take(shown) {
            println!("FAILED {problem}");
        }
        if self.problems.len() > shown {
            println!("FAILED .. and {} more; --all shows them", self.problems.len() - shown);
        }
        println!("{} passed, {} failed", self.passed, self.problems.len());
        if self.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
