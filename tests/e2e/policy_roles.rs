//! Policies about the role in whose name a statement runs, on a server that knows who that is.

use anyhow::Result;
use guard_tests::{
    AgentConfig, Folder, Site,
    postgres::OWNER,
    site,
    skip::{self, Need},
};

const POLICIES: &str = r#"
@id("all") permit (principal, action, resource);
@id("not-as-boss") @reason("nobody deletes as boss")
forbid (principal, action == Guard::Action::"delete", resource)
when { context.roles.containsAny(["boss", "*"]) };
"#;

const DELETE: &str = "DELETE FROM orders WHERE id = 1";

#[test]
fn the_role_in_force_decides() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let policies = Folder::new("policies")?;
    policies.write("policy.cedar", POLICIES)?;
    let path = Some(policies.path().to_owned());
    let site = Site::with(AgentConfig { policies: path, ..AgentConfig::default() })?;
    let owner = site.postgres.psql(OWNER, site::DATABASE);
    owner
        .query(&format!("CREATE ROLE boss; GRANT boss TO {0}; GRANT ALL ON orders TO boss, {0}", site::USER))?
        .expect_ok("making a role")?;
    let refusals = |script: &str| -> Result<usize> {
        Ok(site.proxied().script(script)?.stderr.matches("nobody deletes as boss").count())
    };
    assert_eq!(refusals(&format!("{DELETE};\n"))?, 0);
    assert_eq!(refusals(&format!("SET ROLE boss;\n{DELETE};\nRESET ROLE;\n{DELETE};\n"))?, 1);
    assert_eq!(refusals(&format!("SET role TO 'boss'\\; {DELETE};\n"))?, 1, "in one string");
    assert_eq!(refusals(&format!("BEGIN;\nSET LOCAL ROLE boss;\nCOMMIT;\n{DELETE};\n"))?, 0);
    assert_eq!(refusals(&format!("BEGIN;\nSET LOCAL ROLE boss;\n{DELETE};\nROLLBACK;\n"))?, 1);
    assert_eq!(refusals(&format!("SELECT set_config('role', 'boss', false);\n{DELETE};\n"))?, 1);
    assert_eq!(refusals(&format!("PREPARE d AS {DELETE};\nSET ROLE boss;\nEXECUTE d;\n"))?, 1);
    Ok(())
}
