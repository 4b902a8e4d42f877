//! A running agent with a configuration of its own, and its command line.

use std::{
    fmt::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{Folder, Postgres, Server, binaries, ports, records, run, server::START_LIMIT, skip};

/// The name under which tests configure their PostgreSQL.
pub const SERVER: &str = "shop-db";

/// What a test wants of its agent.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// `enforce` or `monitor`.
    pub mode: &'static str,
    /// Attach the eBPF programs.
    pub ebpf: bool,
    /// Fail where that is not possible.
    pub required: bool,
    /// What the kernel side does without, as if this machine lacked it.
    pub without: Vec<&'static str>,
    /// A policy folder in place of the built-in policies.
    pub policies: Option<PathBuf>,
    /// The control plane, as `http://..`.
    pub control: Option<String>,
    /// Where the proxy listens; a free port where it is not said.
    pub listen: Option<SocketAddr>,
    /// The server's address, where it is another one than that of the PostgreSQL at hand; it is reached by TCP.
    pub upstream: Option<SocketAddr>,
    /// Name the server's unix socket, so that the agent reaches it by that alone.
    pub unix_socket: bool,
    /// Size of the kernel's event ring buffer, where it is not the usual one.
    pub ring_kib: Option<u32>,
    /// Have the kernel count how long its programs run.
    pub program_stats: bool,
    /// Size of the ring buffer for statements in KiB, where it is not the default.
    pub statement_ring_kib: Option<u32>,
    /// Further TOML, after everything else: keys of the server, then further tables.
    pub extra: String,
    /// The agent's program, where it is not the one of this build.
    pub program: Option<PathBuf>,
    /// The network namespace in which it runs, where that is not the caller's.
    pub network: Option<PathBuf>,
    /// The only capabilities that it may have, without `CAP_`; all of the caller's where it is not said.
    pub capabilities: Option<Vec<String>>,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            mode: "enforce",
            ebpf: skip::ebpf_possible(),
            required: skip::ebpf_possible(),
            without: Vec::new(),
            policies: None,
            control: None,
            listen: None,
            upstream: None,
            unix_socket: true,
            ring_kib: None,
            program_stats: false,
            statement_ring_kib: None,
            extra: String::new(),
            program: None,
            network: None,
            capabilities: None,
        }
    }
}

impl AgentConfig {
    fn to_toml(&self, folder: &Folder, postgres: &Postgres, listen: SocketAddr) -> String {
        let mut toml = format!("mode = \"{}\"\n\n[paths]\n", self.mode);
        let path = |name| toml_string(&folder.join(name));
        // Writing to a string cannot fail.
        let _ = writeln!(toml, "state = {}\nrun = {}", path("state"), path("run"));
        if let Some(policies) = &self.policies {
            let _ = writeln!(toml, "policies = {}", toml_string(policies));
        }
        let _ = writeln!(toml, "\n[sensor]\nebpf = {}\nrequired = {}", self.ebpf, self.required);
        if !self.without.is_empty() {
            let _ = writeln!(toml, "without = {:?}", self.without);
        }
        if self.program_stats {
            toml.push_str("measure_cost = true\n");
        }
        if let Some(ring_kib) = self.ring_kib {
            let _ = writeln!(toml, "ring_kib = {ring_kib}");
        }
        if let Some(kib) = self.statement_ring_kib {
            let _ = writeln!(toml, "statement_ring_kib = {kib}");
        }
        // Several tests run at once on one host: none of them may take another's PostgreSQL for its own.
        let _ = writeln!(toml, "\n[discovery]\nenabled = false");
        if let Some(endpoint) = &self.control {
            let _ = writeln!(toml, "\n[control]\nendpoint = \"{endpoint}\"");
        }
        let _ = writeln!(
            toml,
            "\n[[servers]]\nname = \"{SERVER}\"\naddress = \"{}\"\nlisten = \"{listen}\"",
            self.upstream.unwrap_or_else(|| postgres.address()),
        );
        if self.unix_socket && self.upstream.is_none() {
            let _ = writeln!(toml, "unix_socket = {}", toml_string(&postgres.socket()));
        }
        toml.push_str(&self.extra);
        toml
    }
}

fn toml_string(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}

/// `guard-agent run` before one PostgreSQL. Dropping it ends it.
#[derive(Debug)]
pub struct Agent {
    // INVARIANT: dropped in this order, the agent before the folder under it.
    server: Server,
    folder: Folder,
    listen: SocketAddr,
    program: Program,
}

/// How the agent is started, each time.
#[derive(Clone, Debug)]
struct Program {
    path: PathBuf,
    network: Option<PathBuf>,
    capabilities: Option<Vec<String>>,
}

impl Program {
    fn command(&self) -> Command {
        let command = self.with_capabilities();
        match &self.network {
            Some(network) => crate::hosts::enter(network, &command),
            None => command,
        }
    }

    fn with_capabilities(&self) -> Command {
        let Some(capabilities) = &self.capabilities else { return Command::new(&self.path) };
        let mut set = "-all".to_owned();
        for capability in capabilities {
            set.push_str(",+");
            set.push_str(capability);
        }
        let mut command = Command::new("setpriv");
        command.args(["--no-new-privs", "--inh-caps", "-all", "--bounding-set", &set, "--"]).arg(&self.path);
        command
    }
}

impl Agent {
    /// Starts one and waits until it is attached and listens.
    pub fn start(config: &AgentConfig, postgres: &Postgres) -> Result<Self> {
        let folder = Folder::new("agent")?;
        let listen = config.listen.map_or_else(ports::free, Ok)?;
        folder.write("guard.toml", &config.to_toml(&folder, postgres, listen))?;
        let path = config.program.clone().map_or_else(|| binaries::path("guard-agent"), Ok)?;
        let (network, capabilities) = (config.network.clone(), config.capabilities.clone());
        let program = Program { path, network, capabilities };
        let server = launch(&program, &folder)?;
        Ok(Self { server, folder, listen, program })
    }

    /// Ends it in good order, and starts it again with the same state.
    pub fn restart(&mut self) -> Result<()> {
        self.server.stop()?;
        self.server = launch(&self.program, &self.folder)?;
        Ok(())
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Ends it in good order.
    pub fn stop(&mut self) -> Result<()> {
        self.server.stop()
    }

    /// Where its proxy listens.
    pub fn proxy(&self) -> SocketAddr {
        self.listen
    }

    /// psql through the proxy.
    pub fn psql(&self, user: &str, database: &str) -> crate::Psql {
        crate::Psql::tcp(self.listen, user, database)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        self.server.alive()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.server.signal(signal)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.join("guard.toml")
    }

    /// The folder of its journal and its identity.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The command line: `guard-agent <arguments> --config ..`.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(&self.program.path);
        command.args(arguments).arg("--config").arg(self.config());
        Ok(command)
    }

    /// Runs the command line to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<run::Finished> {
        run::run(self.command(arguments)?, "", run::CLIENT_LIMIT)
    }

    /// What `guard-agent status --json` says.
    pub fn status(&self) -> Result<Value> {
        let finished = self.run(&["status", "--json"])?.expect_ok("guard-agent status")?;
        serde_json::from_str(&finished.stdout).context("`guard-agent status --json` is not JSON")
    }

    /// Every record of its journal, in order.
    pub fn records(&self) -> Result<Vec<Value>> {
        let finished = self.run(&["audit", "search", "--json"])?.expect_ok("guard-agent audit search")?;
        let mut records = records::parse(&finished.stdout)?;
        records.sort_by_key(records::sequence);
        Ok(records)
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }
}

/// Starts the agent on the configuration in `folder` and waits for its line that it is ready.
fn launch(program: &Program, folder: &Folder) -> Result<Server> {
    let log = folder.join("agent.log");
    // A restart writes into the same log: only a new line counts.
    let before = ready_lines(&std::fs::read_to_string(&log).unwrap_or_default());
    let mut command = program.command();
    command.args(["run", "--config"]).arg(folder.join("guard.toml"));
    let mut server = Server::start("guard-agent", command, &log, Signal::SIGTERM)?;
    server
        .wait_until(|server| ready_lines(&server.log()) > before)
        .with_context(|| format!("the agent did not say that it is ready (limit {START_LIMIT:?})"))?;
    Ok(server)
}

fn ready_lines(log: &str) -> usize {
    log.lines().filter(|line| line.contains("guard-agent ready")).count()
}
