//! PostgreSQL's own suites, straight to a server and through guard in monitor mode.
//!
//! Each way gets a fresh server. Tests that fail must be the same, and so must every byte that the tests print. What
//! differs is run a second time both ways: only what differs again counts, since some tests print process ids or race.

use std::{path::PathBuf, thread};

use anyhow::{Result, anyhow};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use guard_tests::{
    Agent, AgentConfig, Postgres,
    regress::{Comparison, Outcome, Suite, Suites},
};

use super::summary::Counts;
use crate::{setup, shell, style};

/// Runs both suites both ways; one check is one test of a suite.
pub fn run() -> Result<Counts> {
    let suites = Suites::prepare(&setup::postgres_sources())?;
    let mut counts = Counts::default();
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header([
        "suite",
        "tests",
        "failing direct",
        "failing through guard",
        "outcome differs",
        "output differs",
    ]);
    for suite in Suite::ALL {
        let (direct, proxied, comparison) = compare(&suites, suite)?;
        let failed = comparison.outcomes.len().max(comparison.files.len());
        counts += Counts {
            passed: i64::try_from(proxied.tests.len().saturating_sub(failed))?,
            failed: i64::try_from(failed)?,
            skipped: 0,
        };
        let figures = [
            direct.tests.len(),
            direct.failed.len(),
            proxied.failed.len(),
            comparison.outcomes.len(),
            comparison.files.len(),
        ];
        let mut row = vec![suite.name().to_owned()];
        row.extend(figures.iter().map(usize::to_string));
        table.add_row(row);
        if !comparison.is_clean() {
            report(suite, &comparison, &direct, &proxied)?;
        }
        for name in &direct.failed {
            println!("  {}", style::faint(&format!("{}: {name} fails direct as well", suite.name())));
        }
    }
    println!("{table}");
    Ok(counts)
}

fn compare(suites: &Suites, suite: Suite) -> Result<(Outcome, Outcome, Comparison)> {
    let (direct, proxied) = both_ways(suites, suite)?;
    let first = Comparison::of(&direct, &proxied)?;
    if first.is_clean() {
        return Ok((direct, proxied, first));
    }
    let said = format!("{}: differs once: {}", suite.name(), names(&first));
    println!("  {}", style::faint(&said));
    let (direct, proxied) = both_ways(suites, suite)?;
    let second = Comparison::of(&direct, &proxied)?;
    Ok((direct, proxied, first.both(&second)))
}

/// Both ways at once: much of the time the tests wait for each other's locks.
fn both_ways(suites: &Suites, suite: Suite) -> Result<(Outcome, Outcome)> {
    thread::scope(|scope| {
        let direct = scope.spawn(|| direct(suites, suite));
        let proxied = proxied(suites, suite)?;
        let direct =
            direct.join().map_err(|_| anyhow!("the direct run of {} ended badly", suite.name()))??;
        Ok((direct, proxied))
    })
}

fn direct(suites: &Suites, suite: Suite) -> Result<Outcome> {
    let postgres = Postgres::start()?;
    suites.run(suite, postgres.address())
}

fn proxied(suites: &Suites, suite: Suite) -> Result<Outcome> {
    let postgres = Postgres::start()?;
    let config = AgentConfig { mode: "monitor", ..AgentConfig::default() };
    let agent = Agent::start(&config, &postgres)?;
    suites.run(suite, agent.proxy())
}

fn names(comparison: &Comparison) -> String {
    let all: std::collections::BTreeSet<_> = comparison.outcomes.union(&comparison.files).cloned().collect();
    all.into_iter().collect::<Vec<_>>().join(", ")
}

/// Says what differs, and keeps both outputs for a look.
fn report(suite: Suite, comparison: &Comparison, direct: &Outcome, proxied: &Outcome) -> Result<()> {
    println!("  {} {}: differs: {}", style::bad("FAILED"), suite.name(), names(comparison));
    let kept = kept(suite);
    for (way, outcome) in [("direct", direct), ("guard", proxied)] {
        let folder = kept.join(way);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&kept)?;
        let copy = ["-r", &outcome.results.to_string_lossy(), &folder.to_string_lossy()].map(str::to_owned);
        let copy: Vec<&str> = copy.iter().map(String::as_str).collect();
        shell::run(shell::command("cp", &copy), "keeping what the tests printed")?;
    }
    println!("  compare: diff -r {0}/direct {0}/guard", kept.display());
    Ok(())
}

fn kept(suite: Suite) -> PathBuf {
    shell::target().join("regress").join(suite.name())
}
