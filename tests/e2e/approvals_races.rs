//! Several people, and several clients, at the same moment: what is approved runs once.

use std::{
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use guard_tests::{AgentConfig, records::text, run::CLIENT_LIMIT};
use nix::sys::signal::Signal;

use crate::approvals::desk;

#[test]
fn many_approvals_at_once_are_one() -> Result<()> {
    let Some(desk) = desk(AgentConfig::default())? else { return Ok(()) };
    let insert = "WITH gone AS (DELETE FROM orders WHERE id = 1 RETURNING id) SELECT count(*) FROM gone";
    let mut psql = desk.ask(insert, "log")?;
    let id = desk.one_id()?;
    let clerks = (0..24).map(|number| -> Result<_> {
        let mut command = desk.command(&["approve", &id])?;
        if number % 2 == 0 {
            command = desk.colleague.in_person(&command);
        }
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
    });
    let clerks: Vec<_> = clerks.collect::<Result<_>>()?;
    let mut told = Vec::new();
    for clerk in clerks {
        let output = clerk.wait_with_output()?;
        told.push((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    assert_eq!(told.iter().filter(|(code, _)| *code == Some(0)).count(), 1, "{told:?}");
    assert!(told.iter().all(|(code, _)| [Some(0), Some(3)].contains(code)), "{told:?}");
    desk.ended(&mut psql)?;
    assert_eq!(desk.events(&id)?, ["REQUESTED", "APPROVED", "RAN"]);
    assert_eq!(desk.rows("orders")?, 19);
    Ok(())
}

#[test]
fn of_an_approval_and_a_cancel_one_wins() -> Result<()> {
    let Some(desk) = desk(AgentConfig::default())? else { return Ok(()) };
    let mut rows = 20;
    for round in 0_u64..8 {
        let sql = format!("DELETE FROM orders WHERE id = {}", round + 1);
        let mut psql = desk.ask(&sql, &format!("log-{round}"))?;
        let id = desk.one_id()?;
        let mut clerk = desk.command(&["approve", &id])?;
        let clerk = clerk.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        thread::sleep(Duration::from_millis(round * 2));
        psql.signal(Signal::SIGINT)?;
        clerk?.wait()?;
        let log = desk.ended(&mut psql)?;
        let state = desk.show(&id)?;
        let ran = text(&state, "state") == "RAN";
        // A cancel that comes while it runs is the server's, as ever.
        let now = desk.rows("orders")?;
        assert!(ran || now == rows, "round {round}: {state} {log}");
        assert!(now + 1 >= rows, "round {round}");
        assert!(!log.contains("57014") || now == rows, "round {round}: {log}");
        rows = now;
    }
    Ok(())
}

#[test]
fn many_clients_that_send_it_again_run_it_once() -> Result<()> {
    let Some(desk) = desk(AgentConfig::default())? else { return Ok(()) };
    let update = "UPDATE customers SET name = name || '!' WHERE id = 1";
    let mut first = desk.ask(update, "first")?;
    let id = desk.one_id()?;
    desk.ended(&mut first)?;
    desk.decide("approve", &id)?;
    let clients = (0..12).map(|number| desk.ask(update, &format!("log-{number}")));
    let clients: Vec<_> = clients.collect::<Result<_>>()?;
    let started = Instant::now();
    let mut said = Vec::new();
    for mut client in clients {
        said.push(desk.ended(&mut client)?);
    }
    assert!(started.elapsed() < CLIENT_LIMIT);
    let name = desk.site.direct_unix().query("SELECT name FROM customers WHERE id = 1")?;
    let name = name.stdout.trim_end();
    anyhow::ensure!(
        name.ends_with('!') && !name.ends_with("!!"),
        "{name}: {:?} {}\n{}",
        desk.events(&id)?,
        desk.show(&id)?,
        said.join("\n")
    );
    Ok(())
}
