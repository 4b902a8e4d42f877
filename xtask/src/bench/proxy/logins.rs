//! New connections, 200 per second, each with a password and one transaction: under TLS, and in clear beside it.
//!
//! A connection that fails, or of whose session the journal knows nothing, fails the bench.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use guard_tests::{
    Agent, AgentConfig, Authority, Postgres, Psql,
    postgres::{OWNER, SCRAM_PASSWORD, SCRAM_ROLE},
    records, run,
};

use super::{
    pgbench::{Connected, PgBench},
    release_agent,
};

/// Connections per second that are asked for.
const RATE: u32 = 200;

/// How long the journal may take to hold the last session.
const JOURNAL_LIMIT: Duration = Duration::from_secs(20);

/// A client's side of a line of the bench: its name in figures, and `sslmode`.
const LINES: [(&str, &str); 2] = [("tls", "require"), ("clear", "disable")];

/// New connections per second, direct and through guard, and how many sessions the journal holds for them.
pub fn measure(seconds: u32) -> Result<BTreeMap<String, f64>> {
    println!("logins: {RATE} per second for {seconds} s ..");
    let authority = Authority::new()?;
    let postgres = Postgres::with_tls(&authority)?;
    let pgbench = PgBench::new()?;
    pgbench.initialize(postgres.address(), 1)?;
    let grant = format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {SCRAM_ROLE}");
    postgres.psql(OWNER, "postgres").query(&grant)?.expect_ok("granting")?;
    // It has to find the way to the server by itself, so that channel binding holds.
    let config = AgentConfig { program: Some(release_agent()), unix_socket: false, ..AgentConfig::default() };
    let agent = Agent::start(&config, &postgres)?;
    let mut figures = BTreeMap::new();
    for (line, sslmode) in LINES {
        for (way, address) in [("direct", postgres.address()), ("guard", agent.proxy())] {
            let client = Psql::tcp(address, SCRAM_ROLE, "postgres")
                .password(SCRAM_PASSWORD)
                .variable("PGSSLMODE", sslmode);
            let before = if way == "guard" { sessions(&agent, line)? } else { 0 };
            let connected = pgbench.connections(&client, RATE, seconds)?;
            let Connected { rate, connections, failed } = connected;
            println!(
                "{RATE} new connections per second with SCRAM, {line}, {way}: {rate:.0} per second, {failed} of \
                 {connections} failed"
            );
            figures.insert(format!("logins_{line}_{way}_per_second"), rate);
            figures.insert(format!("logins_{line}_{way}_failed"), f64::from(failed));
            ensure!(failed == 0, "{failed} connections failed ({line}, {way}):\n{}", agent.log());
            if way == "guard" {
                recorded(&agent, line, before, connections)?;
            }
        }
    }
    Ok(figures)
}

/// Waits until the journal holds a session for each connection, and not one more.
fn recorded(agent: &Agent, line: &str, before: u64, connections: u32) -> Result<()> {
    let mut found = 0;
    let outcome = run::eventually("a session for each connection in the journal", JOURNAL_LIMIT, || {
        found = sessions(agent, line)? - before;
        Ok(found >= u64::from(connections))
    });
    println!("sessions in the journal, {line}: {found} for {connections} connections");
    outcome?;
    ensure!(found == u64::from(connections), "{found} sessions for {connections} connections");
    Ok(())
}

/// Sessions of the bench's role that have begun, under TLS or in clear.
fn sessions(agent: &Agent, line: &str) -> Result<u64> {
    let arguments = ["audit", "search", "--kind", "session", "--json"];
    let printed = agent.run(&arguments)?.expect_ok("guard-agent audit search")?;
    let begun = records::parse(&printed.stdout)?;
    let begun = records::bodies(&begun, "session_started").into_iter().filter(|session| {
        let under_tls = !records::text(session, "client_tls").is_empty();
        records::text(session, "db_user") == SCRAM_ROLE
            && records::text(session, "failure").is_empty()
            && under_tls == (line == "tls")
    });
    Ok(begun.count() as u64)
}
