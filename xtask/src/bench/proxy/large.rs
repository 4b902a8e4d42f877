//! One client that takes 1 GB of rows.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{postgres::OWNER, wire::RawClient};

use super::{Arguments, Servers, Way, shown, turn};
use crate::bench::report::Samples;

/// A thousand times a thousand bytes.
const ROWS: &str = "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)";

/// What the rows amount to, at least.
const BYTES: u64 = 1_000_000_000;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(120);

const FIGURE: &str = "mb_per_second";

/// Measures all ways in turns.
pub fn measure(arguments: &Arguments, servers: &Servers) -> Result<Samples> {
    let mut samples = Samples::default();
    for round in 0..arguments.rounds {
        println!("large: round {} of {} ..", round + 1, arguments.rounds);
        for way in turn(&arguments.ways, round) {
            if let Some(address) = servers.address(way) {
                samples.add(&figure(way), take(address)?);
            }
        }
    }
    if let Some(agent) = &servers.agent {
        #[expect(clippy::cast_precision_loss, reason = "memory in KiB is far below 2^52")]
        samples.add("agent_resident_after_large_kib", agent.resident_kib()? as f64);
    }
    Ok(samples)
}

fn figure(way: Way) -> String {
    format!("large_{}_{FIGURE}", way.name())
}

/// Megabytes per second.
fn take(address: SocketAddr) -> Result<f64> {
    let mut client = RawClient::log_in(address, OWNER, "postgres")?;
    let started = Instant::now();
    let bytes = client.drain_query(ROWS, LIMIT).context("taking 1 GB of rows")?;
    ensure!(bytes >= BYTES, "only {bytes} bytes came of {BYTES}");
    #[expect(clippy::cast_precision_loss, reason = "below 2^52")]
    Ok(bytes as f64 / 1e6 / started.elapsed().as_secs_f64())
}

/// Prints the line and gives everything under its name.
pub fn report(samples: &Samples) -> BTreeMap<String, f64> {
    let mut figures = samples.medians();
    println!();
    for way in Way::ALL {
        let ratio = samples.ratio(&figure(way), &figure(Way::Direct));
        if let Some(ratio) = ratio {
            figures.insert(format!("large_{}_to_direct", way.name()), ratio);
        }
        println!(
            "1 GB of rows, {:14} {:>6} MB/s, {} x direct",
            way.name(),
            shown(samples.median(&figure(way)), 0),
            shown(ratio, 2)
        );
    }
    figures
}
