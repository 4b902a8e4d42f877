//! The command line of `guard-control`.

mod agents;
mod approvals;
mod audit;
mod decisions;
mod outlets;
mod output;
mod people;
mod place;
mod policy;
mod program;
mod serve;
mod source;
mod token;

use std::{io, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

/// The control plane of guard: gathers, verifies and searches the database access records of a fleet.
#[derive(Debug, Parser)]
#[command(
    name = "guard-control",
    version,
    max_term_width = 110,
    after_help = "Examples:\n  \
        guard-control serve --data /var/lib/guard-control\n  \
        guard-control token create --ttl 1h --name db7\n  \
        guard-control decisions --verdict refused\n  \
        guard-control decisions --non-proxied --json | jq .connection.workload.executable\n  \
        guard-control agents\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take records from agents and answer questions about them
    Serve(serve::ServeArgs),
    /// Show what was decided, the newest first
    Decisions(decisions::DecisionsArgs),
    /// Prove what is stored, and verify proofs
    Audit(audit::AuditArgs),
    /// Publish policies, hand them to hosts step by step, and see what they would have done
    Policy(policy::PolicyArgs),
    /// Make, list and take back the tokens by which agents join
    Token(token::TokenArgs),
    /// Show the agents of the fleet; revoke one, or trust its new key
    Agents(agents::AgentsArgs),
    /// Show how far the outlets are; forget one that is not used any more
    Outlets(outlets::OutletsArgs),
    /// Decide on statements that wait, with an API token
    Approvals(approvals::ApprovalsArgs),
    /// Say who may sign in at the console, on this host
    People(people::PeopleArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, for `man -l -`
    Man,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Decisions(args) => decisions::run(&args),
        Command::Agents(args) => agents::run(&args),
        Command::Approvals(args) => match approvals::run(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Outlets(args) => outlets::run(&args),
        Command::People(args) => people::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Completions { shell } => {
            // In memory first: the generator panics where its output can't be written.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "guard-control", &mut script);
            output::write(&script)
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(anyhow::Error::from)
                .and_then(|()| output::write(&page))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // `guard-control decisions | head` is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guard-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
