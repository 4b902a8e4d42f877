//! What the record and `guard-agent status` say about what was seen, and about what was not.

use anyhow::Result;
use guard_tests::{
    AgentConfig, Site,
    records::{self, non_proxied, number, objects, text, texts, workload_pid},
    run,
    site::{self, EVENT_LIMIT},
    skip::{self, Need},
    workload,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const NEEDS: &[Need] = &[Need::Postgres, Need::Ebpf];

#[test]
fn status_says_how_well_each_server_is_protected() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let mut site = Site::start()?;
    let client = site.direct().query("SELECT 1")?.expect_ok("psql")?;
    site.wait_for("connection_opened", "the client", |connection| {
        workload_pid(connection) == u64::from(client.pid)
    })?;
    let server = |site: &Site| -> Result<Value> { Ok(site.agent.status()?["servers"][0].clone()) };
    let before = server(&site)?;
    assert_eq!(text(&before, "protection"), "enforced", "{before}");
    assert!(texts(&before, "coverage").iter().any(|line| line.contains("unix sockets")), "{before}");
    assert!(!text(&before, "last_non_proxied").is_empty() && !text(&before, "since").is_empty(), "{before}");
    let shown = site.agent.run(&["status"])?.expect_ok("guard-agent status")?.stdout;
    assert!(shown.contains("enforced") && shown.contains("round it"), "{shown}");
    site.postgres.stop()?;
    run::eventually("the server being gone", EVENT_LIMIT, || {
        Ok(text(&server(&site)?, "protection") == "gone")
    })?;
    site.postgres.restart()?;
    run::eventually("the server being back", EVENT_LIMIT, || {
        Ok(text(&server(&site)?, "protection") == "enforced")
    })
}

#[test]
fn the_end_of_a_connection_says_how_complete_its_record_is() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = Site::start()?;
    for psql in [site.direct(), site.direct_unix(), site.proxied()] {
        let client = psql.query("SELECT 'whole'")?.expect_ok("psql")?;
        let opened = site.wait_for("connection_opened", "the client", |connection| {
            workload_pid(connection) == u64::from(client.pid)
        })?;
        let id = text(&opened, "connection_id").to_owned();
        let closed =
            site.wait_for("connection_closed", "its end", |closed| text(closed, "connection_id") == id)?;
        assert_eq!(closed["completeness"]["whole"], Value::Bool(true), "{closed}");
        assert!(
            number(&closed, "bytes_from_client") > 0 && number(&closed, "bytes_to_client") > 0,
            "{closed}"
        );
        let workload = &opened["workload"];
        assert!(!text(&workload["known_by"], "process").is_empty(), "{workload}");
        assert_eq!(text(&workload["program_file"], "sha256").len(), 64, "{workload}");
        assert!(objects(workload, "ancestry").iter().all(|link| !text(link, "known_by").is_empty()));
    }
    Ok(())
}

/// The agent does not read for a while, and its ring is the smallest: everything is either seen or counted.
#[test]
fn what_does_not_fit_the_ring_is_counted_in_a_gap_record() -> Result<()> {
    const CLIENTS: u64 = 400;
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = Site::with(AgentConfig { ring_kib: Some(64), ..AgentConfig::default() })?;
    site.agent.signal(Signal::SIGSTOP)?;
    let mut open = Vec::new();
    for _ in 0..CLIENTS {
        let client = workload::short_lived_tcp(site.postgres.address(), site::USER, site::DATABASE)?;
        open.push(u64::from(client.pid));
    }
    site.agent.signal(Signal::SIGCONT)?;
    let gaps = |program: &str| -> Result<u64> {
        let records = site.agent.records()?;
        let gaps = records::bodies(&records, "gap");
        let losses = gaps.iter().flat_map(|gap| objects(gap, "losses"));
        Ok(losses.filter(|loss| text(loss, "program") == program).map(|loss| number(loss, "lost")).sum())
    };
    run::eventually("gap records", EVENT_LIMIT, || Ok(gaps("process_exec")? > 0))?;
    let gap = site.wait_for("gap", "the kernel's", |gap| text(gap, "source") == "kernel-ring")?;
    assert!(!text(&gap, "since").is_empty() && !text(&gap, "until").is_empty(), "{gap}");
    let lost = |kind: &str| -> Result<u64> {
        let records = site.agent.records()?;
        let gaps = records::bodies(&records, "gap");
        let of_kind = gaps.iter().filter(|gap| text(gap, "detail").starts_with(kind));
        Ok(of_kind.map(|gap| number(gap, "lost")).sum())
    };
    let seen = |site: &Site| -> Result<u64> {
        let records = site.agent.records()?;
        let all = records::bodies(&records, "connection_opened");
        let ours = all.into_iter().filter(|body| non_proxied(body) && open.contains(&workload_pid(body)));
        Ok(ours.count() as u64)
    };
    run::eventually("everything seen or lost", EVENT_LIMIT, || {
        Ok(seen(&site)? + lost("accepted events")? >= CLIENTS)
    })?;
    let status = site.agent.status()?;
    assert!(number(&status, "lost") > 0, "{status}");
    assert!(!objects(&status, "losses").is_empty(), "{status}");
    // It sees again what comes now.
    let client = site.direct().query("SELECT 'after'")?.expect_ok("psql")?;
    site.wait_for("connection_opened", "the client afterwards", |connection| {
        workload_pid(connection) == u64::from(client.pid)
    })?;
    Ok(())
}
