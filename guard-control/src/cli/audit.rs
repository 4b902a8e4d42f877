//! `guard-control audit`: proofs for those who do not take the control plane's word.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, Subcommand};
use guard_common::audit::{
    checkpoint::PublicKey,
    proof::{Consistency, Inclusion, TreeHead},
};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{output, place::Place};
use crate::{keys::SigningKey, proof};

/// Options of `audit`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    guard-control audit key                                             keep it, away from here\n  \
    guard-control audit head --output head-2026-11.json                 keep that too\n  \
    guard-control audit prove --agent ID --sequence 4711 --output proof.json\n  \
    guard-control audit prove --since head-2026-11.json --output grown.json\n  \
    guard-control audit verify --key HEX proof.json grown.json          anywhere, without a control plane")]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Show the public key that proofs are verified with
    Key {
        #[command(flatten)]
        place: Place,
    },
    /// Show the latest signed head of the tree over everything that is stored
    Head {
        /// Where to write it
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Prove that a record is held, or that nothing has changed since an earlier head
    Prove {
        /// Whose record, as `guard-control agents` shows it
        #[arg(long, value_name = "ID", requires = "sequence", required_unless_present = "since")]
        agent: Option<Uuid>,
        /// The record's number
        #[arg(long, value_name = "N", requires = "agent")]
        sequence: Option<u64>,
        /// A head that `guard-control audit head` has written before
        #[arg(long, value_name = "FILE", conflicts_with = "agent")]
        since: Option<PathBuf>,
        /// Where to write the proof
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Verify proofs and heads with the public key alone
    Verify {
        /// The key that `guard-control audit key` showed when it was kept
        #[arg(long, value_name = "HEX")]
        key: PublicKey,
        /// The heads and proofs
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// Runs `audit`.
pub fn run(args: &AuditArgs) -> anyhow::Result<()> {
    match &args.command {
        AuditCommand::Key { place } => {
            output::write(format!("{}\n", SigningKey::load(&place.keys())?.public()).as_bytes())
        }
        AuditCommand::Head { output, place } => {
            let head = place.beside(async |store| Ok(proof::tree_head(store).await?))?;
            written(output.as_ref(), &head)
        }
        AuditCommand::Prove { agent, sequence, since, output, place } => match (agent, sequence, since) {
            (Some(agent), Some(sequence), _) => {
                let agent = agent.to_string();
                let proof =
                    place.beside(async |store| Ok(proof::inclusion(store, &agent, *sequence).await?))?;
                written(output.as_ref(), &proof)
            }
            (_, _, Some(since)) => {
                let from: TreeHead = serde_json::from_str(&read(since)?)
                    .with_context(|| format!("`{}` is no head of a tree", since.display()))?;
                let proof = place.beside(async |store| Ok(proof::consistency(store, from).await?))?;
                written(output.as_ref(), &proof)
            }
            // clap has seen to it.
            _ => anyhow::bail!("name --agent and --sequence, or --since"),
        },
        AuditCommand::Verify { key, files } => verify(key, files),
    }
}

fn written(output: Option<&PathBuf>, value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    match output {
        Some(path) => fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display())),
        None => output::write(text.as_bytes()),
    }
}

/// Largest file: a record and two paths.
const MAX_FILE: u64 = 16 * 1024 * 1024;

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let file = fs::File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    file.take(MAX_FILE)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(text)
}

fn verify(key: &PublicKey, files: &[PathBuf]) -> anyhow::Result<()> {
    let mut failed = 0;
    for file in files {
        let said = match verified(key, file) {
            Ok(said) => said,
            Err(error) => {
                failed += 1;
                format!("FAILED: {error:#}")
            }
        };
        output::write(format!("{}: {said}\n", file.display()).as_bytes())?;
    }
    anyhow::ensure!(failed == 0, "{failed} of {} do not hold", files.len());
    Ok(())
}

fn verified(key: &PublicKey, file: &Path) -> anyhow::Result<String> {
    let value: Value = serde_json::from_str(&read(file)?).context("it is no JSON")?;
    if value.get("guard_audit_proof").is_some() {
        let proof: Inclusion = serde_json::from_value(value).context("it is no proof")?;
        proof.verify(key)?;
        return Ok(format!(
            "record {} of agent {} was held when the tree had {} leaves, at {}",
            proof.record.sequence,
            proof.leaf.agent_id,
            proof.tree_head.size,
            at(&proof.tree_head)
        ));
    }
    if value.get("guard_audit_consistency").is_some() {
        let proof: Consistency = serde_json::from_value(value).context("it is no proof")?;
        proof.verify(key)?;
        let (from, to) = (&proof.from, &proof.to);
        return Ok(format!(
            "the tree of {} leaves, at {}, begins with the one of {}, at {}: nothing was changed or left out",
            to.size,
            at(to),
            from.size,
            at(from)
        ));
    }
    let head: TreeHead =
        serde_json::from_value(value).context("it is neither a proof nor a head of a tree")?;
    head.verify(key)?;
    Ok(format!("a tree of {} leaves, signed at {}", head.size, at(&head)))
}

fn at(head: &TreeHead) -> String {
    jiff::Timestamp::from_second(head.at).map(|at| at.to_string()).unwrap_or_default()
}
