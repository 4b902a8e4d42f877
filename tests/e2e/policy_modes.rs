//! Monitor and enforce side by side: by server, by database, by policy.

use anyhow::Result;
use guard_tests::{
    AgentConfig, Folder, Psql, Site,
    records::{text, verdict},
    site,
    skip::{self, Need},
};
use serde_json::Value;

/// Verdict, mode and what set it, of the newest statement whose text holds `what`.
fn decided(site: &Site, what: &str) -> Result<[String; 3]> {
    let statement: Value =
        site.wait_for("statement", what, |statement| text(statement, "text").to_lowercase().contains(what))?;
    let decision = &statement["decision"];
    Ok([verdict(&statement), text(decision, "mode"), text(decision, "mode_from")].map(str::to_owned))
}

#[test]
fn a_database_may_differ_from_its_server() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let extra = format!("mode = \"enforce\"\n[servers.databases.{}]\nmode = \"monitor\"\n", site::DATABASE);
    let site = Site::with(AgentConfig { mode: "monitor", extra, ..AgentConfig::default() })?;
    site.proxied().query("DELETE FROM orders")?.expect_ok("psql in the database that only watches")?;
    assert_eq!(decided(&site, "delete from orders")?, ["WOULD_REFUSE", "monitor", "database"]);

    let other = Psql::tcp(site.agent.proxy(), guard_tests::postgres::OWNER, "postgres");
    let refused = other.script("CREATE TABLE rest (a int);\nDELETE FROM rest;\n")?;
    assert!(refused.has_sqlstate("42501"), "{}", refused.stderr);
    assert_eq!(decided(&site, "delete from rest")?, ["REFUSED", "enforce", "server"]);
    Ok(())
}

#[test]
fn a_policy_on_trial_records_where_others_refuse() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let policies = Folder::new("policies")?;
    policies.write(
        "policy.cedar",
        "@id(\"all\") permit (principal, action, resource);\n\
         @id(\"on-trial\") @reason(\"is it ever used?\") @mode(\"monitor\")\n\
         forbid (principal, action in Guard::Action::\"write\", resource);\n\
         @id(\"firm\") @reason(\"never\") forbid (principal, action == Guard::Action::\"truncate\", resource);\n",
    )?;
    let path = Some(policies.path().to_owned());
    let site = Site::with(AgentConfig { policies: path, ..AgentConfig::default() })?;
    site.proxied().query("DELETE FROM orders WHERE id = 1")?.expect_ok("what is on trial")?;
    assert_eq!(decided(&site, "delete from orders")?, ["WOULD_REFUSE", "monitor", "policy"]);
    assert!(site.proxied().query("TRUNCATE orders")?.has_sqlstate("42501"));
    assert_eq!(decided(&site, "truncate orders")?, ["REFUSED", "enforce", "agent"]);
    site.proxied().query("SELECT count(*) FROM orders")?.expect_ok("a read")?;
    assert_eq!(decided(&site, "select count(*) from orders")?, ["ALLOWED", "enforce", "agent"]);
    Ok(())
}
