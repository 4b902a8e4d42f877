//! Takes away everything that an agent has left in the kernel: what is pinned, rules, routes, tables, settings.
//!
//! The agent that did it does not run any more. Doing it twice does no harm; what could not be removed is named.

use std::{fmt, io, path::Path};

use serde::Serialize;

use super::{
    manifest::{Entry, Manifest},
    namespace::Namespace,
    pins::Pins,
    redirect, way_back,
};
use crate::config::{PinsConfig, SteeringConfig};

/// What was done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Detached {
    /// The agent's name.
    pub instance: String,
    /// Removed, or set back.
    pub removed: Vec<Item>,
    /// What could not be.
    pub failed: Vec<Failure>,
}

/// Something that guard had set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// pin | route | rule | setting | table
    pub kind: &'static str,
    /// Which one.
    pub what: String,
    /// Number of the network namespace; 0 where it belongs to none.
    pub namespace: u64,
}

/// Something that is still there.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Which one.
    pub item: Item,
    /// Why.
    pub error: String,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {}", self.kind, self.what)?;
        if self.namespace == 0 { Ok(()) } else { write!(f, " in net:[{}]", self.namespace) }
    }
}

impl Detached {
    fn note(&mut self, item: Item, result: io::Result<()>) {
        match result {
            Ok(()) => self.removed.push(item),
            Err(error) => self.failed.push(Failure { item, error: error.to_string() }),
        }
    }
}

/// Removes all that the agent of this configuration, with its state in `state`, has left.
pub fn detach(pins: &PinsConfig, config: &SteeringConfig, state: &Path) -> Detached {
    let mut done = Detached { instance: pins.instance.clone(), ..Detached::default() };
    // What leads connections away goes before what they need on their way.
    if let Some(pins) = Pins::existing(&pins.instance) {
        let folder = pins.folder().display().to_string();
        let (removed, error) = pins.remove();
        for path in removed {
            done.note(pin(path.display().to_string()), Ok(()));
        }
        if let Some(error) = error {
            done.note(pin(folder), Err(error));
        }
    }
    let mut manifest = match Manifest::read(state, &done.instance, config.mark) {
        Ok(manifest) => manifest,
        Err(error) => {
            let what = state.join("steering.json").display().to_string();
            done.note(Item { kind: "setting", what, namespace: 0 }, Err(error));
            return done;
        }
    };
    let mark = manifest.mark();
    for entry in manifest.namespaces().to_vec() {
        let failures = done.failed.len();
        // A namespace that is gone has taken everything with it.
        if let Some(namespace) = Namespace::with_inode(entry.inode) {
            restore(&namespace, &entry, mark, &mut done);
        }
        if done.failed.len() == failures
            && let Err(error) = manifest.forget(entry.inode)
        {
            let what = state.join("steering.json").display().to_string();
            done.note(Item { kind: "setting", what, namespace: entry.inode }, Err(error));
        }
    }
    done
}

/// Sets one namespace back.
pub fn restore(namespace: &Namespace, entry: &Entry, mark: u32, done: &mut Detached) {
    let item = |kind, what| Item { kind, what, namespace: namespace.inode() };
    if !entry.nftables.is_empty() {
        match redirect::remove(namespace, &entry.nftables) {
            Ok(false) => {}
            Ok(true) => done.note(item("table", format!("inet {}", entry.nftables)), Ok(())),
            Err(error) => done.note(item("table", format!("inet {}", entry.nftables)), Err(error)),
        }
    }
    let before = way_back::Before { fwmark_accept: entry.fwmark_accept.clone() };
    for (what, result) in way_back::remove(namespace, mark, &before) {
        let kind = match &what {
            what if what.contains(" rule ") => "rule",
            what if what.contains(" route ") => "route",
            _ => "setting",
        };
        done.note(item(kind, what), result);
    }
}

fn pin(what: String) -> Item {
    Item { kind: "pin", what, namespace: 0 }
}
