//! Statements that go round the proxy, or hide inside of others, are seen in the server: with the right connection, by
//! the same reading and the same policies.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    AgentConfig, Postgres, Psql, Site,
    records::{self, bodies, non_proxied, number, text, verdict},
    run,
    site::{self, EVENT_LIMIT},
    skip::{self, Need},
    wire::{self, RawClient},
};
use nix::sys::signal::Signal;
use serde_json::Value;

const NEEDS: &[Need] = &[Need::Postgres, Need::Ebpf];

/// A site whose server is observed by now.
fn observed() -> Result<Site> {
    observed_by(AgentConfig::default())
}

fn observed_by(config: AgentConfig) -> Result<Site> {
    observed_before(Postgres::start()?, config)
}

/// A site before this server, which is observed by now.
pub fn observed_before(postgres: Postgres, config: AgentConfig) -> Result<Site> {
    let site = Site::before(postgres, config)?;
    run::eventually("the server being observed", EVENT_LIMIT, || {
        let status = site.agent.status()?;
        let server = &records::objects(&status, "servers")[0];
        ensure!(text(server, "observe_error").is_empty(), "{server}");
        Ok(text(server, "observed_by").contains("probes in PostgreSQL"))
    })?;
    Ok(site)
}

fn seen(record: &Value) -> bool {
    text(record, "evidence") == "probe"
}

fn nested(record: &Value) -> bool {
    record["nested"] == Value::Bool(true)
}

fn runs(record: &Value) -> u64 {
    number(record, "executions").max(1)
}

/// What was seen, once a statement with `last` in its text is among it.
fn until(site: &Site, last: &str) -> Result<Vec<Value>> {
    site.wait_for("statement", last, |record| seen(record) && text(record, "text").contains(last))?;
    // Repeats are counted for a second.
    std::thread::sleep(Duration::from_millis(1_500));
    let records = site.agent.records()?;
    Ok(bodies(&records, "statement").into_iter().filter(|record| seen(record)).cloned().collect())
}

fn with<'a>(all: &'a [Value], part: &str) -> Vec<&'a Value> {
    let part = part.to_ascii_lowercase();
    all.iter().filter(|record| text(record, "text").to_ascii_lowercase().contains(&part)).collect()
}

fn one<'a>(all: &'a [Value], part: &str) -> Result<&'a Value> {
    let found = with(all, part);
    ensure!(found.len() == 1, "{part}: {} of\n{all:#?}", found.len());
    Ok(found[0])
}

fn actions(record: &Value) -> Vec<&str> {
    records::objects(record, "effects").iter().map(|effect| text(effect, "action")).collect()
}

#[test]
fn direct_statements_belong_to_their_connections() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = observed()?;
    for (number, psql) in [site.direct(), site.direct_unix()].into_iter().enumerate() {
        let client = psql
            .query(&format!("SELECT id, {number} AS round_{number} FROM customers"))?
            .expect_ok("psql")?;
        let from = |body: &Value| non_proxied(body) && records::workload_pid(body) == u64::from(client.pid);
        let connection = site.wait_for("connection_opened", "the client", from)?;
        let all = until(&site, &format!("round_{number}"))?;
        let record = one(&all, &format!("round_{number}"))?;
        assert_eq!(text(record, "connection_id"), text(&connection, "connection_id"));
        assert_eq!(text(record, "db_user"), guard_tests::site::USER);
        assert_eq!(text(record, "database"), guard_tests::site::DATABASE);
        assert_eq!(text(record, "workload"), "psql");
        assert_eq!(text(record, "parse"), "FULL");
        assert_eq!(verdict(record), "ALLOWED");
        assert!(actions(record).contains(&"select"), "{record}");
        assert!(!nested(record), "{record}");
        assert!(!text(record, "text").contains(&format!("{number} AS")), "a literal: {record}");
    }
    Ok(())
}

#[test]
fn what_policy_refuses_is_recorded_as_what_would_have_been() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = observed()?;
    parts_and_hidden_ones(&site, &site.direct_unix())
}

/// Parts of a string, and what hides in dynamic SQL, are told apart and judged.
pub fn parts_and_hidden_ones(site: &Site, psql: &Psql) -> Result<()> {
    let script = "CREATE TABLE hidden (id int);\nSELECT 1 AS first_part \\; DELETE FROM orders \\; SELECT 2 AS last_part;\n\
                  DO $$ BEGIN EXECUTE 'DR' || 'OP TABLE hid' || 'den'; END $$;\nSELECT 'end' AS parts_end;\n";
    psql.script(script)?.expect_ok("psql")?;
    let all = until(site, "parts_end")?;
    let deleted = one(&all, "DELETE FROM orders")?;
    assert_eq!(verdict(deleted), "WOULD_REFUSE", "{deleted}");
    assert_eq!(text(&deleted["decision"], "mode_from"), "probe");
    // Each part of a string is a statement of its own.
    assert!(!text(deleted, "text").contains("first_part"), "{deleted}");
    assert!(!nested(one(&all, "first_part")?) && !nested(one(&all, "last_part")?));
    let dropped = one(&all, "DROP TABLE hidden")?;
    assert!(nested(dropped), "{dropped}");
    assert_eq!(verdict(dropped), "WOULD_REFUSE");
    assert!(!nested(one(&all, "DO ")?));
    let status = site.agent.status()?;
    let server = &records::objects(&status, "servers")[0];
    assert!(number(server, "observed_refused") >= 2, "{server}");
    assert_eq!(number(server, "observed_lost"), 0, "{server}");
    Ok(())
}

#[test]
fn every_way_to_run_a_statement_is_seen() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    every_way(&observed()?)
}

/// Functions, triggers, prepared statements, cursors, COPY and the rest: each is seen once, as what it is.
pub fn every_way(site: &Site) -> Result<()> {
    let script = "
CREATE TABLE log (what text);
CREATE FUNCTION static_sql() RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT count(*) AS in_function FROM customers';
CREATE FUNCTION logged() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES ('in trigger'); RETURN NEW; END $$;
CREATE TRIGGER logs AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION logged();
SELECT static_sql() AS outer_call;
INSERT INTO orders VALUES (1001, 1, 5);
PREPARE p (int) AS SELECT id AS by_execute FROM orders WHERE id = $1;
EXECUTE p (1);
EXECUTE p (2);
BEGIN;
DECLARE c CURSOR FOR SELECT id AS by_cursor FROM customers;
FETCH 2 FROM c;
FETCH 2 FROM c;
COMMIT;
COPY (SELECT id AS by_copy FROM customers) TO STDOUT;
EXPLAIN ANALYZE SELECT id AS by_explain FROM customers;
CREATE TABLE copied AS SELECT id AS by_create FROM customers;
\\lo_unlink 4711
ALTER ROLE CURRENT_USER SET work_mem = '5MB';
GRANT SELECT ON log TO PUBLIC;
SELECT 'end' AS the_end;
";
    site.direct().script(script)?;
    let all = until(site, "the_end")?;
    for (part, inside) in [
        ("outer_call", false),
        ("INSERT INTO orders", false),
        ("INSERT INTO log", true),
        ("DECLARE c", false),
        ("by_copy", false),
        ("by_explain", false),
        ("by_create", false),
        ("lo_unlink", false),
        ("ALTER ROLE", false),
        ("GRANT SELECT", false),
    ] {
        // A cursor's plan runs inside of its first FETCH.
        let found: Vec<_> = with(&all, part).into_iter().filter(|record| nested(record) == inside).collect();
        assert_eq!(found.len(), 1, "{part}: {all:#?}");
        assert_eq!(runs(found[0]), 1, "{part}");
    }
    let in_function = with(&all, "in_function").into_iter().find(|record| nested(record));
    assert!(actions(in_function.context("the function's own")?).contains(&"select"));
    let executed: u64 = with(&all, "by_execute").into_iter().filter(|record| nested(record)).map(runs).sum();
    assert_eq!(executed, 2, "{all:#?}");
    let fetched: u64 = with(&all, "FETCH").into_iter().map(runs).sum();
    assert_eq!(fetched, 2);
    let function = one(&all, "lo_unlink")?;
    assert_eq!(text(function, "protocol"), "FUNCTION_CALL", "{function}");
    Ok(())
}

fn pgbench(psql: &Psql, folder: &guard_tests::Folder, mode: &str, script: &str, count: u32) -> Result<()> {
    folder.write("script.sql", script)?;
    let mut command = std::process::Command::new("pgbench");
    psql.environment(&mut command);
    command.args(psql.connection_arguments()).args(["-n", "-M", mode, "-t", &count.to_string(), "-f"]);
    command.arg(folder.join("script.sql")).arg(guard_tests::site::DATABASE);
    run::run(command, "", run::CLIENT_LIMIT * 4)?.expect_ok("pgbench")?;
    Ok(())
}

#[test]
fn repeats_are_counted_in_every_protocol() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = observed()?;
    let folder = guard_tests::Folder::new("observed")?;
    for mode in ["simple", "extended", "prepared"] {
        let script = format!(
            "\\set n random(1, 5)\nBEGIN;\nSELECT name AS {mode}_select FROM customers WHERE id = :n;\n\
             UPDATE customers SET email = '{mode}' WHERE id = :n AND id > -7;\nEND;\n"
        );
        pgbench(&site.direct(), &folder, mode, &script, 200)?;
        let mut total = (0, 0);
        let outcome = run::eventually("all runs in the journal", EVENT_LIMIT, || {
            let records = site.agent.records()?;
            let all: Vec<Value> =
                bodies(&records, "statement").into_iter().filter(|body| seen(body)).cloned().collect();
            let found = with(&all, &format!("{mode}_select"));
            ensure!(found.iter().all(|record| !nested(record)), "{found:#?}");
            let last =
                found.last().map(|record| text(record, "connection_id").to_owned()).unwrap_or_default();
            let of_last = all.iter().filter(|record| text(record, "connection_id") == last);
            let begins = of_last.filter(|record| text(record, "text").eq_ignore_ascii_case("begin"));
            ensure!(begins.clone().all(|record| !nested(record)), "a nested BEGIN");
            total = (found.into_iter().map(runs).sum(), begins.map(runs).sum());
            Ok(total == (200_u64, 200_u64))
        });
        outcome.with_context(|| format!("{mode}: {total:?}"))?;
    }
    Ok(())
}

#[test]
fn the_proxys_statements_are_not_recorded_twice_but_what_they_hide_is() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = observed()?;
    let outside = "SELECT id AS plain_outside FROM customers";
    site.proxied().query(outside)?.expect_ok("psql")?;
    let create = "CREATE FUNCTION hides() RETURNS void LANGUAGE plpgsql AS \
                  $$ BEGIN EXECUTE 'TRUN' || 'CATE orders'; END $$";
    site.direct().query(create)?.expect_ok("psql")?;
    let client = site.proxied().query("SELECT hides() AS calls_it")?.expect_ok("psql")?;
    let from = |body: &Value| !non_proxied(body) && records::workload_pid(body) == u64::from(client.pid);
    let connection = site.wait_for("connection_opened", "the proxied client", from)?;
    site.direct().query("SELECT 'end' AS the_end")?.expect_ok("psql")?;
    let truncated = site.wait_for("statement", "what the function hides", |record| {
        seen(record) && text(record, "text").contains("truncate orders")
    })?;
    assert!(nested(&truncated));
    assert_eq!(verdict(&truncated), "WOULD_REFUSE");
    assert_eq!(text(&truncated, "connection_id"), text(&connection, "connection_id"));
    let all = until(&site, "the_end")?;
    assert!(with(&all, "plain_outside").is_empty() && with(&all, "calls_it").is_empty(), "{all:#?}");
    Ok(())
}

#[test]
fn long_texts_are_whole_and_longer_ones_have_length_and_hash() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = observed()?;
    // What matters stands at the end, where a text that is cut would not show it.
    for (name, filler) in [("short", 300), ("chunks", 30_000), ("long", 700_000)] {
        let sql = format!(
            "SELECT 1 AS begins_{name} /* {} */ ; DELETE FROM orders AS ends_{name} WHERE ends_{name}.id < 0",
            "x".repeat(filler)
        );
        // As one message: psql would send a script's statements one by one.
        let folder = guard_tests::Folder::new("long")?;
        fs::write(folder.join("long.sql"), sql.replace(" ; ", " \\; ") + ";\n")?;
        let include = format!("\\i {}\n", folder.join("long.sql").display());
        site.direct().script(&include)?.expect_ok("psql")?;
        let record = site.wait_for("statement", name, |record| {
            seen(record) && text(record, "text").contains(&format!("ends_{name}")) && {
                number(record, "source_bytes") > filler as u64
            }
        })?;
        assert!(text(&record, "text_loss").is_empty(), "{record}");
        assert!(actions(&record).contains(&"delete"), "{record}");
        assert_eq!(text(&record, "source_sha256").len(), if filler > 65_536 { 64 } else { 0 }, "{record}");
    }
    Ok(())
}

#[test]
fn a_server_that_is_excepted_is_not_observed() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = Site::with(AgentConfig { extra: "\nobserve = false\n".to_owned(), ..AgentConfig::default() })?;
    let client = site.direct().query("SELECT 'nobody sees it'")?.expect_ok("psql")?;
    let from = |body: &Value| non_proxied(body) && records::workload_pid(body) == u64::from(client.pid);
    site.wait_for("connection_opened", "the client", from)?;
    std::thread::sleep(Duration::from_millis(600));
    let records = site.agent.records()?;
    assert!(!bodies(&records, "statement").into_iter().any(seen));
    let status = site.agent.status()?;
    let server = &records::objects(&status, "servers")[0];
    assert!(text(server, "observed_by").is_empty() && text(server, "observe_error").is_empty(), "{server}");
    Ok(())
}

#[test]
fn what_is_lost_is_counted() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = observed_by(AgentConfig { statement_ring_kib: Some(64), ..AgentConfig::default() })?;
    let folder = guard_tests::Folder::new("lost")?;
    site.agent.signal(Signal::SIGSTOP)?;
    // Each with another text: what is the same is counted where it happens, and takes no room.
    let script = "\\set n random(1, 1000000000)\nSELECT name AS counted, :n FROM customers;\n";
    let ran = pgbench(&site.direct(), &folder, "simple", script, 2000);
    site.agent.signal(Signal::SIGCONT)?;
    ran?;
    let mut told = (0, 0);
    let outcome = run::eventually("every run seen or counted as lost", EVENT_LIMIT, || {
        let records = site.agent.records()?;
        let of_statements = |gap: &&Value| {
            text(gap, "source") == "kernel-ring" && text(gap, "detail").starts_with("statement events")
        };
        let lost: u64 =
            bodies(&records, "gap").into_iter().filter(of_statements).map(|gap| number(gap, "lost")).sum();
        let all: Vec<Value> =
            bodies(&records, "statement").into_iter().filter(|body| seen(body)).cloned().collect();
        told = (with(&all, "counted").into_iter().map(runs).sum(), lost);
        // pgbench itself asks for things before it begins: those are among the lost, or were seen.
        Ok(told.0 + told.1 >= 2000 && told.1 > 0)
    });
    outcome.with_context(|| format!("{told:?}"))?;
    ensure!(told.0 + told.1 <= 2010, "{told:?}");
    Ok(())
}

/// The agent does not look for a while, and there is room for hardly anything: what repeats is counted all the same.
#[test]
fn repeats_are_not_lost_while_the_agent_does_not_look() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = observed_by(AgentConfig { statement_ring_kib: Some(64), ..AgentConfig::default() })?;
    let folder = guard_tests::Folder::new("lost")?;
    site.agent.signal(Signal::SIGSTOP)?;
    let ran = pgbench(&site.direct(), &folder, "prepared", "SELECT name AS repeated FROM customers;\n", 3000);
    site.agent.signal(Signal::SIGCONT)?;
    ran?;
    let counted = || -> Result<u64> {
        let records = site.agent.records()?;
        let all: Vec<Value> =
            bodies(&records, "statement").into_iter().filter(|body| seen(body)).cloned().collect();
        Ok(with(&all, "repeated").into_iter().map(runs).sum())
    };
    run::eventually("every run", EVENT_LIMIT, || Ok(counted()? >= 3000))?;
    std::thread::sleep(Duration::from_millis(1_500));
    ensure!(counted()? == 3000, "{}", counted()?);
    Ok(())
}

/// More statements than are counted at a time, in an order that makes them drive each other out, under settings that
/// change, with parts that are none of their own: each is counted, exactly, and for the right settings.
#[test]
fn counts_are_exact_whatever_drives_them_out() -> Result<()> {
    const ROUNDS: u64 = 40;
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = observed()?;
    let mut client = RawClient::log_in(site.postgres.address(), site::USER, site::DATABASE)?;
    let mut ask = |sql: &str| -> Result<()> {
        let answers = client.query(sql)?;
        ensure!(wire::first_error(&answers).is_none(), "{sql}: {answers:?}");
        Ok(())
    };
    ask("CREATE FUNCTION inner_of(n int) RETURNS bigint LANGUAGE plpgsql AS \
         $$ BEGIN RETURN (SELECT count(*) AS within FROM customers WHERE id < n); END $$")?;
    for round in 0..ROUNDS {
        ask("SELECT name AS hot FROM customers")?;
        ask("SELECT name AS hot FROM customers")?;
        // By turns some that fit beside each other, and many that do not.
        for number in 0..if round % 2 == 0 { 5 } else { 25 } {
            ask(&format!("SELECT name AS cold_{number}x FROM customers"))?;
        }
        ask(&format!("SET search_path = public, round_{}", round % 3))?;
        ask("EXPLAIN (ANALYZE) SELECT name AS explained FROM customers")?;
        ask("SELECT inner_of(3) AS calls")?;
        ask("SELECT 1 AS one_of_two; SELECT 2 AS two_of_two")?;
    }
    drop(client);
    let expected = |number: u64| if number < 5 { ROUNDS } else { ROUNDS / 2 };
    let counted = |part: &str| -> Result<u64> {
        let records = site.agent.records()?;
        let all: Vec<Value> =
            bodies(&records, "statement").into_iter().filter(|body| seen(body)).cloned().collect();
        Ok(with(&all, part).into_iter().map(runs).sum())
    };
    run::eventually("the last", EVENT_LIMIT, || Ok(counted("two_of_two")? >= ROUNDS))?;
    std::thread::sleep(Duration::from_millis(1_500));
    let mut wanted = vec![
        ("as hot".to_owned(), 2 * ROUNDS),
        ("explained".to_owned(), ROUNDS),
        ("as calls".to_owned(), ROUNDS),
        ("as within".to_owned(), ROUNDS),
        ("one_of_two".to_owned(), ROUNDS),
        ("two_of_two".to_owned(), ROUNDS),
        ("set search_path".to_owned(), ROUNDS),
    ];
    wanted.extend((0..25).map(|number| (format!("cold_{number}x"), expected(number))));
    for (part, times) in wanted {
        // The function's own text holds what it runs.
        let found = counted(&part)? - u64::from(part == "as within");
        ensure!(found == times, "{part}: {found} of {times}");
    }
    let status = site.agent.status()?;
    let server = &records::objects(&status, "servers")[0];
    assert_eq!(number(server, "observed_lost"), 0, "{server}");
    Ok(())
}

/// A policy that reads how many statements there are decides on each of them.
#[test]
fn each_run_is_told_of_where_policy_reads_rates() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let folder = guard_tests::Folder::new("rates")?;
    fs::create_dir_all(folder.join("policies/a"))?;
    folder.write(
        "policies/a/policy.cedar",
        "@id(\"all\") permit (principal, action, resource);\n@id(\"slowly\") @reason(\"too many\") \
         forbid (principal, action == Guard::Action::\"select\", resource) \
         when { context.statements_per_minute > 50 };\n",
    )?;
    let site =
        observed_by(AgentConfig { policies: Some(folder.join("policies")), ..AgentConfig::default() })?;
    let mut client = RawClient::log_in(site.postgres.address(), site::USER, site::DATABASE)?;
    for _ in 0..200 {
        client.query("SELECT name AS many FROM customers")?;
    }
    let verdicts = || -> Result<(u64, u64)> {
        let records = site.agent.records()?;
        let (mut allowed, mut refused) = (0, 0);
        for body in bodies(&records, "statement") {
            if seen(body) && text(body, "text").to_lowercase().contains("as many") {
                match verdict(body) {
                    "WOULD_REFUSE" => refused += runs(body),
                    _ => allowed += runs(body),
                }
            }
        }
        Ok((allowed, refused))
    };
    let all = run::eventually("all", EVENT_LIMIT, || verdicts().map(|(one, other)| one + other >= 200));
    let (allowed, refused) = verdicts()?;
    all.with_context(|| format!("{allowed} and {refused}"))?;
    ensure!(allowed + refused == 200, "{allowed} and {refused}");
    ensure!((45..=51).contains(&allowed), "{allowed} were allowed");
    Ok(())
}
