//! What reading and deciding cost, in nanoseconds per statement.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Result, ensure};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};

use super::report::{self};
use crate::setup::{self, Group};

/// Reading (classify) and deciding on statements like those of pgbench, of order entry and of reports.
///
/// Figures are nanoseconds per statement on one thread, medians over the rounds. `uncached`: a statement that was not
/// seen before; `first`: the first statement of a session whose workload, database and settings were not seen before.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Measure a debug build: to see that the bench works
    #[arg(long)]
    debug: bool,
}

/// Rows of the table: name, end of the figure's name, and the budget in microseconds.
const FIGURES: &[(&str, &str, Option<f64>)] = &[
    ("classify, cached", "classify_cached_ns", None),
    ("classify, uncached", "classify_uncached_ns", None),
    ("decide, cached", "decide_cached_ns", Some(2.0)),
    ("decide, uncached", "decide_uncached_ns", Some(25.0)),
    ("decide, first of a session", "decide_first_ns", None),
    ("decide, cached, 100 more policies", "decide_cached_100_more_policies_ns", Some(2.0)),
    ("decide, uncached, 100 more policies", "decide_uncached_100_more_policies_ns", None),
    ("decide, first, 100 more policies", "decide_first_100_more_policies_ns", None),
];

const SETS: &[&str] = &["pgbench", "order_entry", "reports"];

/// Runs the bench.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Group::Build])?;
    let figures = report::of_agent("decide", arguments.rounds, arguments.debug)?.medians();
    ensure!(!figures.is_empty(), "the bench has measured nothing");
    println!("\n{}", table(&figures));
    println!("written: {}", report::write("decide", &figures)?.display());
    Ok(ExitCode::SUCCESS)
}

fn table(figures: &BTreeMap<String, f64>) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header(["ns per statement", "pgbench", "order entry", "reports", "budget (pgbench)"]);
    for (name, figure, budget) in FIGURES {
        let mut row = vec![(*name).to_owned()];
        for set in SETS {
            let value = figures.get(&format!("{set}_{figure}"));
            row.push(value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}")));
        }
        row.push(budget.map_or_else(String::new, |budget| format!("{:.0}", budget * 1e3)));
        table.add_row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_place() {
        let figures = BTreeMap::from([("pgbench_decide_cached_ns".to_owned(), 123.4)]);
        let text = table(&figures).to_string();
        assert!(text.contains("123") && text.contains("2000"), "{text}");
    }
}
