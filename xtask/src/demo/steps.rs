//! The steps of the demo, each with its checks.

use anyhow::Result;
use guard_tests::{
    Cgroup, Finished, Psql, Site,
    records::{self, number, text, verdict, workload_pid},
    site,
    wire::{self, RawClient},
    workload::{self, AiAgent},
};
use serde_json::Value;

use super::{approval, masking, show::Show, table};

/// One step. An error ends the demo; a check that fails does not.
pub type Step = fn(&mut Show, &Site) -> Result<()>;

/// All steps, in order.
pub const ALL: &[Step] = &[
    up,
    ordinary,
    refused,
    disguised,
    masking::step,
    approval::step,
    non_proxied,
    stopped,
    two_workloads,
    recorded,
];

/// How guard's refusal names itself: insufficient_privilege.
const REFUSED: &str = "42501";

fn up(show: &mut Show, site: &Site) -> Result<()> {
    show.command("guard-agent status");
    show.output(&site.agent.run(&["status"])?.stdout);
    let status = site.agent.status()?;
    show.check("the agent enforces", text(&status, "mode") == "enforce", &status.to_string());
    let sensor = status.get("sensor").cloned().unwrap_or_default();
    let attached = records::objects(&sensor, "programs");
    let all = attached.iter().all(|program| program.get("attached") == Some(&Value::Bool(true)));
    let what = format!("its {} eBPF programs are attached", attached.len());
    show.check(&what, text(&sensor, "rung") == "full" && all && !attached.is_empty(), &sensor.to_string());
    Ok(())
}

fn ordinary(show: &mut Show, site: &Site) -> Result<()> {
    show.section("Ordinary work", "psql through guard's proxy: nothing is different.");
    let script = "CREATE TABLE notes (id int PRIMARY KEY, body text);\n\
                  INSERT INTO notes VALUES (1, 'first'), (2, 'second');\n\
                  UPDATE notes SET body = 'changed' WHERE id = 2;\n\
                  BEGIN;\nINSERT INTO notes VALUES (3, 'third');\nCOMMIT;\n\
                  SELECT * FROM notes ORDER BY id;\n";
    let psql = site.proxied();
    show.command(&psql.shown());
    show.output(script);
    let finished = psql.display(script)?;
    show.output(&finished.stdout);
    let clean = finished.ok() && finished.stderr.is_empty();
    show.check("every statement ran", clean, &finished.stderr);
    let look = "\\d notes\nTABLE notes;\nSELECT * FROM orders ORDER BY id;\n";
    let (proxied, direct) = (psql.display(look)?, site.direct().display(look)?);
    let same = proxied.ok() && proxied.stdout == direct.stdout && proxied.stderr == direct.stderr;
    show.check("\\d and SELECT print the same through the proxy and round it", same, &proxied.stderr);
    Ok(())
}

fn refused(show: &mut Show, site: &Site) -> Result<()> {
    show.section(
        "What would destroy data is refused",
        "In one psql session: an error that names policy, reason and what to do; then the session goes on.",
    );
    for sql in [
        "DROP TABLE customers;",
        "TRUNCATE customers;",
        "DELETE FROM customers;",
        "UPDATE customers SET name = 'x';",
    ] {
        refusal(show, site, sql, sql)?;
    }
    Ok(())
}

fn disguised(show: &mut Show, site: &Site) -> Result<()> {
    show.section("The same in disguise", "It is what a statement does that counts, not how it is written.");
    let disguises = [
        ("second of two statements", "SELECT 1 \\; DROP TABLE customers;"),
        ("inside a CTE", "WITH d AS (DELETE FROM customers RETURNING *) SELECT count(*) FROM d;"),
        ("as a prepared statement", "PREPARE p AS DELETE FROM customers;\nEXECUTE p;"),
        ("riddled with comments", "/* harmless */ DROP/* x */TABLE -- SELECT\n customers;"),
    ];
    for (what, sql) in disguises {
        refusal(show, site, what, sql)?;
    }
    let sql = "TRUNCATE customers";
    show.command(&format!("(a driver: Parse \"s1\", Bind, Execute)  {sql}"));
    let mut client = RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)?;
    client.send(&wire::extended("s1", sql))?;
    let error = wire::first_error(&client.until_ready()?).unwrap_or_default();
    let goes_on = wire::first_error(&client.query("SELECT count(*) FROM customers")?).is_none();
    let kept = site.rows("customers")? == Some(site::CUSTOMERS);
    let seen = format!("SQLSTATE {error:?}, session goes on: {goes_on}, rows kept: {kept}");
    show.check(
        "refused in the extended protocol too, as drivers use it",
        error == REFUSED && goes_on && kept,
        &seen,
    );
    Ok(())
}

/// Runs something that has to be refused, then an ordinary statement in the same session.
fn refusal(show: &mut Show, site: &Site, what: &str, sql: &str) -> Result<()> {
    let psql = site.proxied();
    show.command(&format!("{}   -- {what}", psql.shown()));
    show.output(sql);
    let finished = psql.script(&format!("{sql}\nSELECT 'still ' || count(*) FROM customers;\n"))?;
    show.output(&finished.stderr);
    show.output(&finished.stdout);
    let explained = finished.has_sqlstate(REFUSED)
        && finished.stderr.to_lowercase().contains("policy")
        && finished.stderr.contains("HINT:");
    show.check(&format!("{what}: refused with {REFUSED}, policy and hint"), explained, &finished.stderr);
    let went_on = finished.stdout.contains(&format!("still {}", site::CUSTOMERS));
    let kept = site.rows("customers")? == Some(site::CUSTOMERS);
    show.check("all rows are there and the session went on", went_on && kept, &finished.stdout);
    Ok(())
}

fn non_proxied(show: &mut Show, site: &Site) -> Result<()> {
    show.section(
        "Round the proxy",
        "Clients that connect straight to PostgreSQL are seen all the same, by the kernel.",
    );
    let psql = |psql: Psql| -> Result<Finished> { psql.query("SELECT 1")?.expect_ok("psql") };
    let address = site.postgres.address();
    let cases: [(&str, String, Result<Finished>); 4] = [
        ("psql over TCP", site.direct().shown(), psql(site.direct())),
        ("psql over the unix socket", site.direct_unix().shown(), psql(site.direct_unix())),
        (
            "a client of a few milliseconds, TCP",
            format!("guard-short-client tcp {address} .."),
            workload::short_lived_tcp(address, site::USER, site::DATABASE),
        ),
        (
            "a client of a few milliseconds, unix socket",
            "guard-short-client unix ..".to_owned(),
            workload::short_lived_unix(&site.postgres.socket(), site::USER, site::DATABASE),
        ),
    ];
    for (what, shown, client) in cases {
        let client = client?;
        show.command(&shown);
        let seen = site.wait_for("connection_opened", what, |connection| {
            records::non_proxied(connection) && workload_pid(connection) == u64::from(client.pid)
        });
        if let Some(connection) = show.found(&format!("{what}: seen as non-proxied, with its pid"), seen) {
            let description = table::describe(&connection);
            show.output(&description);
            show.check("with executable, argv, ancestry, cgroup", is_complete(&connection), &description);
        }
    }
    Ok(())
}

fn stopped(show: &mut Show, site: &Site) -> Result<()> {
    show.section(
        "Round the proxy, and refused",
        "Where a policy says so the kernel lets connect fail, or guard cuts the connection: here for AI agents.",
    );
    let ai_agent = AiAgent::new()?;
    for (transport, psql) in [("TCP", site.direct()), ("UNIX", site.direct_unix())] {
        let sql = "SELECT pg_sleep(5)";
        show.command(&ai_agent.shown(&psql, sql));
        let client = ai_agent.run(&psql, sql)?;
        show.output(&client.stderr);
        show.check(&format!("the AI agent does not get through, {transport}"), !client.ok(), &client.stdout);
        let seen = site.wait_for("connection_opened", transport, |connection| {
            text(connection, "transport") == transport
                && text(&connection["decision"], "policy") == "ai-agents-stay-on-the-way"
        });
        if let Some(connection) = show.found("it is on record, with what was done", seen) {
            let action = text(&connection["enforcement"], "action");
            let stopped = ["REFUSED_IN_KERNEL", "CUT"].contains(&action) && verdict(&connection) == "REFUSED";
            show.check(&format!("stopped: {action}"), stopped, &connection.to_string());
        }
    }
    Ok(())
}

/// Whether a connection says who its process was.
fn is_complete(connection: &Value) -> bool {
    let Some(workload) = connection.get("workload") else { return false };
    ["executable", "cgroup"].iter().all(|key| !text(workload, key).is_empty())
        && text(workload, "evidence") == "ATTESTED"
        && !records::texts(workload, "argv").is_empty()
        && !records::objects(workload, "ancestry").is_empty()
        && number(workload, "uid") == u64::from(nix::unistd::Uid::current().as_raw())
}

fn two_workloads(show: &mut Show, site: &Site) -> Result<()> {
    show.section(
        "One statement, two workloads",
        "Both log in as the same database user. The kernel knows who they are.",
    );
    let sql = "UPDATE customers SET name = 'renamed' WHERE id = 1";
    let psql = site.proxied();
    let cgroup = Cgroup::service("guard-demo-orders.service")?;
    show.command(&format!("{} -c \"{sql}\"   -- in the cgroup of {}", psql.shown(), cgroup.unit()));
    let service = workload::as_service(&cgroup, &psql, sql)?;
    show.output(&service.stderr);
    show.check("the service's statement runs", service.ok(), &service.stderr);

    let ai_agent = AiAgent::new()?;
    show.command(&ai_agent.shown(&psql, sql));
    let agent = ai_agent.run(&psql, sql)?;
    show.output(&agent.stderr);
    show.check("the AI agent's is refused with 42501", agent.has_sqlstate(REFUSED), &agent.stderr);
    let read = ai_agent.run(&psql, "SELECT count(*) FROM customers")?;
    show.check("it may read", read.stdout.trim() == site::CUSTOMERS.to_string(), &read.stderr);

    for (what, key, part) in [
        ("the journal names the service's unit", "unit", cgroup.unit()),
        ("the journal names the AI agent", "ai_agent", "claude"),
    ] {
        let seen = site.wait_for("connection_opened", what, |connection| {
            let named = |workload| text(workload, key).to_lowercase().contains(part);
            !records::non_proxied(connection) && connection.get("workload").is_some_and(named)
        });
        if let Some(connection) = show.found(what, seen) {
            show.output(&table::describe(&connection));
        }
    }
    Ok(())
}

fn recorded(show: &mut Show, site: &Site) -> Result<()> {
    show.section("On the record", "The agent's journal and the control plane hold all of it, and agree.");
    let Some(last) = show.found("the control plane has acknowledged every record", site.settle()) else {
        return Ok(());
    };
    let journal = site.agent.records()?;
    let stored = site.control.decisions()?;
    let decided = |kind| records::bodies(&journal, kind).len();
    let (connections, statements) = (decided("connection_opened"), decided("statement"));
    show.output(&format!(
        "journal: {} records up to sequence {last}: {connections} connections, {statements} statements\n\
         control plane: {} decisions",
        journal.len(),
        stored.len()
    ));
    let missing = missing_in_control(&journal, &stored);
    show.check(
        "every decision of the journal is in the control plane",
        missing.is_empty(),
        &format!("{missing:?}"),
    );
    let refused =
        records::bodies(&journal, "statement").iter().filter(|body| verdict(body) == "REFUSED").count();
    show.check("the refusals are among them", refused >= 9, &format!("{refused} refusals"));
    show.command("guard-agent audit verify");
    let verified = site.agent.run(&["audit", "verify"])?;
    show.output(&verified.stdout);
    show.check("the journal's hash chain holds", verified.ok(), &verified.stderr);
    show.command("guard-control decisions");
    println!("{}", table::render(&stored));
    Ok(())
}

/// Sequences of decisions that the journal has and the control plane has not.
fn missing_in_control(journal: &[Value], stored: &[Value]) -> Vec<u64> {
    let stored: std::collections::BTreeSet<u64> = stored.iter().map(records::sequence).collect();
    let is_decision = |record: &&Value| {
        ["connection_opened", "statement"].iter().any(|kind| records::body(record, kind).is_some())
    };
    journal
        .iter()
        .filter(is_decision)
        .map(records::sequence)
        .filter(|sequence| !stored.contains(sequence))
        .collect()
}
