//! `guard-control agents`: who reports, how far, and what is wrong with whom; and what to do about it.

use clap::{Args, Subcommand};
use comfy_table::{Cell, Color};
use guard_common::{
    api::control::Agent,
    audit::{checkpoint::PublicKey, display::short},
};
use uuid::Uuid;

use super::{output, place::Place, source::Source};
use crate::enrol;

/// Options of `agents`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AgentsArgs {
    #[command(subcommand)]
    command: Option<AgentsCommand>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Subcommand)]
enum AgentsCommand {
    /// Take an agent's certificates from it: its stream ends within seconds, and it is heard no more
    Revoke {
        /// Its id, as `guard-control agents` shows it
        agent: Uuid,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        place: Place,
    },
    /// Take a key as the one that signs an agent's chain, where the key before was lost
    TrustKey {
        /// Its id, as `guard-control agents` shows it
        agent: Uuid,
        /// The public key, as `guard-agent audit key` shows it on the host
        key: PublicKey,
        #[command(flatten)]
        place: Place,
    },
}

/// Runs `agents`.
pub fn run(args: &AgentsArgs) -> anyhow::Result<()> {
    match &args.command {
        None => list(args),
        Some(AgentsCommand::Revoke { agent, reason, place }) => {
            let revoked = place.beside(async |store| Ok(enrol::revoke(store, *agent, reason).await?))?;
            anyhow::ensure!(revoked > 0, "agent {agent} has no certificate that could be revoked");
            output::write(format!("revoked: {revoked} certificates of agent {agent}\n").as_bytes())
        }
        Some(AgentsCommand::TrustKey { agent, key, place }) => {
            let known = place.beside(async |store| Ok(enrol::trust_key(store, *agent, key).await?))?;
            anyhow::ensure!(known, "there is no agent {agent}: see `guard-control agents`");
            output::write(format!("key {} signs for agent {agent}\n", key.id()).as_bytes())
        }
    }
}

/// Prints the agents.
fn list(args: &AgentsArgs) -> anyhow::Result<()> {
    let agents = args.source.agents()?;
    if args.json {
        return output::json_lines(agents.iter().map(serde_json::to_value));
    }
    if agents.is_empty() {
        return output::write(b"no agent has reported yet\n");
    }
    let mut table = output::table(&[
        "host",
        "agent",
        "version",
        "mode",
        "connected",
        "last seen",
        "records",
        "signed",
        "certificate",
        "gaps",
        "alarm",
    ]);
    for agent in &agents {
        table.add_row(row(agent));
    }
    output::print(&table)
}

fn row(agent: &Agent) -> Vec<Cell> {
    let connected = match agent.connected {
        true => Cell::new("yes").fg(Color::Green),
        false => Cell::new("no"),
    };
    let gaps = match agent.missing {
        0 => agent.gaps.to_string(),
        missing => format!("{}, {missing} records never came", agent.gaps),
    };
    vec![
        Cell::new(short(&agent.host, 40)),
        Cell::new(&agent.agent_id),
        Cell::new(short(&agent.agent_version, 20)),
        Cell::new(short(&agent.mode, 20)),
        connected,
        Cell::new(output::time(agent.last_seen.as_ref())),
        Cell::new(agent.stored_sequence),
        Cell::new(agent.signed_sequence),
        certificate(agent),
        Cell::new(gaps),
        Cell::new(short(&agent.alarm, 200)).fg(Color::Red),
    ]
}

fn certificate(agent: &Agent) -> Cell {
    match (&agent.certificate_expires, agent.revoked) {
        (_, true) => Cell::new("revoked").fg(Color::Red),
        (None, false) => Cell::new("none"),
        (Some(expires), false) => Cell::new(format!("until {}", output::time(Some(expires)))),
    }
}
