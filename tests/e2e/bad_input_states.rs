//! Refusals and broken bytes wherever a session may stand: the transaction's state is what it would be after any error of
//! the server's own, and what is not text in the session's encoding does not run.

use anyhow::Result;
use guard_tests::{
    Site, site,
    skip::{self, Need},
    wire::{self, Message, RawClient},
};

fn log_in(site: &Site) -> Result<RawClient> {
    RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)
}

/// SQLSTATE of the first error, and the transaction's state in the last ReadyForQuery.
fn ended(answers: &[Message]) -> (Option<String>, char) {
    let state = answers.iter().rev().find(|message| message.tag == b'Z');
    (
        wire::first_error(answers),
        state.and_then(|message| message.body.first()).map_or('-', |state| (*state).into()),
    )
}

fn error(code: &str) -> Option<String> {
    Some(code.to_owned())
}

fn raw_query(text: &[u8]) -> Vec<u8> {
    wire::message(b'Q', &[text, b"\0"].concat())
}

const INSERT: &str = "INSERT INTO customers VALUES (99, 'new')";

#[test]
fn a_refusal_fails_the_transaction_as_any_error_does() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let mut client = log_in(&site)?;
    client.query("BEGIN")?;
    assert_eq!(ended(&client.query(INSERT)?), (None, 'T'));
    assert_eq!(ended(&client.query("DROP TABLE orders")?), (error("42501"), 'E'));
    assert_eq!(ended(&client.query("SELECT 1")?), (error("25P02"), 'E'));
    assert_eq!(
        ended(&client.query("TRUNCATE orders")?),
        (error("42501"), 'E'),
        "guard's own answer comes first"
    );
    // lo_creat, called by its number.
    let call = wire::message(b'F', b"\0\0\x03\xbd\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\0\0\x01");
    client.send(&call)?;
    assert_eq!(ended(&client.until_ready()?), (error("25P02"), 'E'));
    assert_eq!(ended(&client.query("COMMIT")?), (None, 'I'));
    assert_eq!(site.rows("customers")?, Some(site::CUSTOMERS), "what came before it is rolled back");
    client.query("BEGIN")?;
    client.query("SAVEPOINT s")?;
    assert_eq!(ended(&client.query("DROP TABLE orders")?), (error("42501"), 'E'));
    assert_eq!(ended(&client.query("ROLLBACK TO s")?), (None, 'T'), "a savepoint saves it");
    assert_eq!(ended(&client.query("COMMIT")?), (None, 'I'));
    Ok(())
}

#[test]
fn a_refusal_takes_its_implicit_transaction_along() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let mut client = log_in(&site)?;
    assert_eq!(ended(&client.query(&format!("{INSERT}; DROP TABLE orders"))?), (error("42501"), 'I'));
    let without_sync = |bytes: Vec<u8>| bytes[..bytes.len() - 5].to_vec();
    let pipeline = [
        without_sync(wire::extended("", INSERT)),
        without_sync(wire::extended("", "DROP TABLE orders")),
        wire::extended("", "SELECT 1"),
    ];
    client.send(&pipeline.concat())?;
    let answers = client.until_ready()?;
    assert_eq!(ended(&answers), (error("42501"), 'I'));
    assert!(!answers.iter().any(|message| message.tag == b'D'), "what follows is skipped: {answers:?}");
    assert_eq!(ended(&client.query("SELECT 1")?), (None, 'I'));
    assert_eq!(site.rows("customers")?, Some(site::CUSTOMERS));
    assert_eq!(site.rows("orders")?, Some(20));
    Ok(())
}

#[test]
fn a_statement_in_the_middle_of_a_copy_is_none() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    for text in ["DROP TABLE orders", "SELECT 1"] {
        let mut client = log_in(&site)?;
        client.send(&wire::query("COPY customers (id, name) FROM STDIN"))?;
        assert_eq!(client.receive()?.map(|message| message.tag), Some(b'G'));
        client.send(&wire::message(b'd', b"99\tnew\n"))?;
        client.send(&wire::query(text))?;
        // The server's own answer, here and now: 08P01, and since version 14 the connection's end.
        assert_eq!(ended(&client.until_ready()?).0, error("08P01"), "{text}");
    }
    let mut client = log_in(&site)?;
    client.send(&wire::query("COPY customers (id, name) FROM STDIN"))?;
    client.send(&[wire::message(b'd', b"98\tnew\n"), wire::message(b'f', b"given up\0")].concat())?;
    assert_eq!(ended(&client.until_ready()?), (error("57014"), 'I'));
    assert_eq!(
        ended(&client.query("DROP TABLE orders")?),
        (error("42501"), 'I'),
        "the session knows that it is over"
    );
    assert_eq!(site.rows("customers")?, Some(site::CUSTOMERS));
    assert_eq!(site.rows("orders")?, Some(20));
    Ok(())
}

#[test]
fn what_is_no_text_in_the_sessions_encoding_does_not_run() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let mut client = log_in(&site)?;
    let mut ask = |text: &[u8]| -> Result<Option<String>> {
        client.send(&raw_query(text))?;
        Ok(ended(&client.until_ready()?).0)
    };
    assert_eq!(ask(b"SELECT '\xff'")?, error("42501"), "never guessed");
    assert_eq!(ask(b"SELECT '\xc0\xa7'; DROP TABLE orders --'")?, error("42501"), "an overlong quote");
    assert_eq!(ask(b"SELECT 1\0; DROP TABLE orders")?, error("42501"), "text behind a NUL");
    assert_eq!(ask("SELECT 'é'".as_bytes())?, None);
    assert_eq!(ask(b"SET client_encoding = 'LATIN1'")?, None);
    assert_eq!(ask(b"SELECT '\xe9'")?, None, "a letter of LATIN1");
    assert_eq!(ask(b"DROP TABLE \"\xe9\"")?, error("42501"));
    assert_eq!(ask(b"SET client_encoding = 'SJIS'")?, None);
    assert_eq!(ask(b"SELECT 1")?, None, "ASCII is the same everywhere");
    // The second byte of this letter is a backslash.
    assert_eq!(ask(b"SELECT '\x95\x5c'; DROP TABLE orders --'")?, error("42501"));
    assert_eq!(ask(b"SET client_encoding = 'UTF8'")?, None);
    assert_eq!(ask("SELECT 'é'".as_bytes())?, None);
    assert_eq!(site.rows("orders")?, Some(20));
    Ok(())
}
