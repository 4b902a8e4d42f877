//! Clients that differ in who they are: a service, an AI agent's process tree, a process of a few milliseconds.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    Account, Cgroup, Finished, Folder, Psql, binaries,
    run::{self, CLIENT_LIMIT},
};

/// psql with one statement, as a child of a shell that runs in the service's cgroup.
pub fn as_service(cgroup: &Cgroup, psql: &Psql, sql: &str) -> Result<Finished> {
    let mut command = through_shell(Path::new("/bin/sh"), psql, sql);
    cgroup.apply(&mut command)?;
    run::run(command, "", CLIENT_LIMIT)
}

/// A process tree like that of a coding agent: an executable called `claude`, and psql as its child.
#[derive(Debug)]
pub struct AiAgent {
    folder: Folder,
}

impl AiAgent {
    /// Puts the executable into a folder of its own.
    pub fn new() -> Result<Self> {
        let folder = Folder::new("agent-tree")?;
        fs::copy("/bin/sh", folder.join("claude")).context("cannot copy /bin/sh")?;
        Ok(Self { folder })
    }

    /// Lets it run one statement with psql.
    pub fn run(&self, psql: &Psql, sql: &str) -> Result<Finished> {
        run::run(through_shell(&self.folder.join("claude"), psql, sql), "", CLIENT_LIMIT)
    }

    /// Lets it run any command, by `account` where one is named.
    pub fn run_command(&self, command: &Command, account: Option<&Account>) -> Result<Finished> {
        let mut shell = Command::new(self.folder.join("claude"));
        shell.args(["-c", "\"$@\"; exit $?", "sh"]).arg(command.get_program()).args(command.get_args());
        if let Some(account) = account {
            shell = account.in_person(&shell);
        }
        run::run(shell, "", CLIENT_LIMIT)
    }

    /// What a person would type.
    pub fn shown(&self, psql: &Psql, sql: &str) -> String {
        format!("claude -c '{} -c \"{sql}\"'", psql.shown())
    }
}

/// `shell -c psql ..`: the shell stays, so that psql has it as its parent.
fn through_shell(shell: &Path, psql: &Psql, sql: &str) -> Command {
    let mut command = Command::new(shell);
    // A lone command would replace the shell.
    command.args(["-c", "\"$@\"; exit $?", "sh", "psql"]).args(psql.arguments());
    command.args(["-v", "VERBOSITY=verbose", "-A", "-t", "-q", "-c", sql]);
    psql.environment(&mut command);
    command
}

/// A client that connects, sends a startup packet and ends, all within a few milliseconds.
pub fn short_lived_tcp(address: SocketAddr, user: &str, database: &str) -> Result<Finished> {
    short_lived(&["tcp", &address.to_string(), user, database])
}

/// The same over a unix socket.
pub fn short_lived_unix(socket: &Path, user: &str, database: &str) -> Result<Finished> {
    short_lived(&["unix", &socket.display().to_string(), user, database])
}

fn short_lived(arguments: &[&str]) -> Result<Finished> {
    let mut command = Command::new(binaries::path("guard-short-client")?);
    command.args(arguments);
    run::run(command, "", CLIENT_LIMIT)?.expect_ok("guard-short-client")
}
