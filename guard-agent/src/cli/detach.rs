//! `guard-agent detach`: takes away what an agent has left in the kernel.

use std::{fmt::Write as _, io::Write as _, os::unix::net::UnixStream, process::ExitCode};

use clap::Args;

use super::{fail, print};
use crate::{
    agent,
    config::Config,
    steering::{self, Detached},
};

/// Take away everything that an agent of this configuration has left in the kernel.
#[derive(Debug, Args)]
pub(super) struct DetachArgs {
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// Runs `guard-agent detach`. Doing it again does no harm.
pub(super) fn run(args: &DetachArgs, config: &Config) -> ExitCode {
    let socket = agent::socket_path(&config.paths.run);
    if UnixStream::connect(&socket).is_ok() {
        return fail(format!(
            "a guard-agent is running (it answers on `{}`), and would set everything again: stop it first",
            socket.display()
        ));
    }
    let done = steering::detach(&config.pins, &config.steering, &config.paths.state);
    let printed = match args.json {
        true => print(|out| writeln!(out, "{}", serde_json::to_string(&done)?)),
        false => print(|out| out.write_all(describe(&done).as_bytes())),
    };
    if done.failed.is_empty() { printed } else { ExitCode::FAILURE }
}

fn describe(done: &Detached) -> String {
    if done.removed.is_empty() && done.failed.is_empty() {
        return format!("nothing of the agent `{}` is in the kernel\n", done.instance);
    }
    let mut text = String::new();
    // Writing to a string does not fail.
    for item in &done.removed {
        let _ = writeln!(text, "removed  {item}");
    }
    for failure in &done.failed {
        let _ = writeln!(text, "STILL THERE  {}: {}", failure.item, failure.error);
    }
    text
}
