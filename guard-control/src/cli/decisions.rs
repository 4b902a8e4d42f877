//! `guard-control decisions`: what was decided, the newest first.

use clap::{Args, ValueEnum};
use comfy_table::Cell;
use guard_common::{
    api::control::{
        ClaimedClient, DecisionsRequest, RemoteClient, StoredDecision, remote_client::Known,
        stored_decision::Subject,
    },
    audit::{
        display::short,
        v1::{
            ConnectionOpened, Decision, Statement, Workload,
            connection_opened::{Access, Transport},
        },
    },
};
use jiff::tz::TimeZone;
use pbjson_types::Timestamp;

use super::{output, source::Source};
use crate::moment;

/// Options of `decisions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    guard-control decisions --verdict refused --limit 20\n  \
    guard-control decisions --non-proxied --from 2026-11-22 --to 2026-11-23\n  \
    guard-control decisions --from 2h\n  \
    guard-control decisions --contains customers --json | jq -r .statement.text")]
pub struct DecisionsArgs {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// How many, the newest first
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only decisions with this verdict
    #[arg(long)]
    verdict: Option<VerdictArg>,
    /// Only connections, or only statements
    #[arg(long)]
    kind: Option<KindArg>,
    /// Only access that went round the proxy
    #[arg(long)]
    non_proxied: bool,
    /// Only this agent's (its id, as `guard-control agents` shows it)
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Only where the statement, the executable, the workload, the database user or the policy contains this
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
    /// Only what happened then or later: 2026-11-22, 2026-11-22T18:00, with a zone as in 2026-11-22T18:00:00Z, or how long
    /// ago as in 2h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<Timestamp>,
    /// Only what happened before
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<Timestamp>,
    #[command(flatten)]
    source: Source,
}

/// In the zone of whoever writes it.
fn moment(text: &str) -> Result<Timestamp, String> {
    moment::read(text, &TimeZone::system())
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum VerdictArg {
    /// It went on
    Allowed,
    /// It did not happen
    Refused,
    /// Policy refuses it, but guard was only watching
    #[value(alias = "would-refuse")]
    WouldRefuse,
    /// It would have waited for people, but guard was only watching
    #[value(alias = "would-hold")]
    WouldHold,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    Connection,
    Statement,
}

/// Prints the decisions.
pub fn run(args: &DecisionsArgs) -> anyhow::Result<()> {
    let found = args.source.decisions(request(args), args.limit as usize)?;
    if args.json {
        return output::json_lines(found.iter().map(serde_json::to_value));
    }
    if found.is_empty() {
        return output::write(b"no decision matches\n");
    }
    let mut table = output::table(&["time", "host", "verdict", "who", "what", "policy"]);
    for decision in &found {
        table.add_row(row(decision));
    }
    output::print(&table)
}

fn request(args: &DecisionsArgs) -> DecisionsRequest {
    let verdict = args.verdict.map_or("", |verdict| match verdict {
        VerdictArg::Allowed => "allowed",
        VerdictArg::Refused => "refused",
        VerdictArg::WouldRefuse => "would_refuse",
        VerdictArg::WouldHold => "would_hold",
    });
    let kind = args.kind.map_or("", |kind| match kind {
        KindArg::Connection => "connection",
        KindArg::Statement => "statement",
    });
    DecisionsRequest {
        verdict: verdict.to_owned(),
        kind: kind.to_owned(),
        agent_id: args.agent.clone().unwrap_or_default(),
        non_proxied: args.non_proxied,
        contains: args.contains.clone().unwrap_or_default(),
        since: args.from,
        until: args.to,
        ..DecisionsRequest::default()
    }
}

fn row(stored: &StoredDecision) -> Vec<Cell> {
    let nothing = Decision::default();
    let (decision, who, what) = match &stored.subject {
        Some(Subject::Connection(connection)) => {
            let mut workload = connection.workload.as_ref().map_or_else(|| "-".to_owned(), describe);
            if let Some(remote) = &stored.remote {
                workload.push_str(&reported(remote));
            }
            (connection.decision.as_ref(), workload, connect(connection))
        }
        Some(Subject::Statement(statement)) => {
            (statement.decision.as_ref(), login(statement), short(&statement.text, 200))
        }
        None => (None, "-".to_owned(), "-".to_owned()),
    };
    let decision = decision.unwrap_or(&nothing);
    vec![
        Cell::new(output::time(stored.at.as_ref())),
        Cell::new(short(&stored.host, 40)),
        output::verdict(decision.verdict()),
        Cell::new(who),
        Cell::new(what),
        Cell::new(short(&decision.policy, 60)),
    ]
}

/// What other hosts' agents say of the client, each by its host.
fn reported(remote: &RemoteClient) -> String {
    let claim = |one: &ClaimedClient| {
        let who = one.workload.as_ref().map_or_else(|| "-".to_owned(), describe);
        let doubt = if one.uncertain { ", uncertain" } else { "" };
        format!("{who} (reported by {}{doubt})", short(&one.host, 40))
    };
    let claims: Vec<String> = remote.claims.iter().map(claim).collect();
    match remote.known() {
        Known::Reported => format!("\n{}", claims.join("; ")),
        Known::Conflict => format!("\nCLAIMED BY SEVERAL: {}", claims.join("; ")),
        Known::Unbelievable => format!("\nUNBELIEVABLE: {}", claims.join("; ")),
        Known::Nobody | Known::Unspecified => String::new(),
    }
}

/// A workload in one line.
fn describe(workload: &Workload) -> String {
    if workload.executable.is_empty() && !workload.remote_address.is_empty() {
        return short(&workload.remote_address, 60);
    }
    let mut text = format!("{} [{}]", short(&workload.executable, 60), workload.pid);
    let names = [("user", &workload.user), ("unit", &workload.unit), ("agent", &workload.ai_agent)];
    for (label, name) in names.into_iter().filter(|(_, name)| !name.is_empty()) {
        text.push_str(&format!(" {label} {}", short(name, 40)));
    }
    text
}

fn connect(connection: &ConnectionOpened) -> String {
    let how = match connection.access() {
        Access::Proxied => "connect",
        Access::NonProxied => "connect round the proxy",
        Access::Unspecified => "connect (way unknown)",
    };
    let server = connection.server.as_ref().map_or("", |server| &server.name);
    let place = match connection.transport() {
        Transport::Unix => &connection.unix_path,
        Transport::Tcp | Transport::Unspecified => &connection.server_address,
    };
    format!("{how} to {} at {}", short(server, 40), short(place, 80))
}

fn login(statement: &Statement) -> String {
    format!(
        "{} as {}@{}",
        short(&statement.workload, 60),
        short(&statement.db_user, 40),
        short(&statement.database, 40)
    )
}
