//! The kernel side is not permitted: the agent says so, and does what it can.

use anyhow::Result;
use guard_tests::{
    Agent, AgentConfig, Postgres, Site,
    records::text,
    skip::{self, Need},
};

/// Root without the capabilities that eBPF takes. Reading the server's folder is not what this is about.
fn without_bpf(required: bool) -> AgentConfig {
    AgentConfig {
        ebpf: true,
        required,
        capabilities: Some(vec!["dac_override".to_owned()]),
        ..AgentConfig::default()
    }
}

#[test]
fn it_still_decides_and_says_what_it_cannot_see() -> Result<()> {
    if skip::without(&[Need::Postgres, Need::Mounts]) {
        return Ok(());
    }
    let site = Site::with(without_bpf(false))?;
    let status = site.agent.status()?;
    assert_eq!(text(&status["sensor"], "rung"), "no-bpf", "{status}");
    let missing = status["sensor"]["missing"].to_string();
    assert!(missing.contains("CAP_BPF") || missing.contains("permitted"), "{missing}");
    let refused = site.proxied().query("DROP TABLE customers")?;
    assert!(refused.has_sqlstate("42501"), "{}", refused.stderr);
    assert!(site.proxied().query("SELECT count(*) FROM customers")?.ok());
    Ok(())
}

#[test]
fn it_does_not_start_where_the_kernel_side_is_required() -> Result<()> {
    if skip::without(&[Need::Postgres, Need::Mounts]) {
        return Ok(());
    }
    let postgres = Postgres::start()?;
    let error = Agent::start(&without_bpf(true), &postgres)
        .err()
        .map(|error| format!("{error:#}"))
        .unwrap_or_default();
    assert!(error.contains("sensor.required") && error.contains("guard-agent doctor"), "{error}");
    Ok(())
}
