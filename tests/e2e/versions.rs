//! PostgreSQL of each version that Debian has: its statements are seen, and held, in the server itself.
//!
//! Programs differ from build to build: where the probes go is read from each, and what they read of the server's
//! structures goes by its version.

use anyhow::Result;
use guard_tests::{
    AgentConfig, Postgres, records,
    records::{number, text},
    site,
    skip::{self, Need},
    versions,
};

use crate::{hold, observed};

/// A server of this version, or nothing where the test has to be skipped.
fn server(major: u32) -> Result<Option<Postgres>> {
    if skip::without(&[Need::Postgres, Need::Ebpf, Need::PostgresVersion(major)]) {
        return Ok(None);
    }
    Postgres::of_version(major).map(Some)
}

fn seen(major: u32) -> Result<()> {
    let Some(postgres) = server(major)? else { return Ok(()) };
    let config = AgentConfig { unix_socket: false, ..AgentConfig::default() };
    let site = observed::observed_before(postgres, config)?;
    let status = site.agent.status()?;
    let by = text(&records::objects(&status, "servers")[0], "observed_by").to_owned();
    assert!(by.contains(&format!("PostgreSQL {major}")), "{by}");
    observed::every_way(&site)?;
    // Who it is for, to which database, under which role: each is read at an offset of the version's own.
    let script = format!(
        "SET ROLE {role};\nSET search_path = of_{major}, public;\nSELECT count(*) AS by_role FROM pg_class;\nRESET ROLE;\n\
         RESET search_path;\n",
        role = site::USER
    );
    site.direct().script(&script)?.expect_ok("psql")?;
    let record = site.wait_for("statement", "what ran under the role", |record| {
        text(record, "evidence") == "probe" && text(record, "text").to_lowercase().contains("by_role")
    })?;
    assert_eq!(
        (text(&record, "db_user"), text(&record, "database")),
        (site::USER, site::DATABASE),
        "{record}"
    );
    assert_eq!(text(&record, "workload"), "psql", "{record}");
    observed::parts_and_hidden_ones(&site, &site.direct())?;
    let status = site.agent.status()?;
    assert_eq!(number(&records::objects(&status, "servers")[0], "observed_lost"), 0, "{status}");
    Ok(())
}

fn held(major: u32) -> Result<()> {
    let Some(postgres) = server(major)? else { return Ok(()) };
    hold::in_version(major, postgres)
}

#[test]
fn statements_in_postgresql_13_are_seen() -> Result<()> {
    seen(13)
}

#[test]
fn statements_in_postgresql_13_are_held() -> Result<()> {
    held(13)
}

#[test]
fn statements_in_postgresql_15_are_seen() -> Result<()> {
    seen(15)
}

#[test]
fn statements_in_postgresql_15_are_held() -> Result<()> {
    held(15)
}

#[test]
fn statements_in_postgresql_17_are_seen() -> Result<()> {
    seen(17)
}

#[test]
fn statements_in_postgresql_17_are_held() -> Result<()> {
    held(17)
}

#[test]
fn statements_in_postgresql_18_are_seen() -> Result<()> {
    seen(18)
}

#[test]
fn statements_in_postgresql_18_are_held() -> Result<()> {
    held(18)
}

#[test]
fn every_version_that_debian_has_is_among_them() {
    assert_eq!(versions::POSTGRES.map(|(major, _)| major), [13, 15, 17, 18]);
}
