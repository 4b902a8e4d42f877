//! Clients that send nonsense: one clear end for them, nothing for everybody else.

use std::time::Duration;

use anyhow::{Context, Result};
use guard_tests::{
    AgentConfig, Site,
    records::{self, number},
    run,
    site::{self, EVENT_LIMIT},
    skip::{self, Need},
    wire::{self, RawClient},
};

/// A server that has nothing to wait for hangs up within this time.
const SOON: Duration = Duration::from_secs(5);

/// First packets that no client sends, each with a name.
fn broken_startups() -> Vec<(&'static str, Vec<u8>)> {
    let with_length =
        |length: u32| [length.to_be_bytes().to_vec(), wire::startup("app", "shop")[4..].to_vec()].concat();
    let with_version = |version: u32| wire::packet(&[&version.to_be_bytes()[..], b"user\0app\0\0"].concat());
    vec![
        ("length 0", with_length(0)),
        ("length 3", with_length(3)),
        ("length 4, no version", with_length(4)),
        ("length 7, half a version", with_length(7)),
        ("length of 1 GiB", with_length(1 << 30)),
        ("length of 4 GiB", with_length(u32::MAX)),
        (
            "longer than the server allows",
            wire::packet(&[&196_608_u32.to_be_bytes()[..], &[b'a'; 20_000]].concat()),
        ),
        ("protocol 2", with_version(131_072)),
        ("protocol 9", with_version(589_824)),
        ("no terminator", wire::packet(&[&196_608_u32.to_be_bytes()[..], b"user\0app"].concat())),
        ("no user", wire::packet(&[&196_608_u32.to_be_bytes()[..], b"database\0shop\0\0"].concat())),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a TLS record", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
    ]
}

/// Messages after the login that no client sends.
fn broken_messages() -> Vec<(&'static str, Vec<u8>)> {
    let with_length = |tag: u8, length: u32| [&[tag][..], &length.to_be_bytes(), b"SELECT 1\0"].concat();
    vec![
        ("length 0", with_length(b'Q', 0)),
        ("length 3", with_length(b'Q', 3)),
        ("length of 2 GiB", with_length(b'Q', 0x7fff_ffff)),
        ("length of 4 GiB", with_length(b'P', u32::MAX)),
        ("an unknown message", wire::message(b'~', b"what")),
        ("tag 0", wire::message(0, b"")),
        ("a query without an end", wire::message(b'Q', b"SELECT 1")),
        ("a query of two texts", wire::message(b'Q', b"SELECT 1\0DROP TABLE customers\0")),
        ("a parse without texts", wire::message(b'P', b"x")),
        ("a bind that counts wrong", wire::message(b'B', b"\0\0\x7f\xff")),
        ("a describe of nothing", wire::message(b'D', b"")),
        ("a function call", wire::message(b'F', b"\0\0")),
        ("a server's message", wire::message(b'Z', b"I")),
    ]
}

/// Others are served, and the destructive thing has not happened.
fn others_are_served(site: &Site, after: &str) -> Result<()> {
    let count = site.proxied().query("SELECT count(*) FROM customers")?.expect_ok(after)?;
    assert_eq!(count.stdout.trim(), site::CUSTOMERS.to_string(), "{after}");
    Ok(())
}

#[test]
fn broken_startup_packets_end_their_connection_only() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let extra = "\n[proxy]\nlogin_timeout_seconds = 2\n".to_owned();
    let mut site = Site::with(AgentConfig { extra, ..AgentConfig::default() })?;
    for (name, bytes) in broken_startups() {
        let mut client = RawClient::connect(site.agent.proxy())?;
        client.try_send(&bytes);
        assert!(client.is_closed_by_server(SOON), "{name}: the connection stays open");
        others_are_served(&site, name)?;
    }
    assert!(site.agent.alive());
    assert!(!site.agent.log().contains("panicked"), "{}", site.agent.log());
    Ok(())
}

#[test]
fn broken_messages_end_their_session_only() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let mut site = Site::start()?;
    for (name, bytes) in broken_messages() {
        let mut client = RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)?;
        client.try_send(&bytes);
        client.try_send(&wire::message(b'S', b""));
        client.try_send(&wire::message(b'X', b""));
        assert!(client.is_closed_by_server(SOON), "{name}: the connection stays open");
        others_are_served(&site, name)?;
    }
    assert!(site.agent.alive());
    assert!(!site.agent.log().contains("panicked"), "{}", site.agent.log());
    Ok(())
}

#[test]
fn an_unknown_message_is_refused_and_on_record() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let mut client = RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)?;
    client.send(&wire::message(b'~', b"what"))?;
    assert_eq!(wire::first_error(&client.until_ready()?).as_deref(), Some("08P01"));
    run::eventually("the reason on record", EVENT_LIMIT, || {
        let records = site.agent.records()?;
        let closed = records::bodies(&records, "connection_closed");
        Ok(closed.iter().any(|closed| records::text(closed, "reason").contains('~')))
    })
}

#[test]
fn clients_that_vanish_leave_nothing_behind() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let statement = wire::query("SELECT repeat('x', 1000000)");
    for round in 0..60 {
        let mut client = RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)?;
        // In the middle of a message, right after it, or with the answer under way.
        let end = match round % 3 {
            0 => 3,
            1 => statement.len() / 2,
            _ => statement.len(),
        };
        client.try_send(&statement[..end]);
    }
    run::eventually("no session left", EVENT_LIMIT, || {
        let status = site.agent.status()?;
        let server = records::objects(&status, "servers").first().context("no server in the status")?;
        Ok(number(server, "proxied_open") == 0)
    })?;
    run::eventually("no server process left", EVENT_LIMIT, || {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", site::USER);
        let left = site.postgres.psql_unix(guard_tests::postgres::OWNER, "postgres").query(&sql)?;
        Ok(left.stdout.trim() == "0")
    })?;
    others_are_served(&site, "clients that vanish")
}

#[test]
fn announced_lengths_cost_no_memory() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let before = site.agent.resident_kib()?;
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)?;
        client.try_send(&[&[b'Q'][..], &(1_u32 << 29).to_be_bytes(), b"SELECT"].concat());
        clients.push(client);
    }
    others_are_served(&site, "announced lengths")?;
    let grown = site.agent.resident_kib()?.saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB for 40 announcements");
    Ok(())
}

#[test]
fn a_client_that_says_nothing_is_sent_away() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let extra = "\n[proxy]\nlogin_timeout_seconds = 1\n".to_owned();
    let site = Site::with(AgentConfig { extra, ..AgentConfig::default() })?;
    let mut silent = RawClient::connect(site.agent.proxy())?;
    let mut slow = RawClient::connect(site.agent.proxy())?;
    slow.send(&wire::startup(site::USER, site::DATABASE)[..9])?;
    assert!(silent.is_closed_by_server(SOON));
    assert!(slow.is_closed_by_server(SOON));
    others_are_served(&site, "silent clients")
}

#[test]
fn one_client_too_many_is_told_so() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let extra = "\n[proxy]\nmax_connections = 2\n".to_owned();
    let site = Site::with(AgentConfig { extra, ..AgentConfig::default() })?;
    let log_in = || RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE);
    let (first, _second) = (log_in()?, log_in()?);
    let refused = site.proxied().query("SELECT 1")?;
    assert!(!refused.ok() && refused.stderr.contains("FATAL"), "{}", refused.stderr);
    drop(first);
    run::eventually("a free place", EVENT_LIMIT, || Ok(site.proxied().query("SELECT 1")?.ok()))
}
