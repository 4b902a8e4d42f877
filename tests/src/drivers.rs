//! Other people's drivers, straight to a server and through guard: what their users see must be the same.
//!
//! Enters: the small programs of `tests/drivers`, one per driver, which show a list of behaviours and print one JSON line for
//! each. Leaves: a cell for each driver and behaviour. What a driver does not have is said, not passed over.

mod cell;
mod programs;
mod shop;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;

pub use self::{
    cell::Cell,
    programs::{DRIVERS, Driver, Tools},
    shop::Shop,
};
use crate::run;

/// How long one program may take for everything, on a busy machine.
const PROGRAM_LIMIT: Duration = Duration::from_secs(180);

/// A behaviour: its name, and what it is about.
pub type Behaviour = (&'static str, &'static str);

/// All behaviours, in the order in which they are shown.
pub fn behaviours() -> Vec<Behaviour> {
    let lines = include_str!("../drivers/behaviours.txt").lines();
    lines.filter_map(|line| line.split_once(' ')).map(|(name, about)| (name, about.trim())).collect()
}

/// A way to the server.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where it listens.
    pub address: SocketAddr,
    /// The certificate that signed what it shows; `None` where it speaks no TLS.
    pub ca: Option<PathBuf>,
    /// Differs from what else runs at the same time.
    pub tag: String,
}

/// Runs one driver's program for these behaviours; gives what it printed for each.
pub fn run(
    driver: &Driver,
    tools: &Tools,
    way: &Way,
    behaviours: &[&str],
) -> Result<BTreeMap<String, Value>> {
    let mut command = driver.command(tools)?;
    for name in
        ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGOPTIONS", "PGSERVICE", "PGSSLMODE"]
    {
        command.env_remove(name);
    }
    command
        .env("TEST_HOST", way.address.ip().to_string())
        .env("TEST_PORT", way.address.port().to_string())
        .env("TEST_DATABASE", shop::DATABASE)
        .env("TEST_USER", shop::USER)
        .env("TEST_PASSWORD", shop::PASSWORD)
        .env("TEST_MD5_USER", shop::MD5_USER)
        .env("TEST_TAG", &way.tag)
        .env("TEST_CA", way.ca.clone().unwrap_or_default())
        .env("TEST_BEHAVIOURS", behaviours.join(" "))
        // What a person's settings say is not what is compared.
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC");
    let finished = run::run(command, "", PROGRAM_LIMIT).with_context(|| driver.name.to_owned())?;
    let mut answers = BTreeMap::new();
    for line in finished.stdout.lines() {
        let answer: Value = serde_json::from_str(line).with_context(|| format!("{}: {line}", driver.name))?;
        let name = answer.get("behaviour").and_then(Value::as_str).unwrap_or_default().to_owned();
        answers.insert(name, answer);
    }
    if !finished.ok() || answers.is_empty() {
        let tail: Vec<&str> = finished.stderr.lines().rev().take(15).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("{} ended with {:?}:\n{}", driver.name, finished.code, tail.join("\n"));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviours_are_named_once_and_explained() {
        let all = behaviours();
        let names: std::collections::BTreeSet<_> = all.iter().map(|(name, _)| name).collect();
        assert!(names.len() == all.len() && all.len() > 30);
        assert!(all.iter().all(|(_, about)| !about.is_empty()));
    }
}
