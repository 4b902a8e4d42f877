//! `guard-control agents`: who reports, how far, and what is wrong with whom.

use clap::Args;
use comfy_table::{Cell, Color};
use guard_common::{api::control::Agent, audit::display::short};

use super::{output, source::Source};

/// Options of `agents`.
#[derive(Debug, Args)]
pub struct AgentsArgs {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// Prints the agents.
pub fn run(args: &AgentsArgs) -> anyhow::Result<()> {
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
        Cell::new(gaps),
        Cell::new(short(&agent.alarm, 200)).fg(Color::Red),
    ]
}
