//! A running control plane and its command line.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{Folder, Server, binaries, ports, records, run};

/// `guard-control serve` on a free port with a store of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Control {
    // INVARIANT: dropped in this order, the server before the folder under it.
    server: Server,
    folder: Folder,
    address: SocketAddr,
    console: Console,
}

/// Where people sign in.
#[derive(Clone, Debug)]
pub struct Console {
    /// As one would type it into a browser.
    pub url: String,
    /// The first admin's, for the first time; the admin's name is `admin`.
    pub password: String,
}

impl Control {
    /// Starts one with an empty store.
    pub fn start() -> Result<Self> {
        let folder = Folder::new("control")?;
        let address = ports::free()?;
        let console = ports::free()?;
        let server = launch(&folder, (address, console))?;
        let log = server.log();
        let password = log.split(" with the password ").nth(1).and_then(|rest| rest.split(',').next());
        let password = password.unwrap_or_default().to_owned();
        let console = Console { url: format!("https://{console}"), password };
        Ok(Self { server, folder, address, console })
    }

    /// Ends it and keeps its store.
    pub fn stop(&mut self) -> Result<()> {
        self.server.stop()
    }

    /// Ends it as a crash would and keeps its store.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Starts it again on the same port with the same store.
    pub fn restart(&mut self) -> Result<()> {
        self.server.stop()?;
        let console = self.console.url.trim_start_matches("https://").parse()?;
        self.server = launch(&self.folder, (self.address, console))?;
        Ok(())
    }

    /// Where agents and the command line reach it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where people sign in.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// The command line: `guard-control <arguments> --server ..`.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binaries::path("guard-control")?);
        command.args(arguments).args(["--server", &self.endpoint()]);
        Ok(command)
    }

    /// What `guard-control decisions --json` lists: the newest first.
    pub fn decisions(&self) -> Result<Vec<Value>> {
        let command = self.command(&["decisions", "--json", "--limit", "1000"])?;
        let finished = run::run(command, "", run::CLIENT_LIMIT)?.expect_ok("guard-control decisions")?;
        records::parse(&finished.stdout)
    }

    /// The folder of its store.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }
}

fn launch(folder: &Folder, (address, console): (SocketAddr, SocketAddr)) -> Result<Server> {
    let mut command = Command::new(binaries::path("guard-control")?);
    command.args(["serve", "--listen", &address.to_string(), "--console", &console.to_string()]);
    command.arg("--data").arg(folder.join("data"));
    let log = folder.join("control.log");
    let mut server = Server::start("guard-control", command, &log, Signal::SIGTERM)?;
    server.wait_until(|server| ports::accepts(address) && server.log().contains("console at"))?;
    Ok(server)
}
