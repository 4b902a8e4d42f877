//! What the person in front of the demo reads, and the list of checks behind it.

use std::time::Duration;

use crate::style;

/// Narration and checks.
#[derive(Debug, Default)]
pub struct Show {
    sections: usize,
    passed: usize,
    failed: Vec<String>,
}

impl Show {
    /// Opens a section: a headline, and what one is going to see.
    pub fn section(&mut self, title: &str, text: &str) {
        self.sections += 1;
        println!("\n{}", style::strong(&format!("{}. {title}", self.sections)));
        println!("{}", style::faint(text));
    }

    /// A command as a person would type it.
    pub fn command(&self, shown: &str) {
        println!("\n  $ {shown}");
    }

    /// What it printed.
    pub fn output(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("    {line}");
        }
    }

    /// One thing that has to be so. `seen` is what was seen instead; it is shown when it is not so.
    pub fn check(&mut self, what: &str, ok: bool, seen: &str) {
        if ok {
            self.passed += 1;
            println!("  {} {what}", style::good("ok"));
            return;
        }
        println!("  {} {what}", style::bad("FAILED"));
        let seen = seen.trim();
        if !seen.is_empty() {
            self.output(&format!("seen instead: {seen}"));
        }
        self.failed.push(what.to_owned());
    }

    /// A check whose looking can fail: then it has failed, and the reason is shown.
    pub fn found<T>(&mut self, what: &str, outcome: anyhow::Result<T>) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.check(what, true, "");
                Some(value)
            }
            Err(error) => {
                self.check(what, false, &format!("{error:#}"));
                None
            }
        }
    }

    /// The last word: whether everything happened, and what did not.
    pub fn verdict(&self, took: Duration) -> bool {
        println!();
        if self.failed.is_empty() {
            let text = format!("All {} checks passed in {:.1} s.", self.passed, took.as_secs_f64());
            println!("{}", style::good(&text));
            return true;
        }
        println!("{}", style::bad(&format!("{} checks passed; these failed:", self.passed)));
        for what in &self.failed {
            println!("  - {what}");
        }
        false
    }
}
