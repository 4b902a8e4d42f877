//! The record of a real server, decided on anew: what stricter policies would have refused.

use anyhow::{Context, Result};
use guard_tests::{
    AgentConfig, Folder, Site,
    records::number,
    run,
    skip::{self, Need},
};
use serde_json::Value;

const STRICTER: &str = "@id(\"all\") permit (principal, action, resource);\n\
     @id(\"no-orders\") @reason(\"closed for the test\")\n\
     forbid (principal, action, resource is Guard::Object) when { resource.name == \"orders\" };\n";

#[test]
fn stricter_policies_are_tried_on_what_was_recorded() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::with(AgentConfig { mode: "monitor", ..AgentConfig::default() })?;
    site.proxied()
        .script("SELECT * FROM orders;\nSELECT * FROM customers;\nDELETE FROM customers WHERE id = 300;\n")?;
    site.proxied().script("UPDATE orders SET total = 1 WHERE id = 2;\nDELETE FROM orders;\n")?;
    site.settle()?;
    let policies = Folder::new("policies")?;
    policies.write("policy.cedar", STRICTER)?;
    let folder = policies.path().display().to_string();
    let replay = |arguments: &[&str]| {
        let mut command = site.agent.command(&["policy", "replay", "--json"])?;
        command.args(arguments);
        run::run(command, "", run::CLIENT_LIMIT)
    };

    // The policies in force change nothing.
    let same = replay(&[])?.expect_ok("replay with the policies in force")?;
    let same: Value = serde_json::from_str(&same.stdout).context("JSON")?;
    assert_eq!(number(&same["newly_refused_statements"], "count"), 0, "{same}");
    assert_eq!(number(&same, "refused_statements_that_ran"), 1, "DELETE FROM orders: {same}");

    let stricter = replay(&["--policies", &folder])?;
    assert_eq!(stricter.code, Some(3), "{}", stricter.stderr);
    let told: Value = serde_json::from_str(&stricter.stdout).context("JSON")?;
    // The SELECT and the UPDATE; that the built-in policies refuse the DELETE is no news.
    assert_eq!(number(&told["newly_refused_statements"], "count"), 2, "{told}");
    assert_eq!(number(&told["newly_refused_statements"], "workloads"), 1, "{told}");

    // The same from an export.
    let export = site.agent.run(&["audit", "search", "--json"])?.expect_ok("the export")?;
    let file = policies.write("export.jsonl", &export.stdout)?;
    let again = replay(&[&file.display().to_string(), "--policies", &folder])?;
    assert_eq!(again.code, Some(3), "{}", again.stderr);
    let again: Value = serde_json::from_str(&again.stdout).context("JSON")?;
    assert_eq!(again["changes"], told["changes"]);
    Ok(())
}
