//! Peers that send without reading, read without end, or close one side: the agent waits with them, and keeps little.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use guard_tests::{
    Site, run,
    site::{self, EVENT_LIMIT},
    skip::{self, Need},
    wire::{self, RawClient},
};

/// What a peer may cost that does not read, in KiB.
const GROWTH_KIB: u64 = 48 * 1024;

/// How long nothing moves before a sender counts as stuck.
const STUCK: Duration = Duration::from_secs(2);

/// For a pipeline that others share a busy machine with; one that hangs takes longer.
const PATIENCE: Duration = Duration::from_secs(90);

/// Messages of one pipeline.
const PIPELINE: usize = 1_000_000;

/// Bytes of one COPY.
const COPY: usize = 1 << 30;

fn log_in(site: &Site) -> Result<RawClient> {
    RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)
}

fn grown(site: &Site, before: u64) -> Result<u64> {
    Ok(site.agent.resident_kib()?.saturating_sub(before))
}

fn others_are_served(site: &Site, after: &str) -> Result<()> {
    site.proxied().query("SELECT count(*) FROM customers")?.expect_ok(after)?;
    Ok(())
}

#[test]
fn a_million_messages_without_reading_are_held_back_and_all_answered() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let mut client = log_in(&site)?;
    let before = site.agent.resident_kib()?;
    // Parse, Bind, Describe, Execute, Sync; the answers are many times as long.
    let one = wire::extended("", "SELECT repeat('x', 300)");
    let groups = PIPELINE / 5;
    let all = one.repeat(groups);
    let sent = client.send_until_stuck(&all, STUCK)?;
    assert!(sent < all.len(), "nobody held the client back");
    let cost = grown(&site, before)?;
    assert!(cost < GROWTH_KIB, "{cost} KiB for {sent} bytes that nobody reads the answers of");
    others_are_served(&site, "a client that does not read")?;
    client.patient(PATIENCE)?;
    let mut sending = client.other_hand()?;
    let sender = thread::spawn(move || sending.send(&all[sent..]));
    let mut rows = 0;
    for group in 0..groups {
        let answers = client.until_ready().with_context(|| format!("in group {group}"))?;
        rows += answers.iter().filter(|message| message.tag == b'D').count();
    }
    sender.join().expect("the sender does not panic")?;
    assert_eq!(rows, groups);
    let cost = grown(&site, before)?;
    assert!(cost < GROWTH_KIB, "{cost} KiB more after a million messages");
    Ok(())
}

#[test]
fn a_client_that_never_reads_costs_little_and_leaves_nothing() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let mut client = log_in(&site)?;
    let before = site.agent.resident_kib()?;
    client.send(&wire::query("SELECT repeat('x', 1000000) FROM generate_series(1, 2000)"))?;
    thread::sleep(STUCK);
    let cost = grown(&site, before)?;
    assert!(cost < GROWTH_KIB, "{cost} KiB for rows that nobody reads");
    others_are_served(&site, "a client that never reads")?;
    drop(client);
    run::eventually("the server's process gone", EVENT_LIMIT, || {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", site::USER);
        let left = site.postgres.psql_unix(guard_tests::postgres::OWNER, "postgres").query(&sql)?;
        Ok(left.stdout.trim() == "0")
    })
}

#[test]
fn a_gibibyte_is_copied_either_way_with_little_memory() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let mut client = log_in(&site)?;
    let before = site.agent.resident_kib()?;
    let row = [&[b'x'; 1023][..], b"\n"].concat();
    let rows = COPY / row.len();
    client.send(&wire::query(&format!(
        "COPY (SELECT repeat('x', 1023) FROM generate_series(1, {rows})) TO STDOUT"
    )))?;
    let (mut copied, mut peak) = (0, 0);
    while let Some(message) = client.receive()? {
        match message.tag {
            b'd' => copied += message.body.len(),
            b'E' => panic!("{:?}", message.fields()),
            b'Z' => break,
            _ => {}
        }
        if copied % (64 << 20) < row.len() {
            peak = peak.max(grown(&site, before)?);
        }
    }
    assert_eq!(copied, COPY);
    client.send(&wire::query("COPY customers (name) FROM STDIN WHERE false"))?;
    let chunk = wire::message(b'd', &row.repeat(64)).repeat(16);
    for _ in 0..rows / 1024 {
        client.send(&chunk)?;
        peak = peak.max(grown(&site, before)?);
    }
    client.send(&wire::message(b'c', b""))?;
    let answers = client.until_ready()?;
    assert_eq!(wire::first_error(&answers), None);
    assert!(peak < GROWTH_KIB, "{peak} KiB more while a gibibyte was copied");
    others_are_served(&site, "two large copies")
}

#[test]
fn a_client_that_closes_its_side_still_gets_its_answers() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let mut client = log_in(&site)?;
    client.send(&[wire::query("SELECT 7 FROM pg_sleep(1)"), wire::query("DROP TABLE customers")].concat())?;
    client.end_sending()?;
    let first = client.until_ready()?;
    assert!(first.iter().any(|message| message.tag == b'D' && message.body.ends_with(b"7")), "{first:?}");
    assert_eq!(wire::first_error(&client.until_ready()?).as_deref(), Some("42501"));
    assert!(client.is_closed_by_server(EVENT_LIMIT));
    others_are_served(&site, "a client that closed its side")
}
