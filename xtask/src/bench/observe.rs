//! What observing costs a database that nobody goes through the proxy to.

use std::{collections::BTreeMap, fs, process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use guard_tests::{Agent, AgentConfig, Postgres, binaries, postgres, records};

use super::{
    proxy::{
        self,
        pgbench::{Load, PgBench},
    },
    report::{self, Samples},
};
use crate::{
    build,
    setup::{self, Group},
    style,
};

/// pgbench straight to the server, with the agent beside it and without, in turns.
///
/// `transactions`: read-only transactions on connections that stay (8 clients). `connections`: a new connection for each
/// transaction, as fast as they can be made. Ratios are medians over the rounds, each of one run with the agent and one
/// without, in changing order. The agent's processor time is in percent of one core; lost events are those that its gap
/// records count.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Rounds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Clients at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=200))]
    clients: u32,
    /// Further TOML for the agent's configuration, such as a switch whose cost is to be measured
    #[arg(long, default_value = "")]
    config: String,
    /// Measure a debug build: to see that the bench works
    #[arg(long)]
    debug: bool,
}

/// What is measured, and how much of it observing may cost.
const KINDS: [(&str, Option<f64>); 2] = [("transactions", Some(0.99)), ("connections", None)];

/// Runs the bench.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Group::Build, Group::Bench])?;
    let program = if arguments.debug {
        binaries::path("guard-agent")?
    } else {
        println!("{}", style::strong("Building guard (release)"));
        build::workspace(true)?;
        proxy::release_agent()
    };
    let postgres = Postgres::start()?;
    let pgbench = PgBench::new()?;
    pgbench.initialize(postgres.address(), 10)?;
    let config = AgentConfig {
        program: Some(program),
        mode: "monitor",
        extra: arguments.config.clone(),
        ..AgentConfig::default()
    };
    let mut samples = Samples::default();
    for round in 0..arguments.rounds {
        println!("observe: round {} of {} ..", round + 1, arguments.rounds);
        for observed in [round % 2 == 0, round % 2 != 0] {
            let agent = observed.then(|| Agent::start(&config, &postgres)).transpose()?;
            for (kind, _) in KINDS {
                measure(arguments, &postgres, &pgbench, agent.as_ref(), kind, &mut samples)?;
            }
        }
    }
    let mut figures = figures(&samples);
    figures.extend(program_costs(
        arguments,
        &AgentConfig { program_stats: true, ..config },
        &postgres,
        &pgbench,
    )?);
    println!("\n{}", table(&figures));
    let shown = |name: &str| name.starts_with("agent_") || name.starts_with("program_");
    for (name, value) in figures.iter().filter(|(name, _)| shown(name)) {
        println!("{name}: {value:.1}");
    }
    println!("written: {}", report::write("observe", &figures)?.display());
    Ok(ExitCode::SUCCESS)
}

fn measure(
    arguments: &Arguments,
    postgres: &Postgres,
    pgbench: &PgBench,
    agent: Option<&Agent>,
    kind: &str,
    samples: &mut Samples,
) -> Result<()> {
    let before = agent.map(processor_ticks).transpose()?;
    let began = Instant::now();
    let rate = if kind == "transactions" {
        let load = Load { protocol: "prepared", clients: arguments.clients };
        pgbench.measure(postgres.address(), load, arguments.seconds)?.tps
    } else {
        // More than any server can answer: as fast as it goes.
        let client = postgres.psql(postgres::OWNER, "postgres");
        pgbench.connections(&client, 1_000_000, arguments.seconds)?.rate
    };
    let took = began.elapsed().as_secs_f64();
    let state = if agent.is_some() { "on" } else { "off" };
    samples.add(&format!("{kind}_{state}_per_second"), rate);
    if let (Some(agent), Some(before)) = (agent, before) {
        let ticks = processor_ticks(agent)? - before;
        samples.add(&format!("agent_{kind}_percent_of_a_core"), ticks / took);
        samples.add(&format!("agent_{kind}_resident_kib"), to_f64(agent.resident_kib()?));
        let status = agent.status()?;
        samples.add(&format!("agent_{kind}_events_lost"), to_f64(records::number(&status, "lost")));
    }
    Ok(())
}

/// Nanoseconds that each eBPF program takes for one run, under new connections: by a run of its own, since counting them
/// costs something too.
fn program_costs(
    arguments: &Arguments,
    config: &AgentConfig,
    postgres: &Postgres,
    pgbench: &PgBench,
) -> Result<BTreeMap<String, f64>> {
    let agent = Agent::start(config, postgres)?;
    measure(arguments, postgres, pgbench, Some(&agent), "connections", &mut Samples::default())?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    let status = agent.status()?;
    let programs = records::objects(&status["sensor"], "programs").iter();
    let cost = programs.filter_map(|program| {
        let (runs, time) = (records::number(program, "runs"), records::number(program, "run_ns"));
        let name = || format!("program_{}_ns", records::text(program, "name"));
        (runs > 0).then(|| (name(), to_f64(time) / to_f64(runs)))
    });
    Ok(cost.collect())
}

/// Processor time of the agent so far: hundredths of a second, which is percent of a core for each second.
fn processor_ticks(agent: &Agent) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", agent.pid()))?;
    // The name may hold anything; behind it, user and system time are the 12th and 13th.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let mut times = fields.split_ascii_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let (user, system) = times.next().zip(times.next()).context("no times in /proc/PID/stat")?;
    Ok(user? + system?)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

fn figures(samples: &Samples) -> BTreeMap<String, f64> {
    let mut figures = samples.medians();
    for (kind, _) in KINDS {
        let (on, off) = (format!("{kind}_on_per_second"), format!("{kind}_off_per_second"));
        figures.extend(samples.ratio(&on, &off).map(|ratio| (format!("{kind}_on_to_off"), ratio)));
    }
    figures
}

fn table(figures: &BTreeMap<String, f64>) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header(["per second", "without", "observed", "observed/without", "budget"]);
    for (kind, budget) in KINDS {
        let shown = |name: String, digits: usize| {
            figures.get(&name).map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        table.add_row([
            kind.to_owned(),
            shown(format!("{kind}_off_per_second"), 0),
            shown(format!("{kind}_on_per_second"), 0),
            shown(format!("{kind}_on_to_off"), 3),
            budget.map_or_else(String::new, |budget| format!("{budget:.2}")),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_observed_to_not() {
        let mut samples = Samples::default();
        samples.add("transactions_on_per_second", 99.0);
        samples.add("transactions_off_per_second", 100.0);
        let text = table(&figures(&samples)).to_string();
        assert!(text.contains("0.990"), "{text}");
    }
}
