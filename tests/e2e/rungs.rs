//! The agent on each rung of the ladder, forced on this kernel: clients are known as well as the rung says, and who comes
//! through the proxy is told from who goes round it.

use std::time::Duration;

use anyhow::Result;
use guard_tests::{
    AgentConfig, Psql, Site,
    records::{self, non_proxied, number, text, workload_pid},
    skip,
    skip::Need,
};
use serde_json::Value;

/// Long enough for a rung that looks four times a second, and for a busy machine.
const LASTING: &str = "SELECT pg_sleep(1.5)";

/// A site whose agent does without these, or nothing where the test has to be skipped.
fn site_without(features: &[&'static str], rung: &str) -> Result<Option<Site>> {
    if skip::without(&[Need::Postgres, Need::Ebpf]) {
        return Ok(None);
    }
    let required = rung != "no-bpf";
    let config = AgentConfig { without: features.to_vec(), required, ..AgentConfig::default() };
    let site = Site::with(config)?;
    let status = site.agent.status()?;
    assert_eq!(text(&status["sensor"], "rung"), rung, "{status}");
    let missing = status["sensor"]["missing"].as_array().map_or(0, Vec::len);
    assert!(missing > 0, "it says what is missing: {status}");
    Ok(Some(site))
}

/// Who is known to be psql with this evidence.
fn is_known(connection: &Value, pid: u32, evidence: &str) {
    let workload = &connection["workload"];
    assert_eq!(text(workload, "evidence"), evidence, "{connection}");
    assert!(text(workload, "executable").ends_with("/psql"), "{connection}");
    assert_eq!(workload_pid(connection), u64::from(pid), "{connection}");
    assert_eq!(number(workload, "uid"), u64::from(nix::unistd::Uid::current().as_raw()), "{connection}");
}

fn on_the_rung(features: &[&'static str], rung: &str, evidence: &str) -> Result<()> {
    let Some(site) = site_without(features, rung)? else { return Ok(()) };
    let ask = |psql: Psql| psql.query(LASTING)?.expect_ok("psql");
    let through = ask(site.proxied())?;
    for (transport, psql) in [("TCP", site.direct()), ("UNIX", site.direct_unix())] {
        let client = ask(psql)?;
        let of_client = |body: &Value| non_proxied(body) && workload_pid(body) == u64::from(client.pid);
        let connection = site.wait_for("connection_opened", transport, of_client)?;
        is_known(&connection, client.pid, evidence);
        assert_eq!(text(&connection, "transport"), transport);
        let id = text(&connection, "connection_id").to_owned();
        site.wait_for("connection_closed", "its end", |closed| text(closed, "connection_id") == id)?;
    }
    // What would be taken for a way round has had its time.
    std::thread::sleep(Duration::from_secs(1));
    let records = site.agent.records()?;
    let opened = records::bodies(&records, "connection_opened");
    let of_through: Vec<_> =
        opened.iter().filter(|body| workload_pid(body) == u64::from(through.pid)).collect();
    assert_eq!(of_through.len(), 1, "{of_through:#?}");
    assert_eq!(text(of_through[0], "access"), "PROXIED");
    is_known(of_through[0], through.pid, evidence);
    let round = opened.iter().filter(|body| non_proxied(body)).count();
    assert_eq!(round, 2, "the proxy's own connections are no way round it: {opened:#?}");
    let refused = site.proxied().query("DROP TABLE customers")?;
    assert!(refused.has_sqlstate("42501"), "{}", refused.stderr);
    assert_eq!(site.rows("customers")?, Some(5));
    Ok(())
}

#[test]
fn without_a_ring_buffer() -> Result<()> {
    on_the_rung(&["ring-buffer"], "no-ring-buffer", "ATTESTED")
}

#[test]
fn without_btf() -> Result<()> {
    on_the_rung(&["btf"], "no-btf", "REPORTED")
}

#[test]
fn without_links() -> Result<()> {
    on_the_rung(&["bpf-link"], "no-bpf-link", "ATTESTED")
}

#[test]
fn without_cgroup_v2() -> Result<()> {
    on_the_rung(&["cgroup-v2"], "cgroup-v1", "ATTESTED")
}

#[test]
fn without_any_of_them() -> Result<()> {
    on_the_rung(&["ring-buffer", "btf", "bpf-link", "cgroup-v2"], "cgroup-v1", "REPORTED")
}

#[test]
fn without_bpf() -> Result<()> {
    on_the_rung(&["bpf"], "no-bpf", "REPORTED")
}
