//! Statements that wait in every way in which they come, and what happens around them meanwhile.

use std::time::Duration;

use anyhow::{Context, Result};
use guard_tests::{
    AgentConfig,
    approvals::Desk,
    records::{number, text, texts},
    run::{self, CLIENT_LIMIT},
    site,
    wire::{self, Message, RawClient, message},
};

use crate::approvals::desk;

/// The tests' own user asks by raw messages: a colleague decides.
fn approve(desk: &Desk, id: &str) -> Result<()> {
    desk.approvals(Some(&desk.colleague), &["approve", id])?.expect_ok("approve")?;
    Ok(())
}

fn log_in(desk: &Desk) -> Result<RawClient> {
    RawClient::log_in(desk.site.agent.proxy(), site::USER, site::DATABASE)
}

fn text_zero(value: &str) -> Vec<u8> {
    [value.as_bytes(), b"\0"].concat()
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[text_zero(name), text_zero(sql), vec![0, 0]].concat())
}

fn bind(name: &str, value: &str) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap_or(0).to_be_bytes();
    let body =
        [&text_zero("")[..], &text_zero(name), &[0, 0, 0, 1], &length, value.as_bytes(), &[0, 0]].concat();
    message(b'B', &body)
}

fn execute() -> Vec<u8> {
    message(b'E', &[0; 5])
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn tags(messages: &[Message]) -> String {
    messages.iter().map(|message| char::from(message.tag)).collect()
}

#[test]
fn bound_parameters_are_part_of_what_is_approved() -> Result<()> {
    let Some(desk) = desk(AgentConfig::default())? else { return Ok(()) };
    let mut client = log_in(&desk)?;
    let delete = parse("d", "DELETE FROM orders WHERE id = $1::int RETURNING id");
    client.send(&[delete, bind("d", "7"), message(b'D', b"P\0"), execute(), sync()].concat())?;
    let request = desk.one()?;
    let id = text(&request, "id");
    assert_eq!((number(&request, "parameters"), text(&request, "protocol")), (1, "extended"));
    assert!(text(&request, "estimate_missing").contains("simple protocol"));
    let shown =
        desk.approvals(Some(&desk.colleague), &["show", id, "--full", "--json"])?.expect_ok("show")?;
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout)?;
    assert_eq!(texts(&shown, "full_parameters"), ["7"]);
    // What was sent before it is answered already; behind it nothing is.
    let early: Vec<u8> =
        (0..4).map(|_| client.receive().map(|m| m.map_or(0, |m| m.tag))).collect::<Result<_>>()?;
    assert_eq!(String::from_utf8_lossy(&early).replace('N', ""), "12T");
    approve(&desk, id)?;
    assert_eq!(tags(&client.until_ready()?), "DCZ");
    assert_eq!(desk.rows("orders")?, 19);
    // The prepared statement is asked about each time.
    client.send(&[bind("d", "8"), execute(), sync()].concat())?;
    let next = desk.one_id()?;
    assert_ne!(next, id);
    approve(&desk, &next)?;
    client.until_ready()?;
    assert_eq!(desk.rows("orders")?, 18);
    Ok(())
}

#[test]
fn a_pipeline_waits_in_order_and_is_answered_in_order() -> Result<()> {
    let Some(desk) = desk(AgentConfig::default())? else { return Ok(()) };
    let mut client = log_in(&desk)?;
    let select = |text: &str| wire::extended("", &format!("SELECT '{text}'"));
    let held = wire::extended("", "DELETE FROM orders WHERE id = 1");
    client.send(&[select("before"), held, select("behind")].concat())?;
    let id = desk.one_id()?;
    let before = client.until_ready()?;
    assert!(before.iter().any(|message| message.tag == b'D' && message.body.ends_with(b"before")));
    approve(&desk, &id)?;
    let deleted = client.until_ready()?;
    assert!(deleted.iter().any(|message| message.body.starts_with(b"DELETE 1")), "{deleted:?}");
    let behind = client.until_ready()?;
    assert!(behind.iter().any(|message| message.tag == b'D' && message.body.ends_with(b"behind")));

    // Denied: the rest of its own pipeline is skipped, the next one is not.
    let held = [parse("", "DELETE FROM orders WHERE id = 2"), message(b'B', &[0; 8]), execute()].concat();
    let with = [held, parse("", "SELECT 1"), message(b'B', &[0; 8]), execute(), sync()].concat();
    client.send(&[with, select("next")].concat())?;
    let id = desk.one_id()?;
    desk.approvals(Some(&desk.colleague), &["deny", &id])?.expect_ok("deny")?;
    assert_eq!(wire::first_error(&client.until_ready()?).as_deref(), Some("42501"));
    assert!(wire::first_error(&client.until_ready()?).is_none());
    assert_eq!(desk.rows("orders")?, 19);
    Ok(())
}

#[test]
fn transactions_several_statements_prepared_ones_and_loads_wait_too() -> Result<()> {
    let Some(desk) = desk(AgentConfig::default())? else { return Ok(()) };
    let scripts = [
        ("BEGIN;\nSELECT 1;\nDELETE FROM orders WHERE id = 1;\nCOMMIT;\n", 19),
        ("SELECT 1 \\; DELETE FROM orders WHERE id = 2 \\; SELECT 2;\n", 18),
        ("WITH d AS (DELETE FROM orders WHERE id = 3 RETURNING 1) SELECT count(*) FROM d;\n", 17),
        ("COPY orders FROM STDIN;\n200\t1\t5\n\\.\n", 18),
    ];
    for (number, (script, rows)) in scripts.into_iter().enumerate() {
        let log = desk.log(&format!("script-{number}"));
        let file = desk.folder.write(&format!("script-{number}.sql"), script)?;
        let mut command = desk.site.proxied().command();
        command.args(["-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(file);
        let command = desk.requester.in_person(&command);
        let mut psql = guard_tests::Server::start("psql", command, &log, nix::sys::signal::Signal::SIGTERM)?;
        let request = desk.one().with_context(|| format!("{script}\n{}", psql.log()))?;
        assert_eq!(request.get("in_transaction").is_some(), script.starts_with("BEGIN"), "{script}");
        desk.decide("approve", text(&request, "id"))?;
        let log = desk.ended(&mut psql)?;
        assert!(!log.contains("ERROR"), "{script}: {log}");
        assert_eq!(desk.rows("orders")?, rows, "{script}");
    }
    Ok(())
}

#[test]
fn what_execute_runs_waits_as_well_as_preparing_it() -> Result<()> {
    let Some(desk) = desk(AgentConfig::default())? else { return Ok(()) };
    let script = "PREPARE d (int) AS DELETE FROM orders WHERE id = $1;\nEXECUTE d (4);\n";
    let file = desk.folder.write("prepare.sql", script)?;
    let mut command = desk.site.proxied().command();
    command.args(["-q", "-f"]).arg(file);
    let command = desk.requester.in_person(&command);
    let mut psql =
        guard_tests::Server::start("psql", command, &desk.log("log"), nix::sys::signal::Signal::SIGTERM)?;
    let first = desk.one_id()?;
    desk.decide("approve", &first)?;
    let mut second = String::new();
    run::eventually("EXECUTE waiting", CLIENT_LIMIT, || {
        second = desk.waiting()?.first().map(|one| text(one, "id").to_owned()).unwrap_or_default();
        Ok(!second.is_empty() && second != first)
    })?;
    assert!(text(&desk.show(&second)?, "text").contains("delete from orders"));
    assert_eq!(desk.rows("orders")?, 20);
    desk.decide("approve", &second)?;
    desk.ended(&mut psql)?;
    assert_eq!(desk.rows("orders")?, 19);
    Ok(())
}

#[test]
fn others_go_on_while_one_waits_and_idle_limits_do_not_count_for_it() -> Result<()> {
    let extra = "\n[proxy]\nthreads = 1\nidle_timeout_seconds = 1\n".to_owned();
    let Some(desk) = desk(AgentConfig { extra, ..AgentConfig::default() })? else { return Ok(()) };
    let mut waiting = desk.ask("DELETE FROM orders WHERE id = 1", "log")?;
    let id = desk.one_id()?;
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        assert_eq!(desk.site.proxied().query("SELECT 1")?.stdout.trim(), "1");
    }
    assert!(waiting.alive(), "{}", waiting.log());
    desk.decide("approve", &id)?;
    desk.ended(&mut waiting)?;
    assert_eq!(desk.rows("orders")?, 19);
    Ok(())
}

#[test]
fn what_is_sent_again_runs_once_over_a_restart_and_with_the_same_text_alone() -> Result<()> {
    let Some(mut desk) = desk(AgentConfig::default())? else { return Ok(()) };
    let update = |name: &str| format!("UPDATE customers SET name = '{name}' WHERE id = 1;\n");
    let refused = |desk: &Desk, sql: &str| -> Result<bool> {
        Ok(desk.site.proxied().script_as(&desk.requester, sql)?.has_sqlstate("42501"))
    };
    assert!(refused(&desk, &update("new"))?);
    let id = desk.one_id()?;
    desk.decide("approve", &id)?;
    desk.site.agent.kill()?;
    desk.site.agent.restart()?;
    assert!(refused(&desk, &update("other"))?, "other text");
    // Another person's statement is another statement.
    assert!(desk.site.proxied().script(&update("new"))?.has_sqlstate("42501"));
    let name = || -> Result<String> {
        Ok(desk.site.direct_unix().query("SELECT name FROM customers WHERE id = 1")?.stdout.trim().to_owned())
    };
    assert_eq!(name()?, "customer 1");
    assert!(!refused(&desk, &update("new"))?);
    assert_eq!(name()?, "new");
    assert_eq!(text(&desk.show(&id)?, "state"), "RAN");
    assert!(refused(&desk, &update("new"))?, "it has run");
    desk.verify()
}
