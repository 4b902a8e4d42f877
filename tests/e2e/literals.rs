//! Literals and parameters in the record: as the configuration says, and passwords never.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    AgentConfig, Folder, Postgres, Site, binaries,
    records::{body, text},
    run::{self, CLIENT_LIMIT},
    site::EVENT_LIMIT,
    skip::{self, Need},
    wire::{self, RawClient},
};
use serde_json::Value;

/// Words that stand in no record but as literals and parameters.
const LITERAL: &str = "Zebedee";
const PARAMETER: &str = "Quillfeather";
const PASSWORD: &str = "hunter2hunter2";

/// A site whose journal keeps literals in this form.
fn keeping(journal: &str, server: &str) -> Result<Site> {
    let extra = format!("{server}\n[journal]\n{journal}\n");
    Site::before(Postgres::start()?, AgentConfig { extra, ..AgentConfig::default() })
}

/// One statement with a literal, one with parameters, and several with passwords.
fn work(site: &Site) -> Result<()> {
    let psql = site.proxied();
    psql.query(&format!("SELECT id FROM customers WHERE name = '{LITERAL}'"))?.expect_ok("a literal")?;
    // One prepared statement, bound twice.
    let mut client =
        RawClient::log_in(site.agent.proxy(), guard_tests::site::USER, guard_tests::site::DATABASE)?;
    client.send(&parse("s", "SELECT id FROM customers WHERE name = $1 AND id > $2"))?;
    client.until_ready()?;
    for number in ["41", "42"] {
        client.send(&bind_and_run("s", &[Some(PARAMETER), Some(number)]))?;
        let answers = client.until_ready()?;
        ensure!(wire::first_error(&answers).is_none(), "{answers:?}");
    }
    // A second text under the same name fails: what runs is the first.
    client
        .send(&[parse("s", "SELECT 'another text'"), bind_and_run("s", &[Some(PARAMETER), None])].concat())?;
    client.until_ready()?;
    client.until_ready()?;
    psql.query("CREATE TABLE logins (id int, pass_word text, note text)")?.expect_ok("a table")?;
    // Each in a session of its own: the catalog has to know the table.
    for secret in [
        format!("INSERT INTO logins VALUES (1, '{PASSWORD}', 'x')"),
        format!("INSERT INTO logins (id, pass_word) VALUES (1, '{PASSWORD}')"),
        format!("SELECT id FROM logins WHERE pass_word = '{PASSWORD}'"),
        format!("SELECT id FROM customers WHERE name = 'password={PASSWORD}'"),
        format!("ALTER ROLE app PASSWORD '{PASSWORD}'"),
    ] {
        psql.query(&secret)?;
    }
    client.send(&parse("p", "INSERT INTO logins VALUES ($1, $2, $3)"))?;
    client.until_ready()?;
    client.send(&bind_and_run("p", &[Some("2"), Some(PASSWORD), None]))?;
    client.until_ready()?;
    Ok(())
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    let body = [name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat();
    [wire::message(b'P', &body), wire::message(b'S', b"")].concat()
}

fn bind_and_run(name: &str, values: &[Option<&str>]) -> Vec<u8> {
    let mut body = [b"\0", name.as_bytes(), b"\0\0\0"].concat();
    body.extend(u16::try_from(values.len()).unwrap_or(0).to_be_bytes());
    for value in values {
        body.extend(value.map_or(-1, |value| i32::try_from(value.len()).unwrap_or(0)).to_be_bytes());
        body.extend(value.unwrap_or_default().as_bytes());
    }
    body.extend([0, 0]);
    let execute = wire::message(b'E', &[0; 5]);
    [wire::message(b'B', &body), execute, wire::message(b'S', b"")].concat()
}

/// Whether the files of the journal have this word anywhere.
fn on_disk(site: &Site, word: &str) -> Result<bool> {
    let mut found = false;
    for entry in fs::read_dir(site.agent.state().join("journal"))? {
        let bytes = fs::read(entry?.path())?;
        found |= bytes.windows(word.len()).any(|part| part == word.as_bytes());
    }
    Ok(found)
}

/// Waits for the last statement of [`work`].
fn settled(site: &Site) -> Result<()> {
    run::eventually("the last statement in the journal", EVENT_LIMIT, || {
        let all = site.agent.records()?;
        let inserts = all.iter().filter_map(|record| body(record, "statement"));
        Ok(inserts.filter(|one| text(one, "text").starts_with("insert into logins values")).count() >= 2)
    })
}

/// What `audit open` tells, line by line.
fn opened(site: &Site, arguments: &[&str]) -> Result<Vec<Value>> {
    let finished =
        site.agent.run(&[&["audit", "open", "--json"], arguments].concat())?.expect_ok("audit open")?;
    finished.stdout.lines().map(|line| serde_json::from_str(line).context("a line")).collect()
}

fn expect_opened(lines: &[Value]) -> Result<()> {
    let literal =
        lines.iter().find(|line| text(&line["sent"], "text").contains(LITERAL)).context("the literal")?;
    ensure!(!text(literal, "redacted").contains(LITERAL), "{literal}");
    let bound: Vec<&Value> = lines
        .iter()
        .filter(|line| line["sent"]["parameters"][0]["text"] == PARAMETER)
        .map(|line| &line["sent"])
        .collect();
    ensure!(bound.len() == 3, "bound: {bound:?}");
    let seconds: Vec<&str> = bound.iter().map(|sent| text(&sent["parameters"][1], "text")).collect();
    ensure!(seconds == ["41", "42", ""] && bound[2]["parameters"][1]["null"] == true, "{seconds:?}");
    for sent in bound {
        ensure!(text(sent, "text") == "SELECT id FROM customers WHERE name = $1 AND id > $2", "{sent}");
    }
    ensure!(!lines.iter().any(|line| line.to_string().contains(PASSWORD)), "a password was kept");
    let withheld = lines.iter().filter(|line| text(line, "unopened").contains("password"));
    ensure!(withheld.count() >= 6, "passwords are withheld, and say so: {lines:#?}");
    Ok(())
}

#[test]
fn redacted_keeps_none() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    work(&site)?;
    settled(&site)?;
    for word in [LITERAL, PARAMETER, PASSWORD] {
        assert!(!on_disk(&site, word)?, "{word}");
    }
    assert!(opened(&site, &[])?.is_empty());
    Ok(())
}

#[test]
fn in_full_all_but_passwords_is_kept_and_shown_where_it_is_asked_for() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = keeping("literals = \"full\"", "")?;
    work(&site)?;
    settled(&site)?;
    assert!(on_disk(&site, LITERAL)? && on_disk(&site, PARAMETER)? && !on_disk(&site, PASSWORD)?);
    expect_opened(&opened(&site, &[])?)?;
    let people = site.agent.run(&["audit", "open"])?.expect_ok("for people")?.stdout;
    assert!(people.contains(&format!("$1 = '{PARAMETER}'")) && people.contains("$2 = NULL"), "{people}");
    // The control plane has the chain, and shows what happened without what rows hold.
    site.settle()?;
    let decisions = serde_json::to_string(&site.control.decisions()?)?;
    assert!(
        decisions.contains("customers") && !decisions.contains(LITERAL) && !decisions.contains(PARAMETER)
    );
    let started = site.agent.records()?;
    let started = started.iter().find_map(|record| body(record, "agent_started")).context("a start")?;
    assert_eq!(text(started, "literals"), "full", "the record says how it is kept");
    Ok(())
}

#[test]
fn encrypted_only_the_private_key_shows_it_also_elsewhere() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let folder = Folder::new("literals")?;
    let (key, other) = (folder.join("literals.key"), folder.join("other.key"));
    let make = |path: &Path| -> Result<Value> {
        let mut command = Command::new(binaries::path("guard-agent")?);
        command.args(["audit", "literals-key", "--json", "--output"]).arg(path);
        let made = run::run(command, "", CLIENT_LIMIT)?.expect_ok("a pair of keys")?;
        Ok(serde_json::from_str(&made.stdout)?)
    };
    let public = make(&key)?;
    make(&other)?;
    assert!(make(&key).is_err(), "no key is written over");
    let journal = format!("literals = \"encrypted\"\nliterals_key = \"{}\"", text(&public, "public_key"));
    let site = keeping(&journal, "")?;
    work(&site)?;
    settled(&site)?;
    for word in [LITERAL, PARAMETER, PASSWORD] {
        assert!(!on_disk(&site, word)?, "{word}");
    }
    let key = key.to_str().context("a path")?;
    expect_opened(&opened(&site, &["--key", key])?)?;
    // On another machine, with the export and the key alone.
    let export = folder.join("records.jsonl");
    let export = export.to_str().context("a path")?;
    site.agent.run(&["audit", "export", "--output", export])?.expect_ok("audit export")?;
    let mut elsewhere = Command::new(binaries::path("guard-agent")?);
    elsewhere.args(["audit", "open", "--json", "--key", key, "--export", export]);
    let lines = run::run(elsewhere, "", CLIENT_LIMIT)?.expect_ok("elsewhere")?.stdout;
    let lines = lines.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    expect_opened(&lines)?;
    // Without the key, and with another one.
    for wrong in [&[][..], &["--key", other.to_str().context("a path")?]] {
        let finished = site.agent.run(&[&["audit", "open"][..], wrong].concat())?;
        assert!(!finished.ok() && finished.stderr.contains("stayed sealed"), "{}", finished.stderr);
        assert!(!finished.stdout.contains(LITERAL) && finished.stdout.contains("sealed for key"));
    }
    let finished = site.agent.run(&["audit", "open", "--key", export])?;
    assert!(!finished.ok() && finished.stderr.contains("literals-key"), "{}", finished.stderr);
    Ok(())
}

#[test]
fn what_goes_round_the_proxy_is_kept_alike() -> Result<()> {
    if skip::without(&[Need::Postgres, Need::Ebpf]) {
        return Ok(());
    }
    let config =
        AgentConfig { extra: "[journal]\nliterals = \"full\"\n".to_owned(), ..AgentConfig::default() };
    let site = crate::observed::observed_before(Postgres::start()?, config)?;
    let psql = site.direct();
    for word in [LITERAL, PARAMETER] {
        psql.query(&format!("SELECT id FROM customers WHERE name = '{word}'"))?.expect_ok("direct")?;
    }
    psql.query(&format!("ALTER ROLE {} PASSWORD '{PASSWORD}'", guard_tests::site::USER))?
        .expect_ok("a password")?;
    let seen = |word: &str| {
        let word = word.to_owned();
        move |record: &Value| {
            text(record, "evidence") == "probe" && text(&record["literals"]["clear"], "text").contains(&word)
        }
    };
    site.wait_for("statement", "the first", seen(LITERAL))?;
    site.wait_for("statement", "the second, of the same form", seen(PARAMETER))?;
    let role =
        site.wait_for("statement", "the password", |record| text(record, "text").starts_with("alter role"))?;
    assert!(text(&role["literals"], "withheld").contains("password"), "{role}");
    assert!(!on_disk(&site, PASSWORD)?);
    Ok(())
}

#[test]
fn what_is_held_in_the_server_is_kept_alike() -> Result<()> {
    if skip::without(&[Need::Postgres, Need::Ebpf]) {
        return Ok(());
    }
    let site = keeping("literals = \"full\"", "hold = true")?;
    run::eventually("statements being held", EVENT_LIMIT * 2, || {
        Ok(site.agent.log().contains("are held until policy has decided"))
    })?;
    let psql = site.direct_unix();
    psql.query(&format!("SELECT id FROM customers WHERE name = '{LITERAL}'"))?.expect_ok("held")?;
    psql.query(&format!("ALTER ROLE {} PASSWORD '{PASSWORD}'", guard_tests::site::USER))?;
    let held = |record: &Value| text(record, "evidence") == "hold";
    site.wait_for("statement", "the literal", |record| {
        held(record) && text(&record["literals"]["clear"], "text").contains(LITERAL)
    })?;
    site.wait_for("statement", "the password", |record| {
        held(record) && text(&record["literals"], "withheld").contains("password")
    })?;
    assert!(!on_disk(&site, PASSWORD)?);
    Ok(())
}

#[test]
fn a_form_that_cannot_work_is_refused_with_the_fix() -> Result<()> {
    let folder = Folder::new("literals-config")?;
    for (journal, fix) in [
        ("literals = \"encrypted\"", "literals-key"),
        ("literals = \"encrypted\"\nliterals_key = \"abc\"", "64 hex digits"),
        ("literals = \"clear\"", "redacted"),
        (
            "literals_key = \"0900000000000000000000000000000000000000000000000000000000000000\"",
            "literals = \"encrypted\"",
        ),
    ] {
        let file = folder.write("guard.toml", &format!("[journal]\n{journal}\n"))?;
        let mut command = Command::new(binaries::path("guard-agent")?);
        command.args(["config", "check"]).arg(&file);
        let finished = run::run(command, "", CLIENT_LIMIT)?;
        assert!(
            !finished.ok() && finished.stderr.contains(fix),
            "{journal}: {}{}",
            finished.stdout,
            finished.stderr
        );
    }
    Ok(())
}
