//! Figures of a fuzzing run: from what libFuzzer prints, to a table and a file.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};

use super::run::Outcome;
use crate::{shell, style};

/// Lines of a log that say why an input failed.
const REASON_LINES: usize = 4;

/// What libFuzzer's output says: `#123 DONE cov: 45 ft: 67 corp: 8/9b ..`, and `stat::name: number`.
pub fn parse(output: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in output.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("stat::number_of_executed_units:") => outcome.executions = number(words.next()),
            Some("stat::peak_rss_mb:") => outcome.memory_mib = number(words.next()),
            Some(first) if first.starts_with('#') => {
                outcome.executions = outcome.executions.max(number(first.strip_prefix('#')));
                while let Some(word) = words.next() {
                    match word {
                        "cov:" => outcome.coverage = number(words.next()),
                        "corp:" => {
                            outcome.corpus = number(words.next().and_then(|sizes| sizes.split('/').next()))
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    outcome
}

fn number(word: Option<&str>) -> u64 {
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// One line per target, and a sum.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header(["target", "executions", "per second", "edges", "corpus", "MiB", "seconds", "crashes"]);
    let mut sum = Outcome { target: "all".to_owned(), ..Outcome::default() };
    let mut lines: Vec<Outcome> = outcomes.to_vec();
    for outcome in outcomes {
        sum.executions += outcome.executions;
        sum.seconds += outcome.seconds;
        sum.corpus += outcome.corpus;
        sum.coverage = sum.coverage.max(outcome.coverage);
        sum.memory_mib = sum.memory_mib.max(outcome.memory_mib);
        sum.crashes.extend(outcome.crashes.iter().cloned());
    }
    lines.push(sum);
    for outcome in &lines {
        table.add_row([
            outcome.target.clone(),
            outcome.executions.to_string(),
            format!("{:.0}", rate(outcome)),
            outcome.coverage.to_string(),
            outcome.corpus.to_string(),
            outcome.memory_mib.to_string(),
            format!("{:.0}", outcome.seconds),
            outcome.crashes.len().to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn rate(outcome: &Outcome) -> f64 {
    // Far below 2^52.
    outcome.executions as f64 / outcome.seconds.max(0.001)
}

/// Writes `target/bench/fuzz.json`, a flat map from figure to number, and gives its path.
pub fn write(outcomes: &[Outcome]) -> Result<PathBuf> {
    let mut figures = BTreeMap::new();
    for outcome in outcomes {
        let mut add = |name: &str, value: f64| figures.insert(format!("{}_{name}", outcome.target), value);
        add("executions", outcome.executions as f64);
        add("executions_per_second", rate(outcome));
        add("edges", outcome.coverage as f64);
        add("corpus", outcome.corpus as f64);
        add("memory_mib", outcome.memory_mib as f64);
        add("seconds", outcome.seconds);
        add("crashes", outcome.crashes.len() as f64);
    }
    let folder = shell::target().join("bench");
    fs::create_dir_all(&folder)?;
    let path = folder.join("fuzz.json");
    fs::write(&path, serde_json::to_string_pretty(&figures)? + "\n")?;
    Ok(path)
}

/// Says what failed and how to see it again.
pub fn explain(outcome: &Outcome) {
    let log = fs::read_to_string(&outcome.log).unwrap_or_default();
    println!("{} {}", style::bad("failed:"), outcome.target);
    let reasons = log.lines().skip_while(|line| !is_reason(line)).take(REASON_LINES);
    reasons.for_each(|line| println!("  {line}"));
    println!("  all of it:  {}", outcome.log.display());
    for crash in &outcome.crashes {
        println!("  again:      cargo xtask fuzz {} --reproduce {}", outcome.target, crash.display());
        println!("  to keep it: cp {} guard-agent/fuzz/crashes/{}/", crash.display(), outcome.target);
    }
}

fn is_reason(line: &str) -> bool {
    line.contains("panicked at") || line.contains("ERROR: libFuzzer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_libfuzzer_prints() {
        let output = "INFO: seed corpus\n#10\tINITED cov: 105 ft: 138 corp: 8/220b exec/s: 0 rss: 36Mb\n\
            #112747\tDONE   cov: 151 ft: 367 corp: 82/4983b lim: 980 exec/s: 12527 rss: 36Mb\n\
            stat::number_of_executed_units: 112747\nstat::peak_rss_mb:              36\n";
        let outcome = parse(output);
        assert_eq!(
            (outcome.executions, outcome.coverage, outcome.corpus, outcome.memory_mib),
            (112_747, 151, 82, 36)
        );
        assert!(!outcome.good(), "it has not said that it ended well");
        assert!(Outcome { ended_well: true, ..outcome.clone() }.good());
        assert!(!Outcome { ended_well: true, crashes: vec!["x".into()], ..outcome }.good());
        assert!(!Outcome { ended_well: true, ..parse("") }.good(), "nothing was tried");
    }

    #[test]
    fn the_table_has_a_sum() {
        let one = Outcome { target: "one".to_owned(), executions: 40, seconds: 2.0, ..Outcome::default() };
        let shown = table(&[one.clone(), Outcome { target: "other".to_owned(), ..one }]);
        let last = shown.lines().rev().nth(1).unwrap();
        assert!(last.contains("all") && last.contains("80") && last.contains("20"), "{shown}");
    }
}
