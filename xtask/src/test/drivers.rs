//! Other people's drivers, straight to a server and through guard in enforce mode.
//!
//! Every driver shows the same behaviours both ways, on one server; one check is one driver and one behaviour.

use std::{collections::BTreeMap, thread, time::Instant};

use anyhow::{Result, anyhow, bail};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use guard_tests::{
    Agent, AgentConfig,
    drivers::{self, Cell, DRIVERS, Driver, Shop, Tools, Way},
};

use super::summary::Counts;
use crate::{setup, style};

/// Runs the drivers whose names are in `names`, all where none is named; other names are those of behaviours.
pub fn run(names: &[String]) -> Result<Counts> {
    let chosen: Vec<&Driver> =
        DRIVERS.iter().filter(|driver| names.iter().any(|name| name == driver.name)).collect();
    let chosen = if chosen.is_empty() { DRIVERS.iter().collect() } else { chosen };
    let all = drivers::behaviours();
    let behaviours: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let named: Vec<&str> =
        behaviours.iter().copied().filter(|behaviour| names.iter().any(|name| name == behaviour)).collect();
    let behaviours = if named.is_empty() { behaviours } else { named };

    let bench = Bench::set_up()?;
    let mut columns = Vec::new();
    for driver in chosen {
        let started = Instant::now();
        columns.push((driver.name, bench.compare(driver, &behaviours)?));
        println!("  {} ({:.1} s)", driver.name, started.elapsed().as_secs_f64());
    }
    let mut counts = Counts::default();
    for (driver, cells) in &columns {
        for (behaviour, cell) in cells {
            explain(driver, behaviour, cell);
            counts += match cell {
                Cell::Unsupported(_) => Counts::default(),
                cell => Counts::of(!cell.is_failure()),
            };
        }
    }
    println!("{}", table(&columns, &behaviours));
    println!("same: as without guard; -: there is no such thing, because");
    for ((driver, reason), behaviours) in reasons(&columns) {
        println!("  {}", style::faint(&format!("{driver}: {reason} ({})", behaviours.join(", "))));
    }
    Ok(counts)
}

/// The server, guard before it, and what the programs need.
struct Bench {
    // INVARIANT: dropped in this order, the server last.
    agent: Agent,
    tools: Tools,
    direct: Way,
    proxied: Way,
    _shop: Shop,
}

impl Bench {
    fn set_up() -> Result<Self> {
        let shop = Shop::open()?;
        // By TCP: a server offers channel binding on no unix socket.
        let config = AgentConfig { unix_socket: false, ..AgentConfig::default() };
        let agent = Agent::start(&config, &shop.postgres)?;
        let direct = Way { address: shop.postgres.address(), ca: Some(shop.ca()), tag: "direct".to_owned() };
        let proxied = Way { address: agent.proxy(), ca: Some(shop.ca()), tag: "guard".to_owned() };
        Ok(Self { agent, tools: setup::drivers(), direct, proxied, _shop: shop })
    }

    /// One driver, both ways at once.
    fn compare(&self, driver: &Driver, behaviours: &[&str]) -> Result<BTreeMap<String, Cell>> {
        let (direct, proxied) = thread::scope(|scope| {
            let direct = scope.spawn(|| drivers::run(driver, &self.tools, &self.direct, behaviours));
            let proxied = drivers::run(driver, &self.tools, &self.proxied, behaviours);
            (direct.join(), proxied)
        });
        let (direct, proxied) =
            (direct.map_err(|_| anyhow!("{}: the runner failed", driver.name))??, proxied);
        let proxied = match proxied {
            Ok(proxied) => proxied,
            Err(error) => bail!("through guard: {error:#}\n{}", last_lines(&self.agent.log())),
        };
        let cell = |name: &&str| ((*name).to_owned(), Cell::of(name, direct.get(*name), proxied.get(*name)));
        Ok(behaviours.iter().map(cell).collect())
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// Says more about a cell than the table can.
fn explain(driver: &str, behaviour: &str, cell: &Cell) {
    let name = format!("{driver}, {behaviour}");
    match cell {
        Cell::Same | Cell::Unsupported(_) => {}
        Cell::Broken(error) => println!("  {} {name}: fails without guard: {error}", style::bad("FAILED")),
        Cell::Differs { direct, proxied } => {
            println!("  {} {name}\n    direct: {direct}\n    guard:  {proxied}", style::bad("FAILED"));
        }
    }
}

type Reasons<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a str>>;

/// Why cells are empty, with the behaviours of each reason.
fn reasons<'a>(columns: &'a [(&str, BTreeMap<String, Cell>)]) -> Reasons<'a> {
    let mut reasons = Reasons::new();
    for (driver, cells) in columns {
        for (behaviour, cell) in cells {
            if let Cell::Unsupported(reason) = cell {
                reasons.entry((*driver, reason.as_str())).or_default().push(behaviour);
            }
        }
    }
    reasons
}

fn table(columns: &[(&str, BTreeMap<String, Cell>)], behaviours: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header(std::iter::once("").chain(columns.iter().map(|(driver, _)| *driver)));
    for behaviour in behaviours {
        let cells = columns.iter().map(|(_, cells)| match cells.get(*behaviour) {
            Some(Cell::Same) => "same",
            Some(Cell::Unsupported(_)) | None => "-",
            Some(Cell::Broken(_)) => "BROKEN",
            Some(Cell::Differs { .. }) => "DIFFERS",
        });
        table.add_row(std::iter::once(*behaviour).chain(cells));
    }
    table
}
