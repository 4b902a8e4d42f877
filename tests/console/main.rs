//! People at the console, in a real browser, before a real PostgreSQL and a real kernel.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something fails")]

mod day;
mod people;

use std::path::PathBuf;

use anyhow::Result;
use guard_tests::{AgentConfig, Browser, approvals::Desk, skip};

/// A site where statements wait, and whose agent takes people's words from the console.
fn desk() -> Result<Option<Desk>> {
    if skip::without(&[skip::Need::Postgres, skip::Need::Ebpf, skip::Need::Browser]) {
        return Ok(None);
    }
    let extra = "\n[approvals]\nfrom_control = true\n".to_owned();
    Desk::with(AgentConfig { mode: "enforce", ebpf: true, extra, ..AgentConfig::default() })
}

/// Where pictures are kept for who looks at a test's outcome.
fn pictures() -> Result<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/console"));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

const PASSWORD: &str = "four quiet yellow boats";

/// Signs in with the password for the first time, and chooses one.
fn first_time(browser: &mut Browser, url: &str, name: &str, given: &str) -> Result<()> {
    browser.fresh()?;
    browser.goto(url)?;
    sign_in(browser, name, given)?;
    browser.see("h1:has-text('Choose your password')")?;
    browser.fill("input[name=old]", given)?;
    browser.fill("input[name=new]", PASSWORD)?;
    browser.fill("input[name=again]", PASSWORD)?;
    browser.click("button:has-text('Save')")?;
    browser.see("h1:has-text('Overview')")
}

fn sign_in(browser: &mut Browser, name: &str, password: &str) -> Result<()> {
    browser.fill("input[name=name]", name)?;
    browser.fill("input[name=password]", password)?;
    browser.click("button:has-text('Sign in')")
}

/// An admin adds somebody, who gets this password for the first time.
fn add(browser: &mut Browser, url: &str, name: &str, (roles, groups): (&[&str], &str)) -> Result<String> {
    browser.goto(&format!("{url}/people"))?;
    browser.fill("input[name=name]", name)?;
    browser.fill("input[name=groups]", groups)?;
    for role in roles {
        browser.check(&format!("input[name=role][value={role}]"))?;
    }
    browser.click("button:has-text('Add')")?;
    browser.see("[data-once]")?;
    browser.text("[data-once]")
}
