//! `guard-control policy`: versions for the fleet, who runs which, and what a change would have done.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::Cell;
use guard_common::audit::display::short;

use super::{output, place::Place, program::Program, source::Source};
use crate::{
    keys::SigningKey,
    policy::{self, dry_run::Tool},
};

/// Options of `policy`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    guard-control policy dry-run policies --days 7                     what it would have refused\n  \
    guard-control policy publish policies --note \"no bulk deletes\"     checked, tested, signed: version 4\n  \
    guard-control policy try 4 --days 7                                the same of version 4, at the console\n  \
    guard-control policy stage 4 --label canary=yes                    to the hosts with this label\n  \
    guard-control policy stage 4 --all                                 to every host\n  \
    guard-control policy rollback 3                                    version 5, with the content of 3\n  \
    guard-control policy hosts                                         who runs what")]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Check a folder, or a git checkout, run its tests, and publish it as the next version; no host runs it yet
    Publish {
        /// The policy folder
        folder: PathBuf,
        /// What changes, and why
        #[arg(long, default_value = "")]
        note: String,
        /// Do not run the tests beside the policies
        #[arg(long)]
        untested: bool,
        #[command(flatten)]
        tool: Tool,
        #[command(flatten)]
        place: Place,
    },
    /// Hand a version to hosts
    Stage {
        /// The version
        version: u64,
        /// Only to hosts with this label; may be given several times, and all of them must fit
        #[arg(
            long = "label",
            value_name = "NAME=VALUE",
            required_unless_present = "all",
            conflicts_with = "all"
        )]
        labels: Vec<String>,
        /// To every host
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Publish the content of an older version anew, and hand it to every host
    Rollback {
        /// The older version
        version: u64,
        #[command(flatten)]
        place: Place,
    },
    /// Show the versions
    Versions {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Show which version each host runs
    Hosts {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        source: Source,
    },
    /// Decide anew on what was recorded: what would have been refused
    DryRun {
        /// The policy folder
        folder: PathBuf,
        /// How far back
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: u64,
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        tool: Tool,
        #[command(flatten)]
        place: Place,
    },
    /// The same by a version that is published, at a console and with its rights: one JSON object
    Try {
        /// The version
        version: u64,
        /// How far back
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: u64,
        #[command(flatten)]
        program: Program,
    },
}

/// Runs `policy`.
pub fn run(args: &PolicyArgs) -> anyhow::Result<()> {
    match &args.command {
        PolicyCommand::Publish { folder, note, untested, tool, place } => {
            publish(folder, note, (!untested).then_some(tool), place)
        }
        PolicyCommand::Stage { version, labels, all: _, place } => {
            let labels: policy::Labels =
                labels.iter().map(|text| policy::label(text)).collect::<Result<_, _>>()?;
            place.beside(async |store| Ok(policy::stage(store, *version, &labels, &author()).await?))?;
            output::write(format!("version {version} goes out\n").as_bytes())
        }
        PolicyCommand::Rollback { version, place } => rollback(*version, place),
        PolicyCommand::Versions { json, place } => versions(*json, place),
        PolicyCommand::Hosts { json, source } => hosts(*json, source),
        PolicyCommand::DryRun { folder, days, json, tool, place } => {
            dry_run(folder, *days, *json, tool, place)
        }
        PolicyCommand::Try { version, days, program } => try_out(*version, *days, program),
    }
}

/// Whoever runs this, for the record.
fn author() -> String {
    let name = |key: &str| std::env::var(key).ok().filter(|name| !name.is_empty());
    let mut author = name("SUDO_USER").or_else(|| name("USER")).unwrap_or_else(|| "somebody".to_owned());
    author.truncate(author.floor_char_boundary(256));
    author
}

fn publish(folder: &Path, note: &str, tool: Option<&Tool>, place: &Place) -> anyhow::Result<()> {
    let (files, _) = policy::read(folder)?;
    if let Some(tool) = tool {
        test(folder, tool)?;
    }
    let key = SigningKey::load(&place.keys())?;
    let note = match revision(folder) {
        Some(revision) => format!("{note} [{revision}]").trim().to_owned(),
        None => note.to_owned(),
    };
    let by = author();
    let version = place.beside(async |store| Ok(policy::publish(store, &key, files, (&by, &note)).await?))?;
    let number = version.number;
    output::write(
        format!("version {number} is published; hand it out with `guard-control policy stage {number} --label ..`\n")
            .as_bytes(),
    )
}

fn test(folder: &Path, tool: &Tool) -> anyhow::Result<()> {
    let mut command = tool.command();
    let output = command.args(["policy", "test"]).arg(folder).stdin(Stdio::null()).output().context(
        "the tests beside the policies are run by `guard-agent policy test`, and there is no guard-agent here: name it \
         with --guard-agent, or go without by --untested",
    )?;
    let said = [output.stdout, output.stderr].concat();
    anyhow::ensure!(
        output.status.success(),
        "the tests fail, and nothing was published:\n{}",
        String::from_utf8_lossy(&said)
    );
    Ok(())
}

/// The commit of a git checkout, where it is one.
fn revision(folder: &Path) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["describe", "--always", "--dirty"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(format!("git {}", text.trim()))
}

fn rollback(version: u64, place: &Place) -> anyhow::Result<()> {
    let key = SigningKey::load(&place.keys())?;
    let by = author();
    let new = place.beside(async |store| Ok(policy::rollback(store, &key, version, &by).await?))?;
    output::write(
        format!("version {}, with the content of version {version}, goes to every host\n", new.number)
            .as_bytes(),
    )
}

fn versions(json: bool, place: &Place) -> anyhow::Result<()> {
    let versions = place.beside(async |store| Ok(policy::versions(store).await?))?;
    let at =
        |micros: i64| jiff::Timestamp::from_microsecond(micros).map(|at| at.to_string()).unwrap_or_default();
    if json {
        return output::json_lines(versions.iter().map(|version| {
            Ok(serde_json::json!({
                "version": version.number, "at": at(version.at), "author": version.author, "note": version.note,
                "hash": version.hash, "key_id": version.key_id,
            }))
        }));
    }
    if versions.is_empty() {
        return output::write(b"no version: `guard-control policy publish` makes the first one\n");
    }
    let mut table = output::table(&["version", "published", "by", "note", "hash"]);
    for version in &versions {
        table.add_row([
            version.number.to_string(),
            at(version.at),
            short(&version.author, 40),
            short(&version.note, 80),
            version.hash.get(..12).unwrap_or_default().to_owned(),
        ]);
    }
    output::print(&table)
}

fn hosts(json: bool, source: &Source) -> anyhow::Result<()> {
    let agents = source.agents()?;
    if json {
        return output::json_lines(agents.iter().map(serde_json::to_value));
    }
    let mut table = output::table(&["host", "agent", "version", "hash", "problem"]);
    for agent in &agents {
        let version = match agent.policy_version {
            0 => "its own".to_owned(),
            version => version.to_string(),
        };
        table.add_row(vec![
            Cell::new(short(&agent.host, 40)),
            Cell::new(&agent.agent_id),
            Cell::new(version),
            Cell::new(agent.policy_hash.get(..12).unwrap_or_default()),
            Cell::new(short(&agent.policy_error, 200)),
        ]);
    }
    output::print(&table)
}

fn dry_run(folder: &Path, days: u64, json: bool, tool: &Tool, place: &Place) -> anyhow::Result<()> {
    policy::read(folder)?;
    let mut replay = tool.replay(folder, json, false)?;
    let mut written = Ok(());
    let opened = place.beside(async |store| {
        written = replay.write(store, days, None).await;
        Ok(())
    });
    // Whoever waits for records is told that there are no more, the store being there or not.
    let finished = replay.finish(written);
    opened?;
    Ok(finished.map(drop)?)
}

/// How often it is asked whether a dry run is over.
const ASKED: Duration = Duration::from_secs(1);

fn try_out(version: u64, days: u64, program: &Program) -> anyhow::Result<()> {
    let path = format!("/policies/{version}/dry-run");
    let mut run = program.post(&path, &serde_json::json!({ "days": days }))?;
    while run["state"] == "running" {
        std::thread::sleep(ASKED);
        run = program.get(&path)?;
    }
    match run["state"] == "done" {
        true => output::json_lines([Ok(run["result"].clone())]),
        false => anyhow::bail!("{}", run["error"].as_str().unwrap_or("the dry run has failed")),
    }
}
