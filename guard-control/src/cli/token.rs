//! `guard-control token`: what an agent needs to join.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use jiff::{SpanRelativeTo, Timestamp};
use serde_json::json;

use super::{output, place::Place};
use crate::{ca::Authority, enrol, store::micros};

/// Longest life of a token.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// Options of `token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token: it lets one agent join, once
    Create {
        /// How long it may be used: 10m, 1h, 2d
        #[arg(long, default_value = "1h", value_parser = duration)]
        ttl: Duration,
        /// What it is for, such as the host
        #[arg(long, default_value = "")]
        name: String,
        /// Where agents reach this control plane, for the command line that is shown
        #[arg(long, value_name = "URL", default_value = "https://CONTROL-PLANE:7443")]
        control: String,
        /// As one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Show which tokens there are, and who has used them
    List {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Take back a token that nobody has used
    Delete {
        /// As `token list` shows it
        id: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Runs `token`.
pub fn run(args: &TokenArgs) -> anyhow::Result<()> {
    match &args.command {
        TokenCommand::Create { ttl, name, control, json, place } => create(*ttl, name, control, *json, place),
        TokenCommand::List { json, place } => list(*json, place),
        TokenCommand::Delete { id, place } => {
            let deleted = place.beside(async |store| Ok(enrol::delete_token(store, id).await?))?;
            anyhow::ensure!(deleted, "there is no unused token `{id}`: see `guard-control token list`");
            output::write(b"deleted\n")
        }
    }
}

fn create(ttl: Duration, name: &str, control: &str, json: bool, place: &Place) -> anyhow::Result<()> {
    anyhow::ensure!(ttl <= LONGEST && !ttl.is_zero(), "--ttl must be between a second and 30 days");
    anyhow::ensure!(name.len() <= 256, "--name is longer than 256 bytes");
    let fingerprint = Authority::load(&place.keys())?.fingerprint();
    let token = place.beside(async |store| Ok(enrol::create_token(store, name, ttl).await?))?;
    if json {
        let expires = Timestamp::try_from(SystemTime::now() + ttl)?.to_string();
        let value = json!({ "token": token, "ca_fingerprint": fingerprint, "expires": expires });
        return output::json_lines([Ok(value)]);
    }
    output::write(
        format!(
            "Run this on the host, as root, and within the time. The token works once and is not shown again.\n\n  \
             guard-agent enroll --control {control} --ca-fingerprint {fingerprint} --token {token}\n"
        )
        .as_bytes(),
    )
}

fn list(json: bool, place: &Place) -> anyhow::Result<()> {
    let tokens = place.beside(async |store| Ok(enrol::tokens(store).await?))?;
    let at = |micros: i64| Timestamp::from_microsecond(micros).map(|at| at.to_string()).unwrap_or_default();
    if json {
        return output::json_lines(tokens.iter().map(|token| {
            Ok(json!({
                "id": token.id, "name": token.name, "created": at(token.created), "expires": at(token.expires),
                "used": token.used.as_ref().map(|(used, _)| at(*used)),
                "agent_id": token.used.as_ref().map(|(_, agent)| agent),
            }))
        }));
    }
    if tokens.is_empty() {
        return output::write(b"no token: `guard-control token create` makes one\n");
    }
    let now = micros(SystemTime::now());
    let mut table = output::table(&["token", "for", "expires", "used by"]);
    for token in &tokens {
        let used = match &token.used {
            Some((_, agent)) => agent.clone(),
            None if token.expires <= now => "expired".to_owned(),
            None => "-".to_owned(),
        };
        let name = guard_common::audit::display::short(&token.name, 40);
        table.add_row(vec![token.id.clone(), name, at(token.expires), used]);
    }
    output::print(&table)
}

/// `90s`, `10m`, `1h`, `2d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|_| "write it as 90s, 10m, 1h or 2d".to_owned())?;
    let duration =
        span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|error| error.to_string())?;
    duration.try_into().map_err(|_| "it must not be negative".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_people_do() {
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3_600)));
        assert_eq!(duration("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        for bad in ["", "1", "-1h", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
