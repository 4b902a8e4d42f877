//! Results through the proxy, with masking on and off, in turns.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, AgentConfig, Postgres, postgres::OWNER, wire::RawClient};

use crate::bench::{
    proxy::{
        pgbench::{Load, PgBench},
        release_agent,
    },
    report::Samples,
};

/// How long one result may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A table of people, and one without anything of them.
const TABLES: &str = "
    CREATE TABLE customers AS SELECT n AS id, 'Ana Lindqvist' AS name, 'ana.' || n || '@example.com' AS email,
        '+49 30 ' || lpad(n::text, 7, '0') AS phone, repeat('x', 60) AS note FROM generate_series(1, 300000) n;
    CREATE TABLE readings AS SELECT n AS id, n % 97 AS sensor, n * 0.5::float8 AS value, now() AS at
        FROM generate_series(1, 500000) n;
    CREATE TABLE articles AS SELECT n AS id, repeat('lorem ipsum dolor sit amet ', 8) AS body
        FROM generate_series(1, 200000) n;
    VACUUM ANALYZE;";

/// Results: name, statement. No value of `readings` can change; `articles` are looked through and nothing is found.
const RESULTS: &[(&str, &str)] = &[
    ("readings", "SELECT * FROM readings"),
    ("articles", "SELECT * FROM articles"),
    ("customers", "SELECT * FROM customers"),
];

/// Short statements in whose results no value can change.
const LOADS: &[Load] = &[Load { protocol: "simple", clients: 8 }, Load { protocol: "prepared", clients: 8 }];

/// Measures both ways in turns. Figures: `<what>_<on|off>`.
pub fn measure(rounds: u32, seconds: u32) -> Result<Samples> {
    let postgres = Postgres::start()?;
    let pgbench = PgBench::new()?;
    pgbench.initialize(postgres.address(), 10)?;
    for statement in TABLES.split_inclusive(';').filter(|statement| !statement.trim().is_empty()) {
        postgres.psql(OWNER, "postgres").query(statement)?.expect_ok("making the tables of the bench")?;
    }
    let start = |extra: &str| {
        let config = AgentConfig {
            program: Some(release_agent()),
            extra: extra.to_owned(),
            ebpf: false,
            required: false,
            ..AgentConfig::default()
        };
        Agent::start(&config, &postgres)
    };
    let agents = [("on", start("")?), ("off", start("\n[masking]\nenabled = false\n")?)];
    let mut samples = Samples::default();
    for round in 0..rounds {
        println!("sessions: round {} of {rounds} ..", round + 1);
        for turn in 0..agents.len() {
            let (way, agent) = &agents[(turn + round as usize) % agents.len()];
            for (name, statement) in RESULTS {
                samples.add(&format!("{name}_{way}_mb_s"), take(agent.proxy(), statement)?);
            }
            for load in LOADS {
                let measured = pgbench.measure(agent.proxy(), *load, seconds)?;
                samples.add(&format!("{}_{way}_tps", load.name()), measured.tps);
            }
        }
    }
    Ok(samples)
}

/// Megabytes per second of one result.
fn take(address: SocketAddr, statement: &str) -> Result<f64> {
    let mut client = RawClient::log_in(address, OWNER, "postgres")?;
    let started = Instant::now();
    let bytes = client.drain_query(statement, LIMIT).with_context(|| format!("taking {statement}"))?;
    ensure!(bytes > 1_000_000, "only {bytes} bytes came of {statement}");
    #[expect(clippy::cast_precision_loss, reason = "below 2^52")]
    Ok(bytes as f64 / 1e6 / started.elapsed().as_secs_f64())
}

/// Prints a line for each figure with its ratio, and gives the ratios under their names.
pub fn report(samples: &Samples) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::new();
    println!();
    let wanted = |name: &str| {
        if name.starts_with("customers") || name.starts_with("articles") { "" } else { " (at least 0.95)" }
    };
    let names = RESULTS.iter().map(|(name, _)| ((*name).to_owned(), "mb_s"));
    for (name, unit) in names.chain(LOADS.iter().map(|load| (load.name(), "tps"))) {
        let (on, off) = (format!("{name}_on_{unit}"), format!("{name}_off_{unit}"));
        let (Some(ratio), Some(speed)) = (samples.ratio(&on, &off), samples.median(&on)) else { continue };
        println!("{name:12} {speed:>8.0} {unit}, {ratio:.2} x with masking off{}", wanted(&name));
        figures.insert(format!("{name}_on_to_off"), ratio);
    }
    figures
}
