//! Policy files that change under a running agent: taken whole, by open sessions too, or not at all.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use guard_tests::{
    AgentConfig, Folder, Site,
    records::{number, text},
    run, site,
    skip::{self, Need},
    wire::{self, RawClient},
};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

const OPEN: &str = "@id(\"all\") permit (principal, action, resource);\n";
const CLOSED: &str = "@id(\"all\") permit (principal, action, resource);\n\
     @id(\"no-reads-of-orders\") @reason(\"closed for the test\")\n\
     forbid (principal, action == Guard::Action::\"select\", resource) when { resource.name == \"orders\" };\n";
const BROKEN: &str = "permit (principal action, resource);\n";
const READ: &str = "SELECT count(*) FROM orders";

fn write(policies: &Folder, text: &str) -> Result<()> {
    fs::create_dir_all(policies.join("topic"))?;
    // As `mv` of a finished file does, so that no half of it is seen.
    fs::write(policies.join("topic/new"), text)?;
    fs::rename(policies.join("topic/new"), policies.join("topic/policy.cedar"))?;
    Ok(())
}

fn site(policies: &Folder, seconds: u64) -> Result<Site> {
    Site::with(AgentConfig {
        policies: Some(policies.path().to_owned()),
        extra: format!("\n[policy]\nwatch_seconds = {seconds}\n"),
        ..AgentConfig::default()
    })
}

fn refuses(client: &mut RawClient) -> Result<bool> {
    client.send(&wire::query(READ))?;
    Ok(wire::first_error(&client.until_ready()?).as_deref() == Some("42501"))
}

#[test]
fn changed_files_reach_open_sessions_and_broken_ones_change_nothing() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let policies = Folder::new("policies")?;
    write(&policies, OPEN)?;
    let site = site(&policies, 1)?;
    let mut client = RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)?;
    assert!(!refuses(&mut client)?);
    let hash = || -> Result<String> { Ok(text(&site.agent.status()?, "policy_hash").to_owned()) };
    let first = hash()?;

    write(&policies, CLOSED)?;
    run::eventually("the new policies", site::EVENT_LIMIT, || refuses(&mut client))?;
    let second = hash()?;
    assert_ne!(first, second);
    let refused = site.wait_for("statement", "the refusal", |statement| {
        text(&statement["decision"], "policy") == "no-reads-of-orders"
    })?;
    assert_eq!(text(&refused["decision"], "policy_hash"), second);

    write(&policies, BROKEN)?;
    run::eventually("an alarm in status", site::EVENT_LIMIT, || {
        Ok(text(&site.agent.status()?, "policy_error").contains("policy.cedar"))
    })?;
    assert_eq!(hash()?, second);
    assert!(refuses(&mut client)?, "the last good policies are not in force any more");
    assert!(site.agent.log().contains("policies were not reloaded"));
    let change =
        site.wait_for("policy_change", "the broken files", |change| !text(change, "error").is_empty())?;
    assert_eq!((text(&change, "policy_hash"), text(&change, "previous_hash")), (&*second, &*second));

    write(&policies, OPEN)?;
    run::eventually("the first policies again", site::EVENT_LIMIT, || Ok(!refuses(&mut client)?))?;
    assert_eq!(text(&site.agent.status()?, "policy_error"), "");
    assert_eq!(hash()?, first);
    Ok(())
}

#[test]
fn a_folder_that_goes_away_leaves_its_policies_in_force() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let policies = Folder::new("policies")?;
    write(&policies, CLOSED)?;
    let site = site(&policies, 1)?;
    fs::remove_dir_all(policies.join("topic"))?;
    run::eventually("an alarm in status", site::EVENT_LIMIT, || {
        Ok(!text(&site.agent.status()?, "policy_error").is_empty())
    })?;
    assert!(site.proxied().query(READ)?.has_sqlstate("42501"));
    Ok(())
}

#[test]
fn without_watching_only_sighup_takes_the_folder() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let policies = Folder::new("policies")?;
    write(&policies, OPEN)?;
    let site = site(&policies, 0)?;
    write(&policies, CLOSED)?;
    std::thread::sleep(Duration::from_secs(3));
    site.proxied().query(READ)?.expect_ok("psql before SIGHUP")?;
    let pid = i32::try_from(site.agent.pid()).context("a process id is an i32")?;
    signal::kill(Pid::from_raw(pid), Signal::SIGHUP)?;
    let change = site.wait_for("policy_change", "SIGHUP", |change| number(change, "policies") == 2)?;
    assert_eq!(text(&change, "error"), "");
    let refused = site.proxied().query(READ)?;
    assert!(refused.has_sqlstate("42501"), "{}", refused.stderr);
    Ok(())
}
