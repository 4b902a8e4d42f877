//! What observing costs a database that nobody goes through the proxy to.

use std::{
    collections::BTreeMap,
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use guard_tests::{Agent, AgentConfig, Postgres, binaries, postgres, records, run};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

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

/// pgbench straight to the server, without the agent, with one that observes connections alone, and with one that observes
/// statements as well, in turns.
///
/// `select`: read-only transactions of prepared statements on connections that stay (8 clients); `simple`: the same with
/// values in their texts, each of which is another; `tpcb`: transactions of seven prepared statements, five of which go
/// through the executor; `logins`: a new connection for each transaction, as fast as they can be made. Ratios are medians
/// over the rounds, each of one run of every kind, in changing order, with their standard error. Server, clients and agent
/// share one core: with more of them, throughput depends on which core a scheduler wakes whom on, by more than what is
/// measured here, and a part of the cost falls into time that nobody used. The agent's processor time is in percent of one core.
/// Events that were lost are those that gap records count; `seen` is what was told of the statements that pgbench ran.
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
    /// Cores for all of it together: server, clients and agent
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    cores: u32,
    /// What pgbench does
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Work::ALL)]
    loads: Vec<Work>,
    /// Further TOML for the agent's configuration, such as a switch whose cost is to be measured
    #[arg(long, default_value = "")]
    config: String,
    /// Measure a debug build: to see that the bench works
    #[arg(long)]
    debug: bool,
}

/// What pgbench does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Work {
    /// Read-only transactions of prepared statements
    Select,
    /// Transactions of seven prepared statements
    Tpcb,
    /// Read-only transactions, each with a text of its own
    Simple,
    /// A connection for each transaction
    Logins,
}

impl Work {
    const ALL: [Self; 4] = [Self::Select, Self::Tpcb, Self::Simple, Self::Logins];

    fn name(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Tpcb => "tpcb",
            Self::Simple => "simple",
            Self::Logins => "logins",
        }
    }

    /// What of the throughput is to be left with `beside`.
    fn budget(self, beside: Beside) -> Option<f64> {
        match (self, beside) {
            (Self::Select | Self::Tpcb, Beside::Connections) => Some(0.99),
            (Self::Select | Self::Tpcb, Beside::Statements) => Some(0.95),
            _ => None,
        }
    }
}

/// What runs beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    Connections,
    Statements,
}

impl Beside {
    const ALL: [Self; 3] = [Self::Nothing, Self::Connections, Self::Statements];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "off",
            Self::Connections => "connections",
            Self::Statements => "statements",
        }
    }
}

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
    stay_on(arguments.cores)?;
    let postgres = Postgres::start()?;
    let pgbench = PgBench::new()?;
    pgbench.initialize(postgres.address(), 10)?;
    let config = |observe: bool| AgentConfig {
        program: Some(program.clone()),
        mode: "monitor",
        extra: format!("observe = {observe}\n{}", arguments.config),
        ..AgentConfig::default()
    };
    let mut samples = Samples::default();
    for round in 0..arguments.rounds {
        println!("observe: round {} of {} ..", round + 1, arguments.rounds);
        for turn in 0..Beside::ALL.len() {
            let beside = Beside::ALL[(turn + round as usize) % Beside::ALL.len()];
            let agent = match beside {
                Beside::Nothing => None,
                observing => Some(watching(&config(observing == Beside::Statements), &postgres)?),
            };
            let bench = Bench { arguments, postgres: &postgres, pgbench: &pgbench };
            for work in &arguments.loads {
                bench.measure(agent.as_ref(), beside, *work, &mut samples)?;
            }
        }
    }
    let mut figures = figures(&arguments.loads, &samples);
    let costly = AgentConfig { program_stats: true, ..config(true) };
    let bench = Bench { arguments, postgres: &postgres, pgbench: &pgbench };
    figures.extend(bench.program_costs(&costly)?);
    println!("\n{}", table(&arguments.loads, &figures));
    let shown = |name: &str| !arguments.loads.iter().any(|work| name.starts_with(work.name()));
    for (name, value) in figures.iter().filter(|(name, _)| shown(name)) {
        println!("{name}: {value:.1}");
    }
    println!("written: {}", report::write("observe", &figures)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Keeps this process and all that it starts on so many cores.
fn stay_on(cores: u32) -> Result<()> {
    let own = Pid::from_raw(0);
    let allowed = sched_getaffinity(own).context("cannot tell the cores of this process")?;
    let mut few = CpuSet::new();
    let chosen =
        (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false)).take(cores as usize);
    for core in chosen {
        few.set(core).context("a core beyond what the kernel takes")?;
    }
    sched_setaffinity(own, &few).context("cannot stay on some of the cores")
}

/// An agent that sees what it is to see.
fn watching(config: &AgentConfig, postgres: &Postgres) -> Result<Agent> {
    let agent = Agent::start(config, postgres)?;
    if config.extra.contains("observe = true") {
        run::eventually("statements being observed", Duration::from_secs(20), || {
            let status = agent.status()?;
            Ok(!records::text(&records::objects(&status, "servers")[0], "observed_by").is_empty())
        })?;
    }
    Ok(agent)
}

/// What a measurement takes.
struct Bench<'a> {
    arguments: &'a Arguments,
    postgres: &'a Postgres,
    pgbench: &'a PgBench,
}

impl Bench<'_> {
    fn measure(
        &self,
        agent: Option<&Agent>,
        beside: Beside,
        work: Work,
        samples: &mut Samples,
    ) -> Result<()> {
        let load = work.name();
        let address = self.postgres.address();
        let state = beside.name();
        let seconds = self.arguments.seconds;
        let before = agent.map(Accounts::of).transpose()?;
        let began = Instant::now();
        let rate = if work == Work::Logins {
            // More than any server can answer: as fast as it goes.
            let client = self.postgres.psql(postgres::OWNER, "postgres");
            self.pgbench.connections(&client, 1_000_000, seconds)?.rate
        } else {
            let protocol = if work == Work::Simple { "simple" } else { "prepared" };
            let kind = Load { protocol, clients: self.arguments.clients };
            if work == Work::Tpcb {
                self.pgbench.measure_writing(address, kind, seconds)?.tps
            } else {
                self.pgbench.measure(address, kind, seconds)?.tps
            }
        };
        let took = began.elapsed().as_secs_f64();
        samples.add(&format!("{load}_{state}_per_second"), rate);
        let (Some(agent), Some(before)) = (agent, before) else { return Ok(()) };
        let ticks = Accounts::of(agent)?.ticks - before.ticks;
        samples.add(&format!("agent_{state}_{load}_percent_of_a_core"), ticks / took);
        samples.add(&format!("agent_{state}_{load}_resident_kib"), to_f64(agent.resident_kib()?));
        if beside == Beside::Statements {
            // What is counted in the kernel is looked up once a second.
            std::thread::sleep(Duration::from_millis(2_500));
        }
        let after = Accounts::of(agent)?;
        samples.add(&format!("agent_{state}_{load}_events_lost"), after.lost - before.lost);
        if beside == Beside::Statements {
            samples.add(&format!("agent_{state}_{load}_statements_lost"), after.missed - before.missed);
            samples.add(
                &format!("agent_{state}_{load}_statements_seen_per_transaction"),
                (after.seen - before.seen) / (rate * f64::from(seconds)),
            );
        }
        Ok(())
    }

    /// Nanoseconds that each eBPF program takes for one run: by a run of its own, since counting them costs something too.
    fn program_costs(&self, config: &AgentConfig) -> Result<BTreeMap<String, f64>> {
        let agent = watching(config, self.postgres)?;
        for work in &self.arguments.loads {
            self.measure(Some(&agent), Beside::Statements, *work, &mut Samples::default())?;
        }
        let status = agent.status()?;
        let programs = records::objects(&status["sensor"], "programs").iter();
        let cost = programs.filter_map(|program| {
            let (runs, time) = (records::number(program, "runs"), records::number(program, "run_ns"));
            let name = || format!("program_{}_ns", records::text(program, "name"));
            (runs > 0).then(|| (name(), to_f64(time) / to_f64(runs)))
        });
        Ok(cost.collect())
    }
}

/// What an agent has done so far.
struct Accounts {
    /// Processor time: hundredths of a second, which is percent of a core for each second.
    ticks: f64,
    /// Events that found no room.
    lost: f64,
    /// Statements that were seen.
    seen: f64,
    /// Statements that were not.
    missed: f64,
}

impl Accounts {
    fn of(agent: &Agent) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", agent.pid()))?;
        // The name may hold anything; behind it, user and system time are the 12th and 13th.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
        let mut times = fields.split_ascii_whitespace().skip(11).take(2).map(str::parse::<f64>);
        let (user, system) = times.next().zip(times.next()).context("no times in /proc/PID/stat")?;
        let status = agent.status()?;
        let server = &records::objects(&status, "servers")[0];
        Ok(Self {
            ticks: user? + system?,
            lost: to_f64(records::number(&status, "lost")),
            seen: to_f64(records::number(server, "observed")),
            missed: to_f64(records::number(server, "observed_lost")),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

fn figures(loads: &[Work], samples: &Samples) -> BTreeMap<String, f64> {
    let mut figures = samples.medians();
    for load in loads.iter().map(|work| work.name()) {
        let off = format!("{load}_off_per_second");
        for beside in [Beside::Connections, Beside::Statements] {
            let state = beside.name();
            let on = format!("{load}_{state}_per_second");
            figures.extend(samples.ratio(&on, &off).map(|ratio| (format!("{load}_{state}_to_off"), ratio)));
            let error = samples.ratio_error(&on, &off);
            figures.extend(error.map(|error| (format!("{load}_{state}_to_off_error"), error)));
        }
    }
    figures
}

fn table(loads: &[Work], figures: &BTreeMap<String, f64>) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header([
        "per second",
        "without",
        "connections observed",
        "to without",
        "budget",
        "statements observed",
        "to without",
        "budget",
    ]);
    for work in loads {
        let load = work.name();
        let number =
            |name: String, digits: usize| figures.get(&name).map(|value| format!("{value:.digits$}"));
        let shown = |name: String| number(name, 0).unwrap_or_else(|| "-".to_owned());
        let ratio = |beside: Beside| {
            let name = format!("{load}_{}_to_off", beside.name());
            let error =
                number(format!("{name}_error"), 3).map_or_else(String::new, |error| format!(" ± {error}"));
            number(name, 3).map_or_else(|| "-".to_owned(), |ratio| ratio + &error)
        };
        let budget = |beside| work.budget(beside).map_or_else(String::new, |budget| format!("{budget:.2}"));
        table.add_row([
            load.to_owned(),
            shown(format!("{load}_off_per_second")),
            shown(format!("{load}_connections_per_second")),
            ratio(Beside::Connections),
            budget(Beside::Connections),
            shown(format!("{load}_statements_per_second")),
            ratio(Beside::Statements),
            budget(Beside::Statements),
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
        samples.add("select_statements_per_second", 96.0);
        samples.add("select_connections_per_second", 99.0);
        samples.add("select_off_per_second", 100.0);
        samples.add("select_statements_per_second", 98.0);
        samples.add("select_off_per_second", 100.0);
        let loads = [Work::Select];
        let text = table(&loads, &figures(&loads, &samples)).to_string();
        assert!(text.contains("0.990") && text.contains("0.970 ± 0.010"), "{text}");
    }
}
