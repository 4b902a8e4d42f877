//! The one test command: every stage, one line each, one sum at the end.

mod drivers;
mod regress;
mod stages;
mod summary;

use std::{process::ExitCode, time::Instant};

use anyhow::Result;
use stages::Stage;
use summary::{Counts, Skips};

use crate::{
    build,
    setup::{self, Group},
    style,
};

/// Run the tests: unit tests, policies, kernel, end to end, other people's drivers, PostgreSQL's own
/// suites, other kernels, deployment files, the demo.
///
/// What is missing is installed first (see `setup`). The last line says `N passed, N failed, N skipped` over
/// everything. A test that needs what this machine cannot do says so and counts as skipped; with CI=true in the
/// environment, a skip of something that `setup` could install is a failure.
///
/// Examples: `cargo xtask test`, `cargo xtask test e2e`, `cargo xtask test unit deploy`,
/// `cargo xtask test refused_statements` (every test whose name has it).
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Stages (unit, policies, kernel, control, e2e, drivers, regress, disguises, masking, console, deploy, demo; not unless named:
    /// approvals, bypass, matrix, fuzz; `usual` stands for all of the former), or parts of test names
    filter: Vec<String>,
}

/// Runs the task.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    let (stages, names) = Stage::selected(&arguments.filter);
    let own = stages.iter().flat_map(|stage| stage.groups());
    let groups: Vec<Group> = [Group::Build, Group::Demo, Group::Test].iter().chain(own).copied().collect();
    setup::ensure(&groups)?;
    let started = Instant::now();
    println!("{}", style::strong("build"));
    build::workspace(false)?;
    println!("build: {} s", started.elapsed().as_secs());

    let skips = Skips::new()?;
    let mut total = Counts::default();
    for stage in stages {
        println!("{}", style::strong(stage.title()));
        let started = Instant::now();
        let counts = stage.run(&names, &skips)?;
        println!("{}: {counts} ({:.1} s)", stage.title(), started.elapsed().as_secs_f64());
        total += counts;
    }
    let on_ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    total += skips.report(on_ci)?;
    let good = total.failed == 0;
    if total.passed == 0 && good {
        println!("{}", style::bad("no test matched"));
        return Ok(ExitCode::FAILURE);
    }
    println!("{total}");
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
