//! What would destroy data does not reach the server, however it is written; everything else does.

use std::fs;

use anyhow::{Result, ensure};
use guard_tests::{
    Site,
    records::{self, text, verdict},
    site,
    skip::{self, Need},
    wire::{self, RawClient},
};

const REFUSED: &str = "42501";

/// As psql takes them; `\;` keeps two statements in one message.
const DESTRUCTIVE: &[&str] = &[
    "DROP TABLE customers;",
    "drop table if exists customers cascade;",
    "DROP SCHEMA public CASCADE;",
    "TRUNCATE customers;",
    "TRUNCATE TABLE ONLY customers, orders;",
    "DELETE FROM customers;",
    "DELETE FROM ONLY customers;",
    "UPDATE customers SET name = 'x';",
    "SELECT 1 \\; DROP TABLE customers;",
    "DROP TABLE customers \\; SELECT 1;",
    "BEGIN \\; DELETE FROM orders \\; COMMIT;",
    "WITH d AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM d;",
    "WITH a AS (SELECT 1), b AS (UPDATE customers SET name = '' RETURNING id) SELECT * FROM a, b;",
    "PREPARE p AS DELETE FROM orders;\nEXECUTE p;",
    "EXPLAIN ANALYZE DELETE FROM orders;",
    "COPY (DELETE FROM orders RETURNING *) TO STDOUT;",
    "/* SELECT 1 */ DROP/* x */TABLE -- SELECT\n customers;",
    "/* /* nested */ DROP */ TRUNCATE customers;",
    "DELETE FROM orders /* WHERE id = 1 */;",
    "DELETE FROM orders -- WHERE id = 1\n;",
    "DELETE FROM orders WHERE true;",
    "DELETE FROM orders WHERE 1 = 1;",
    "SELECT E'\\'' \\; DROP TABLE customers; --';",
    "DeLeTe\n\tfRoM\n\"orders\";",
];

/// Near misses: each contains something dangerous that it does not do.
const HARMLESS: &[&str] = &[
    "SELECT 'DROP TABLE customers';",
    "SELECT 1 -- DROP TABLE customers\n;",
    "SELECT 1 /* ; DELETE FROM orders */;",
    "SELECT $$TRUNCATE customers$$;",
    "UPDATE customers SET name = 'DELETE' WHERE id = 1;",
    "DELETE FROM orders WHERE id = -1;",
    "EXPLAIN DELETE FROM orders WHERE id = 1;",
    "WITH d AS (DELETE FROM orders WHERE id = -1 RETURNING *) SELECT count(*) FROM d;",
    "CREATE TABLE truncate_log (\"drop\" int);",
];

#[test]
fn what_the_server_cannot_read_is_the_servers_to_refuse() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    for sql in ["SELEC 1;", "SELECT 1 FROM;", "SELECT (1;\n;", "SELECT $1abc$ 2 FROM;"] {
        let finished = site.proxied().script(&format!("{sql}\nSELECT 'goes on';\n"))?;
        assert!(
            finished.has_sqlstate("42601") && !finished.has_sqlstate(REFUSED),
            "{sql}: {}",
            finished.stderr
        );
    }
    let finished =
        site.proxied().script("DROP TABLE customers; SELEC 1;\nDROP TABLE customers \\; SELEC 1;")?;
    assert!(finished.has_sqlstate(REFUSED), "{}", finished.stderr);
    assert_eq!(site.rows("customers")?, Some(site::CUSTOMERS));
    Ok(())
}

#[test]
fn other_client_encodings_are_read_as_the_server_reads_them() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    for encoding in ["LATIN1", "SJIS", "GBK", "WIN1251", "EUC_JP"] {
        let script = format!("SET client_encoding = '{encoding}';\nSELECT 'goes on', 'é';\n");
        let finished = site.proxied().script(&script)?;
        assert!(finished.stdout.contains("goes on"), "{encoding}: {}", finished.stderr);
        let script = format!("SET client_encoding = '{encoding}';\nDELETE FROM orders;\n");
        assert!(site.proxied().script(&script)?.has_sqlstate(REFUSED), "{encoding}");
    }
    Ok(())
}

#[test]
fn destructive_statements_are_refused_in_every_form() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    for sql in DESTRUCTIVE {
        let script = format!("{sql}\nROLLBACK;\nSELECT 'goes on';\n");
        let finished = site.proxied().script(&script)?;
        assert!(finished.has_sqlstate(REFUSED), "{sql}: {}", finished.stderr);
        assert!(finished.stderr.contains("HINT:"), "{sql}: no word about what to do: {}", finished.stderr);
        assert!(finished.stdout.contains("goes on"), "{sql}: the session ended: {}", finished.stderr);
        assert_eq!(site.rows("customers")?, Some(site::CUSTOMERS), "{sql}");
        assert_eq!(site.rows("orders")?, Some(20), "{sql}");
    }
    Ok(())
}

#[test]
fn near_misses_are_not_refused() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    for sql in HARMLESS {
        let finished = site.proxied().script(sql)?;
        assert!(finished.ok() && finished.stderr.is_empty(), "{sql}: {}", finished.stderr);
    }
    Ok(())
}

#[test]
fn drivers_that_prepare_are_refused_and_stay_in_step() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let mut client = RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)?;
    // Three batches in one go: the second is refused, the others are not touched.
    let batches = ["SELECT 'one'", "DELETE FROM orders", "SELECT 'three'"];
    client.send(&batches.iter().flat_map(|sql| wire::extended("", sql)).collect::<Vec<u8>>())?;
    let answers = [client.until_ready()?, client.until_ready()?, client.until_ready()?];
    assert!(wire::first_error(&answers[0]).is_none(), "{:?}", answers[0]);
    assert_eq!(wire::first_error(&answers[1]).as_deref(), Some(REFUSED), "{:?}", answers[1]);
    assert!(answers[2].iter().any(|message| message.body.ends_with(b"three")), "{:?}", answers[2]);
    // A refused name is not prepared: using it must not run anything.
    client.send(&wire::extended("gone", "TRUNCATE customers"))?;
    assert_eq!(wire::first_error(&client.until_ready()?).as_deref(), Some(REFUSED));
    client.send(
        &[
            wire::message(b'B', b"\0gone\0\0\0\0\0\0\0"),
            wire::message(b'E', &[0; 5]),
            wire::message(b'S', b""),
        ]
        .concat(),
    )?;
    ensure!(wire::first_error(&client.until_ready()?).is_some(), "a refused statement could be bound");
    assert_eq!(site.rows("customers")?, Some(site::CUSTOMERS));
    assert_eq!(site.rows("orders")?, Some(20));
    Ok(())
}

#[test]
fn a_refusal_in_a_transaction_leaves_the_session_usable() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let script = "BEGIN;\nUPDATE customers SET name = 'in doubt' WHERE id = 1;\nDROP TABLE orders;\nROLLBACK;\n\
                  SELECT count(*) FROM customers WHERE name = 'customer 1';\n";
    let finished = site.proxied().script(script)?;
    assert!(finished.has_sqlstate(REFUSED), "{}", finished.stderr);
    assert_eq!(finished.stdout.trim(), "1", "{}", finished.stderr);
    Ok(())
}

#[test]
fn a_refusal_is_recorded_with_policy_and_reason_and_without_literals() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let secret = "literal-4711-of-a-customer";
    site.proxied().script(&format!("UPDATE customers SET email = '{secret}';"))?;
    site.proxied().script(&format!("ALTER ROLE {} PASSWORD '{secret}';", site::USER))?;
    let statement =
        site.wait_for("statement", "the refused update", |statement| verdict(statement) == "REFUSED")?;
    let decision = &statement["decision"];
    for field in ["policy", "reason", "hint", "policy_hash"] {
        assert!(!text(decision, field).is_empty(), "no {field}: {decision}");
    }
    assert!(text(&statement, "text").to_lowercase().contains("update customers"), "{statement}");
    assert_eq!(text(&statement, "db_user"), site::USER);
    assert_eq!(text(&statement, "database"), site::DATABASE);
    assert!(!records::objects(&statement, "effects").is_empty(), "{statement}");
    // Wherever the agent keeps anything.
    site.settle()?;
    assert!(!site.agent.log().contains(secret), "the log holds a literal");
    for file in files(&site.agent.state())?.into_iter().chain(files(&site.control.data())?) {
        let bytes = fs::read(&file)?;
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{} holds a literal", file.display());
    }
    Ok(())
}

/// All files below a folder.
fn files(folder: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
