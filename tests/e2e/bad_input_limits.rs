//! More than any client needs: long statements, many prepared statements, many portals. The agent's memory stays bounded,
//! and what is too much has a clear error.

use anyhow::Result;
use guard_tests::{
    AgentConfig, Site, site,
    skip::{self, Need},
    wire::{self, RawClient},
};

/// What one session may cost at its worst, in KiB: far below what it sends.
const GROWTH_KIB: u64 = 64 * 1024;

/// Bytes of a statement that no proxy should hold.
const LONG: usize = 64 << 20;

/// Names in one session.
const MANY: usize = 100_000;

/// Requests between two looks at the answers.
const BATCH: usize = 1_000;

/// The agent's memory before, to compare with.
struct Memory(u64);

impl Memory {
    fn of(site: &Site) -> Result<Self> {
        Ok(Self(site.agent.resident_kib()?))
    }

    fn has_not_grown(&self, site: &Site, after: &str) -> Result<()> {
        let grown = site.agent.resident_kib()?.saturating_sub(self.0);
        assert!(grown < GROWTH_KIB, "{grown} KiB more after {after}");
        Ok(())
    }
}

fn monitoring() -> AgentConfig {
    AgentConfig { mode: "monitor", ..AgentConfig::default() }
}

fn log_in(site: &Site) -> Result<RawClient> {
    RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)
}

fn text(value: &str) -> Vec<u8> {
    [value.as_bytes(), b"\0"].concat()
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    wire::message(b'P', &[text(name), text(sql), vec![0, 0]].concat())
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    wire::message(b'B', &[text(portal), text(statement), vec![0; 6]].concat())
}

fn execute(portal: &str) -> Vec<u8> {
    wire::message(b'E', &[text(portal), vec![0; 4]].concat())
}

fn sync() -> Vec<u8> {
    wire::message(b'S', b"")
}

/// How many answers have this tag.
fn count(answers: &[wire::Message], tag: u8) -> usize {
    answers.iter().filter(|message| message.tag == tag).count()
}

#[test]
fn a_statement_of_64_mib_is_refused_without_being_kept() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let memory = Memory::of(&site)?;
    let mut client = log_in(&site)?;
    let long = format!("SELECT length('{}')", "x".repeat(LONG));
    for message in [wire::query(&long), [parse("", &long), sync()].concat()] {
        client.send(&message)?;
        let answers = client.until_ready()?;
        assert_eq!(wire::first_error(&answers).as_deref(), Some("42501"));
        memory.has_not_grown(&site, "a statement of 64 MiB")?;
    }
    assert_eq!(count(&client.query("SELECT 1")?, b'D'), 1, "the session goes on");
    Ok(())
}

#[test]
fn a_monitored_statement_of_64_mib_runs_without_being_kept() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::with(monitoring())?;
    let memory = Memory::of(&site)?;
    let mut client = log_in(&site)?;
    let answers = client.query(&format!("SELECT length('{}')", "x".repeat(LONG)))?;
    let row = answers.iter().find(|message| message.tag == b'D').expect("a row");
    assert!(row.body.ends_with(LONG.to_string().as_bytes()));
    memory.has_not_grown(&site, "a statement of 64 MiB")
}

#[test]
fn a_hundred_thousand_prepared_statements_meet_their_limit() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let extra = "\n[proxy]\nmax_prepared_statements = 5000\n".to_owned();
    let site = Site::with(AgentConfig { extra, ..AgentConfig::default() })?;
    let memory = Memory::of(&site)?;
    let mut client = log_in(&site)?;
    let (mut prepared, mut refused) = (0, 0);
    for first in (0..MANY).step_by(BATCH) {
        let messages: Vec<u8> = (first..first + BATCH)
            .flat_map(|number| [parse(&format!("s{number}"), "SELECT 1"), sync()].concat())
            .collect();
        client.send(&messages)?;
        for _ in 0..BATCH {
            let answers = client.until_ready()?;
            prepared += count(&answers, b'1');
            if let Some(error) = wire::first_error(&answers) {
                assert_eq!(error, "53400");
                refused += 1;
            }
        }
    }
    assert_eq!((prepared, refused), (5_000, MANY - 5_000));
    memory.has_not_grown(&site, "100,000 prepared statements")?;
    client.send(&[bind("", "s4999"), execute(""), sync()].concat())?;
    assert_eq!(count(&client.until_ready()?, b'D'), 1, "those within the limit still run");
    client.send(&[wire::message(b'C', b"Ss7\0"), parse("one more", "SELECT 2"), sync()].concat())?;
    let answers = client.until_ready()?;
    assert_eq!((count(&answers, b'3'), wire::first_error(&answers)), (1, Some("53400".to_owned())));
    client.send(&[parse("one more", "SELECT 2"), bind("", "one more"), execute(""), sync()].concat())?;
    assert_eq!(count(&client.until_ready()?, b'D'), 1, "a closed one has made room");
    Ok(())
}

#[test]
fn a_hundred_thousand_prepared_statements_are_only_watched_in_monitor_mode() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::with(monitoring())?;
    let memory = Memory::of(&site)?;
    let mut client = log_in(&site)?;
    for first in (0..MANY).step_by(BATCH) {
        let mut messages: Vec<u8> = (first..first + BATCH)
            .flat_map(|number| parse(&format!("s{number}"), &format!("SELECT {number}")))
            .collect();
        messages.extend(sync());
        client.send(&messages)?;
        assert_eq!(count(&client.until_ready()?, b'1'), BATCH);
    }
    memory.has_not_grown(&site, "100,000 prepared statements")?;
    for number in [0, MANY - 1] {
        client.send(&[bind("", &format!("s{number}")), execute(""), sync()].concat())?;
        let answers = client.until_ready()?;
        let row = answers.iter().find(|message| message.tag == b'D').expect("a row");
        assert!(row.body.ends_with(number.to_string().as_bytes()), "{row:?}");
    }
    Ok(())
}

#[test]
fn a_hundred_thousand_portals_meet_their_limit() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let extra = "\n[proxy]\nmax_prepared_statements = 5000\n".to_owned();
    let site = Site::with(AgentConfig { extra, ..AgentConfig::default() })?;
    let memory = Memory::of(&site)?;
    let mut client = log_in(&site)?;
    client.query("BEGIN")?;
    client.send(&[parse("s", "SELECT 1"), sync()].concat())?;
    client.until_ready()?;
    let mut bound = 0;
    let mut error = None;
    for first in (0..MANY).step_by(BATCH) {
        let mut messages: Vec<u8> =
            (first..first + BATCH).flat_map(|number| bind(&format!("p{number}"), "s")).collect();
        messages.extend(sync());
        client.send(&messages)?;
        let answers = client.until_ready()?;
        bound += count(&answers, b'2');
        error = error.or(wire::first_error(&answers));
    }
    assert_eq!((bound, error.as_deref()), (5_000, Some("53400")));
    memory.has_not_grown(&site, "100,000 portals")?;
    let after = client.query("SELECT 1")?;
    assert_eq!(
        wire::first_error(&after).as_deref(),
        Some("25P02"),
        "the transaction has failed, as with any error"
    );
    client.query("ROLLBACK")?;
    client.send(&[bind("p1", "s"), execute("p1"), sync()].concat())?;
    assert_eq!(count(&client.until_ready()?, b'D'), 1, "portals end with their transaction");
    Ok(())
}
