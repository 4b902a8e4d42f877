//! The real server as a judge: statements enter, what they changed in a scratch database leaves.
//!
//! Each statement runs in a transaction that is rolled back; what cannot run in one runs for real, and the database
//! is made anew. Nothing here ever goes through guard.

mod judge;
mod snapshot;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use guard_tests::{Postgres, postgres::OWNER};

pub use self::{
    judge::{Finding, judge},
    snapshot::{Change, Snapshot},
};
use crate::client::{Answer, Client};

/// The scratch database.
pub const DATABASE: &str = "shop";
/// What it is made from.
const TEMPLATE: &str = "shop_seed";
/// What lies in it.
const SCHEMA: &str = include_str!("../corpus/schema.sql");
/// `active_sql_transaction`: it cannot run inside a transaction block.
const NOT_IN_TRANSACTION: &str = "25001";
/// `read_only_sql_transaction`.
pub const READ_ONLY: &str = "25006";

/// What came of a statement on the real server.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What came of the last message, or of the first that failed.
    pub answer: Answer,
    /// What it changed.
    pub changes: Vec<Change>,
}

/// A private server with the scratch database.
#[derive(Debug)]
pub struct Scratch {
    client: Client,
    baseline: Snapshot,
    /// The server; guard may be put before it.
    pub postgres: Postgres,
}

impl Scratch {
    /// Starts the server and fills the database.
    pub fn start() -> Result<Self> {
        let postgres = Postgres::start()?;
        let owner = postgres.psql(OWNER, "postgres");
        owner.query(&format!("CREATE DATABASE {TEMPLATE}"))?.expect_ok("making the scratch database")?;
        let filled = postgres.psql(OWNER, TEMPLATE).script(&format!("\\set ON_ERROR_STOP on\n{SCHEMA}"))?;
        filled.expect_ok("filling the scratch database")?;
        let template = format!("CREATE DATABASE {DATABASE} TEMPLATE {TEMPLATE} STRATEGY file_copy");
        owner.query(&template)?.expect_ok("copying the scratch database")?;
        let mut client = Client::log_in(postgres.address(), OWNER, DATABASE)?;
        let baseline = Self::fresh(&mut client)?;
        Ok(Self { client, baseline, postgres })
    }

    fn fresh(client: &mut Client) -> Result<Snapshot> {
        let baseline = Snapshot::take(client)?;
        client.expect("DISCARD ALL")?;
        client.expect("SET statement_timeout = '3s'; SET lock_timeout = '2s'")?;
        Ok(baseline)
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.postgres.address()
    }

    /// Its major version.
    pub fn version(&mut self) -> Result<u32> {
        let answer = self.client.expect("SHOW server_version_num")?;
        let number: u32 = answer.value().context("no version")?.parse()?;
        Ok(number / 10_000)
    }

    /// What has changed since the database was made: nothing, if everything was refused.
    pub fn drift(&mut self) -> Result<Vec<Change>> {
        // What other sessions had for themselves may vanish while it is looked at.
        let now = match Self::fresh(&mut self.client) {
            Err(_) => {
                std::thread::sleep(Duration::from_millis(300));
                Self::fresh(&mut self.client)?
            }
            now => now?,
        };
        Ok(self.baseline.changes(&now))
    }

    /// Whether the server accepts the syntax: SQLSTATE of the refusal, `""` where it does not refuse.
    pub fn parse(&mut self, preamble: &[String], message: &[u8]) -> Result<Answer> {
        self.preamble(preamble)?;
        let answer = self.client.parse(message)?;
        self.settle(&answer)?;
        Ok(answer)
    }

    /// Runs the messages and says what they changed; the database is as before afterwards.
    pub fn run(&mut self, preamble: &[String], messages: &[Vec<u8>]) -> Result<Outcome> {
        self.client.expect("BEGIN")?;
        self.preamble(preamble)?;
        let answer = self.send(messages)?;
        if answer.sqlstate() == NOT_IN_TRANSACTION {
            self.settle(&answer)?;
            return self.run_for_real(preamble, messages);
        }
        if answer.status == 'T' && !answer.closed {
            let after = Snapshot::take(&mut self.client)?;
            let changes = self.baseline.changes(&after);
            self.settle(&answer)?;
            if changes.iter().any(|change| change.kind == "sequence" || change.kind == "slot") {
                // These outlive a rollback.
                self.restore()?;
            }
            return Ok(Outcome { answer, changes });
        }
        let changes = if answer.status == 'E' && !answer.closed {
            // A COMMIT within may have let the first half happen.
            self.settle(&answer)?;
            Vec::new()
        } else {
            self.committed()?
        };
        Ok(Outcome { answer, changes })
    }

    fn run_for_real(&mut self, preamble: &[String], messages: &[Vec<u8>]) -> Result<Outcome> {
        self.preamble(preamble)?;
        let answer = self.send(messages)?;
        let changes = self.committed()?;
        Ok(Outcome { answer, changes })
    }

    fn preamble(&mut self, preamble: &[String]) -> Result<()> {
        preamble.iter().try_for_each(|text| self.client.expect(text).map(drop))
    }

    /// Sends messages up to the first that fails.
    fn send(&mut self, messages: &[Vec<u8>]) -> Result<Answer> {
        let mut last = Answer { status: self.client.status, ..Answer::default() };
        for message in messages {
            last = self.client.query(message)?;
            if last.error.is_some() || last.closed {
                break;
            }
        }
        Ok(last)
    }

    /// Ends the transaction and forgets what the session has learned.
    fn settle(&mut self, answer: &Answer) -> Result<()> {
        if answer.closed {
            return self.restore();
        }
        if self.client.status != 'I' {
            self.client.expect("ROLLBACK")?;
        }
        self.client.expect("RESET SESSION AUTHORIZATION")?;
        self.client.expect("DISCARD ALL")?;
        self.client.expect("SET statement_timeout = '3s'; SET lock_timeout = '2s'")?;
        Ok(())
    }

    /// What a statement left behind for good; then everything is made anew.
    fn committed(&mut self) -> Result<Vec<Change>> {
        let database = self.client_of(DATABASE);
        let changes = match database {
            Ok(mut other) => self.baseline.changes(&Snapshot::take(&mut other)?),
            // Gone, or nobody may log in to it.
            Err(_) => vec![Change { kind: "database".into(), name: DATABASE.into(), how: judge::GONE }],
        };
        if changes.is_empty() && self.client.status == 'I' {
            let answer = Answer { status: 'I', ..Answer::default() };
            self.settle(&answer).or_else(|_| self.restore())?;
        } else {
            self.restore()?;
        }
        Ok(changes)
    }

    fn client_of(&self, database: &str) -> Result<Client> {
        Client::log_in(self.postgres.address(), OWNER, database)
    }

    /// Makes the database anew, and takes away what is not its own: roles, slots, settings, other databases.
    pub fn restore(&mut self) -> Result<()> {
        let mut owner = self.client_of("postgres")?;
        let ask = |owner: &mut Client, sql: &str| -> Result<()> {
            let answer = owner.expect(sql)?;
            for row in answer.rows {
                let todo = row.into_iter().next().flatten().unwrap_or_default();
                // What cannot be undone becomes part of the new baseline.
                owner.query(todo)?;
            }
            Ok(())
        };
        ask(
            &mut owner,
            "SELECT format('SELECT pg_drop_replication_slot(%L)', slot_name) FROM pg_replication_slots",
        )?;
        owner.query("ALTER SYSTEM RESET ALL")?;
        let mut inside = self.client_of(DATABASE).ok();
        if let Some(inside) = &mut inside {
            ask(inside, "SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts")?;
        }
        drop(inside);
        owner.expect(&format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"))?;
        ask(
            &mut owner,
            &format!(
                "SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database
                 WHERE datname NOT IN ('postgres', 'template0', 'template1', '{TEMPLATE}')"
            ),
        )?;
        ask(
            &mut owner,
            "SELECT format('DROP ROLE %I', rolname) FROM pg_roles
             WHERE oid >= 16384 AND rolname NOT IN ('clerk', 'app', 'intern', 'boss')",
        )?;
        owner.expect(&format!("CREATE DATABASE {DATABASE} TEMPLATE {TEMPLATE} STRATEGY file_copy"))?;
        self.client = self.client_of(DATABASE)?;
        self.baseline = Self::fresh(&mut self.client)?;
        Ok(())
    }
}
