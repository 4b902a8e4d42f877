//! Transactions per second through guard, beside PgBouncer and a direct connection.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use guard_tests::{Agent, AgentConfig, PgBouncer, Postgres};

use super::{
    pgbench::{LOADS, Load, PgBench},
    report::{self, Samples},
};
use crate::{
    build,
    setup::{self, Group},
    shell, style,
};

/// `pgbench -S` direct over TCP, through PgBouncer in session mode, through guard in enforce mode.
///
/// The three take turns in every round, in changing order; ratios are medians over the rounds. All of them and
/// pgbench share this machine's cores. guard runs with its built-in policies and eBPF, where that can be loaded.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Way::Direct, Way::PgBouncer, Way::Guard])]
    ways: Vec<Way>,
}

/// A way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    /// Straight over TCP
    Direct,
    /// PgBouncer in session mode
    #[value(name = "pgbouncer")]
    PgBouncer,
    /// guard's proxy in enforce mode
    Guard,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::PgBouncer => "pgbouncer",
            Self::Guard => "guard",
        }
    }
}

/// What runs for the bench.
struct Servers {
    // INVARIANT: dropped in this order, PostgreSQL last.
    agent: Option<Agent>,
    bouncer: Option<PgBouncer>,
    postgres: Postgres,
}

impl Servers {
    fn start(ways: &[Way]) -> Result<Self> {
        let postgres = Postgres::start()?;
        let bouncer = ways.contains(&Way::PgBouncer).then(|| PgBouncer::start(&postgres)).transpose()?;
        let program = Some(shell::target().join("release/guard-agent"));
        let config = AgentConfig { program, ..AgentConfig::default() };
        let agent = ways.contains(&Way::Guard).then(|| Agent::start(&config, &postgres)).transpose()?;
        Ok(Self { agent, bouncer, postgres })
    }

    fn address(&self, way: Way) -> Option<SocketAddr> {
        match way {
            Way::Direct => Some(self.postgres.address()),
            Way::PgBouncer => self.bouncer.as_ref().map(PgBouncer::address),
            Way::Guard => self.agent.as_ref().map(Agent::proxy),
        }
    }
}

/// Runs the bench.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Group::Build, Group::Bench])?;
    if arguments.ways.contains(&Way::Guard) {
        println!("{}", style::strong("Building guard (release)"));
        build::workspace(true)?;
    }
    let servers = Servers::start(&arguments.ways)?;
    let pgbench = PgBench::new()?;
    pgbench.initialize(servers.postgres.address(), 10)?;

    let mut samples = Samples::default();
    if let Some(agent) = &servers.agent {
        samples.add("agent_resident_idle_kib", to_f64(agent.resident_kib()?));
    }
    for round in 0..arguments.rounds {
        println!("round {} of {} ..", round + 1, arguments.rounds);
        for load in LOADS {
            let mut ways = arguments.ways.clone();
            let turn = round as usize % ways.len();
            ways.rotate_left(turn);
            for way in ways {
                let Some(address) = servers.address(way) else { continue };
                let (tps, resident) =
                    with_memory(servers.agent.as_ref().filter(|_| way == Way::Guard), || {
                        pgbench.measure(address, *load, arguments.seconds)
                    })?;
                samples.add(&format!("{}_{}_tps", load.name(), way.name()), tps);
                if resident > 0 {
                    samples.add(&format!("agent_resident_{}_kib", load.name()), to_f64(resident));
                }
            }
        }
    }
    let figures = figures(&samples);
    println!("\n{}", table(&samples));
    for (name, value) in figures.iter().filter(|(name, _)| name.starts_with("agent_resident")) {
        println!("{name}: {value:.0}");
    }
    println!("written: {}", report::write("proxy", &figures)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Runs `measure` and watches the agent's resident memory meanwhile; gives its highest value in KiB.
fn with_memory(agent: Option<&Agent>, measure: impl FnOnce() -> Result<f64>) -> Result<(f64, u64)> {
    let Some(agent) = agent else { return Ok((measure()?, 0)) };
    let (done, highest) = (AtomicBool::new(false), AtomicU64::new(0));
    let tps = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                highest.fetch_max(agent.resident_kib().unwrap_or(0), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(200));
            }
        });
        let tps = measure();
        done.store(true, Ordering::Relaxed);
        tps
    })?;
    Ok((tps, highest.into_inner()))
}

#[expect(clippy::cast_precision_loss, reason = "memory in KiB is far below 2^52")]
fn to_f64(kib: u64) -> f64 {
    kib as f64
}

const RATIOS: &[(Way, Way)] =
    &[(Way::PgBouncer, Way::Direct), (Way::Guard, Way::Direct), (Way::Guard, Way::PgBouncer)];

fn ratio(samples: &Samples, load: Load, of: Way, to: Way) -> Option<f64> {
    let tps = |way: Way| format!("{}_{}_tps", load.name(), way.name());
    samples.ratio(&tps(of), &tps(to))
}

/// Everything, under its name.
fn figures(samples: &Samples) -> BTreeMap<String, f64> {
    let mut figures: BTreeMap<String, f64> =
        samples.names().filter_map(|name| Some((name.to_owned(), samples.median(name)?))).collect();
    for load in LOADS {
        for (of, to) in RATIOS {
            if let Some(value) = ratio(samples, *load, *of, *to) {
                figures.insert(format!("{}_{}_to_{}", load.name(), of.name(), to.name()), value);
            }
        }
    }
    figures
}

fn table(samples: &Samples) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header([
        "pgbench -S",
        "clients",
        "direct tps",
        "pgbouncer tps",
        "guard tps",
        "pgbouncer/direct",
        "guard/direct",
        "guard/pgbouncer",
    ]);
    for load in LOADS {
        let mut row = vec![load.protocol.to_owned(), load.clients.to_string()];
        for way in [Way::Direct, Way::PgBouncer, Way::Guard] {
            let tps = samples.median(&format!("{}_{}_tps", load.name(), way.name()));
            row.push(tps.map_or_else(|| "-".to_owned(), |tps| format!("{tps:.0}")));
        }
        for (of, to) in RATIOS {
            let ratio = ratio(samples, *load, *of, *to);
            row.push(ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")));
        }
        table.add_row(row);
    }
    table.to_string()
}
