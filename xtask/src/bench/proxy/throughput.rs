//! Many small transactions: how many per second, and how long the slowest hundredth takes.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use guard_tests::Agent;

use super::{
    Arguments, Servers, Way,
    pgbench::{Load, Measured, PgBench},
    shown, turn,
};
use crate::bench::report::Samples;

/// pgbench's `-M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// One Query per statement
    Simple,
    /// Parse, Bind, Execute per statement
    Extended,
    /// Bind, Execute per statement
    Prepared,
}

impl Protocol {
    pub(super) const ALL: [Self; 3] = [Self::Simple, Self::Extended, Self::Prepared];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

fn loads(arguments: &Arguments) -> impl Iterator<Item = Load> {
    arguments.protocols.iter().flat_map(|protocol| {
        arguments.clients.iter().map(|clients| Load { protocol: protocol.name(), clients: *clients })
    })
}

/// Measures every load in every way, in turns.
pub fn measure(arguments: &Arguments, servers: &Servers) -> Result<Samples> {
    let pgbench = PgBench::new()?;
    pgbench.initialize(servers.postgres.address(), 10)?;
    let mut samples = Samples::default();
    if let Some(agent) = &servers.agent {
        samples.add("agent_resident_idle_kib", to_f64(agent.resident_kib()?));
    }
    for round in 0..arguments.rounds {
        println!("throughput: round {} of {} ..", round + 1, arguments.rounds);
        for load in loads(arguments) {
            for way in turn(&arguments.ways, round) {
                let Some(address) = servers.address(way) else { continue };
                let agent = servers.agent.as_ref().filter(|_| way == Way::Guard);
                let (measured, resident) =
                    with_memory(agent, || pgbench.measure(address, load, arguments.seconds))?;
                samples.add(&figure(load, way, "tps"), measured.tps);
                samples.add(&figure(load, way, "p99_us"), measured.p99_us);
                if resident > 0 {
                    samples.add(&format!("agent_resident_{}_kib", load.name()), to_f64(resident));
                }
            }
        }
    }
    Ok(samples)
}

fn figure(load: Load, way: Way, what: &str) -> String {
    format!("{}_{}_{what}", load.name(), way.name())
}

/// Runs `measure` and watches the agent's resident memory meanwhile; gives its highest value in KiB.
fn with_memory(agent: Option<&Agent>, measure: impl FnOnce() -> Result<Measured>) -> Result<(Measured, u64)> {
    let Some(agent) = agent else { return Ok((measure()?, 0)) };
    let (done, highest) = (AtomicBool::new(false), AtomicU64::new(0));
    let measured = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                highest.fetch_max(agent.resident_kib().unwrap_or(0), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(200));
            }
        });
        let measured = measure();
        done.store(true, Ordering::Relaxed);
        measured
    })?;
    Ok((measured, highest.into_inner()))
}

#[expect(clippy::cast_precision_loss, reason = "memory in KiB is far below 2^52")]
fn to_f64(kib: u64) -> f64 {
    kib as f64
}

/// Prints the table and gives everything under its name.
pub fn report(arguments: &Arguments, samples: &Samples) -> BTreeMap<String, f64> {
    let mut figures = samples.medians();
    let ratio = |load, of, to, what: &str| samples.ratio(&figure(load, of, what), &figure(load, to, what));
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header([
        "pgbench -S",
        "clients",
        "direct tps",
        "pgbouncer",
        "by unix",
        "guard",
        "guard/direct",
        "guard/pgbouncer",
        "guard/by unix",
        "p99 us guard",
        "p99 guard/pgbouncer",
    ]);
    for load in loads(arguments) {
        for of in [Way::PgBouncer, Way::PgBouncerUnix, Way::Guard] {
            for to in [Way::Direct, Way::PgBouncer, Way::PgBouncerUnix] {
                for what in ["tps", "p99_us"] {
                    if let Some(value) = ratio(load, of, to, what).filter(|_| of != to) {
                        let what = if what == "tps" { "" } else { "p99_" };
                        let name = format!("{}_{what}{}_to_{}", load.name(), of.name(), to.name());
                        figures.insert(name, value);
                    }
                }
            }
        }
        let mut row = vec![load.protocol.to_owned(), load.clients.to_string()];
        row.extend(Way::ALL.map(|way| shown(samples.median(&figure(load, way, "tps")), 0)));
        row.extend(
            [Way::Direct, Way::PgBouncer, Way::PgBouncerUnix]
                .map(|to| shown(ratio(load, Way::Guard, to, "tps"), 2)),
        );
        row.push(shown(samples.median(&figure(load, Way::Guard, "p99_us")), 0));
        row.push(shown(ratio(load, Way::Guard, Way::PgBouncer, "p99_us"), 2));
        table.add_row(row);
    }
    println!("\n{table}");
    for (name, value) in figures.iter().filter(|(name, _)| name.starts_with("agent_resident")) {
        println!("{name}: {value:.0}");
    }
    figures
}
