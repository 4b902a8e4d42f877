//! pgbench, one run at a time.

use std::{net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result};
use guard_tests::{Psql, postgres, run};

/// How one run works.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// `simple` or `prepared`: pgbench's `-M`.
    pub protocol: &'static str,
    /// Connections at once.
    pub clients: u32,
}

/// All loads that are measured.
pub const LOADS: &[Load] = &[
    Load { protocol: "simple", clients: 1 },
    Load { protocol: "simple", clients: 8 },
    Load { protocol: "prepared", clients: 1 },
    Load { protocol: "prepared", clients: 8 },
];

impl Load {
    /// Its part of a figure's name.
    pub fn name(self) -> String {
        format!("{}_{}", self.protocol, self.clients)
    }
}

/// pgbench against one database.
#[derive(Debug)]
pub struct PgBench {
    program: PathBuf,
    user: &'static str,
    database: &'static str,
}

impl PgBench {
    /// pgbench as the cluster's owner in the database `postgres`.
    pub fn new() -> Result<Self> {
        let beside = postgres::programs()?.join("pgbench");
        let program = if beside.exists() { beside } else { "pgbench".into() };
        Ok(Self { program, user: postgres::OWNER, database: "postgres" })
    }

    /// Makes its tables: 100,000 rows for each unit of `scale`.
    pub fn initialize(&self, address: SocketAddr, scale: u32) -> Result<()> {
        let mut command = self.command(address);
        command.args(["-i", "-q", "-s", &scale.to_string()]);
        run::run(command, "", Duration::from_secs(300))?.expect_ok("pgbench -i")?;
        Ok(())
    }

    /// Transactions per second of read-only transactions over `seconds`.
    pub fn measure(&self, address: SocketAddr, load: Load, seconds: u32) -> Result<f64> {
        let mut command = self.command(address);
        let clients = load.clients.to_string();
        // One thread for all clients: the machine's cores are for the server and what is measured.
        command.args([
            "-S",
            "-n",
            "-j",
            "1",
            "-M",
            load.protocol,
            "-c",
            &clients,
            "-T",
            &seconds.to_string(),
        ]);
        let limit = Duration::from_secs(u64::from(seconds) + 60);
        let finished = run::run(command, "", limit)?.expect_ok("pgbench")?;
        parse_tps(&finished.stdout)
            .with_context(|| format!("no figure in what pgbench says:\n{}", finished.stdout))
    }

    fn command(&self, address: SocketAddr) -> Command {
        let mut command = Command::new(&self.program);
        let port = address.port().to_string();
        command.args(["-h", &address.ip().to_string(), "-p", &port, "-U", self.user]);
        Psql::tcp(address, self.user, self.database).environment(&mut command);
        command.env("PGDATABASE", self.database);
        command
    }
}

/// The figure without the time that connecting takes, as pgbench 14 and later print it.
fn parse_tps(output: &str) -> Option<f64> {
    let mut figures = output.lines().filter_map(|line| line.strip_prefix("tps = "));
    figures.next_back()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_found() {
        let output = "latency average = 0.1 ms\ninitial connection time = 3 ms\n\
                      tps = 8123.456 (without initial connection time)\n";
        assert_eq!(parse_tps(output), Some(8123.456));
        assert_eq!(parse_tps("nothing"), None);
    }
}
