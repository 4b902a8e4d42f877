//! What masking costs: megabytes per second of the rewriting core, and results through the proxy with masking on and
//! off.

mod sessions;

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Result, ensure};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};

use super::report::{self};
use crate::{
    build,
    setup::{self, Group},
    style,
};

/// What masking costs.
///
/// Parts: `core` (rewriting results and COPY data, and looking through results in which nothing is sensitive: megabytes of
/// rows per second on one thread), `sessions` (results through the proxy and pgbench -S, with masking on and switched off
/// by configuration, in turns). Figures are medians over the rounds.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of each run of pgbench
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Parts of the bench
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::ALL)]
    parts: Vec<Part>,
    /// Measure a debug build of the core: to see that the bench works
    #[arg(long)]
    debug: bool,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The rewriting core
    Core,
    /// Results through the proxy
    Sessions,
}

impl Part {
    const ALL: [Self; 2] = [Self::Core, Self::Sessions];
}

/// Rows of the table: what, the figure's name, and the least that is wanted.
const FIGURES: &[(&str, &str, Option<f64>)] = &[
    ("rows, four of six columns masked: full", "rows_full_mb_s", Some(400.0)),
    ("the same: partial", "rows_partial_mb_s", Some(400.0)),
    ("the same: null", "rows_null_mb_s", Some(400.0)),
    ("the same: hash", "rows_hash_mb_s", Some(400.0)),
    ("COPY text: partial", "copy_text_partial_mb_s", Some(400.0)),
    ("COPY csv: partial", "copy_csv_partial_mb_s", Some(400.0)),
    ("rows looked through, nothing found", "rows_scan_clean_mb_s", None),
    ("rows looked through, four of six found", "rows_scan_found_mb_s", Some(400.0)),
];

/// Runs the bench.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    let mut figures = BTreeMap::new();
    if arguments.parts.contains(&Part::Core) {
        setup::ensure(&[Group::Build])?;
        let core = report::of_agent("mask", arguments.rounds, arguments.debug)?.medians();
        ensure!(!core.is_empty(), "the bench has measured nothing");
        println!("\n{}", table(&core));
        figures.extend(core);
    }
    if arguments.parts.contains(&Part::Sessions) {
        setup::ensure(&[Group::Build, Group::Bench])?;
        println!("{}", style::strong("Building guard (release)"));
        build::workspace(true)?;
        let samples = sessions::measure(arguments.rounds, arguments.seconds)?;
        figures.extend(sessions::report(&samples));
        figures.extend(samples.medians());
    }
    println!("written: {}", report::write("mask", &figures)?.display());
    Ok(ExitCode::SUCCESS)
}

fn table(figures: &BTreeMap<String, f64>) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header(["MB per second, one core", "guard", "at least"]);
    for (name, figure, least) in FIGURES {
        let value = figures.get(*figure).map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
        let least = least.map_or_else(String::new, |least| format!("{least:.0}"));
        table.add_row([(*name).to_owned(), value, least]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_place() {
        let figures = BTreeMap::from([("rows_partial_mb_s".to_owned(), 512.3)]);
        let text = table(&figures).to_string();
        assert!(text.contains("512") && text.contains("400"), "{text}");
    }
}
