//! What is allowed works through the proxy as it works without it.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use guard_tests::{
    Folder, Site, postgres,
    run::{self, CLIENT_LIMIT},
    site,
    skip::{self, Need},
    wire::{self, RawClient},
};
use nix::sys::signal::Signal;

/// Scripts whose output must not depend on the way that they take.
const SCRIPTS: &[&str] = &[
    "SELECT id, customer, total FROM orders ORDER BY id;",
    "\\d customers",
    "\\dt",
    "\\du",
    "SELECT NULL, '', 'ü\u{1F980}', 1.50, true, ARRAY[1, 2], now() - now(), '\\xdeadbeef'::bytea;",
    "SELECT n, repeat('x', 100) FROM generate_series(1, 20000) n;",
    "SELECT * FROM nothing;\nSELECT 'after the error';",
    "SELECT nonsense(1);\nSELECT name FROM customers GROUP BY id, email HAVING nothing;\nSELECT 'after the errors';",
    "SELECT 1 / 0;",
    "SELECT 1 \\; SELECT 2 \\; SELECT 3;",
    ";\nSELECT 'after the empty statement';",
    "BEGIN;\nSELECT * FROM nothing;\nSELECT 1;\nROLLBACK;\nSELECT 'after the transaction';",
    "BEGIN;\nDECLARE c CURSOR FOR SELECT id FROM orders ORDER BY id;\nFETCH 3 FROM c;\nFETCH 2 FROM c;\nCOMMIT;",
    "PREPARE p (int) AS SELECT total FROM orders WHERE id = $1;\nEXECUTE p (2);\nEXECUTE p (3);\nDEALLOCATE p;",
    "COPY (SELECT id FROM orders ORDER BY id) TO STDOUT;",
    "CREATE TEMP TABLE t (a int, b text);\nCOPY t FROM STDIN;\n1\tone\n2\ttwo\n\\.\nSELECT * FROM t ORDER BY a;",
    "CREATE TABLE IF NOT EXISTS customers (id int);",
    "SET application_name = 'renamed';\nSHOW application_name;",
    "LISTEN channel;\nNOTIFY channel;\nSELECT 1;",
    "EXPLAIN (COSTS OFF) SELECT * FROM customers WHERE id = 1;",
];

#[test]
fn psql_prints_the_same_through_the_proxy_and_round_it() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    for script in SCRIPTS {
        let (proxied, direct) = (site.proxied().script(script)?, site.direct().script(script)?);
        // Notifications name the server process, which differs.
        let same = |text: &str| text.split(" from server process").next().unwrap_or_default().to_owned();
        assert_eq!(same(&proxied.stdout), same(&direct.stdout), "{script}\n{}", proxied.stderr);
        assert_eq!(proxied.stderr, direct.stderr, "{script}");
        assert_eq!(proxied.code, direct.code, "{script}");
    }
    Ok(())
}

#[test]
fn a_password_is_checked_by_the_server_as_ever() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let psql = site.agent.psql(postgres::SCRAM_ROLE, "postgres");
    let right = psql.clone().password(postgres::SCRAM_PASSWORD).query("SELECT current_user")?;
    assert_eq!(right.stdout, "clerk\n", "{}", right.stderr);
    let wrong = psql.clone().password("wrong").query("SELECT 1")?;
    assert!(!wrong.ok() && wrong.stderr.contains("password authentication failed"), "{}", wrong.stderr);
    let none = psql.query("SELECT 1")?;
    assert!(!none.ok() && none.stderr.contains("no password supplied"), "{}", none.stderr);
    let stranger = site.agent.psql("nobody-here", site::DATABASE).query("SELECT 1")?;
    assert!(stranger.stderr.contains("does not exist"), "{}", stranger.stderr);
    Ok(())
}

#[test]
fn pgbench_runs_in_every_protocol() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let direct = site.direct();
    pgbench(&direct.arguments(), &["-i", "-q"])?;
    for protocol in ["simple", "extended", "prepared"] {
        let said =
            pgbench(&site.proxied().arguments(), &["-n", "-M", protocol, "-c", "4", "-j", "2", "-t", "50"])?;
        assert!(said.contains("200/200"), "{protocol}: {said}");
    }
    let done = direct.query("SELECT count(*) FROM pgbench_history")?;
    assert_eq!(done.stdout, "600\n");
    Ok(())
}

/// Runs pgbench with the connection that psql would make.
fn pgbench(psql: &[String], arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(postgres::programs()?.join("pgbench"));
    // `-X` and `-w` are psql's, `-d` means something else to pgbench: the database comes last.
    let connection = psql.iter().filter(|word| !["-X", "-w", "-d"].contains(&word.as_str()));
    command.args(arguments).args(connection);
    Ok(run::run(command, "", CLIENT_LIMIT * 2)?.expect_ok("pgbench")?.stdout)
}

#[test]
fn ctrl_c_in_psql_cancels_the_statement() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let folder = Folder::new("cancel")?;
    let mut psql = site.proxied().start("SELECT pg_sleep(60)", &folder.join("log"))?;
    let sleeping =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active'
                    AND pid <> pg_backend_pid()";
    let asleep = |count: &str| -> Result<bool> { Ok(site.direct().query(sleeping)?.stdout.trim() == count) };
    run::eventually("the statement running", CLIENT_LIMIT, || asleep("1"))?;
    psql.signal(Signal::SIGINT)?;
    run::eventually("psql ending", Duration::from_secs(10), || Ok(!psql.alive()))?;
    assert!(psql.log().contains("57014"), "{}", psql.log());
    run::eventually("the server giving it up", Duration::from_secs(5), || asleep("0"))
}

#[test]
fn a_pipeline_is_answered_in_order() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::start()?;
    let mut client = RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)?;
    let pipeline: Vec<u8> = (0..50).flat_map(|n| wire::extended("", &format!("SELECT {n}"))).collect();
    client.send(&pipeline)?;
    for n in 0..50 {
        let answers = client.until_ready()?;
        let row = answers.iter().find(|message| message.tag == b'D');
        ensure!(row.is_some_and(|row| row.body.ends_with(n.to_string().as_bytes())), "{n}: {answers:?}");
    }
    Ok(())
}
