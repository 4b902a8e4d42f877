//! People decide on statements that wait, from another terminal.

use std::time::Duration;

use anyhow::Result;
use guard_tests::{
    AgentConfig,
    approvals::Desk,
    records::{self, number, text, texts},
    run::{self, CLIENT_LIMIT},
    skip::{self, Need},
    workload::AiAgent,
};
use nix::sys::signal::Signal;

/// A desk, or nothing where the test has to be skipped.
pub(crate) fn desk(config: AgentConfig) -> Result<Option<Desk>> {
    if skip::without(&[Need::Postgres, Need::Ebpf]) { Ok(None) } else { Desk::with(config) }
}

const DELETE: &str = "DELETE FROM orders WHERE id <= 3";

#[test]
fn what_is_approved_runs_once_and_all_of_it_is_on_record() -> Result<()> {
    let Some(desk) = desk(AgentConfig::default())? else { return Ok(()) };
    let mut psql = desk.ask(&format!("/* reason: ticket 4711 */ {DELETE}"), "log")?;
    let request = desk.one()?;
    let id = text(&request, "id");
    assert_eq!(desk.rows("orders")?, 20);
    assert!(psql.alive());
    assert_eq!((text(&request, "db_user"), text(&request, "database")), ("app", "shop"));
    assert_eq!(text(&request, "justification"), "ticket 4711");
    assert!(!text(&request, "text").contains("<= 3"), "literals are not shown: {}", text(&request, "text"));
    assert_eq!(texts(&request, "effects_in_words")[0], "deletes rows of table orders");
    let workload = request.get("workload").cloned().unwrap_or_default();
    assert_eq!((text(&workload, "user"), text(&workload, "evidence")), ("nobody", "ATTESTED"));
    assert!(!records::objects(&workload, "ancestry").is_empty());
    run::eventually("the estimate", CLIENT_LIMIT, || {
        Ok(text(&desk.show(id)?, "estimate").starts_with("about ")
            && text(&desk.show(id)?, "estimate").ends_with("of orders (delete)"))
    })?;
    assert!(text(&desk.show(id)?, "full_text").contains("id <= 3"));
    let person = desk.approvals(None, &["show", id])?.expect_ok("approvals show")?.stdout;
    assert!(person.contains("deletes rows of table orders") && person.contains("may decide"), "{person}");
    assert_eq!(number(&desk.site.agent.status()?["approvals"], "waiting"), 1);

    desk.decide("approve", id)?;
    let log = desk.ended(&mut psql)?;
    assert!(log.contains("ZG001") && log.contains(id) && !log.contains("ERROR"), "{log}");
    assert_eq!(desk.rows("orders")?, 17);
    assert_eq!(desk.events(id)?, ["REQUESTED", "APPROVED", "RAN"]);
    let statement = desk.site.wait_for("statement", "the statement that ran", |statement| {
        text(&statement["decision"], "approval_request") == id
    })?;
    assert_eq!(records::verdict(&statement), "ALLOWED");
    let second = desk.approvals(None, &["approve", id])?;
    assert_eq!(second.code, Some(3), "{}", second.stderr);
    assert_eq!(desk.rows("orders")?, 17);
    desk.verify()
}

#[test]
fn what_is_denied_or_late_is_refused_and_the_session_goes_on() -> Result<()> {
    let Some(desk) = desk(AgentConfig::default())? else { return Ok(()) };
    let mut psql = desk.ask(DELETE, "denied")?;
    let id = desk.one_id()?;
    desk.decide("deny", &id)?;
    let log = desk.ended(&mut psql)?;
    assert!(log.contains("42501") && log.contains("denied by root: as agreed"), "{log}");

    let late = "INSERT INTO orders VALUES (100, 1, 1);\nSELECT 'goes on';\n";
    let finished = desk.site.proxied().script_as(&desk.requester, late)?;
    assert!(finished.has_sqlstate("42501") && finished.stdout.contains("goes on"), "{}", finished.stderr);
    assert!(finished.stderr.contains("nobody approved it in time"), "{}", finished.stderr);
    assert_eq!(desk.rows("orders")?, 20);
    assert_eq!(desk.events(&id)?, ["REQUESTED", "DENIED"]);
    desk.verify()
}

#[test]
fn ctrl_c_gives_up_what_waits_and_so_does_leaving() -> Result<()> {
    let Some(desk) = desk(AgentConfig::default())? else { return Ok(()) };
    let mut psql = desk.ask(DELETE, "cancelled")?;
    let id = desk.one_id()?;
    psql.signal(Signal::SIGINT)?;
    let log = desk.ended(&mut psql)?;
    assert!(log.contains("57014"), "{log}");
    assert_eq!(desk.approvals(None, &["approve", &id])?.code, Some(3));

    let mut psql = desk.ask(DELETE, "gone")?;
    let id = desk.one_id()?;
    psql.kill()?;
    run::eventually("the request going with its client", CLIENT_LIMIT, || Ok(desk.waiting()?.is_empty()))?;
    assert_eq!(desk.approvals(None, &["approve", &id])?.code, Some(3));
    run::eventually("its end on record", CLIENT_LIMIT, || {
        Ok(desk.events(&id)? == ["REQUESTED", "WITHDRAWN"])
    })?;
    assert_eq!(desk.rows("orders")?, 20);
    Ok(())
}

#[test]
fn what_waited_when_the_agent_was_killed_never_runs() -> Result<()> {
    let Some(mut desk) = desk(AgentConfig::default())? else { return Ok(()) };
    let mut psql = desk.ask(DELETE, "log")?;
    let id = desk.one_id()?;
    desk.site.agent.kill()?;
    desk.ended(&mut psql)?;
    desk.site.agent.restart()?;
    let request = desk.show(&id)?;
    assert_eq!(text(&request, "state"), "WITHDRAWN");
    assert_eq!(desk.approvals(None, &["approve", &id])?.code, Some(3));
    assert_eq!(desk.rows("orders")?, 20);
    // An agent that stops in good order refuses what waits.
    let mut psql = desk.ask(DELETE, "stopped")?;
    let id = desk.one_id()?;
    desk.site.agent.restart()?;
    let log = desk.ended(&mut psql)?;
    assert!(log.contains("42501") && log.contains("stopping"), "{log}");
    assert_eq!(text(&desk.show(&id)?, "state"), "WITHDRAWN");
    assert_eq!(desk.rows("orders")?, 20);
    desk.verify()
}

#[test]
fn only_other_people_of_the_group_decide() -> Result<()> {
    let Some(desk) = desk(AgentConfig::default())? else { return Ok(()) };
    // The one who runs the tests asks, and may not decide.
    let mut own = desk.site.proxied().start(DELETE, &desk.log("own"))?;
    let id = desk.one_id()?;
    let refused = desk.approvals(None, &["approve", &id])?;
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    assert!(refused.stderr.contains("your own request"), "{}", refused.stderr);
    // Who is in no group does not even see it.
    let stranger = desk.approvals(Some(&desk.requester), &["approve", &id])?;
    assert_eq!(stranger.code, Some(5), "{}", stranger.stderr);
    let seen = desk.approvals(Some(&desk.requester), &["list", "--json"])?.expect_ok("list")?;
    assert_eq!(seen.stdout, "");
    assert_eq!(desk.approvals(None, &["approve", "nothere1"])?.code, Some(5));
    // An AI agent does not decide, whoever has started it.
    let robot = AiAgent::new()?;
    let refused = robot.run_command(&desk.command(&["approve", &id])?, Some(&desk.colleague))?;
    assert_eq!(refused.code, Some(4), "{} {}", refused.stdout, refused.stderr);
    assert!(refused.stderr.contains("AI agent"), "{}", refused.stderr);
    assert!(own.alive());
    assert_eq!(desk.rows("orders")?, 20);
    // A colleague who is not root does.
    desk.approvals(Some(&desk.colleague), &["approve", &id])?.expect_ok("approve")?;
    desk.ended(&mut own)?;
    assert_eq!(desk.rows("orders")?, 17);
    Ok(())
}

#[test]
fn two_people_are_two_people() -> Result<()> {
    let Some(desk) = desk(AgentConfig::default())? else { return Ok(()) };
    let mut psql = desk.ask("TRUNCATE orders", "log")?;
    let id = desk.one_id()?;
    let first = desk.decide("approve", &id)?;
    assert!(first.stdout.contains("still needed: 1 of guard-dba"), "{}", first.stdout);
    assert_eq!(desk.approvals(None, &["approve", &id])?.code, Some(3), "nobody counts twice");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((psql.alive(), desk.rows("orders")?), (true, 20));
    desk.approvals(Some(&desk.colleague), &["approve", &id])?.expect_ok("approve")?;
    desk.ended(&mut psql)?;
    assert_eq!(desk.rows("orders")?, 0);
    assert_eq!(desk.events(&id)?, ["REQUESTED", "APPROVED", "APPROVED", "RAN"]);
    Ok(())
}

#[test]
fn in_monitor_mode_it_is_only_recorded() -> Result<()> {
    let Some(desk) = desk(AgentConfig { mode: "monitor", ..AgentConfig::default() })? else { return Ok(()) };
    let finished = desk.site.proxied().script_as(&desk.requester, &format!("{DELETE};\n"))?;
    assert!(finished.ok() && finished.stderr.is_empty(), "{}", finished.stderr);
    assert_eq!(desk.rows("orders")?, 17);
    desk.site.wait_for("statement", "that it would have waited", |statement| {
        records::verdict(statement) == "WOULD_HOLD"
    })?;
    Ok(())
}

#[test]
fn a_reason_breaks_the_glass_where_a_policy_lets_it() -> Result<()> {
    let Some(desk) = desk(AgentConfig::default())? else { return Ok(()) };
    let update = "UPDATE customers SET name = 'x' WHERE id = 1;\n";
    let finished = desk.site.proxied().script_as(&desk.requester, update)?;
    assert!(finished.has_sqlstate("42501"), "{}", finished.stderr);
    let reasoned = format!("/* reason: the name is offensive, ticket 12 */ {update}");
    let finished = desk.site.proxied().script_as(&desk.requester, &reasoned)?;
    assert!(finished.ok() && finished.stderr.contains("ZG002"), "{}", finished.stderr);
    let broken =
        desk.site.wait_for("approval", "the break-glass", |body| text(body, "event") == "BREAK_GLASS")?;
    assert_eq!(text(&broken, "policy"), "oncall");
    assert_eq!(text(&broken["person"], "user"), "nobody");
    assert!(desk.site.agent.log().contains("BREAK-GLASS"));
    // The same by what the client calls itself.
    let named = desk.site.proxied().variable("PGAPPNAME", "psql reason=ticket 13");
    let finished = named.script_as(&desk.requester, update)?;
    assert!(finished.ok(), "{}", finished.stderr);
    Ok(())
}
