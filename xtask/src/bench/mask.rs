//! What masking costs: megabytes per second of the rewriting core.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};

use super::report::{self, Samples};
use crate::{
    setup::{self, Group},
    shell, style,
};

/// Rewriting results and COPY data, and looking through results in which nothing is sensitive.
///
/// Figures are megabytes of rows per second on one thread, medians over the rounds.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Measure a debug build: to see that the bench works
    #[arg(long)]
    debug: bool,
}

/// Rows of the table: what, the figure's name, and the least that is wanted.
const FIGURES: &[(&str, &str, Option<f64>)] = &[
    ("rows, four of six columns masked: full", "rows_full_mb_s", Some(400.0)),
    ("the same: partial", "rows_partial_mb_s", Some(400.0)),
    ("the same: null", "rows_null_mb_s", Some(400.0)),
    ("the same: hash", "rows_hash_mb_s", None),
    ("COPY text: partial", "copy_text_partial_mb_s", None),
    ("COPY csv: partial", "copy_csv_partial_mb_s", None),
    ("rows looked through, nothing found", "rows_scan_clean_mb_s", None),
    ("rows looked through, four of six found", "rows_scan_found_mb_s", None),
];

/// Runs the bench.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Group::Build])?;
    println!("{}", style::strong("Building the bench"));
    let rounds = arguments.rounds.to_string();
    let mut command = shell::cargo(&["bench", "--locked", "--quiet", "--package", "guard-agent"]);
    if arguments.debug {
        command.args(["--profile", "dev"]);
    }
    command.args(["--bench", "mask", "--", "--rounds", &rounds]);
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", shell::shown(&command)))?;
    ensure!(output.status.success(), "{} failed", shell::shown(&command));
    let mut samples = Samples::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let round: BTreeMap<String, f64> =
            serde_json::from_str(line).with_context(|| format!("not a round of the bench: {line}"))?;
        round.iter().for_each(|(figure, value)| samples.add(figure, *value));
    }
    let figures: BTreeMap<String, f64> =
        samples.names().filter_map(|name| Some((name.to_owned(), samples.median(name)?))).collect();
    ensure!(!figures.is_empty(), "the bench has measured nothing");
    println!("\n{}", table(&figures));
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
