//! Conditions on how much was done in the last minute, counted over sessions and ways of asking.

use anyhow::Result;
use guard_tests::{
    AgentConfig, Folder, Site, site,
    skip::{self, Need},
    wire::{self, RawClient},
};

fn site(condition: &str) -> Result<(Site, Folder)> {
    let policies = Folder::new("policies")?;
    policies.write(
        "policy.cedar",
        &format!(
            "@id(\"all\") permit (principal, action, resource);\n\
             @id(\"enough\") @reason(\"enough for a minute\")\n\
             forbid (principal, action in Guard::Action::\"read\", resource is Guard::Object)\n\
             when {{ {condition} }};\n"
        ),
    )?;
    let path = Some(policies.path().to_owned());
    Ok((Site::with(AgentConfig { policies: path, ..AgentConfig::default() })?, policies))
}

const ROWS_100: &str = "SELECT * FROM generate_series(1, 100)";

#[test]
fn rows_count_over_sessions_and_ways_of_asking() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let (site, _policies) = site("context.rows_per_minute >= 350")?;
    let psql = site.proxied();
    psql.query(ROWS_100)?.expect_ok("a simple query")?;
    psql.query(&format!("COPY ({ROWS_100}) TO STDOUT"))?.expect_ok("COPY")?;
    psql.script(&format!("BEGIN; DECLARE c CURSOR FOR {ROWS_100};\nFETCH ALL FROM c;\nCOMMIT;\n"))?
        .expect_ok("a cursor")?;
    psql.query("SELECT count(*) FROM orders")?.expect_ok("301 rows by now")?;
    // Rows that were sent before a statement failed count as well.
    let fails = psql.query("SELECT 1 / (60 - n) FROM generate_series(1, 100) n")?;
    assert!(fails.has_sqlstate("22012"), "{}", fails.stderr);
    let refused = psql.query("SELECT 1")?;
    assert!(refused.has_sqlstate("42501"), "{}", refused.stderr);
    assert!(refused.stderr.contains("enough for a minute"), "{}", refused.stderr);
    psql.query("INSERT INTO orders VALUES (100, 1, 1)")?.expect_ok("a write")?;
    Ok(())
}

#[test]
fn rows_of_a_portal_that_is_read_in_pieces_count() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let (site, _policies) = site("context.rows_per_minute >= 90")?;
    let mut client = RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)?;
    let execute = |rows: u32| wire::message(b'E', &[&[0][..], &rows.to_be_bytes()].concat());
    let parse = wire::message(b'P', format!("\0{ROWS_100}\0\0\0").as_bytes());
    let bind = wire::message(b'B', b"\0\0\0\0\0\0\0\0");
    let sync = wire::message(b'S', b"");
    // Three pieces of 30 rows; the rest is left.
    let pieces = [execute(30), execute(30), execute(30)].concat();
    client.send(&[parse, bind, pieces, sync].concat())?;
    let answers = client.until_ready()?;
    assert_eq!(wire::first_error(&answers), None);
    assert_eq!(answers.iter().filter(|message| message.tag == b'D').count(), 90);
    assert_eq!(wire::first_error(&client.query("SELECT 1")?).as_deref(), Some("42501"));
    Ok(())
}

#[test]
fn statements_count_over_sessions() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let (site, _policies) = site("context.statements_per_minute > 12")?;
    for round in 0..4 {
        let script = "SELECT 1;\nSELECT 2;\nSELECT 3;\n";
        site.proxied().script(script)?.expect_ok(&format!("round {round}"))?;
    }
    let refused = site.proxied().query("SELECT 1")?;
    assert!(refused.has_sqlstate("42501"), "{}", refused.stderr);
    Ok(())
}
