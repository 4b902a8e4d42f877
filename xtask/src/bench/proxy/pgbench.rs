//! pgbench, one run at a time.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use guard_tests::{Psql, postgres, run};

/// How one run works.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// pgbench's `-M`.
    pub protocol: &'static str,
    /// Connections at once.
    pub clients: u32,
}

/// What one run shows.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Transactions per second, without the time that connecting takes.
    pub tps: f64,
    /// 99th percentile of the latency, in microseconds.
    pub p99_us: f64,
}

impl Load {
    /// Its part of a figure's name.
    pub fn name(self) -> String {
        format!("{}_{}", self.protocol, self.clients)
    }
}

/// What became of connections that were made one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Connected {
    /// Per second, connecting counted in.
    pub rate: f64,
    /// All that were made, the failed ones included.
    pub connections: u32,
    /// Those that came to nothing.
    pub failed: u32,
}

impl Connected {
    /// From what pgbench 14 and later print with `-C`. It makes a connection for each transaction, and one to look at its
    /// tables first; a client whose connection fails gives up.
    fn read(output: &str, errors: &str) -> Option<Self> {
        let after = |prefix: &str| output.lines().find_map(|line| line.strip_prefix(prefix));
        let transactions: u32 =
            after("number of transactions actually processed: ")?.split('/').next()?.trim().parse().ok()?;
        let rate = after("tps = ")?.split(' ').next()?.parse().ok()?;
        let failed = errors.lines().filter(|line| line.contains(" aborted")).count();
        let failed = u32::try_from(failed).ok()?;
        Some(Self { rate, connections: transactions + failed + 1, failed })
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

    /// Read-only transactions over `seconds`.
    pub fn measure(&self, address: SocketAddr, load: Load, seconds: u32) -> Result<Measured> {
        self.run(address, load, seconds, &["-S"])
    }

    /// Transactions that write: three updates, a select and an insert in a block.
    pub fn measure_writing(&self, address: SocketAddr, load: Load, seconds: u32) -> Result<Measured> {
        self.run(address, load, seconds, &[])
    }

    fn run(&self, address: SocketAddr, load: Load, seconds: u32, what: &[&str]) -> Result<Measured> {
        let folder = tempfile::tempdir()?;
        let mut command = self.command(address);
        let (clients, seconds_text) = (load.clients.to_string(), seconds.to_string());
        // One thread for all clients: the machine's cores are for the server and what is measured. One in twenty
        // transactions is written down for the percentile.
        command.args(what).args(["-n", "-j", "1", "-M", load.protocol, "-c", &clients, "-T", &seconds_text]);
        command.args(["-l", "--sampling-rate=0.05"]).current_dir(folder.path());
        let limit = Duration::from_secs(u64::from(seconds) + 60);
        let finished = run::run(command, "", limit)?.expect_ok("pgbench")?;
        let tps = parse_tps(&finished.stdout)
            .with_context(|| format!("no figure in what pgbench says:\n{}", finished.stdout))?;
        Ok(Measured { tps, p99_us: percentile(latencies(folder.path())?, 99) })
    }

    /// New connections, each for one transaction, with a goal of `rate` per second. `client` says who connects.
    pub fn connections(&self, client: &Psql, rate: u32, seconds: u32) -> Result<Connected> {
        let mut command = Command::new(&self.program);
        client.environment(&mut command);
        command.args(client.connection_arguments());
        command.args(["-S", "-n", "-C", "-j", "2", "-c", "16", "-R", &rate.to_string()]);
        command.args(["-T", &seconds.to_string()]).env("PGDATABASE", self.database);
        let limit = Duration::from_secs(u64::from(seconds) + 60);
        let finished = run::run(command, "", limit)?;
        Connected::read(&finished.stdout, &finished.stderr).with_context(|| {
            format!("no figure in what pgbench says:\n{}{}", finished.stdout, finished.stderr)
        })
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

/// Latencies in microseconds from pgbench's logs: the third word of each line.
fn latencies(folder: &Path) -> Result<Vec<f64>> {
    let mut latencies = Vec::new();
    for entry in fs::read_dir(folder)? {
        let text = fs::read_to_string(entry?.path())?;
        latencies.extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()));
    }
    Ok(latencies)
}

/// NaN where there is nothing.
fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_found() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert!((percentile(values, 99) - 199.0).abs() < f64::EPSILON);
        assert!(percentile(Vec::new(), 99).is_nan());
    }

    #[test]
    fn failed_connections_are_counted() {
        let output = "number of transactions actually processed: 599\nnumber of failed transactions: 0 (0.000%)\n\
                      tps = 199.5 (including reconnection times)\n";
        let fine = Connected::read(output, "").unwrap();
        assert_eq!(fine, Connected { rate: 199.5, connections: 600, failed: 0 });
        let errors = "pgbench: error: connection to server at \"127.0.0.1\", port 1 failed: FATAL:  no\n\
                      pgbench: error: client 3 aborted while establishing connection\n";
        assert_eq!(Connected::read(output, errors).map(|connected| connected.failed), Some(1));
    }

    #[test]
    fn the_figure_is_found() {
        let output = "latency average = 0.1 ms\ninitial connection time = 3 ms\n\
                      tps = 8123.456 (without initial connection time)\n";
        assert_eq!(parse_tps(output), Some(8123.456));
        assert_eq!(parse_tps("nothing"), None);
    }
}
