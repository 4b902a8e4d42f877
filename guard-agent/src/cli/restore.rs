//! `guard-agent restore`: what an agent that was killed has left behind on this host is taken back.
//!
//! The configuration enters; folders get the permissions that they had. A running agent gives them back itself.

use std::{io::Write as _, process::ExitCode};

use super::{fail, print};
use crate::{agent, config::Config, enforce::folders};

/// Runs `guard-agent restore`.
pub(super) fn run(config: &Config) -> ExitCode {
    if std::os::unix::net::UnixStream::connect(agent::socket_path(&config.paths.run)).is_ok() {
        return fail("guard-agent is running: stop it, and it gives folders back by itself");
    }
    match folders::restore(&config.paths.state) {
        Ok(opened) if opened.is_empty() => print(|out| writeln!(out, "nothing was left closed")),
        Ok(opened) => print(|out| {
            opened
                .iter()
                .try_for_each(|folder| writeln!(out, "{} has its permissions back", folder.display()))
        }),
        Err(error) => fail(error),
    }
}
