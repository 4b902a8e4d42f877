//! The step in which a statement waits for a person at another terminal.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use guard_tests::{
    Account, Folder, Site,
    records::{self, text},
    run::{self, CLIENT_LIMIT},
};

use super::{masking, show::Show};
use crate::shell;

/// What the demo adds to the policies built into the agent.
const POLICY: &str = r#"@id("orders-are-deleted-by-two")
@reason("deleted orders are gone")
@approval("guard-demo-dba")
@within("2m")
forbid (principal, action == Guard::Action::"delete", resource)
when { resource.kind == "table" && resource.name == "orders" };
"#;

/// What it adds about ways round the proxy.
const ROUND: &str = r#"@id("ai-agents-stay-on-the-way")
@reason("programs started by an AI agent go through the proxy")
forbid (principal, action == Guard::Action::"connect", resource)
when { principal.agent && !context.proxied };
"#;

const DELETE: &str = "/* reason: cancelled by customer, ticket 4711 */ DELETE FROM orders WHERE id <= 3";

/// A policy folder: the built-in policies, one by which a DELETE waits, one that lets AI agents not go round the proxy, and
/// those that say who sees what.
pub fn policies() -> Result<Folder> {
    let folder = Folder::new("demo-policies")?;
    copy(&shell::root().join("policies"), folder.path())?;
    fs::create_dir_all(folder.join("demo-approvals"))?;
    folder.write("demo-approvals/policy.cedar", POLICY)?;
    fs::create_dir_all(folder.join("demo-round"))?;
    folder.write("demo-round/policy.cedar", ROUND)?;
    fs::create_dir_all(folder.join("demo-masking"))?;
    folder.write("demo-masking/policy.cedar", masking::POLICY)?;
    Ok(folder)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A DELETE that waits, is approved from another terminal, and runs once.
pub fn step(show: &mut Show, site: &Site) -> Result<()> {
    show.section(
        "A risky change waits for a person",
        "The DELETE stays where it is, in psql; somebody else approves it on the database's host, and it runs once.",
    );
    let Some(requester) = Account::named("nobody")? else {
        show.output("This host has no account `nobody` to ask as: left out.");
        return Ok(());
    };
    let folder = Folder::new("demo-approval")?;
    let psql = site.proxied();
    show.command(&format!("{} -c \"{DELETE}\"   -- as the user {}", psql.shown(), requester.name));
    let before = site.rows("orders")?;
    let mut client = psql.start_as(&requester, DELETE, &folder.join("psql.log"))?;
    let mut waiting = Vec::new();
    let waits = run::eventually("a request", CLIENT_LIMIT, || {
        let listed = site.agent.run(&["approvals", "list", "--json"])?;
        waiting = records::parse(&listed.stdout)?;
        Ok(!waiting.is_empty() && client.log().contains("HINT"))
    });
    show.output(&client.log());
    show.found("psql waits, and says for whom", waits);
    let Some(id) = waiting.first().map(|request| text(request, "id").to_owned()) else { return Ok(()) };
    let untouched = client.alive() && site.rows("orders")? == before;
    show.check("nothing has run meanwhile", untouched, &client.log());

    show.section("Another terminal", "What root sees, who is not the one who asks.");
    let mut shown = String::new();
    let estimated = run::eventually("the estimate", CLIENT_LIMIT, || {
        shown = site.agent.run(&["approvals", "show", &id])?.stdout;
        Ok(shown.contains("rows           about"))
    });
    show.command(&format!("guard-agent approvals show {id}"));
    show.output(&shown);
    show.found("with what it does, how many rows, who and why", estimated);
    let own = requester.in_person(&site.agent.command(&["approvals", "approve", &id])?);
    let own = run::run(own, "", CLIENT_LIMIT)?;
    show.check("whoever asks cannot approve it", !own.ok(), &own.stderr);
    show.command(&format!("guard-agent approvals approve {id} --reason \"looked at it\""));
    let approved = site.agent.run(&["approvals", "approve", &id, "--reason", "looked at it"])?;
    show.output(&approved.stdout);
    show.check("it is approved", approved.ok(), &approved.stderr);
    let ended = run::eventually("psql ending", CLIENT_LIMIT, || Ok(!client.alive()));
    show.output(&client.log());
    let ran = ended.is_ok() && site.rows("orders")? == before.map(|rows| rows - 3);
    show.check("the DELETE has run", ran, &client.log());
    let again = site.agent.run(&["approvals", "approve", &id])?;
    let once = again.code == Some(3) && site.rows("orders")? == before.map(|rows| rows - 3);
    show.check("once: approving it again changes nothing", once, &again.stderr);
    let record = site.wait_for("approval", "that it ran", |body| {
        text(body, "event") == "RAN" && text(body, "request_id") == id
    });
    show.found("request, approval and run are in the journal", record);
    Ok(())
}
