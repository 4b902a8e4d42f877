//! `guard-control approvals`: deciding on statements that wait, from a terminal.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use guard_common::audit::display::{short, visible};
use serde_json::{Value, json};

use super::{output, program::Program};

/// Options of `approvals`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    guard-control approvals list\n  \
    guard-control approvals approve k3m9x2pa --reason 'ticket 4711'\n\n\
    Exit codes: 0 it worked; 1 it did not; 2 the command line is wrong; 3 your word did not count.")]
pub struct ApprovalsArgs {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    program: Program,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show what waits
    List {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Show one statement that waits, as JSON
    Show {
        /// Its id
        id: String,
    },
    /// Let it run, once
    Approve(Word),
    /// Refuse it
    Deny(Word),
}

#[derive(Debug, Args)]
struct Word {
    /// Its id
    id: String,
    /// Why; recorded
    #[arg(long, default_value = "")]
    reason: String,
}

/// Does it.
pub fn run(args: &ApprovalsArgs) -> anyhow::Result<ExitCode> {
    let all = || -> anyhow::Result<Vec<Value>> {
        let answer = args.program.get("/approvals")?;
        Ok(answer["approvals"].as_array().cloned().unwrap_or_default())
    };
    match &args.what {
        What::List { json: true } => output::json_lines(all()?.into_iter().map(Ok))?,
        What::List { json: false } => list(&all()?)?,
        What::Show { id } => {
            let one = find(all()?, id)?;
            output::write(format!("{}\n", visible_json(&one)?).as_bytes())?;
        }
        What::Approve(word) => return decide(args, all()?, word, true),
        What::Deny(word) => return decide(args, all()?, word, false),
    }
    Ok(ExitCode::SUCCESS)
}

fn visible_json(value: &Value) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(text.lines().map(visible).collect::<Vec<_>>().join("\n"))
}

fn find(all: Vec<Value>, id: &str) -> anyhow::Result<Value> {
    let mut found = all.into_iter().filter(|one| one["request"]["id"] == id);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => anyhow::bail!("several hosts have a request `{id}`: decide in the console"),
        (None, _) => anyhow::bail!("nothing with the id `{}` waits", short(id, 40)),
    }
}

fn decide(args: &ApprovalsArgs, all: Vec<Value>, word: &Word, approve: bool) -> anyhow::Result<ExitCode> {
    let one = find(all, &word.id)?;
    let agent = one["agent_id"].as_str().unwrap_or_default();
    let path = format!("/approvals/{agent}/{}/decision", word.id);
    let answer = args.program.post(&path, &json!({ "approve": approve, "reason": word.reason }))?;
    if answer["counted"] == true {
        let done = if approve { "approved" } else { "denied" };
        output::write(format!("{done} {}\n", visible(&word.id)).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "guard-control: it did not count: {}",
        visible(answer["problem"].as_str().unwrap_or("no reason given"))
    );
    Ok(ExitCode::from(3))
}

fn list(all: &[Value]) -> anyhow::Result<()> {
    if all.is_empty() {
        return output::write(b"nothing waits\n");
    }
    let mut table = output::table(&["id", "host", "who", "statement", "policy", "reason given"]);
    for one in all {
        let text = |name: &str, limit: usize| short(one["request"][name].as_str().unwrap_or_default(), limit);
        let who = format!("{}@{}", text("db_user", 40), text("database", 40));
        table.add_row([
            Cell::new(text("id", 20)),
            Cell::new(short(one["host"].as_str().unwrap_or_default(), 40)),
            Cell::new(who),
            Cell::new(text("text", 200)),
            Cell::new(text("policy", 60)),
            Cell::new(text("justification", 100)),
        ]);
    }
    output::print(&table)
}
