//! What the agent has recorded is never lost, never doubled, and cannot be changed unseen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    Site,
    records::{self, body, number, sequence, text},
    run,
    site::EVENT_LIMIT,
    skip::{self, Need},
};
use serde_json::Value;

fn work(site: &Site, statements: u32) -> Result<()> {
    for n in 0..statements {
        site.proxied().query(&format!("SELECT {n} FROM customers WHERE id = 1"))?;
        site.proxied().query("DROP TABLE customers")?;
    }
    Ok(())
}

/// Every record of the journal by its sequence; an error where one is there twice or missing in between.
fn chain(site: &Site) -> Result<BTreeMap<u64, Value>> {
    let records = site.agent.records()?;
    let count = records.len();
    let chain: BTreeMap<u64, Value> = records.into_iter().map(|record| (sequence(&record), record)).collect();
    ensure!(chain.len() == count, "a sequence is there twice");
    ensure!(chain.keys().copied().eq(1..=count as u64), "there are holes: {:?}", chain.keys());
    Ok(chain)
}

/// The control plane holds every decision of the journal, once.
fn agree(site: &Site) -> Result<()> {
    site.settle()?;
    let stored = site.control.decisions()?;
    let keys: BTreeSet<_> =
        stored.iter().map(|record| (text(record, "agent_id"), sequence(record))).collect();
    ensure!(keys.len() == stored.len(), "the control plane holds a decision twice");
    let stored: BTreeSet<u64> = keys.into_iter().map(|(_, sequence)| sequence).collect();
    let decided =
        |record: &Value| body(record, "connection_opened").is_some() || body(record, "statement").is_some();
    let journal: BTreeSet<u64> = chain(site)?
        .into_iter()
        .filter(|(_, record)| decided(record))
        .map(|(sequence, _)| sequence)
        .collect();
    ensure!(!journal.is_empty(), "nothing was decided");
    ensure!(stored.is_superset(&journal), "missing: {:?}", journal.difference(&stored));
    Ok(())
}

#[test]
fn journal_and_control_plane_agree_on_every_decision() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    work(&site, 5)?;
    site.direct().query("SELECT 1")?;
    agree(&site)?;
    let chain = chain(&site)?;
    let kinds =
        ["agent_started", "sensor_state", "connection_opened", "session_started", "statement", "outcomes"];
    for kind in kinds {
        assert!(chain.values().any(|record| body(record, kind).is_some()), "no {kind}");
    }
    site.agent.run(&["audit", "verify"])?.expect_ok("audit verify")?;
    Ok(())
}

#[test]
fn killing_the_agent_loses_and_doubles_nothing() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let mut site = Site::start()?;
    for _ in 0..3 {
        work(&site, 3)?;
        let before = chain(&site)?;
        site.agent.kill()?;
        site.agent.restart()?;
        let after = chain(&site)?;
        for (sequence, record) in before {
            assert_eq!(after.get(&sequence), Some(&record), "record {sequence}");
        }
    }
    let records = site.agent.records()?;
    assert_eq!(records::bodies(&records, "agent_started").len(), 4);
    site.agent.run(&["audit", "verify"])?.expect_ok("audit verify")?;
    agree(&site)
}

#[test]
fn refused_statements_are_durable_before_the_client_hears_of_it() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let mut site = Site::start()?;
    for n in 0..5 {
        // The moment after the answer is the worst one to die in.
        site.proxied().query(&format!("UPDATE customers SET name = 'x' /* {n} */"))?;
        site.agent.kill()?;
        site.agent.restart()?;
        let records = site.agent.records()?;
        // Beside them stands what probes have seen of others.
        let refused = records::bodies(&records, "statement");
        let refused = refused.iter().filter(|statement| records::verdict(statement) == "REFUSED").count();
        assert_eq!(refused, n + 1, "after {} refusals", n + 1);
    }
    Ok(())
}

#[test]
fn the_control_plane_may_go_and_come_back() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let mut site = Site::start()?;
    work(&site, 2)?;
    agree(&site)?;
    site.control.kill()?;
    run::eventually("the agent noticing", EVENT_LIMIT, || {
        Ok(site.agent.status()?["uplink"]["connected"] != Value::Bool(true))
    })?;
    let refused = site.proxied().query("DROP TABLE customers")?;
    assert!(refused.has_sqlstate("42501"), "without a control plane: {}", refused.stderr);
    work(&site, 5)?;
    site.control.restart()?;
    agree(&site)
}

#[test]
fn an_agent_that_starts_without_its_control_plane_delivers_later() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let mut site = Site::start()?;
    site.control.stop()?;
    site.agent.restart()?;
    work(&site, 2)?;
    site.control.restart()?;
    agree(&site)
}

#[test]
fn a_changed_byte_in_the_journal_is_found() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let mut site = Site::start()?;
    work(&site, 5)?;
    site.settle()?;
    site.agent.stop()?;
    site.agent.run(&["audit", "verify"])?.expect_ok("audit verify of an untouched journal")?;
    let segment = largest_file(&site.agent.state())?;
    let mut bytes = fs::read(&segment)?;
    let needle = b"customers";
    let place = bytes.windows(needle.len()).position(|window| window == needle);
    let place = place.context("no statement in the journal's largest file")?;
    bytes[place] ^= 0x20;
    fs::write(&segment, bytes)?;
    let verified = site.agent.run(&["audit", "verify"])?;
    assert!(!verified.ok(), "a changed journal was accepted: {}", verified.stdout);
    Ok(())
}

fn largest_file(folder: &std::path::Path) -> Result<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut largest = (0, None);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.len() > largest.0 {
                largest = (metadata.len(), Some(entry.path()));
            }
        }
    }
    largest.1.context("the agent keeps nothing")
}

#[test]
fn the_status_counts_what_the_journal_holds() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    work(&site, 3)?;
    // The last outcomes and closes may still be on their way into the journal.
    run::eventually("status and journal agreeing", EVENT_LIMIT, || {
        Ok(site.settle()? == chain(&site)?.len() as u64)
    })?;
    let status = site.agent.status()?;
    let server = records::objects(&status, "servers").first().context("no server in the status")?;
    assert_eq!(number(server, "refused"), 3, "{server}");
    assert!(number(server, "statements") >= 6, "{server}");
    assert_eq!(number(server, "proxied_total"), 6, "{server}");
    Ok(())
}
