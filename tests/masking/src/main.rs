//! How much of what is sensitive guard finds, and how much else it takes for it: `cargo xtask test masking`.
//!
//! Data of many countries are made from a seed, in columns with telling names and in columns that say nothing, among
//! decoys. What is printed is how guard's own finding does on them; nothing here is part of guard.

mod figures;
mod locales;
mod measure;
mod numbers;
mod random;
mod values;

use std::process::ExitCode;

use figures::Figures;

/// The same seed gives the same data.
const SEED: u64 = 7;

fn main() -> ExitCode {
    let seed = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(SEED);
    println!("data of {} countries, seed {seed}", locales::LOCALES.len());
    let telling = measure::telling_columns(seed);
    telling.print("columns with telling names");
    let untelling = measure::untelling_columns(seed);
    untelling.print("values in columns that say nothing");
    let checks = [
        check("telling names, recall", telling.recall(), 0.99),
        check("telling names, precision", telling.precision(), 0.98),
        check("values, recall", untelling.recall(), 0.95),
        check("values, precision", untelling.precision(), 0.95),
        check("telling names, recall of the worst kind", worst(&telling), 0.95),
        check("values, recall of the worst kind", worst(&untelling), 0.9),
    ];
    let passed = checks.iter().filter(|&&good| good).count();
    println!("{passed} passed, {} failed", checks.len() - passed);
    if passed == checks.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn worst(figures: &Figures) -> f64 {
    figures.kinds().map(|(_, figure)| figure.recall()).fold(1.0, f64::min)
}

fn check(what: &str, is: f64, least: f64) -> bool {
    let good = is >= least;
    println!("{} {what}: {is:.4} (at least {least})", if good { "ok    " } else { "FAILED" });
    good
}
