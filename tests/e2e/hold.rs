//! Statements that go round the proxy are held in the server itself, and what policy refuses never runs.

mod thousands;

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    Agent, AgentConfig, Control, Folder, Postgres, Site,
    approvals::Desk,
    postgres,
    records::{self, text},
    run, site,
    skip::{self, Need},
    wire::{self, RawClient},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What may happen is what nothing forbids.
const POLICIES: &str = "\
@id(\"all\") permit (principal, action, resource);
@id(\"no-write-off\") @reason(\"rows stay\") forbid (principal, action == Guard::Action::\"delete\", resource);
@id(\"no-drop\") @reason(\"things stay\") forbid (principal, action == Guard::Action::\"drop\", resource);
@id(\"no-truncate\") @reason(\"rows stay\") forbid (principal, action == Guard::Action::\"truncate\", resource);
@id(\"no-grant\") @reason(\"rights stay\") forbid (principal, action in Guard::Action::\"grant\", resource);
@id(\"no-role\") @reason(\"roles stay\") forbid (principal, action == Guard::Action::\"change_role\", resource);
@id(\"no-copy\") @reason(\"nothing is loaded\") forbid (principal, action == Guard::Action::\"copy_in\", resource);
@id(\"no-file\") @reason(\"files are not read\") forbid (principal, action == Guard::Action::\"file\", resource);
@id(\"no-setting\") @reason(\"settings stay\") forbid (principal, action == Guard::Action::\"configure\", resource);
";

struct Held {
    site: Site,
    folder: Folder,
}

/// A server whose statements are held, or nothing where the test has to be skipped.
fn held(extra: &str) -> Result<Option<Held>> {
    if skip::without(&[Need::Postgres, Need::Ebpf]) {
        return Ok(None);
    }
    let config = AgentConfig { extra: format!("hold = true\n{extra}"), ..AgentConfig::default() };
    held_before(Postgres::start()?, config, PREPARED).map(Some)
}

/// Before this server, where `prepared` is there before the agent.
fn held_before(postgres: Postgres, config: AgentConfig, prepared: &str) -> Result<Held> {
    let folder = Folder::new("hold")?;
    fs::create_dir_all(folder.join("policies/a"))?;
    folder.write("policies/a/policy.cedar", POLICIES)?;
    let config = AgentConfig { policies: Some(folder.join("policies")), ..config };
    site::prepare(&postgres)?;
    let owner = postgres.psql(postgres::OWNER, site::DATABASE);
    owner.script(prepared)?.expect_ok("what is there before the agent")?;
    let agent = Agent::start(&config, &postgres)?;
    let site = Site { agent, control: Control::start()?, postgres };
    run::eventually("statements being held", Duration::from_secs(20), || {
        Ok(site.agent.log().contains("are held until policy has decided"))
    })?;
    Ok(Held { site, folder })
}

/// Refused statements in every form leave no trace in a server of this version, and what is allowed goes on.
pub fn in_version(major: u32, postgres: Postgres) -> Result<()> {
    // Functions whose bodies are plans came with 14.
    let prepared = match major {
        13 => &PREPARED.replace(
            "BEGIN ATOMIC DELETE FROM orders WHERE id = n; END",
            "AS $$DELETE FROM orders WHERE id = n$$",
        ),
        _ => PREPARED,
    };
    let extra = "hold = true\n".to_owned();
    let held =
        held_before(postgres, AgentConfig { unix_socket: false, extra, ..AgentConfig::default() }, prepared)?;
    assert_eq!(Held::ask(&mut held.client()?, "SELECT count(*) FROM orders")?, "20");
    thousands::in_every_form(&held, 16)
}

impl Held {
    fn client(&self) -> Result<RawClient> {
        let mut client = RawClient::log_in(self.site.postgres.address(), postgres::OWNER, site::DATABASE)?;
        client.patient(Duration::from_secs(30))?;
        Ok(client)
    }

    fn ask(client: &mut RawClient, sql: &str) -> Result<String> {
        let answers = client.query(sql)?;
        ensure!(wire::first_error(&answers).is_none(), "{sql}: {answers:?}");
        let row = answers.iter().find(|message| message.tag == b'D').context("no row")?;
        Ok(String::from_utf8_lossy(&row.body[6..]).into_owned())
    }

    /// Backends of the server that are stopped.
    fn stopped(&self) -> Vec<u32> {
        let postmaster = self.site.postgres.pid();
        let children =
            fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        let is_stopped = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
                stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
            })
        };
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(is_stopped).collect()
    }
}

/// All that may be different after a statement that was to leave no trace.
const TRACES: &str = "SELECT concat_ws('/', (SELECT sum(id) FROM orders), (SELECT count(*) FROM pg_class WHERE \
                      relkind IN ('r', 'i', 'v')), (SELECT count(*) FROM pg_proc), (SELECT string_agg(relacl::text, ',' \
                      ORDER BY oid) FROM pg_class WHERE relname IN ('orders', 'customers')), (SELECT \
                      string_agg(rolname || rolsuper || rolcreaterole || coalesce(rolpassword, ''), ',' ORDER BY rolname) \
                      FROM pg_authid), (SELECT count(*) FROM pg_file_settings))";

const PREPARED: &str = "\
CREATE FUNCTION gone(n int) RETURNS int LANGUAGE plpgsql AS $$BEGIN DELETE FROM orders WHERE id = n; RETURN n; END$$;
CREATE FUNCTION gone_sql(n int) RETURNS void LANGUAGE sql AS $$DELETE FROM orders WHERE id = n$$;
CREATE FUNCTION gone_atomic(n int) RETURNS void LANGUAGE sql BEGIN ATOMIC DELETE FROM orders WHERE id = n; END;
CREATE FUNCTION run(what text) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE what; END$$;
CREATE FUNCTION run_quietly(what text) RETURNS void LANGUAGE plpgsql
AS $$BEGIN EXECUTE what; EXCEPTION WHEN OTHERS OR query_canceled THEN EXECUTE what; END$$;
CREATE FUNCTION spare(n int) RETURNS void LANGUAGE sql AS $$SELECT 1$$;
CREATE ROLE spare;
CREATE TABLE spare (id int);
";

#[test]
fn ordinary_work_goes_on_and_what_is_known_is_not_stopped_again() -> Result<()> {
    let Some(held) = held("")? else { return Ok(()) };
    let psql = held.site.direct_unix();
    let work = "BEGIN; CREATE TABLE w (a int PRIMARY KEY); INSERT INTO w SELECT generate_series(1, 100); SAVEPOINT s; \
                UPDATE w SET a = a + 1000 WHERE a < 10; COPY w TO STDOUT; COMMIT; VACUUM w; ANALYZE w;\n";
    let finished = psql.script(&work.replace("; ", ";\n"))?.expect_ok("ordinary work")?;
    assert!(finished.stdout.lines().count() >= 100, "{}", finished.stdout);
    let mut client = held.client()?;
    let count = "SELECT count(*) FROM orders";
    Held::ask(&mut client, count)?;
    let started = Instant::now();
    for _ in 0..2_000 {
        Held::ask(&mut client, count)?;
    }
    let each = started.elapsed() / 2_000;
    assert!(each < Duration::from_millis(2), "{each:?} for a statement that is known");
    let records = held.site.agent.records()?;
    let seen = records::bodies(&records, "statement").into_iter().filter(|one| {
        text(one, "evidence") == "hold" && text(one, "text").to_lowercase() == "select count(*) from orders"
    });
    assert!(seen.count() < 5, "it was stopped again and again");
    Ok(())
}

#[test]
fn the_proxys_own_backends_are_not_held_twice() -> Result<()> {
    let Some(held) = held("")? else { return Ok(()) };
    let refused = held.site.proxied().query("DELETE FROM orders WHERE id = 1")?;
    assert!(refused.has_sqlstate("42501"), "{}", refused.stderr);
    held.site.proxied().query("SELECT 'through the proxy'")?.expect_ok("psql")?;
    let records = held.site.agent.records()?;
    let twice = records::bodies(&records, "statement").into_iter().find(|statement| {
        text(statement, "evidence") == "hold" && text(statement, "text").contains("DELETE")
    });
    assert!(twice.is_none(), "{twice:?}");
    Ok(())
}

/// Clients that send, without end, statements that are allowed and are all new; until `end`.
fn storm(held: &Held, end: Instant) -> Vec<std::thread::JoinHandle<u64>> {
    let address = held.site.postgres.address();
    (0..6)
        .map(|client| {
            std::thread::spawn(move || {
                let mut sent = 0;
                while Instant::now() < end {
                    let Ok(mut raw) = RawClient::log_in(address, postgres::OWNER, site::DATABASE) else {
                        continue;
                    };
                    while Instant::now() < end {
                        sent += 1;
                        if raw.query(&format!("SELECT {sent} + {client}")).is_err() {
                            break;
                        }
                    }
                }
                sent
            })
        })
        .collect()
}

/// For how long at most a backend was seen stopped, from now on for `watched`.
fn longest_stop(held: &Held, watched: Duration) -> Duration {
    let (mut since, mut longest) = (std::collections::HashMap::new(), Duration::ZERO);
    let end = Instant::now() + watched;
    while Instant::now() < end {
        let stopped = held.stopped();
        since.retain(|pid, _| stopped.contains(pid));
        for pid in stopped {
            longest = longest.max(since.entry(pid).or_insert_with(Instant::now).elapsed());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    longest
}

#[test]
fn an_agent_that_is_killed_leaves_nobody_stopped() -> Result<()> {
    let Some(mut held) = held("")? else { return Ok(()) };
    for _ in 0..5 {
        let clients = storm(&held, Instant::now() + Duration::from_secs(4));
        std::thread::sleep(Duration::from_millis(700));
        held.site.agent.kill()?;
        let longest = longest_stop(&held, Duration::from_secs(2));
        assert!(longest < Duration::from_secs(2), "{longest:?}");
        assert!(held.stopped().is_empty());
        for client in clients {
            assert!(client.join().is_ok_and(|sent| sent > 0));
        }
        held.site.agent.restart()?;
    }
    held.site.direct_unix().query("SELECT 1")?.expect_ok("psql")?;
    Ok(())
}

#[test]
fn an_agent_that_hangs_leaves_nobody_stopped() -> Result<()> {
    let Some(held) = held("hold_orphans = \"run\"\n")? else { return Ok(()) };
    let agent = Pid::from_raw(i32::try_from(held.site.agent.pid())?);
    for _ in 0..3 {
        let clients = storm(&held, Instant::now() + Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(500));
        kill(agent, Signal::SIGSTOP)?;
        let longest = longest_stop(&held, Duration::from_millis(2_500));
        assert!(longest < Duration::from_secs(2), "{longest:?}");
        assert!(held.stopped().is_empty());
        kill(agent, Signal::SIGCONT)?;
        for client in clients {
            assert!(client.join().is_ok_and(|sent| sent > 0));
        }
    }
    // It decides again.
    run::eventually("a refusal again", Duration::from_secs(5), || {
        Ok(held.site.direct_unix().query("DELETE FROM orders")?.has_sqlstate("57014"))
    })
}

#[test]
fn a_restart_in_the_middle_leaves_nobody_stopped() -> Result<()> {
    let Some(mut held) = held("")? else { return Ok(()) };
    let clients = storm(&held, Instant::now() + Duration::from_secs(6));
    std::thread::sleep(Duration::from_millis(500));
    held.site.agent.stop()?;
    assert!(held.stopped().is_empty());
    held.site.agent.restart()?;
    let longest = longest_stop(&held, Duration::from_secs(2));
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    for client in clients {
        assert!(client.join().is_ok_and(|sent| sent > 0));
    }
    assert!(held.site.direct_unix().query("DELETE FROM orders")?.has_sqlstate("57014"));
    Ok(())
}

/// A desk before a server whose statements are held, or nothing where the test has to be skipped.
fn desk() -> Result<Option<Desk>> {
    if skip::without(&[Need::Postgres, Need::Ebpf]) {
        return Ok(None);
    }
    let desk = Desk::with(AgentConfig { extra: "hold = true\n".to_owned(), ..AgentConfig::default() })?;
    if let Some(desk) = &desk {
        run::eventually("statements being held", Duration::from_secs(20), || {
            Ok(desk.site.agent.log().contains("are held until policy has decided"))
        })?;
    }
    Ok(desk)
}

const WAITS: &str = "DELETE FROM orders WHERE id <= 3";

#[test]
fn a_statement_waits_in_the_server_and_runs_once_when_it_is_approved() -> Result<()> {
    let Some(desk) = desk()? else { return Ok(()) };
    let ask = |log| desk.site.direct().start_as(&desk.requester, WAITS, &desk.log(log));
    let mut psql = ask("approved")?;
    let id = desk.one_id()?;
    assert_eq!(desk.rows("orders")?, 20);
    assert!(psql.alive());
    desk.decide("approve", &id)?;
    let log = desk.ended(&mut psql)?;
    assert!(!log.contains("ERROR"), "{log}");
    assert_eq!(desk.rows("orders")?, 17);
    assert_eq!(desk.events(&id)?, ["REQUESTED", "APPROVED", "RAN"]);
    let mut psql = ask("denied")?;
    let id = desk.one_id()?;
    desk.decide("deny", &id)?;
    let log = desk.ended(&mut psql)?;
    assert!(log.contains("canceling statement"), "{log}");
    // Who gives up is not waited for.
    let mut psql = ask("given up")?;
    let id = desk.one_id()?;
    psql.signal(Signal::SIGINT)?;
    let log = desk.ended(&mut psql)?;
    assert!(log.to_lowercase().contains("cancel"), "{log}");
    run::eventually("the request being over", Duration::from_secs(5), || {
        Ok(desk.events(&id)?.last().is_some_and(|event| event == "WITHDRAWN"))
    })?;
    assert_eq!(desk.rows("orders")?, 17);
    Ok(())
}

#[test]
fn what_waits_when_the_agent_is_killed_never_runs() -> Result<()> {
    let Some(mut desk) = desk()? else { return Ok(()) };
    let mut psql = desk.site.direct().start_as(&desk.requester, WAITS, &desk.log("orphan"))?;
    desk.one_id()?;
    desk.site.agent.kill()?;
    let log = desk.ended(&mut psql)?;
    assert!(log.contains("canceling statement"), "{log}");
    assert_eq!(desk.rows("orders")?, 20);
    Ok(())
}

#[test]
fn while_no_agent_runs_statements_are_cancelled_where_that_is_wanted() -> Result<()> {
    let Some(mut held) = held("hold_unattended = \"cancel\"\n")? else { return Ok(()) };
    let known = "SELECT 'known to be allowed'";
    let mut client = held.client()?;
    Held::ask(&mut client, known)?;
    held.site.agent.kill()?;
    run::eventually("nobody deciding", Duration::from_secs(5), || {
        let answers = client.query("SELECT 'never seen before', clock_timestamp()")?;
        Ok(wire::first_error(&answers).as_deref() == Some("57014"))
    })?;
    Held::ask(&mut client, known)?;
    held.site.agent.restart()?;
    let mut said = None;
    let again = run::eventually("decisions again", Duration::from_secs(10), || {
        said = wire::first_error(&client.query("SELECT 'seen again', clock_timestamp()")?);
        Ok(said.is_none())
    });
    again.with_context(|| format!("{said:?}; {}", held.site.agent.log()))
}
