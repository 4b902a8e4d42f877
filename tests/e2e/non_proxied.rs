//! Clients that go round the proxy are seen by the kernel, however short they live.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use guard_tests::{
    Agent, AgentConfig, Folder, Postgres, Site, postgres,
    records::{self, non_proxied, number, text, workload_pid},
    run,
    site::{self, EVENT_LIMIT},
    skip::{self, Need},
    workload,
};
use serde_json::Value;

const NEEDS: &[Need] = &[Need::Postgres, Need::Ebpf];

fn from(pid: u32) -> impl Fn(&Value) -> bool {
    move |connection| non_proxied(connection) && workload_pid(connection) == u64::from(pid)
}

#[test]
fn psql_over_tcp_and_unix_is_named_in_full() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = Site::start()?;
    for (transport, psql) in [("TCP", site.direct()), ("UNIX", site.direct_unix())] {
        let client = psql.query("SELECT 'round the proxy'")?.expect_ok("psql")?;
        let connection = site.wait_for("connection_opened", transport, from(client.pid))?;
        assert_eq!(text(&connection, "transport"), transport);
        let workload = &connection["workload"];
        assert!(text(workload, "executable").ends_with("/psql"), "{workload}");
        assert_eq!(text(workload, "evidence"), "ATTESTED", "{workload}");
        assert_eq!(number(workload, "uid"), u64::from(nix::unistd::Uid::current().as_raw()));
        let argv = records::texts(workload, "argv");
        assert!(argv.contains(&"-U") && argv.contains(&site::USER), "{argv:?}");
        // What the process itself ran before (Debian's psql starts as a script) comes first, then its parent.
        let ancestry = records::objects(workload, "ancestry");
        let parent =
            ancestry.iter().map(|ancestor| number(ancestor, "pid")).find(|pid| *pid != u64::from(client.pid));
        assert_eq!(parent, Some(u64::from(std::process::id())), "{ancestry:?}");
        assert!(!text(workload, "cgroup").is_empty(), "{workload}");
        assert!(number(workload, "process_started_ns") > 0, "{workload}");
        let server = &connection["server"];
        assert_eq!(text(server, "name"), guard_tests::agent::SERVER);
    }
    Ok(())
}

#[test]
fn fifty_clients_of_a_few_milliseconds_are_all_named() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = Site::start()?;
    let mut transports = BTreeMap::new();
    for round in 0..50 {
        let (transport, client) = if round % 2 == 0 {
            ("TCP", workload::short_lived_tcp(site.postgres.address(), site::USER, site::DATABASE)?)
        } else {
            ("UNIX", workload::short_lived_unix(&site.postgres.socket(), site::USER, site::DATABASE)?)
        };
        transports.insert(u64::from(client.pid), transport);
    }
    let mut missing = transports.clone();
    let outcome = run::eventually("all of them in the journal", EVENT_LIMIT, || {
        let records = site.agent.records()?;
        missing = transports.clone();
        for connection in records::bodies(&records, "connection_opened") {
            let pid = workload_pid(connection);
            if non_proxied(connection) && transports.get(&pid) == Some(&text(connection, "transport")) {
                let executable = text(&connection["workload"], "executable");
                assert!(executable.ends_with("/guard-short-client"), "{connection}");
                missing.remove(&pid);
            }
        }
        Ok(missing.is_empty())
    });
    assert!(outcome.is_ok(), "not seen: {missing:?}");
    Ok(())
}

#[test]
fn one_client_is_one_connection() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = Site::start()?;
    let (tcp, unix) = (site.direct().query("SELECT 1")?, site.direct_unix().query("SELECT 1")?);
    for client in [&tcp, &unix] {
        site.wait_for("connection_opened", "the client", from(client.pid))?;
        // Whatever would double it has had its time.
        std::thread::sleep(Duration::from_millis(300));
        let records = site.agent.records()?;
        let seen =
            records::bodies(&records, "connection_opened").into_iter().filter(|body| from(client.pid)(body));
        let ids: Vec<_> = seen.map(|connection| text(connection, "connection_id").to_owned()).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
        site.wait_for("connection_closed", "its end", |closed| text(closed, "connection_id") == ids[0])?;
    }
    Ok(())
}

#[test]
fn what_goes_through_the_proxy_is_not_taken_for_a_way_round() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = Site::start()?;
    let client = site.proxied().query("SELECT 1")?.expect_ok("psql")?;
    let proxied =
        |connection: &Value| !non_proxied(connection) && workload_pid(connection) == u64::from(client.pid);
    site.wait_for("connection_opened", "the proxied client", proxied)?;
    std::thread::sleep(Duration::from_millis(300));
    let records = site.agent.records()?;
    let own = records::bodies(&records, "connection_opened")
        .into_iter()
        .find(|body| non_proxied(body) && workload_pid(body) == u64::from(site.agent.pid()));
    assert!(own.is_none(), "the proxy's own connection to the server: {own:?}");
    assert!(!records::bodies(&records, "connection_opened").into_iter().any(from(client.pid)));
    Ok(())
}

#[test]
fn a_connection_from_before_the_agents_start_is_known() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let postgres = Postgres::start()?;
    let folder = Folder::new("before")?;
    let early =
        postgres.psql(postgres::OWNER, "postgres").start("SELECT pg_sleep(60)", &folder.join("log"))?;
    run::eventually("the early client", EVENT_LIMIT, || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)'";
        Ok(postgres.psql_unix(postgres::OWNER, "postgres").query(sql)?.stdout.trim() == "1")
    })?;
    let agent = Agent::start(&AgentConfig::default(), &postgres)?;
    run::eventually("the early connection in the journal", EVENT_LIMIT, || {
        let records = agent.records()?;
        Ok(records::bodies(&records, "connection_opened")
            .into_iter()
            .any(|body| from(early.pid())(body) && body["preexisting"] == Value::Bool(true)))
    })
}
