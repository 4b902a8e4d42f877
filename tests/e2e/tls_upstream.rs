//! TLS towards the server, as the configuration and the server want it.

use std::{fs, thread, time::Duration};

use anyhow::Result;
use guard_tests::{
    AgentConfig, Authority, Psql, Site, postgres,
    skip::{self, Need},
};

fn clerk(site: &Site) -> Psql {
    site.agent.psql(postgres::SCRAM_ROLE, "postgres").password(postgres::SCRAM_PASSWORD)
}

const UNDER_TLS: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

#[test]
fn the_servers_certificate_is_checked_as_configured() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let (authority, other) = (Authority::new()?, Authority::new()?);
    for (mode, ca, name, fine) in [
        ("require", &other, "127.0.0.1", true),
        ("verify-ca", &authority, "db.example.org", true),
        ("verify-ca", &other, "127.0.0.1", false),
        ("verify-full", &authority, "localhost", true),
        ("verify-full", &authority, "db.example.org", false),
    ] {
        let extra = format!(
            "upstream_tls = \"{mode}\"\nupstream_name = \"{name}\"\nupstream_ca = \"{}\"\n",
            ca.certificate().display()
        );
        let site = Site::secure(
            &authority,
            AgentConfig { extra, ebpf: false, required: false, ..AgentConfig::default() },
        )?;
        // In clear towards the proxy: a client without TLS must not be offered -PLUS.
        let answer = clerk(&site).variable("PGSSLMODE", "disable").query(UNDER_TLS)?;
        assert_eq!(answer.ok(), fine, "{mode} {name}: {}", answer.stderr);
        if fine {
            assert_eq!(answer.stdout, "t\n", "{mode}");
        } else {
            assert!(
                answer.has_sqlstate("08001") || answer.stderr.contains("cannot reach"),
                "{}",
                answer.stderr
            );
        }
    }
    Ok(())
}

#[test]
fn a_server_that_wants_tls_gets_it() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let site = Site::secure(&authority, AgentConfig::default())?;
    let rules = "local all postgres trust\nhost all postgres 127.0.0.1/32 trust\n\
                 hostssl all clerk 127.0.0.1/32 scram-sha-256\n";
    fs::write(site.postgres.data().join("pg_hba.conf"), rules)?;
    site.postgres.reload()?;
    thread::sleep(Duration::from_millis(500));
    for _ in 0..2 {
        let answer =
            clerk(&site).variable("PGSSLMODE", "disable").query(UNDER_TLS)?.expect_ok("psql in clear")?;
        assert_eq!(answer.stdout, "t\n");
    }
    // What TLS does not mend is refused in the server's words.
    let refused = site.agent.psql("nobody", "postgres").variable("PGSSLMODE", "disable").query("SELECT 1")?;
    assert!(refused.stderr.contains("no pg_hba.conf entry"), "{}", refused.stderr);
    assert!(refused.stderr.contains("no encryption"), "{}", refused.stderr);
    Ok(())
}
