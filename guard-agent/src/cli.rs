//! The command line of `guard-agent`: arguments enter, an exit code leaves.
//!
//! Exit codes: 0 it worked; 1 it did not, or a check failed; 2 the command line is wrong.

mod approvals;
pub mod audit;
mod config;
mod detach;
pub mod doctor;
mod enroll;
mod policy;
mod restore;
mod run;
mod status;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    config::{Config, Loaded},
    hold,
};

const AFTER_HELP: &str = "\
Examples:
  guard-agent doctor                     what this host can do
  guard-agent run                        watch the PostgreSQL servers of this host; refuse nothing
  guard-agent status                     what is protected right now, and how
  guard-agent approvals list             what waits for people
  guard-agent audit tail -f              what happens, as it happens
  guard-agent policy explain \"DROP TABLE t\" --unit orders.service

Without a configuration file it discovers local servers and monitors. To refuse, set mode = \"enforce\".

Exit codes: 0 it worked; 1 it did not, or a check failed; 2 the command line is wrong.";

/// Watches and guards the databases of this host.
#[derive(Debug, Parser)]
#[command(name = "guard-agent", version, after_help = AFTER_HELP, arg_required_else_help = true)]
struct Cli {
    /// Configuration file [default: /etc/guard/guard.toml where it exists, else built-in defaults]
    #[arg(long, short, global = true, value_name = "FILE", env = "GUARD_AGENT_CONFIG_FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent in the foreground, until SIGTERM or SIGINT; SIGHUP reloads the policies
    Run,
    /// Show what a running agent protects, and how well
    Status(status::StatusArgs),
    /// Find out what this host's kernel can do for guard
    Doctor(doctor::DoctorArgs),
    /// Join a control plane: get the certificate by which it knows this agent
    Enroll(enroll::EnrollArgs),
    /// Take away what a stopped or killed agent has left in the kernel
    Detach(detach::DetachArgs),
    /// List, show, approve and deny statements that wait
    Approvals(approvals::ApprovalsArgs),
    /// Read the audit journal of this host
    Audit(audit::AuditArgs),
    /// Check, test, explain and replay policies
    Policy(policy::PolicyArgs),
    /// Check or show the configuration
    Config(config::ConfigArgs),
    /// Give socket folders that an agent has closed and left their permissions back
    Restore,
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// Let statements go that are held when the agent dies; the agent starts it
    #[command(name = hold::watchdog::COMMAND, hide = true)]
    HoldWatchdog {
        /// The agent's folder for sockets
        run: PathBuf,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // The table of arguments is large; the threads that do the work have stacks of their own.
    let Cli { config, command } = Cli::parse();
    match command {
        Command::Completions { shell } => print(|out| {
            clap_complete::generate(shell, &mut Cli::command(), "guard-agent", out);
            Ok(())
        }),
        Command::Man => print(|out| clap_mangen::Man::new(Cli::command()).render(out)),
        Command::HoldWatchdog { run } => hold::watchdog::run(&run),
        Command::Doctor(args) => with_config(config, |loaded| doctor::run(&args, &loaded.config)),
        Command::Config(args) => config::run(&args, config.as_deref()),
        Command::Run => with_config(config, run::run),
        Command::Enroll(args) => with_config(config, |loaded| enroll::run(args, &loaded.config)),
        Command::Detach(args) => with_config(config, |loaded| detach::run(&args, &loaded.config)),
        Command::Restore => with_config(config, |loaded| restore::run(&loaded.config)),
        Command::Status(args) => with_config(config, |loaded| status::run(&args, &loaded.config)),
        Command::Approvals(args) => with_config(config, |loaded| approvals::run(&args, &loaded.config)),
        Command::Audit(args) => with_config(config, |loaded| audit::run(&args, &loaded.config.paths.state)),
        Command::Policy(args) => with_config(config, |loaded| policy::run(&args, &loaded.config)),
    }
}

fn with_config(file: Option<PathBuf>, run: impl FnOnce(Loaded) -> ExitCode) -> ExitCode {
    match Config::load(file.as_deref()) {
        Ok(loaded) => run(loaded),
        Err(error) => fail(error),
    }
}

/// Says what went wrong.
pub(crate) fn fail(error: impl std::fmt::Display) -> ExitCode {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(io::stderr(), "guard-agent: error: {error}");
    ExitCode::FAILURE
}

/// Writes to standard output. A reader that has gone (`| head`) is no failure.
pub(crate) fn print(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> ExitCode {
    let mut text = Vec::new();
    let written = write(&mut text).and_then(|()| io::stdout().lock().write_all(&text));
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(error),
        _ => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
