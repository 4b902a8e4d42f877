//! The harness itself: if it lies, every other test does.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;
use guard_tests::{
    Cgroup, Control, Finished, PgBouncer, Postgres, ports, postgres,
    run::{self, CLIENT_LIMIT},
    site,
    skip::{self, Need},
    wire::{self, RawClient},
    workload::{self, AiAgent},
};

fn query(finished: Finished) -> Result<String> {
    Ok(finished.expect_ok("psql")?.stdout)
}

#[test]
fn postgres_answers_on_tcp_and_unix_and_leaves_nothing_behind() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let postgres = Postgres::start()?;
    site::prepare(&postgres)?;
    let (address, folder, pid) = (postgres.address(), postgres.socket_folder(), postgres.pid());
    let count = "SELECT count(*) FROM customers";
    assert_eq!(query(postgres.psql(site::USER, site::DATABASE).query(count)?)?, "5\n");
    assert_eq!(query(postgres.psql_unix(site::USER, site::DATABASE).query(count)?)?, "5\n");
    let refused = postgres.psql(site::USER, site::DATABASE).query("SELECT * FROM nothing")?;
    assert!(refused.has_sqlstate("42P01"), "{}", refused.stderr);

    let started = Instant::now();
    drop(postgres);
    assert!(started.elapsed() < Duration::from_secs(9), "it had to be killed");
    assert!(!folder.exists());
    assert!(!ports::accepts(address));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    Ok(())
}

#[test]
fn postgres_comes_back_where_it_was_with_its_data() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let mut postgres = Postgres::start()?;
    site::prepare(&postgres)?;
    postgres.stop()?;
    assert!(!ports::accepts(postgres.address()));
    postgres.restart()?;
    let count = postgres.psql(site::USER, site::DATABASE).query("SELECT count(*) FROM orders")?;
    assert_eq!(query(count)?, "20\n");
    Ok(())
}

#[test]
fn one_role_needs_its_password() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let postgres = Postgres::start()?;
    let psql = postgres.psql(postgres::SCRAM_ROLE, "postgres");
    assert!(!psql.query("SELECT 1")?.ok());
    assert!(!psql.clone().password("wrong").query("SELECT 1")?.ok());
    assert_eq!(query(psql.password(postgres::SCRAM_PASSWORD).query("SELECT 1")?)?, "1\n");
    Ok(())
}

#[test]
fn the_raw_client_speaks_the_protocol() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let postgres = Postgres::start()?;
    let mut client = RawClient::log_in(postgres.address(), postgres::OWNER, "postgres")?;
    let answers = client.query("SELECT 7")?;
    assert!(answers.iter().any(|message| message.tag == b'D' && message.body.ends_with(b"7")));
    client.send(&wire::extended("s1", "SELECT 8"))?;
    let answers = client.until_ready()?;
    assert!(answers.iter().any(|message| message.tag == b'D' && message.body.ends_with(b"8")), "{answers:?}");
    assert_eq!(wire::first_error(&client.query("SELECT * FROM nothing")?).as_deref(), Some("42P01"));
    client.send(&wire::message(b'X', b""))?;
    assert!(client.is_closed_by_server(Duration::from_secs(5)));
    Ok(())
}

#[test]
fn a_short_lived_client_is_gone_within_milliseconds() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let postgres = Postgres::start()?;
    for client in [
        workload::short_lived_tcp(postgres.address(), postgres::OWNER, "postgres")?,
        workload::short_lived_unix(&postgres.socket(), postgres::OWNER, "postgres")?,
    ] {
        let connected: u64 = client.stdout.trim().parse()?;
        assert!(connected < 50_000, "{connected} us");
    }
    Ok(())
}

#[test]
fn a_service_runs_in_its_own_cgroup() -> Result<()> {
    if skip::without(&[Need::Cgroups]) {
        return Ok(());
    }
    let cgroup = Cgroup::service(&format!("guard-harness-{}.service", std::process::id()))?;
    let mut command = Command::new("cat");
    command.arg("/proc/self/cgroup");
    cgroup.apply(&mut command)?;
    let own = run::run(command, "", CLIENT_LIMIT)?;
    assert!(own.stdout.contains(&format!("/system.slice/{}", cgroup.unit())), "{}", own.stdout);
    let path = cgroup.path().to_owned();
    drop(cgroup);
    assert!(!path.exists());
    Ok(())
}

#[test]
fn an_ai_agents_psql_has_it_as_its_parent() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let postgres = Postgres::start()?;
    let psql = postgres.psql(postgres::OWNER, "postgres");
    // What the kernel knows of psql's parent, read by psql itself.
    let sql = "\\! cat /proc/$(cut -d' ' -f4 /proc/$PPID/stat)/comm";
    let finished = AiAgent::new()?.run(&psql, sql)?.expect_ok("psql")?;
    assert_eq!(finished.stdout, "claude\n");
    Ok(())
}

#[test]
fn pgbouncer_passes_sessions_on() -> Result<()> {
    if skip::without(&[Need::Postgres, Need::PgBouncer]) {
        return Ok(());
    }
    let postgres = Postgres::start()?;
    let bouncer = PgBouncer::start(&postgres, guard_tests::pgbouncer::Upstream::Unix)?;
    let psql = guard_tests::Psql::tcp(bouncer.address(), postgres::OWNER, "postgres");
    assert_eq!(query(psql.query("SELECT 3")?)?, "3\n");
    Ok(())
}

#[test]
fn the_control_plane_answers_and_comes_back_where_it_was() -> Result<()> {
    let mut control = Control::start()?;
    assert!(control.decisions()?.is_empty());
    control.kill()?;
    assert!(control.decisions().is_err());
    control.restart()?;
    assert!(control.decisions()?.is_empty());
    Ok(())
}
