//! A whole site: PostgreSQL with a small shop in it, the control plane, the agent before it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Agent, AgentConfig, Authority, Control, Postgres, Psql, postgres, records, run};

/// The database of the shop.
pub const DATABASE: &str = "shop";
/// The role that owns it, and that every client logs in as.
pub const USER: &str = "app";
/// How long an event may take from the kernel to the journal, on a busy machine.
pub const EVENT_LIMIT: Duration = Duration::from_secs(10);
/// Rows of the table `customers`.
pub const CUSTOMERS: u64 = 5;

/// The tables of the shop, and what is in them.
pub const SCHEMA: &str = "
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, email text);
INSERT INTO customers SELECT n, 'customer ' || n, 'c' || n || '@example.org' FROM generate_series(1, 5) n;
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, total numeric(10, 2));
INSERT INTO orders SELECT n, 1 + n % 5, n * 10 FROM generate_series(1, 20) n;
";

/// Everything that runs. Dropping it ends everything.
#[derive(Debug)]
pub struct Site {
    // INVARIANT: dropped in this order, so that each ends while what it talks to is still there.
    /// The agent.
    pub agent: Agent,
    /// The control plane.
    pub control: Control,
    /// The database server.
    pub postgres: Postgres,
}

impl Site {
    /// Starts one whose agent enforces.
    pub fn start() -> Result<Self> {
        Self::with(AgentConfig::default())
    }

    /// Starts one with this agent; the control plane is put into its configuration.
    pub fn with(config: AgentConfig) -> Result<Self> {
        Self::before(Postgres::start()?, config)
    }

    /// Starts one before this server.
    pub fn before(postgres: Postgres, config: AgentConfig) -> Result<Self> {
        prepare(&postgres)?;
        let control = Control::start()?;
        let config = AgentConfig { control: Some(control.endpoint()), ..config };
        let agent = Agent::start(&config, &postgres)?;
        Ok(Self { agent, control, postgres })
    }

    /// Starts one whose server speaks TLS with a certificate of `authority`. The agent has to find that out by itself.
    pub fn secure(authority: &Authority, config: AgentConfig) -> Result<Self> {
        let config = AgentConfig { unix_socket: false, ..config };
        Self::before(Postgres::with_tls(authority)?, config)
    }

    /// psql through the proxy.
    pub fn proxied(&self) -> Psql {
        self.agent.psql(USER, DATABASE)
    }

    /// psql round the proxy, over TCP.
    pub fn direct(&self) -> Psql {
        self.postgres.psql(USER, DATABASE)
    }

    /// psql round the proxy, over the unix socket.
    pub fn direct_unix(&self) -> Psql {
        self.postgres.psql_unix(USER, DATABASE)
    }

    /// How many rows a table has, asked round the proxy; `None` where the table is gone.
    pub fn rows(&self, table: &str) -> Result<Option<u64>> {
        let finished = self.direct_unix().query(&format!("SELECT count(*) FROM {table}"))?;
        Ok(finished.stdout.trim().parse().ok().filter(|_| finished.ok()))
    }

    /// Waits until the journal has a body of `kind` that `wanted` accepts, and gives the newest one.
    pub fn wait_for(&self, kind: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let (mut found, mut seen) = (None, Vec::new());
        let outcome = run::eventually(&format!("in the journal: {what}"), EVENT_LIMIT, || {
            let all = self.agent.records()?;
            seen = records::bodies(&all, kind).into_iter().rev().cloned().collect();
            found = seen.iter().find(|body| wanted(body)).cloned();
            Ok(found.is_some())
        });
        seen.truncate(3);
        outcome.with_context(|| format!("the newest of {kind}: {}", serde_json::Value::Array(seen)))?;
        found.with_context(|| format!("{what}: not in the journal"))
    }

    /// Waits until the control plane has acknowledged everything that the journal holds; gives the last sequence.
    pub fn settle(&self) -> Result<u64> {
        let mut last = 0;
        run::eventually("the control plane acknowledging the journal", EVENT_LIMIT * 2, || {
            let status = self.agent.status()?;
            last = status.get("journal").map_or(0, |journal| records::number(journal, "last_sequence"));
            let acknowledged =
                status.get("uplink").map_or(0, |uplink| records::number(uplink, "acknowledged_sequence"));
            Ok(last > 0 && acknowledged == last)
        })?;
        Ok(last)
    }
}

/// Makes role, database and tables of the shop.
pub fn prepare(postgres: &Postgres) -> Result<()> {
    let owner = postgres.psql(postgres::OWNER, "postgres");
    owner.query(&format!("CREATE ROLE {USER} LOGIN"))?.expect_ok("creating the role")?;
    owner.query(&format!("CREATE DATABASE {DATABASE} OWNER {USER}"))?.expect_ok("creating the database")?;
    postgres.psql(USER, DATABASE).query(SCHEMA)?.expect_ok("creating the tables")?;
    Ok(())
}
