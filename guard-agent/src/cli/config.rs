//! `guard-agent config`: check and show.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};

use super::{fail, print};
use crate::{agent, config::Config};

/// Check or show the configuration.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration and the policies that it names; exit 1 where something is wrong
    Check {
        /// The file to check [default: the one that `run` would take]
        file: Option<PathBuf>,
    },
    /// Print the configuration in force: file, environment and defaults together
    Show,
    /// Print a commented configuration file with every key and its default
    Example,
}

/// Runs `guard-agent config`.
pub(super) fn run(args: &ConfigArgs, file: Option<&Path>) -> ExitCode {
    match &args.command {
        ConfigCommand::Check { file: named } => check(named.as_deref().or(file)),
        ConfigCommand::Show => show(file),
        ConfigCommand::Example => print(|out| out.write_all(include_bytes!("../../../deploy/guard.toml"))),
    }
}

fn check(file: Option<&Path>) -> ExitCode {
    let loaded = match Config::load(file) {
        Ok(loaded) => loaded,
        Err(error) => return fail(error),
    };
    match agent::load_policies(&loaded.config) {
        Ok(policies) => print(|out| {
            let source =
                loaded.file.map_or_else(|| "built-in defaults".to_owned(), |file| file.display().to_string());
            writeln!(out, "{source}: valid; {} policies from {}", policies.len(), policies.origin())
        }),
        Err(error) => fail(error),
    }
}

fn show(file: Option<&Path>) -> ExitCode {
    let loaded = match Config::load(file) {
        Ok(loaded) => loaded,
        Err(error) => return fail(error),
    };
    match toml::to_string_pretty(&loaded.config) {
        Ok(text) => print(|out| out.write_all(text.as_bytes())),
        Err(error) => fail(error),
    }
}
