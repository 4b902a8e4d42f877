//! TLS: the server's own certificate towards clients, channel binding from end to end, and what is withheld when not.

use std::time::Duration;

use anyhow::{Result, ensure};
use guard_tests::{
    AgentConfig, Authority, Psql, Site, postgres,
    run::{self, CLIENT_LIMIT},
    site,
    skip::{self, Need},
    tls,
    wire::{self, RawClient},
};
use nix::sys::signal::Signal;

fn clerk(site: &Site, authority: &Authority) -> Psql {
    site.agent
        .psql(postgres::SCRAM_ROLE, "postgres")
        .password(postgres::SCRAM_PASSWORD)
        .tls("verify-full", authority)
}

/// What the newest session that began by TLS says of `field`.
fn session(site: &Site, field: &str) -> Result<String> {
    let started =
        site.wait_for("session_started", "a session by TLS", |body| !body["client_tls"].is_null())?;
    Ok(started[field].as_str().unwrap_or_default().to_owned())
}

#[test]
fn with_nothing_configured_channel_binding_holds_from_client_to_server() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let site = Site::secure(&authority, AgentConfig::default())?;
    let psql = clerk(&site, &authority).variable("PGCHANNELBINDING", "require");
    let asked = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    for _ in 0..3 {
        let answer = psql.query(asked)?.expect_ok("psql")?;
        assert_eq!(answer.stdout, "t|TLSv1.3\n");
    }
    assert_eq!(session(&site, "channel_binding")?, "end to end");
    assert_eq!(session(&site, "client_tls")?, "TLSv1.3");
    assert_eq!(session(&site, "upstream")?, "tls");
    let doctor = site.agent.run(&["doctor"])?.stdout;
    assert!(doctor.contains("the server's own") && doctor.contains("SCRAM-SHA-256-PLUS holds"), "{doctor}");
    // Policy is asked as ever.
    let refused = psql.query("DROP TABLE pg_class")?;
    assert!(refused.has_sqlstate("42501"), "{}", refused.stderr);
    let wrong = psql.password("wrong").query("SELECT 1")?;
    assert!(wrong.stderr.contains("password authentication failed"), "{}", wrong.stderr);
    Ok(())
}

#[test]
fn another_certificate_withholds_channel_binding_and_logs_in_all_the_same() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let own = authority.server("proxy")?;
    let extra = format!(
        "[servers.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n",
        own.certificate.display(),
        own.key.display()
    );
    let site = Site::secure(&authority, AgentConfig { extra, ..AgentConfig::default() })?;
    let psql = clerk(&site, &authority);
    for _ in 0..3 {
        psql.query("SELECT 1")?.expect_ok("psql with channel_binding=prefer")?;
    }
    let binding = session(&site, "channel_binding")?;
    assert!(binding.starts_with("withheld") && binding.contains("another certificate"), "{binding}");
    let required = psql.variable("PGCHANNELBINDING", "require").query("SELECT 1")?;
    assert!(!required.ok() && required.stderr.contains("channel binding"), "{}", required.stderr);
    let said = site.agent.log().matches("channel binding (SCRAM-SHA-256-PLUS): withheld").count();
    assert_eq!(said, 1, "{}", site.agent.log());
    let doctor = site.agent.run(&["doctor"])?.stdout;
    assert!(doctor.contains("withheld: the server presents another certificate"), "{doctor}");
    Ok(())
}

#[test]
fn direct_tls_needs_the_protocols_name() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let site = Site::secure(&authority, AgentConfig::default())?;
    let proxy = site.agent.proxy();
    let named = authority.client_config(None, Some(tls::ALPN))?;
    let mut client = RawClient::connect(proxy)?.secure(named, true)?.start(site::USER, site::DATABASE)?;
    assert_eq!(wire::first_error(&client.query("SELECT 1")?), None);
    let unnamed = authority.client_config(None, None)?;
    let mut client = RawClient::connect(proxy)?.secure(unnamed.clone(), true)?;
    client.try_send(&wire::startup(site::USER, site::DATABASE));
    let answer = client.receive()?;
    assert_eq!(answer.and_then(|answer| answer.sqlstate()).as_deref(), Some("08P01"));
    // After a request for TLS it may be left out.
    RawClient::connect(proxy)?.secure(unnamed, false)?.start(site::USER, site::DATABASE)?;
    let other = authority.client_config(None, Some(b"http/1.1"))?;
    assert!(RawClient::connect(proxy)?.secure(other, true).is_err());
    Ok(())
}

#[test]
fn nothing_sent_in_clear_passes_for_encrypted() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let site = Site::secure(&authority, AgentConfig::default())?;
    let mut client = RawClient::connect(site.agent.proxy())?;
    client.send(&[&wire::TLS_REQUEST[..], &wire::startup(site::USER, site::DATABASE)].concat())?;
    let answer = client.receive()?;
    assert_eq!(answer.and_then(|answer| answer.sqlstate()).as_deref(), Some("08P01"));
    ensure!(client.is_closed_by_server(Duration::from_secs(5)));
    // Under TLS there is no second request.
    let config = authority.client_config(None, None)?;
    let mut client = RawClient::connect(site.agent.proxy())?.secure(config, false)?;
    client.send(&wire::TLS_REQUEST)?;
    let answer = client.receive()?;
    assert_eq!(answer.and_then(|answer| answer.sqlstate()).as_deref(), Some("08P01"));
    Ok(())
}

#[test]
fn clients_in_clear_are_refused_where_tls_is_required() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let extra = "[servers.tls]\nmode = \"require\"\n".to_owned();
    let site = Site::secure(&authority, AgentConfig { extra, ..AgentConfig::default() })?;
    let refused = site.proxied().variable("PGSSLMODE", "disable").query("SELECT 1")?;
    assert!(!refused.ok() && refused.stderr.contains("TLS only"), "{}", refused.stderr);
    site.proxied().tls("verify-full", &authority).query("SELECT 1")?.expect_ok("psql by TLS")?;
    Ok(())
}

#[test]
fn a_certificate_is_who_the_client_is() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let site = Site::secure(&authority, AgentConfig::default())?;
    let own = authority.client("orders", "orders")?;
    let psql = site.proxied().tls("verify-full", &authority);
    psql.clone().certificate(&own).query("SELECT 1")?.expect_ok("psql with a certificate")?;
    let opened = site.wait_for("connection_opened", "a certificate", |body| {
        body["workload"]["certificate"]["common_name"] == "orders"
    })?;
    let certificate = &opened["workload"]["certificate"];
    assert_eq!(certificate["spiffe_id"], "spiffe://example.org/orders");
    assert_eq!(certificate["subject"], "CN=orders");
    let elsewhere = Authority::new()?;
    let refused = psql.certificate(&elsewhere.client("orders", "orders")?).query("SELECT 1")?;
    assert!(!refused.ok(), "a certificate of an unknown authority");
    Ok(())
}

#[test]
fn a_renewed_certificate_is_taken_without_ending_sessions() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let site = Site::secure(&authority, AgentConfig::default())?;
    let config = authority.client_config(None, None)?;
    let before = RawClient::connect(site.agent.proxy())?.secure(config, false)?;
    let mut before = before.start(site::USER, site::DATABASE)?;
    let data = site.postgres.data();
    let renewed = authority.server("renewed")?;
    renewed.install(&data.join("server.crt"), &data.join("server.key"), site.postgres.account())?;
    site.postgres.reload()?;
    site.agent.signal(Signal::SIGHUP)?;
    let psql = clerk(&site, &authority).variable("PGCHANNELBINDING", "require");
    // The proxy and the server each take the new one in their own time; then it holds again.
    run::eventually("channel binding by the new certificate", CLIENT_LIMIT, || {
        Ok(psql.query("SELECT 1")?.ok())
    })?;
    assert_eq!(wire::first_error(&before.query("SELECT 1")?), None);
    Ok(())
}

#[test]
fn ctrl_c_cancels_under_tls_too() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let site = Site::secure(&authority, AgentConfig::default())?;
    let folder = guard_tests::Folder::new("cancel")?;
    let psql = site.proxied().tls("verify-full", &authority);
    let mut sleeping = psql.start("SELECT pg_sleep(60)", &folder.join("log"))?;
    let mut other = psql.start("SELECT pg_sleep(60)", &folder.join("other"))?;
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active'
                   AND pid <> pg_backend_pid()";
    run::eventually("the statements running", CLIENT_LIMIT, || {
        Ok(site.direct().query(running)?.stdout.trim() == "2")
    })?;
    sleeping.signal(Signal::SIGINT)?;
    run::eventually("psql ending", Duration::from_secs(10), || Ok(!sleeping.alive()))?;
    assert!(sleeping.log().contains("57014"), "{}", sleeping.log());
    assert!(other.alive(), "another session was cancelled: {}", other.log());
    assert_eq!(site.direct().query(running)?.stdout.trim(), "1");
    Ok(())
}
