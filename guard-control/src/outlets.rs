//! Acknowledged records leave to where others read them: a SIEM, a stream, files of columns.
//!
//! Enters: what is in the store. Leaves: each record at least once to each outlet, in the order of its agent's chain, with a key
//! by which whoever takes it can leave out what comes twice. An outlet never holds up what comes in, and never loses silently:
//! how far it is stands in the store ([`cursors`]), what it could not give out is counted and on record. Each works alone
//! ([`worker`]).

mod address;
pub mod config;
pub mod cursors;
mod json;
mod nats;
mod otlp;
mod parquet;
pub mod state;
mod syslog;
mod worker;

use std::{path::PathBuf, time::Duration};

use guard_common::audit::{flat::Flat, v1::SealedRecord};
use tokio::{sync::watch, task::JoinSet};

use self::{
    config::{File, Send as Selection, Settings},
    cursors::Cursors,
};
use crate::store::Store;

/// Why a batch did not get out, or an outlet cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OutletError {
    /// The settings file can't be used.
    #[error("cannot use the outlets in `{}`: {problem}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Certificates or keys can't be used.
    #[error("cannot use `{}`: {problem}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Nobody takes records there.
    #[error("{address}: {problem}")]
    Receiver {
        /// Where.
        address: String,
        /// What happened.
        problem: String,
    },
    /// It took too long.
    #[error("{address} has not taken the records within {} seconds", within.as_secs())]
    Late {
        /// Where.
        address: String,
        /// The limit.
        within: Duration,
    },
    /// Without TLS to another host.
    #[error(
        "{0} is not on this host, and `tls = false` is for this host alone: records would cross the network readable"
    )]
    Plaintext(String),
}

/// A record on its way out.
#[derive(Debug)]
pub struct Given {
    /// The agent's row in the store.
    pub agent: i64,
    /// Its number in the chain.
    pub sequence: u64,
    /// All that leaves.
    pub flat: Flat,
}

impl Given {
    fn new(agent: i64, (agent_id, host): (&str, &str), sealed: &SealedRecord) -> Self {
        Self { agent, sequence: sealed.sequence, flat: Flat::of(agent_id, host, sealed) }
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The receiver has it.
    Given,
    /// It is not durable yet: [`Outlet::settle`] makes it so.
    Held,
}

/// Somewhere to give records to.
#[tonic::async_trait]
pub trait Outlet: Send {
    /// Gives out a batch, all of it or an error; after an error all of it comes again.
    async fn take(&mut self, batch: &[Given]) -> Result<Taken, OutletError>;

    /// Whether [`Self::settle`] is due.
    fn is_due(&self) -> bool {
        false
    }

    /// Makes durable what is held, and sees to what may be lost on the way.
    async fn settle(&mut self) -> Result<(), OutletError> {
        Ok(())
    }

    /// How many of the records that it took since the last time the receiver has refused for good.
    fn refused(&mut self) -> u64 {
        0
    }

    /// Forgets what is held: it comes again.
    async fn forget(&mut self) {}
}

/// Makes all outlets of a settings file, or says what is wrong with which.
fn open(settings: &Settings) -> Result<Box<dyn Outlet>, OutletError> {
    Ok(match settings {
        Settings::Syslog(one) => Box::new(syslog::Syslog::open(one)?),
        Settings::Parquet(one) => Box::new(parquet::Parquet::open(one, &settings.common().name)),
        Settings::Nats(one) => Box::new(nats::Nats::open(one)?),
        Settings::Otlp(one) => Box::new(otlp::Otlp::open(one)?),
    })
}

/// Starts all outlets of `file`; they end after `stopped`. `shared`: other replicas may have the same ones.
pub fn start(
    file: &File,
    store: &Store,
    shared: bool,
    stopped: &watch::Receiver<bool>,
) -> Result<JoinSet<()>, OutletError> {
    let mut working = JoinSet::new();
    for settings in file.outlets() {
        let outlet = open(&settings)?;
        let common = settings.common();
        let cursors = Cursors::new(store.clone(), (&common.name, settings.kind()), shared);
        let worker = worker::Worker::new(cursors, outlet, common.clone());
        working.spawn(worker.work(stopped.clone()));
    }
    Ok(working)
}

/// Whether an outlet wants this record.
fn is_wanted(selection: Selection, flat: &Flat) -> bool {
    match selection {
        Selection::All => true,
        Selection::Decisions => flat.verdict.is_some() || is_notable(flat),
        Selection::Notable => is_notable(flat),
    }
}

/// What a person should look at: everything but what was simply allowed, and how guard itself fares.
fn is_notable(flat: &Flat) -> bool {
    let kind = flat.kind.as_deref().unwrap_or_default();
    let refused = flat.verdict.as_deref().is_some_and(|verdict| verdict != "allowed");
    let round = flat.access.as_deref() == Some("non-proxied");
    let guard = [
        "gap",
        "approval",
        "person-action",
        "control-event",
        "policy-change",
        "agent-started",
        "agent-stopped",
        "sensor-state",
        "key-change",
        "tombstone",
        // Nobody knows what it is.
        "unknown",
    ];
    refused || round || guard.contains(&kind)
}

#[cfg(test)]
mod tests {
    use guard_common::audit::flat::COLUMNS;

    use super::*;

    #[test]
    fn every_field_is_documented_in_its_place() {
        let page = include_str!("../../docs/outlets.md");
        let mut rest = page.split_once("## Fields").unwrap().1;
        for column in COLUMNS {
            let row = format!("\n| `{}` | ", column.name);
            rest = rest
                .split_once(&row)
                .unwrap_or_else(|| panic!("{} is missing, or out of order", column.name))
                .1;
        }
    }

    #[test]
    fn what_is_notable_is_what_somebody_should_look_at() {
        let flat = |kind: &str, verdict: Option<&str>, access: Option<&str>| Flat {
            kind: Some(kind.to_owned()),
            verdict: verdict.map(str::to_owned),
            access: access.map(str::to_owned),
            ..Flat::default()
        };
        for (row, decision, notable) in [
            (flat("statement", Some("allowed"), Some("proxied")), true, false),
            (flat("statement", Some("would-refuse"), None), true, true),
            (flat("connection-opened", Some("allowed"), Some("non-proxied")), true, true),
            (flat("gap", None, None), true, true),
            (flat("unknown", None, None), true, true),
            (flat("outcomes", None, None), false, false),
            (flat("checkpoint", None, None), false, false),
        ] {
            assert_eq!(is_wanted(Selection::Decisions, &row), decision, "{row:?}");
            assert_eq!(is_wanted(Selection::Notable, &row), notable, "{row:?}");
            assert!(is_wanted(Selection::All, &row));
        }
    }
}
