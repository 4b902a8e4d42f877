//! The same statement by the same database user: who runs it decides.

use anyhow::Result;
use guard_tests::{
    Cgroup, Site,
    records::{non_proxied, text},
    site,
    skip::{self, Need},
    workload::{self, AiAgent},
};

const UPDATE: &str = "UPDATE customers SET name = 'renamed' WHERE id = 1";

#[test]
fn a_service_may_write_and_an_ai_agent_may_only_read() -> Result<()> {
    if skip::without(&[Need::Postgres, Need::Ebpf, Need::Cgroups]) {
        return Ok(());
    }
    let site = Site::start()?;
    let cgroup = Cgroup::service(&format!("guard-test-{}.service", std::process::id()))?;
    workload::as_service(&cgroup, &site.proxied(), UPDATE)?.expect_ok("the service's update")?;
    let service = site.wait_for("connection_opened", "the service", |connection| {
        text(&connection["workload"], "unit") == cgroup.unit()
    })?;
    assert!(!non_proxied(&service));
    assert!(text(&service["workload"], "cgroup").ends_with(cgroup.unit()), "{service}");

    let ai_agent = AiAgent::new()?;
    let refused = ai_agent.run(&site.proxied(), UPDATE)?;
    assert!(refused.has_sqlstate("42501"), "{}", refused.stderr);
    let read =
        ai_agent.run(&site.proxied(), "SELECT count(*) FROM customers")?.expect_ok("the AI agent's read")?;
    assert_eq!(read.stdout.trim(), site::CUSTOMERS.to_string());
    let seen = site.wait_for("connection_opened", "the AI agent", |connection| {
        !text(&connection["workload"], "ai_agent").is_empty()
    })?;
    assert!(text(&seen["workload"], "executable").ends_with("/psql"), "{seen}");
    Ok(())
}

#[test]
fn what_a_client_says_of_itself_does_not_help_it() -> Result<()> {
    if skip::without(&[Need::Postgres, Need::Ebpf]) {
        return Ok(());
    }
    let site = Site::start()?;
    let ai_agent = AiAgent::new()?;
    for disguise in ["SET application_name = 'orders.service'", "SET application_name = ''"] {
        let refused = ai_agent.run(&site.proxied(), &format!("{disguise}; {UPDATE}"))?;
        assert!(refused.has_sqlstate("42501"), "{disguise}: {}", refused.stderr);
    }
    Ok(())
}

#[test]
fn an_ai_agent_that_goes_round_the_proxy_is_named() -> Result<()> {
    if skip::without(&[Need::Postgres, Need::Ebpf]) {
        return Ok(());
    }
    let site = Site::start()?;
    for psql in [site.direct(), site.direct_unix()] {
        AiAgent::new()?.run(&psql, "SELECT 1")?.expect_ok("psql")?;
    }
    for transport in ["TCP", "UNIX"] {
        site.wait_for("connection_opened", transport, |connection| {
            non_proxied(connection)
                && text(connection, "transport") == transport
                && !text(&connection["workload"], "ai_agent").is_empty()
        })?;
    }
    Ok(())
}
