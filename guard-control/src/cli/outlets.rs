//! `guard-control outlets`: what has left to where, and what waits.

use clap::{Args, Subcommand};
use comfy_table::{Cell, Color};
use guard_common::audit::display::short;

use super::{output, place::Place};
use crate::outlets::state::{self, State};

/// Options of `outlets`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Which outlets there are stands in the file that `guard-control serve --outlets` reads: docs/outlets.md.\n\
        Exit code 1 where one of them fails."
)]
pub struct OutletsArgs {
    #[command(subcommand)]
    command: Option<OutletsCommand>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Subcommand)]
enum OutletsCommand {
    /// Forget an outlet that is not in the settings any more: under this name, it would begin anew
    Forget {
        /// Its name
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Runs `outlets`.
pub fn run(args: &OutletsArgs) -> anyhow::Result<()> {
    if let Some(OutletsCommand::Forget { name, place }) = &args.command {
        let done = place.beside(async |store| Ok(state::forget(store, name).await?))?;
        anyhow::ensure!(
            done,
            "there is no outlet `{name}`, or a server works for it: see `guard-control outlets`"
        );
        return output::write(format!("forgotten: {name}\n").as_bytes());
    }
    let states = args.place.beside(async |store| Ok(state::states(store).await?))?;
    if args.json {
        output::json_lines(states.iter().map(serde_json::to_value))?;
    } else if states.is_empty() {
        output::write(b"no outlet has begun yet: docs/outlets.md says how to have one\n")?;
    } else {
        let mut table =
            output::table(&["outlet", "kind", "running", "sent", "waiting", "missed", "failures", "problem"]);
        for state in &states {
            table.add_row(row(state));
        }
        output::print(&table)?;
    }
    let failing = states.iter().filter(|state| state.running && !state.error.is_empty()).count();
    anyhow::ensure!(
        failing == 0,
        "{failing} of {} outlets fail: their records wait in the store",
        states.len()
    );
    Ok(())
}

fn row(state: &State) -> Vec<Cell> {
    let running = match state.running {
        true => Cell::new("yes").fg(Color::Green),
        false => Cell::new("no").fg(Color::Yellow),
    };
    let missed = Cell::new(state.missed);
    vec![
        Cell::new(&state.name),
        Cell::new(&state.kind),
        running,
        Cell::new(state.sent),
        Cell::new(state.waiting),
        if state.missed > 0 { missed.fg(Color::Red) } else { missed },
        Cell::new(state.failures),
        Cell::new(short(&state.error, 200)).fg(Color::Red),
    ]
}
