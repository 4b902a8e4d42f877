//! `guard-agent policy`: check, test, explain, replay.

mod cases;
mod explain;
mod replay;
mod who;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use guard_policy::{PolicyError, PolicySet};

use super::{fail, print};
use crate::{agent, config::Config};

/// Check, test, explain and replay policies.
#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Check that the policies are valid: grammar, schema, annotations; exit 1 where they are not
    Check {
        /// Policy folder [default: the one in force]
        folder: Option<PathBuf>,
    },
    /// Run the cases beside the policies (`cases.toml`); exit 1 where one fails
    Test {
        /// Policy folder [default: the one in force]
        folder: Option<PathBuf>,
    },
    /// Show how a statement is read and what would be decided
    Explain(Box<explain::ExplainArgs>),
    /// Decide on recorded statements anew, by other policies, and show what would change
    Replay(replay::ReplayArgs),
}

/// Runs `guard-agent policy`.
pub(super) fn run(args: &PolicyArgs, config: &Config) -> ExitCode {
    match &args.command {
        PolicyCommand::Check { folder } => match load(folder.as_deref(), config) {
            Ok(policies) => print(|out| {
                writeln!(
                    out,
                    "{}: {} policies, valid ({})",
                    policies.origin(),
                    policies.len(),
                    policies.hash()
                )
            }),
            Err(error) => fail(error),
        },
        PolicyCommand::Test { folder } => {
            let folder = folder.as_deref().or(config.paths.policies.as_deref());
            match load(folder, config) {
                Ok(policies) => cases::run(policies, folder),
                Err(error) => fail(error),
            }
        }
        PolicyCommand::Explain(args) => match load(args.policies.as_deref(), config) {
            Ok(policies) => explain::run(args, policies, config),
            Err(error) => fail(error),
        },
        PolicyCommand::Replay(args) => match load(args.policies.as_deref(), config) {
            Ok(policies) => replay::run(args, &policies, config),
            Err(error) => fail(error),
        },
    }
}

fn load(folder: Option<&Path>, config: &Config) -> Result<PolicySet, PolicyError> {
    match folder {
        Some(folder) => PolicySet::from_folder(folder),
        None => agent::load_policies(config),
    }
}
