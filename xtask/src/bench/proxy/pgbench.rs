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

/// Seconds at the beginning of a run that do not count. A new server process finds its caches empty and its pages
/// unmapped, and is half as fast in its first second; a pooler's server processes are there from the run before.
pub const WARM_UP: u32 = 2;

/// What one run shows.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Transactions per second after the warm-up.
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
        let clients = load.clients.to_string();
        let whole = WARM_UP + seconds;
        // One thread for all clients: the machine's cores are for the server and what is measured. One in twenty
        // transactions is written down for the percentile.
        command.args(what).args(["-n", "-j", "1", "-M", load.protocol, "-c", &clients]);
        command.args(["-T", &whole.to_string(), "-P", "1"]);
        command.args(["-l", "--sampling-rate=0.05"]).current_dir(folder.path());
        let limit = Duration::from_secs(u64::from(whole) + 60);
        let finished = run::run(command, "", limit)?.expect_ok("pgbench")?;
        let tps = rate_after(&finished.stderr, WARM_UP)
            .with_context(|| format!("no figures in what pgbench says:\n{}", finished.stderr))?;
        Ok(Measured { tps, p99_us: percentile(latencies(folder.path(), WARM_UP)?, 99) })
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

/// Transactions per second after `warm_up` seconds: the mean of what `-P` has told since
/// (`progress: 3.0 s, 8123.4 tps, lat 0.984 ms stddev 0.211, 0 failed`). `None` where it has told nothing since.
fn rate_after(progress: &str, warm_up: u32) -> Option<f64> {
    let told = progress.lines().filter_map(|line| {
        let mut words = line.strip_prefix("progress: ")?.split(' ');
        let at: f64 = words.next()?.parse().ok()?;
        let rate: f64 = words.nth(1)?.parse().ok()?;
        // The end of a second is told a little late.
        (at > f64::from(warm_up) + 0.5).then_some(rate)
    });
    let (sum, count) = told.fold((0.0, 0), |(sum, count), rate| (sum + rate, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// Latencies in microseconds from pgbench's logs, of transactions that ended more than `warm_up` seconds after the first:
/// the third word of each line, with the time of day in the fifth (s) and the sixth (us).
fn latencies(folder: &Path, warm_up: u32) -> Result<Vec<f64>> {
    let mut transactions: Vec<(f64, f64)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let text = fs::read_to_string(entry?.path())?;
        transactions.extend(text.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(2).map(str::parse::<f64>);
            let latency = words.next()?.ok()?;
            let (seconds, micros) = (words.nth(1)?.ok()?, words.next()?.ok()?);
            Some((seconds + micros / 1e6, latency))
        }));
    }
    let first = transactions.iter().map(|(at, _)| *at).fold(f64::INFINITY, f64::min);
    let from = first + f64::from(warm_up);
    Ok(transactions.into_iter().filter(|(at, _)| *at > from).map(|(_, latency)| latency).collect())
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
    fn what_comes_after_the_warm_up_counts() {
        let progress = "progress: 1.0 s, 100.0 tps, lat 9.0 ms stddev 0.1, 0 failed\n\
                        progress: 2.0 s, 900.0 tps, lat 1.0 ms stddev 0.1, 0 failed\n\
                        progress: 3.0 s, 1000.0 tps, lat 1.0 ms stddev 0.1, 0 failed\n\
                        progress: 4.0 s, 2000.0 tps, lat 0.5 ms stddev 0.1, 0 failed\n";
        assert_eq!(rate_after(progress, 2), Some(1500.0));
        assert_eq!(rate_after("pgbench (15.1)\n", 2), None);
        let folder = tempfile::tempdir().unwrap();
        let log = "0 1 900 0 1700000000 900000\n3 1 700 0 1700000002 800000\n1 2 50 0 1700000003 0\n0 3 60 0 1700000004 5\n";
        fs::write(folder.path().join("pgbench_log.1"), log).unwrap();
        assert_eq!(latencies(folder.path(), 2).unwrap(), [50.0, 60.0]);
    }
}
