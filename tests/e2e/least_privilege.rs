//! The agent does its work with the capabilities that its systemd unit gives it.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use guard_tests::{
    AgentConfig, Authority, Site, postgres,
    records::{non_proxied, text, workload_pid},
    site,
    skip::{self, Need},
    workload,
};

#[test]
fn the_units_capabilities_are_enough() -> Result<()> {
    if skip::without(&[Need::Postgres, Need::Ebpf]) {
        return Ok(());
    }
    let capabilities = Some(capabilities_of_the_unit()?);
    let site = Site::with(AgentConfig { capabilities, ..AgentConfig::default() })?;
    let status = fs::read_to_string(format!("/proc/{}/status", site.agent.pid()))?;
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).context("no CapBnd")?;
    assert!(u64::from_str_radix(bounding.trim(), 16)?.count_ones() < 10, "it was not confined: {bounding}");

    assert_eq!(text(&site.agent.status()?["sensor"], "rung"), "full");
    let refused = site.proxied().query("DROP TABLE customers")?;
    assert!(refused.has_sqlstate("42501"), "{}", refused.stderr);
    for client in [
        workload::short_lived_tcp(site.postgres.address(), site::USER, site::DATABASE)?,
        workload::short_lived_unix(&site.postgres.socket(), site::USER, site::DATABASE)?,
    ] {
        let connection = site.wait_for("connection_opened", "a client round the proxy", |connection| {
            non_proxied(connection) && workload_pid(connection) == u64::from(client.pid)
        })?;
        assert!(text(&connection["workload"], "executable").ends_with("/guard-short-client"), "{connection}");
    }
    Ok(())
}

/// As `setpriv` names them: `bpf`, `perfmon`, ..
pub fn capabilities_of_the_unit() -> Result<Vec<String>> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("deploy").join("systemd/guard-agent.service");
    let unit = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.context("the unit bounds no capabilities")?.split_whitespace();
    Ok(names.map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect())
}

#[test]
fn the_units_capabilities_reach_the_servers_certificate() -> Result<()> {
    if skip::without(&[Need::Postgres, Need::Ebpf]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let capabilities = Some(capabilities_of_the_unit()?);
    let site = Site::secure(&authority, AgentConfig { capabilities, ..AgentConfig::default() })?;
    let clerk = site.agent.psql(postgres::SCRAM_ROLE, "postgres").password(postgres::SCRAM_PASSWORD);
    let bound = clerk.tls("verify-full", &authority).variable("PGCHANNELBINDING", "require");
    bound.query("SELECT 1")?.expect_ok("psql that insists on channel binding")?;
    Ok(())
}
