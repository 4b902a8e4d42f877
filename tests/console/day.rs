//! An approver's day: a statement that is held in psql, a bypass that appears while one looks, an export.

use std::time::Duration;

use anyhow::{Result, ensure};
use guard_tests::{Browser, records::text, run};

use super::{add, desk, first_time, pictures};

#[test]
fn a_held_statement_is_approved_a_bypass_is_seen_live_and_decisions_are_taken_along() -> Result<()> {
    let Some(desk) = desk()? else { return Ok(()) };
    let pictures = pictures()?;
    let console = desk.site.control.console();
    let mut browser = Browser::start()?;
    first_time(&mut browser, &console.url, "admin", &console.password)?;
    let given = add(&mut browser, &console.url, "ann", (&["approver", "auditor"], "guard-dba"))?;
    first_time(&mut browser, &console.url, "ann", &given)?;

    let mut psql = desk.ask("/* reason: <b>ticket</b> 4711 */ DELETE FROM orders WHERE id <= 3", "log")?;
    let id = text(&desk.one()?, "id").to_owned();
    browser.goto(&format!("{}/approvals", console.url))?;
    // It comes by itself where it was not there yet.
    browser.see("li.waiting")?;
    browser.picture(&pictures.join("approvals.png"), false)?;
    browser.click("li.waiting h2 a")?;
    browser.see(&format!("code:has-text('{id}')"))?;
    let shown = browser.text("main")?;
    ensure!(shown.contains("<b>ticket</b> 4711") && shown.contains("nobody"), "{shown}");
    ensure!(shown.contains("delete from orders where id <= ?"), "literals stay on the host: {shown}");
    browser.picture(&pictures.join("approval.png"), true)?;
    browser.fill("input[name=reason]", "looked at it")?;
    browser.click("button[value=approve]")?;
    browser.see("h1:has-text('Approvals')")?;
    let log = desk.ended(&mut psql)?;
    ensure!(!log.contains("ERROR"), "{log}");
    ensure!(desk.rows("orders")? == 17);
    ensure!(desk.events(&id)? == ["REQUESTED", "APPROVED", "RAN"]);
    let approval = desk
        .site
        .wait_for("approval", "who approved it", |approval| text(approval, "event") == "APPROVED")?;
    ensure!(
        text(&approval["person"], "user") == "ann" && text(&approval["person"], "via") == "control",
        "{approval}"
    );

    browser.goto(&format!("{}/live", console.url))?;
    browser.see("[data-live-state=live]")?;
    let before = browser.count("ol.events .tag.round")?;
    desk.site.direct().query("SELECT 1")?;
    run::eventually("the bypass on the live page", Duration::from_secs(20), || {
        Ok(browser.count("ol.events .tag.round")? > before)
    })?;
    browser.picture(&pictures.join("live.png"), false)?;
    browser.click("ol.events .event:has(.tag.round) .title a")?;
    browser.see("h2:has-text('Who it was')")?;
    let chain = browser.text("ol.chain")?;
    ensure!(chain.contains("psql"), "{chain}");
    browser.picture(&pictures.join("connection.png"), true)?;

    browser.goto(&format!("{}/search?kind=statement&contains=orders", console.url))?;
    let table = browser.download("a:has-text('Export CSV')")?;
    ensure!(
        table.starts_with("time,host,") && table.to_lowercase().contains("delete from orders"),
        "{table}"
    );
    browser.goto(&format!("{}/actions", console.url))?;
    let done = browser.text("main")?;
    for action in ["approve", "export", "sign-in", "person-add"] {
        ensure!(done.contains(action), "{action}: {done}");
    }
    for (name, path) in [
        ("overview", "/?span=1h"),
        ("round", "/round-the-proxy"),
        ("agents", "/agents"),
        ("verification", "/verification"),
    ] {
        browser.goto(&format!("{}{path}", console.url))?;
        browser.picture(&pictures.join(format!("{name}.png")), true)?;
        let barriers = browser.barriers()?;
        ensure!(barriers.is_empty(), "{path}: {barriers:#?}");
    }
    let errors = browser.errors()?;
    ensure!(errors.is_empty(), "{errors:#?}");
    desk.verify()
}
