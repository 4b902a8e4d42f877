//! Measurements: side by side, in interleaved rounds, as ratios.

mod control;
mod decide;
mod mask;
mod observe;
mod proxy;
mod report;

use std::process::ExitCode;

use anyhow::Result;

/// Measure guard against its yardsticks.
///
/// Every bench prints a table and writes `target/bench/NAME.json`, a flat map from figure to number.
#[derive(Debug, clap::Subcommand)]
pub enum Bench {
    Proxy(proxy::Arguments),
    Decide(decide::Arguments),
    Mask(mask::Arguments),
    Observe(observe::Arguments),
    Control(control::Arguments),
}

/// Runs the task.
pub fn main(bench: &Bench) -> Result<ExitCode> {
    match bench {
        Bench::Proxy(arguments) => proxy::main(arguments),
        Bench::Decide(arguments) => decide::main(arguments),
        Bench::Mask(arguments) => mask::main(arguments),
        Bench::Observe(arguments) => observe::main(arguments),
        Bench::Control(arguments) => control::main(arguments),
    }
}
