//! Sensitive data does not reach who may not see it, whatever is tried; who may sees it as it is.

mod attempts;
mod comments;
mod digits;
mod encodings;
mod modes;
mod records;

use std::fs;

use anyhow::{Context, Result};
use guard_tests::{Agent, AgentConfig, Folder, Postgres, postgres, site::USER};

/// The database with people in it.
const DATABASE: &str = "people";

const SCHEMA: &str = include_str!("masking/schema.sql");

/// A server whose database holds people, and an agent before it.
struct House {
    // INVARIANT: dropped in this order.
    agent: Agent,
    postgres: Postgres,
    _policies: Folder,
}

impl House {
    /// `policies` beside those that are built in; `extra` is TOML for the server's block and behind it.
    fn new(mode: &'static str, policies: &str, extra: &str) -> Result<Self> {
        let postgres = Postgres::start()?;
        let owner = postgres.psql(postgres::OWNER, "postgres");
        owner.query(&format!("CREATE ROLE {USER} LOGIN"))?.expect_ok("creating the role")?;
        owner
            .query(&format!("CREATE DATABASE {DATABASE} OWNER {USER}"))?
            .expect_ok("creating the database")?;
        postgres.psql(USER, DATABASE).query(SCHEMA)?.expect_ok("creating the tables")?;
        let folder = Folder::new("policies")?;
        let built_in = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");
        for topic in ["baseline", "masking"] {
            let text = fs::read_to_string(format!("{built_in}/{topic}/policy.cedar")).context(topic)?;
            folder.write(&format!("{topic}.cedar"), &text)?;
        }
        if !policies.is_empty() {
            folder.write("own.cedar", policies)?;
        }
        let config = AgentConfig {
            mode,
            ebpf: false,
            required: false,
            policies: Some(folder.join("")),
            extra: format!("environment = \"scratch\"\n{extra}"),
            ..AgentConfig::default()
        };
        let agent = Agent::start(&config, &postgres)?;
        Ok(Self { agent, postgres, _policies: folder })
    }
}

/// Reveals everything to everybody.
const REVEAL_ALL: &str =
    "@id(\"all-see-all\") permit (principal, action == Guard::Action::\"reveal\", resource);";
