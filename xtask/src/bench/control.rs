//! What a control plane bears: records a second, agents at once, and how long people wait for a search among millions.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Result, ensure};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};

use super::report;
use crate::setup::{self, Group};

/// Ingest, agents and search of a control plane with the embedded store.
///
/// `ingest`: eight simulated agents send as fast as they can, every chain is verified, and what is acknowledged is on disk. Beside
/// it what it is made of: the store without the network, and decoding and hashing alone on one thread; the lowest of them is what
/// holds it up. `agents`: 2,000 agents with certificates of their own, streams open over mutual TLS, each sending now and then, at
/// the real program. `search`: 10 million records, and the questions of the console's pages and of the command line, with the
/// kernel's cache of the store empty and full; 9 GB of disk, which are free again at the end.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which of them
    #[arg(value_enum, default_values_t = [Part::Ingest, Part::Agents, Part::Search])]
    parts: Vec<Part>,
    /// Rounds of `ingest`
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Agents of `agents`
    #[arg(long, default_value_t = 2_000)]
    agents: u32,
    /// Records of `search`
    #[arg(long, default_value_t = 10_000_000)]
    records: u64,
    /// Measure a debug build: to see that the bench works
    #[arg(long)]
    debug: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Records a second
    Ingest,
    /// Agents at once
    Agents,
    /// Time for a search
    Search,
}

/// Rows of the table: what it is, the figure's name, and what it should reach.
type Row = (&'static str, &'static str, Option<f64>);

const INGEST: &[Row] = &[
    ("ingest over gRPC, chain verified, on disk: records/s", "ingest_records_per_s", Some(100_000.0)),
    ("the store alone: records/s", "store_records_per_s", None),
    ("decoding and hashing, one thread: records/s", "verify_records_per_s", None),
    ("busy processors while it ingests, agents included", "ingest_busy_processors", None),
    ("most resident memory, agents included, MiB", "resident_mib", None),
];

const AGENTS: &[Row] = &[
    ("agents connected over mutual TLS", "agents_connected", Some(2_000.0)),
    ("until all of them are, s", "agents_all_connected_s", None),
    ("their records: records/s", "agents_records_per_s", None),
    ("until a batch is acknowledged, median, ms", "agents_acknowledged_median_ms", None),
    ("the same, 95 of 100, ms", "agents_acknowledged_p95_ms", None),
    ("guard-control at rest, MiB", "agents_idle_control_mib", None),
    ("guard-control with all of them, MiB", "agents_control_mib", None),
    ("guard-control at most, MiB", "agents_control_peak_mib", None),
];

const SEARCH: &[Row] = &[
    ("records in the store", "records", None),
    ("put there: records/s", "fill_records_per_s", None),
    ("bytes a record", "store_bytes_per_record", None),
    ("resident memory after the searches, MiB", "resident_mib", None),
];

/// Questions of `search`; each should be answered within this many milliseconds at the median.
const WAIT: f64 = 300.0;

/// Runs the bench.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Group::Build])?;
    for part in [Part::Ingest, Part::Agents, Part::Search] {
        if arguments.parts.contains(&part) {
            measure(part, arguments)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(part: Part, arguments: &Arguments) -> Result<()> {
    let (name, own) = match part {
        Part::Ingest => ("ingest", ["--rounds".to_owned(), arguments.rounds.to_string()]),
        Part::Agents => ("agents", ["--agents".to_owned(), arguments.agents.to_string()]),
        Part::Search => ("search", ["--records".to_owned(), arguments.records.to_string()]),
    };
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let figures = report::with("guard-control", name, &own, arguments.debug)?.medians();
    ensure!(!figures.is_empty(), "the bench has measured nothing");
    match part {
        Part::Ingest => println!("\n{}", table(INGEST, &figures)),
        Part::Agents => println!("\n{}", table(AGENTS, &figures)),
        Part::Search => println!("\n{}\n{}", table(SEARCH, &figures), waits(&figures)),
    }
    println!("written: {}", report::write(&format!("control-{name}"), &figures)?.display());
    Ok(())
}

fn empty(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header(header);
    table
}

/// Large numbers whole, small ones with what is behind the point.
fn number(value: f64) -> String {
    match value.abs() < 100.0 {
        true => format!("{value:.1}"),
        false => format!("{value:.0}"),
    }
}

fn table(rows: &[Row], figures: &BTreeMap<String, f64>) -> Table {
    let mut table = empty(&["", "median", "goal"]);
    for (name, figure, goal) in rows {
        let value = figures.get(*figure).map_or_else(|| "-".to_owned(), |value| number(*value));
        table.add_row([(*name).to_owned(), value, goal.map_or_else(String::new, number)]);
    }
    table
}

/// A line for each question.
fn waits(figures: &BTreeMap<String, f64>) -> Table {
    let mut table = empty(&["search, ms", "warm", "95 of 100", "cold", "95 of 100", "median's goal"]);
    let suffix = "_warm_median_ms";
    for figure in figures.keys().filter(|figure| figure.ends_with(suffix)) {
        let question = figure.trim_end_matches(suffix);
        let of = |what: &str| {
            figures.get(&format!("{question}_{what}_ms")).map_or_else(|| "-".to_owned(), |ms| number(*ms))
        };
        table.add_row([
            question.trim_start_matches("search_").replace('_', " "),
            of("warm_median"),
            of("warm_p95"),
            of("cold_median"),
            of("cold_p95"),
            number(WAIT),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_place() {
        let figures = BTreeMap::from([("ingest_records_per_s".to_owned(), 123_456.7)]);
        let text = table(INGEST, &figures).to_string();
        assert!(text.contains("123457") && text.contains("100000"), "{text}");
        let figures = BTreeMap::from([
            ("search_text_rare_warm_median_ms".to_owned(), 12.34),
            ("search_text_rare_cold_p95_ms".to_owned(), 456.7),
        ]);
        let text = waits(&figures).to_string();
        assert!(text.contains("text rare") && text.contains("12.3") && text.contains("457"), "{text}");
    }
}
