//! What roles keep somebody from; the console without a mouse.

use anyhow::{Result, ensure};
use guard_tests::{Browser, Control, skip};

use super::{PASSWORD, add, first_time, pictures, sign_in};

#[test]
fn a_viewer_sees_and_does_nothing_else() -> Result<()> {
    if skip::without(&[skip::Need::Browser]) {
        return Ok(());
    }
    let control = Control::start()?;
    let console = control.console();
    let mut browser = Browser::start()?;
    first_time(&mut browser, &console.url, "admin", &console.password)?;
    ensure!(browser.text("main")?.contains("No host reports here yet"));
    browser.picture(&pictures()?.join("first.png"), false)?;
    let given = add(&mut browser, &console.url, "vic", (&["viewer"], ""))?;
    first_time(&mut browser, &console.url, "vic", &given)?;
    let pages = browser.text("nav[aria-label=Pages]")?;
    ensure!(pages.contains("Approvals") && !pages.contains("People"), "{pages}");
    for (path, status) in
        [("/search", 200), ("/export", 403), ("/people", 403), ("/actions", 403), ("/tokens", 403)]
    {
        let seen = browser.goto(&format!("{}{path}", console.url))?;
        ensure!(seen == status, "{path}: {seen}");
    }
    ensure!(browser.text("main")?.contains("it is for admins"));
    // Somebody else's password does not open it, and signing out closes it.
    browser.goto(&console.url)?;
    browser.click("button:has-text('Sign out')")?;
    browser.see("h1:has-text('Sign in')")?;
    sign_in(&mut browser, "vic", "not the password")?;
    browser.see("[role=alert]")?;
    ensure!(browser.barriers()?.is_empty());
    Ok(())
}

#[test]
fn the_console_is_used_without_a_mouse() -> Result<()> {
    if skip::without(&[skip::Need::Browser]) {
        return Ok(());
    }
    let control = Control::start()?;
    let console = control.console();
    let mut browser = Browser::start()?;
    first_time(&mut browser, &console.url, "admin", &console.password)?;
    browser.fresh()?;
    browser.goto(&console.url)?;
    // The name has the keyboard already.
    browser.fill(":focus", "admin")?;
    browser.press("Tab")?;
    browser.fill(":focus", PASSWORD)?;
    browser.press("Enter")?;
    browser.see("h1:has-text('Overview')")?;
    browser.press("Tab")?;
    ensure!(browser.focused()?.contains("Skip to the content"), "{}", browser.focused()?);
    for _ in 0..3 {
        browser.press("Tab")?;
    }
    ensure!(browser.focused()?.contains("Live"), "{}", browser.focused()?);
    browser.press("Enter")?;
    browser.see("h1:has-text('Live')")?;
    Ok(())
}
