//! What guard's proxy costs, beside PgBouncer and a direct connection.

mod idle;
mod large;
mod logins;
pub(super) mod pgbench;
mod throughput;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Result;
use guard_tests::{Agent, AgentConfig, PgBouncer, Postgres, pgbouncer::Upstream};

use super::report;
use crate::{
    build,
    setup::{self, Group},
    shell, style,
};

/// guard in enforce mode, PgBouncer in session mode, and a direct TCP connection, side by side.
///
/// Parts: `throughput` (pgbench -S: transactions per second and 99th percentile of latency by protocol and number of
/// clients), `large` (1 GB of rows to one client), `idle` (memory of sessions that do nothing), `logins` (200 new
/// connections per second with SCRAM, under TLS and in clear). The ways take turns in every round, in changing order; ratios are medians over the rounds.
/// All of them and the clients share this machine's cores. guard runs with its built-in policies, with parsing,
/// decisions and the journal on, and with eBPF where that can be loaded. PgBouncer is measured twice: reaching the
/// server by TCP, and by its unix socket as guard does. The first two seconds of each measurement are not counted: server
/// processes are warming up, except behind PgBouncer, which keeps them from one measurement to the next.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of each measurement, after its warm-up
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Way::ALL)]
    ways: Vec<Way>,
    /// Parts of the bench
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::ALL)]
    parts: Vec<Part>,
    /// Protocols of `throughput`: simple, extended, prepared
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = throughput::Protocol::ALL)]
    protocols: Vec<throughput::Protocol>,
    /// Numbers of clients of `throughput`
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    clients: Vec<u32>,
    /// Sessions of `idle`
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=9000))]
    sessions: u32,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Transactions per second and latency
    Throughput,
    /// A large result
    Large,
    /// Memory of idle sessions
    Idle,
    /// New connections per second
    Logins,
}

impl Part {
    const ALL: [Self; 4] = [Self::Throughput, Self::Large, Self::Idle, Self::Logins];
}

/// A way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    /// Straight over TCP
    Direct,
    /// PgBouncer in session mode, to the server by TCP
    #[value(name = "pgbouncer")]
    PgBouncer,
    /// PgBouncer in session mode, to the server by its unix socket
    #[value(name = "pgbouncer-unix")]
    PgBouncerUnix,
    /// guard's proxy in enforce mode
    Guard,
}

impl Way {
    const ALL: [Self; 4] = [Self::Direct, Self::PgBouncer, Self::PgBouncerUnix, Self::Guard];

    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::PgBouncer => "pgbouncer",
            Self::PgBouncerUnix => "pgbouncer_unix",
            Self::Guard => "guard",
        }
    }
}

/// The agent of this build, optimised.
pub(super) fn release_agent() -> PathBuf {
    shell::target().join("release/guard-agent")
}

/// What runs for the bench.
struct Servers {
    // INVARIANT: dropped in this order, PostgreSQL last.
    agent: Option<Agent>,
    bouncer: Option<PgBouncer>,
    bouncer_unix: Option<PgBouncer>,
    postgres: Postgres,
}

impl Servers {
    fn start(ways: &[Way]) -> Result<Self> {
        let postgres = Postgres::start()?;
        let bouncer =
            |way, upstream| ways.contains(&way).then(|| PgBouncer::start(&postgres, upstream)).transpose();
        let bouncers =
            (bouncer(Way::PgBouncer, Upstream::Tcp)?, bouncer(Way::PgBouncerUnix, Upstream::Unix)?);
        let config = AgentConfig { program: Some(release_agent()), ..AgentConfig::default() };
        let agent = ways.contains(&Way::Guard).then(|| Agent::start(&config, &postgres)).transpose()?;
        Ok(Self { agent, bouncer: bouncers.0, bouncer_unix: bouncers.1, postgres })
    }

    fn address(&self, way: Way) -> Option<SocketAddr> {
        match way {
            Way::Direct => Some(self.postgres.address()),
            Way::PgBouncer => self.bouncer.as_ref().map(PgBouncer::address),
            Way::PgBouncerUnix => self.bouncer_unix.as_ref().map(PgBouncer::address),
            Way::Guard => self.agent.as_ref().map(Agent::proxy),
        }
    }
}

/// The order of the ways in one round: each comes first as often as the others.
fn turn(ways: &[Way], round: u32) -> Vec<Way> {
    let mut ways = ways.to_vec();
    if !ways.is_empty() {
        let turn = round as usize % ways.len();
        ways.rotate_left(turn);
    }
    ways
}

/// Runs the bench.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Group::Build, Group::Bench])?;
    if arguments.ways.contains(&Way::Guard) {
        println!("{}", style::strong("Building guard (release)"));
        build::workspace(true)?;
    }
    let mut figures = BTreeMap::new();
    let has = |part| arguments.parts.contains(&part);
    if has(Part::Throughput) || has(Part::Large) {
        let servers = Servers::start(&arguments.ways)?;
        if has(Part::Throughput) {
            let samples = throughput::measure(arguments, &servers)?;
            figures.extend(throughput::report(arguments, &samples));
        }
        if has(Part::Large) {
            let samples = large::measure(arguments, &servers)?;
            figures.extend(large::report(&samples));
        }
    }
    if has(Part::Idle) {
        figures.extend(idle::measure(arguments.sessions)?);
    }
    if has(Part::Logins) {
        figures.extend(logins::measure(arguments.seconds)?);
    }
    println!("written: {}", report::write("proxy", &figures)?.display());
    Ok(ExitCode::SUCCESS)
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}
