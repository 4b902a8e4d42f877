//! New connections, 200 per second, each with a password and one transaction.

use std::collections::BTreeMap;

use anyhow::Result;
use guard_tests::{
    Agent, AgentConfig, Postgres, Psql,
    postgres::{OWNER, SCRAM_PASSWORD, SCRAM_ROLE},
};

use super::{pgbench::PgBench, release_agent};

/// Connections per second that are asked for.
const RATE: u32 = 200;

/// New connections per second, and how many statements the journal holds for them.
pub fn measure(seconds: u32) -> Result<BTreeMap<String, f64>> {
    println!("logins: {RATE} per second for {seconds} s ..");
    let postgres = Postgres::start()?;
    let pgbench = PgBench::new()?;
    pgbench.initialize(postgres.address(), 1)?;
    let grant = format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {SCRAM_ROLE}");
    postgres.psql(OWNER, "postgres").query(&grant)?.expect_ok("granting")?;
    let config = AgentConfig { program: Some(release_agent()), ..AgentConfig::default() };
    let agent = Agent::start(&config, &postgres)?;
    let mut figures = BTreeMap::new();
    for (name, address) in [("direct", postgres.address()), ("guard", agent.proxy())] {
        let client = Psql::tcp(address, SCRAM_ROLE, "postgres").password(SCRAM_PASSWORD);
        let rate = pgbench.connections(&client, RATE, seconds)?;
        println!("{RATE} new connections per second with SCRAM, {name}: {rate:.0} per second");
        figures.insert(format!("logins_{name}_per_second"), rate);
    }
    Ok(figures)
}
