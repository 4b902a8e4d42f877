//! How many records a second a control plane takes, verified and on disk.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Result, ensure};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};

use super::report;
use crate::setup::{self, Group};

/// Ingest of eight simulated agents into the embedded store, with every chain verified.
///
/// Beside it what it is made of: the store without the network, and decoding and hashing alone on one thread. The lowest of
/// them is what holds it up.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Measure a debug build: to see that the bench works
    #[arg(long)]
    debug: bool,
}

/// Rows of the table: name, figure, and what it should reach.
const FIGURES: &[(&str, &str, Option<f64>)] = &[
    ("ingest over gRPC, chain verified, on disk", "ingest_records_per_s", Some(100_000.0)),
    ("the store alone", "store_records_per_s", None),
    ("decoding and hashing, one thread", "verify_records_per_s", None),
    ("most resident memory, agents included, MiB", "resident_mib", None),
];

/// Runs the bench.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Group::Build])?;
    let samples = report::of_package("guard-control", "ingest", arguments.rounds, arguments.debug)?;
    let figures = samples.medians();
    ensure!(!figures.is_empty(), "the bench has measured nothing");
    println!("\n{}", table(&figures));
    println!("written: {}", report::write("control", &figures)?.display());
    Ok(ExitCode::SUCCESS)
}

fn table(figures: &BTreeMap<String, f64>) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header(["records per second", "median", "goal"]);
    for (name, figure, goal) in FIGURES {
        let number = |value: f64| format!("{value:.0}");
        let value = figures.get(*figure).map_or_else(|| "-".to_owned(), |value| number(*value));
        table.add_row([(*name).to_owned(), value, goal.map_or_else(String::new, number)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_place() {
        let figures = BTreeMap::from([("ingest_records_per_s".to_owned(), 123_456.7)]);
        let text = table(&figures).to_string();
        assert!(text.contains("123457") && text.contains("100000"), "{text}");
    }
}
