//! The task runner: `cargo xtask <task>`.

mod bench;
mod build;
mod demo;
mod fuzz;
mod lint;
mod matrix;
mod picture;
mod setup;
mod shell;
mod style;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// guard's task runner.
///
/// Start with `cargo xtask demo`: it sets up what is missing, builds everything and shows guard at work on a
/// private PostgreSQL. Before a commit: `cargo xtask lint` and `cargo xtask test`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Setup(setup::Arguments),
    BuildEbpf(build::Arguments),
    Demo(demo::Arguments),
    Test(test::Arguments),
    Lint(lint::Arguments),
    #[command(subcommand)]
    Bench(bench::Bench),
    Fuzz(fuzz::Arguments),
    KernelMatrix(matrix::Arguments),
    Picture(picture::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup(arguments) => setup::main(&arguments),
        Task::BuildEbpf(arguments) => build::main(&arguments),
        Task::Demo(arguments) => demo::main(&arguments),
        Task::Test(arguments) => test::main(&arguments),
        Task::Lint(arguments) => lint::main(&arguments),
        Task::Bench(bench) => bench::main(&bench),
        Task::Fuzz(arguments) => fuzz::main(&arguments),
        Task::KernelMatrix(arguments) => matrix::main(&arguments),
        Task::Picture(arguments) => picture::main(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{} {error:#}", style::bad("error:"));
        ExitCode::FAILURE
    })
}
