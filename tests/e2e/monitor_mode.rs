//! Monitor mode records what would have been refused, and refuses nothing.

use anyhow::Result;
use guard_tests::{
    AgentConfig, Site,
    records::{text, verdict},
    skip::{self, Need},
};

#[test]
fn a_destructive_statement_runs_and_is_marked() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::with(AgentConfig { mode: "monitor", ..AgentConfig::default() })?;
    site.proxied().query("DELETE FROM orders")?.expect_ok("psql")?;
    assert_eq!(site.rows("orders")?, Some(0));
    let statement = site.wait_for("statement", "the delete", |statement| {
        text(statement, "text").to_lowercase().contains("delete from orders")
    })?;
    assert_eq!(verdict(&statement), "WOULD_REFUSE", "{statement}");
    assert!(!text(&statement["decision"], "policy").is_empty(), "{statement}");
    Ok(())
}
