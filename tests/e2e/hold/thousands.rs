//! A thousand of a thousand refused statements leave no trace, in each form in which one can come.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    Account, Agent, AgentConfig, Folder, Hosts, Postgres, Psql, postgres,
    records::{self, text, verdict},
    run::{self, CLIENT_LIMIT},
    site,
    skip::{self, Need},
    wire,
};
use nix::sys::signal::Signal;

use super::{Held, POLICIES, PREPARED, TRACES, held};

/// Of each form.
const TIMES: usize = 1_000;
/// Forms of [`denied`].
const FORMS: usize = 12;

/// One statement in each form, with a number that makes the text of most another each time.
fn denied(form: usize, n: usize) -> (&'static str, Vec<u8>) {
    let utility = |n: usize| match n % 8 {
        0 => format!("GRANT ALL ON orders TO spare /* {n} */"),
        1 => format!("ALTER ROLE spare SUPERUSER /* {n} */"),
        2 => format!("DROP FUNCTION spare(int) /* {n} */"),
        3 => format!("ALTER SYSTEM SET work_mem = '{}kB'", 1_000 + n),
        4 => format!("TRUNCATE orders /* {n} */"),
        5 => format!("DROP TABLE spare /* {n} */"),
        6 => format!("REVOKE ALL ON customers FROM app /* {n} */"),
        _ => format!("DROP ROLE spare /* {n} */"),
    };
    let delete = format!("DELETE FROM orders WHERE id = {}", 1 + n % 20);
    let quoted = |what: &str| what.replace('\'', "''");
    match form {
        0 => ("simple", wire::query(&delete)),
        1 => ("extended", wire::extended("", &delete)),
        2 => ("multi-statement", wire::query(&format!("SELECT {n}; {delete}; SELECT 2"))),
        3 => ("utility", wire::query(&utility(n))),
        4 => (
            "DO",
            wire::query(&format!(
                "DO $$BEGIN EXECUTE 'DEL' || 'ETE FROM orders WHERE id = {}'; END$$",
                1 + n % 20
            )),
        ),
        5 => {
            let what = quoted(&utility(n));
            let (first, second) = what.split_at(3);
            ("utility in DO", wire::query(&format!("DO $$BEGIN EXECUTE '{first}' || '{second}'; END$$")))
        }
        6 => ("function", wire::query(&format!("SELECT gone({})", 1 + n % 20))),
        7 => (
            "SQL function",
            wire::query(&format!(
                "SELECT {}({})",
                if n.is_multiple_of(2) { "gone_sql" } else { "gone_atomic" },
                1 + n % 20
            )),
        ),
        8 => (
            "utility in a function that goes on",
            wire::extended("", &format!("SELECT run_quietly('{}')", quoted(&utility(n)))),
        ),
        9 => ("COPY", wire::query(&format!("COPY orders FROM '/dev/null' /* {n} */"))),
        10 => ("COPY of changes", wire::query(&format!("COPY ({delete} RETURNING id) TO STDOUT"))),
        _ => ("utility in a function", wire::extended("", &format!("SELECT run('{}')", quoted(&utility(n))))),
    }
}

fn a_thousand(forms: &[usize]) -> Result<()> {
    let Some(held) = held("")? else { return Ok(()) };
    each(&held, forms, TIMES)
}

/// So many of each.
pub fn in_every_form(held: &Held, times: usize) -> Result<()> {
    each(held, &(0..FORMS).collect::<Vec<_>>(), times)
}

/// Sends so many of each of these forms, all of which have to be cancelled, and looks what has changed.
fn each(held: &Held, forms: &[usize], times: usize) -> Result<()> {
    let mut client = held.client()?;
    let before = Held::ask(&mut client, TRACES)?;
    let mut cancelled = 0;
    for form in forms {
        for n in 0..times {
            let (name, bytes) = denied(*form, n);
            client.send(&bytes)?;
            let answers = client.until_ready().with_context(|| format!("{name} {n}"))?;
            let code = wire::first_error(&answers);
            let shown = String::from_utf8_lossy(&bytes);
            if code.as_deref() != Some("57014") {
                let after = Held::ask(&mut client, TRACES)?;
                anyhow::bail!("{name} {n}: {code:?} {shown}: {before} is {after}: {answers:?}");
            }
            cancelled += 1;
            if n % 100 < 8 {
                let after = Held::ask(&mut client, TRACES)?;
                ensure!(after == before, "{name} {n}: {before} became {after}: {shown}");
            }
        }
        let after = Held::ask(&mut client, TRACES)?;
        ensure!(after == before, "form {form}: {before} became {after}");
    }
    assert_eq!(cancelled, times * forms.len());
    assert!(held.stopped().is_empty());
    let refused =
        held.site.wait_for("statement", "a refusal", |statement| verdict(statement) == "REFUSED")?;
    assert_eq!(text(&refused, "evidence"), "hold");
    assert_eq!(text(&refused["decision"], "mode"), "enforce");
    assert_eq!((text(&refused, "db_user"), text(&refused, "database")), (postgres::OWNER, site::DATABASE));
    Ok(())
}

#[test]
fn a_thousand_in_the_simple_protocol() -> Result<()> {
    a_thousand(&[0, 2])
}

#[test]
fn a_thousand_in_the_extended_protocol() -> Result<()> {
    a_thousand(&[1])
}

#[test]
fn a_thousand_grants_and_changes_of_roles() -> Result<()> {
    a_thousand(&[3])
}

#[test]
fn a_thousand_in_do() -> Result<()> {
    a_thousand(&[4, 5])
}

#[test]
fn a_thousand_in_functions() -> Result<()> {
    a_thousand(&[6, 7, 8, 11])
}

#[test]
fn a_thousand_copies() -> Result<()> {
    a_thousand(&[9, 10])
}

#[test]
fn every_form_is_among_them() {
    let mut all: Vec<usize> = [&[0, 2][..], &[1], &[3], &[4, 5], &[6, 7, 8, 11], &[9, 10]].concat();
    all.sort_unstable();
    assert_eq!(all, (0..FORMS).collect::<Vec<_>>());
}

#[test]
fn a_thousand_prepared_before_they_were_forbidden() -> Result<()> {
    let Some(held) = held("")? else { return Ok(()) };
    let mut client = held.client()?;
    client.send(&wire::extended("again", "UPDATE orders SET total = total + 1 WHERE id = 1"))?;
    assert_eq!(wire::first_error(&client.until_ready()?), None);
    let prepare = "PREPARE once_more AS UPDATE orders SET total = total + 1 WHERE id = 1";
    assert_eq!(wire::first_error(&client.query(prepare)?), None);
    let execute = |name: &str| {
        let mut bytes = wire::message(b'B', &[b"\0", name.as_bytes(), b"\0", &[0; 6]].concat());
        bytes.extend(wire::message(b'E', &[0; 5]));
        bytes.extend(wire::message(b'S', b""));
        bytes
    };
    client.send(&execute("again"))?;
    assert_eq!(wire::first_error(&client.until_ready()?), None);
    // The policy changes: what was allowed before is not any more.
    let stricter = format!(
        "{POLICIES}\n@id(\"no-update\") @reason(\"rows stay as they are\") forbid (principal, action == Guard::Action::\"update\", resource);\n"
    );
    held.folder.write("policies/a/policy.cedar", &stricter)?;
    held.site.agent.signal(Signal::SIGHUP)?;
    run::eventually("the new policy", Duration::from_secs(10), || {
        let mut other = held.client()?;
        Ok(wire::first_error(&other.query("UPDATE orders SET total = 0 WHERE id = 99")?).is_some())
    })?;
    // What the kernel side has known as allowed it forgets at the agent's next beat, a tenth of a second later at most.
    std::thread::sleep(Duration::from_millis(500));
    let total = Held::ask(&mut client, "SELECT total FROM orders WHERE id = 1")?;
    for _ in 0..TIMES {
        client.send(&execute("again"))?;
        assert_eq!(wire::first_error(&client.until_ready()?).as_deref(), Some("57014"));
        assert_eq!(wire::first_error(&client.query("EXECUTE once_more")?).as_deref(), Some("57014"));
    }
    assert_eq!(Held::ask(&mut client, "SELECT total FROM orders WHERE id = 1")?, total);
    Ok(())
}

/// Clients of the network are steered to the proxy, one account is kept out altogether, and the rest of what comes by the
/// unix socket is held and observed: none of it is in the way of the others.
#[test]
fn beside_steering_cutting_and_observing() -> Result<()> {
    if skip::without(&[Need::Postgres, Need::Ebpf, Need::Networks]) {
        return Ok(());
    }
    let (network, folder) = (Hosts::new()?, Folder::new("hold")?);
    let postgres = Postgres::in_network(&network, None, "local all all trust\nhost all all all trust\n")?;
    let owner = postgres.psql_unix(postgres::OWNER, "postgres");
    owner.query("CREATE ROLE app LOGIN")?.expect_ok("creating the role")?;
    owner.query("CREATE DATABASE shop OWNER app")?.expect_ok("creating the database")?;
    postgres.psql_unix(site::USER, site::DATABASE).query(site::SCHEMA)?.expect_ok("creating the tables")?;
    let psql = postgres.psql_unix(postgres::OWNER, site::DATABASE);
    psql.script(PREPARED)?.expect_ok("what is there before the agent")?;
    let stranger = Account::named("nobody")?.context("no account `nobody`")?;
    fs::create_dir_all(folder.join("policies/a"))?;
    let keep_out = format!(
        "{POLICIES}\n@id(\"stay-out\") @reason(\"not you\") forbid (principal, action == Guard::Action::\"connect\", \
         resource) when {{ !context.proxied && principal.user == \"{}\" }};\n",
        stranger.name
    );
    folder.write("policies/a/policy.cedar", &keep_out)?;
    let instance = format!("guard-test-hold-{}", std::process::id());
    let mark = 0x0066_0000 + std::process::id() % 0xffff;
    let mut agent = Agent::start(
        &AgentConfig {
            policies: Some(folder.join("policies")),
            upstream: Some(format!("{}:{}", guard_tests::hosts::SERVER, postgres.address().port()).parse()?),
            network: Some(network.server().path()),
            unix_socket: false,
            extra: format!(
                "hold = true\nsteer = \"on\"\nwhen_proxy_gone = \"refuse\"\n\n[pins]\ninstance = \"{instance}\"\non_stop = \"remove\"\n\n\
                 [steering]\nmark = {mark}\n\n[masking]\nenabled = false\n"
            ),
            ..AgentConfig::default()
        },
        &postgres,
    )?;
    let result = all_at_once(&agent, &postgres, &network, &psql, &stranger);
    let _ = agent.stop();
    // What a test leaves attached would be in the way of others.
    let _ = agent.run(&["detach"]);
    result
}

fn all_at_once(
    agent: &Agent,
    postgres: &Postgres,
    network: &Hosts,
    psql: &Psql,
    stranger: &Account,
) -> Result<()> {
    run::eventually("statements being held", Duration::from_secs(20), || {
        Ok(agent.log().contains("are held until policy has decided"))
    })?;
    let before = psql.query(TRACES)?.expect_ok("looking")?.stdout;
    let steered = || -> Result<()> {
        let ip: std::net::IpAddr = guard_tests::hosts::SERVER.parse()?;
        let client = Psql::tcp((ip, postgres.address().port()).into(), site::USER, site::DATABASE);
        let ask = |sql: &str| {
            let mut command = client.command();
            command.args(["-A", "-t", "-q", "-c", sql]);
            run::run(network.client().enter(&command), "", CLIENT_LIMIT)
        };
        let refused = ask("DELETE FROM orders")?;
        ensure!(refused.has_sqlstate("42501"), "not by the proxy: {}", refused.stderr);
        ask("SELECT count(*) FROM orders")?.expect_ok("what is allowed")?;
        Ok(())
    };
    steered()?;
    for round in 0..10 {
        let lines: String = (0..TIMES / 10)
            .map(|n| format!("DELETE FROM orders WHERE id = {};\n", 1 + (round * TIMES / 10 + n) % 20))
            .collect();
        let finished = psql.script(&lines)?;
        let cancelled = finished.stderr.matches("57014").count();
        ensure!(cancelled == TIMES / 10, "{cancelled} cancelled: {}", finished.stderr);
        steered()?;
        // Where it is cut late, what it sends has been held.
        postgres.psql_unix(postgres::OWNER, site::DATABASE).script_as(stranger, "DELETE FROM orders;\n")?;
    }
    assert_eq!(psql.query(TRACES)?.expect_ok("looking")?.stdout, before);
    // What was held and refused did not run, and is not recorded as if it had.
    std::thread::sleep(Duration::from_secs(2));
    let records = agent.records()?;
    let statements = records::bodies(&records, "statement");
    let ran = statements.iter().find(|one| {
        text(one, "evidence") == "probe" && text(one, "text").to_lowercase().starts_with("delete")
    });
    ensure!(ran.is_none(), "{ran:?}");
    let by_stranger = |opened: &&serde_json::Value| text(&opened["workload"], "user") == stranger.name;
    let opened = records::bodies(&records, "connection_opened");
    let of_stranger: Vec<_> = opened.into_iter().filter(by_stranger).collect();
    let stopped = of_stranger
        .iter()
        .filter(|opened| ["REFUSED_IN_KERNEL", "CUT"].contains(&text(&opened["enforcement"], "action")))
        .count();
    ensure!(stopped > 0 && stopped == of_stranger.len(), "{of_stranger:?}");
    let refused = statements
        .iter()
        .filter(|one| text(one, "evidence") == "hold" && verdict(one) == "REFUSED")
        .filter(|one| text(one, "workload") == "psql")
        .map(|one| records::number(one, "executions").max(1))
        .sum::<u64>();
    ensure!(refused >= TIMES as u64, "{refused} refusals are on record");
    Ok(())
}
