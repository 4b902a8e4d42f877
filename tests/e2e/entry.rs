//! How clients come in: behind load balancers, too many at once, too slowly, idle for too long; and by which way on.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_tests::{
    AgentConfig, Authority, Postgres, Site, postgres, site,
    skip::{self, Need},
    wire::{self, RawClient},
};

/// A PROXY protocol header for a client at 192.0.2.7, with an additional field.
fn header() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10".to_vec();
    header.extend([192, 0, 2, 7, 127, 0, 0, 1, 0x30, 0x39, 0x15, 0x38, 0x04, 0, 1, 0]);
    header
}

/// The settings of `[proxy]`, and a server's unix socket left to find.
fn proxy(settings: &str) -> AgentConfig {
    AgentConfig { unix_socket: false, extra: format!("\n[proxy]\n{settings}\n"), ..AgentConfig::default() }
}

fn first_code(client: &mut RawClient) -> Result<String> {
    Ok(client.receive()?.and_then(|answer| answer.sqlstate()).unwrap_or_default())
}

#[test]
fn a_load_balancer_tells_where_clients_come_from() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::with(proxy("proxy_protocol_from = [\"127.0.0.0/8\"]"))?;
    let mut client = RawClient::connect(site.agent.proxy())?;
    client.send(&header())?;
    let mut client = client.start(site::USER, site::DATABASE)?;
    assert_eq!(wire::first_error(&client.query("SELECT 1")?), None);
    let opened = site.wait_for("connection_opened", "the client's address", |body| {
        body["client_address"] == "192.0.2.7:12345"
    })?;
    let workload = &opened["workload"];
    assert_eq!(
        (&workload["remote_address"], &workload["evidence"]),
        (&"192.0.2.7".into(), &"ADDRESS".into())
    );
    assert_eq!(workload["reported_by"], "127.0.0.1");
    // Who may send one has to.
    let mut client = RawClient::connect(site.agent.proxy())?;
    client.send(&wire::startup(site::USER, site::DATABASE))?;
    assert_eq!(first_code(&mut client)?, "08P01");
    let mut client = RawClient::connect(site.agent.proxy())?;
    client.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 5432\r\n")?;
    let refusal = client.receive()?.map(|answer| answer.fields()).unwrap_or_default();
    assert!(refusal.get(&'M').is_some_and(|text| text.contains("version 2")), "{refusal:?}");
    Ok(())
}

#[test]
fn nobody_else_may_say_where_a_client_comes_from() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::with(proxy("proxy_protocol_from = [\"192.0.2.1\"]"))?;
    let mut client = RawClient::connect(site.agent.proxy())?;
    client.try_send(&[header(), wire::startup(site::USER, site::DATABASE)].concat());
    assert_eq!(first_code(&mut client)?, "08P01");
    site.proxied().query("SELECT 1")?.expect_ok("psql")?;
    Ok(())
}

#[test]
fn clients_that_say_nothing_take_only_the_places_of_their_address() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let config = proxy("max_logins_per_address = 3\nlogin_timeout_seconds = 3");
    let site = Site::secure(&authority, config)?;
    let address = site.agent.proxy();
    let logged_in = RawClient::log_in(address, site::USER, site::DATABASE)?;
    let started = Instant::now();
    // One says nothing, one stops in a startup packet, one in a TLS handshake.
    let mut slow: Vec<RawClient> = Vec::new();
    for bytes in [&b""[..], &b"\0\0\0\x30\0\x03"[..], &b"\x16\x03\x01\x02\0\x01"[..]] {
        let mut client = RawClient::connect(address)?;
        client.send(bytes)?;
        slow.push(client);
    }
    thread::sleep(Duration::from_millis(300));
    let mut surplus = RawClient::connect(address)?;
    surplus.try_send(&wire::startup(site::USER, site::DATABASE));
    assert_eq!(first_code(&mut surplus)?, "53300");
    for client in &mut slow {
        ensure!(client.is_closed_by_server(Duration::from_secs(8)), "a slow client is still there");
    }
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    RawClient::log_in(address, site::USER, site::DATABASE)?;
    drop(logged_in);
    Ok(())
}

#[test]
fn idle_sessions_end_but_not_in_a_transaction() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::with(proxy("idle_timeout_seconds = 2"))?;
    let mut idle = RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)?;
    let mut busy = RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)?;
    let mut open = RawClient::log_in(site.agent.proxy(), site::USER, site::DATABASE)?;
    open.query("BEGIN")?;
    busy.send(&wire::query("SELECT pg_sleep(4)"))?;
    let started = Instant::now();
    assert_eq!(first_code(&mut idle)?, "57P05");
    assert!(started.elapsed() > Duration::from_millis(1_500), "{:?}", started.elapsed());
    assert_eq!(wire::first_error(&busy.until_ready()?), None);
    assert_eq!(wire::first_error(&open.query("SELECT 1")?), None);
    assert_eq!(wire::first_error(&open.query("COMMIT")?), None);
    assert_eq!(first_code(&mut open)?, "57P05");
    Ok(())
}

#[test]
fn stopping_lets_what_runs_end_within_the_limit() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::with(proxy("drain_seconds = 4"))?;
    let address = site.agent.proxy();
    let mut idle = RawClient::log_in(address, site::USER, site::DATABASE)?;
    let mut short = RawClient::log_in(address, site::USER, site::DATABASE)?;
    let mut long = RawClient::log_in(address, site::USER, site::DATABASE)?;
    short.send(&wire::query("SELECT pg_sleep(2)"))?;
    long.send(&wire::query("SELECT pg_sleep(60)"))?;
    thread::sleep(Duration::from_millis(500));
    let started = Instant::now();
    site.agent.signal(nix::sys::signal::Signal::SIGTERM)?;
    assert_eq!(first_code(&mut idle)?, "57P01");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let answers = short.until_ready()?;
    assert!(answers.iter().any(|answer| answer.tag == b'D'), "it was let go on: {answers:?}");
    assert_eq!(wire::first_error(&long.until_ready()?).as_deref(), Some("57P01"));
    assert!(started.elapsed() > Duration::from_secs(3), "{:?}", started.elapsed());
    Ok(())
}

#[test]
fn the_server_sees_the_workloads_name() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let site = Site::with(proxy("name_workload = true"))?;
    let asked = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    let named = site.proxied().query(asked)?.expect_ok("psql")?;
    assert!(named.stdout.starts_with("psql (") && named.stdout.trim().ends_with(')'), "{}", named.stdout);
    let chosen = site.proxied().script(&format!("SET application_name = 'mine';\n{asked};"))?;
    assert_eq!(chosen.stdout, "mine\n");
    Ok(())
}

#[test]
fn the_way_to_the_server_lets_nobody_in_without_a_password() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    // Local users are trusted, the network has to give a password; and one role the same on both.
    let postgres = Postgres::start()?;
    let rules = "local all clerk scram-sha-256\nlocal all all trust\nhost all postgres 127.0.0.1/32 trust\n\
                 host all all 127.0.0.1/32 scram-sha-256\n";
    let site = Site::before(postgres, AgentConfig { unix_socket: false, ..AgentConfig::default() })?;
    fs::write(site.postgres.data().join("pg_hba.conf"), rules)?;
    site.postgres.reload()?;
    thread::sleep(Duration::from_millis(500));
    for _ in 0..3 {
        let refused = site.proxied().query("SELECT 1")?;
        assert!(!refused.ok() && refused.stderr.contains("no password supplied"), "{}", refused.stderr);
    }
    let clerk = site.agent.psql(postgres::SCRAM_ROLE, "postgres").password(postgres::SCRAM_PASSWORD);
    let by = |expected: &str| -> Result<()> {
        let asked = "SELECT coalesce(host(inet_server_addr()), 'unix')";
        assert_eq!(clerk.query(asked)?.expect_ok("psql")?.stdout.trim(), expected);
        Ok(())
    };
    by("127.0.0.1")?;
    by("unix")?;
    let wrong = clerk.clone().password("wrong").query("SELECT 1")?;
    assert!(wrong.stderr.contains("password authentication failed"), "{}", wrong.stderr);
    by("unix")?;
    // No attempt of the proxy counts as somebody's that went round it.
    let round = site.agent.records()?.iter().any(|record| {
        record["connection_opened"]["access"] == "NON_PROXIED"
            && record["connection_opened"]["workload"]["comm"] == "guard-agent"
    });
    assert!(!round, "an attempt of the proxy itself was taken for a client's");
    Ok(())
}
