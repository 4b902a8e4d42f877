//! The README's picture of the console: a fleet on an ordinary day, as a browser shows it.

use std::{fs, process::ExitCode};

use anyhow::{Context, Result, ensure};

use crate::{
    setup::{self, Group},
    shell,
};

/// Where the README looks for it.
const PICTURE: &str = "docs/console.png";

/// Take the README's picture of the console anew.
///
/// A control plane with made-up hosts is started, and a headless Chromium looks at every page; all pictures are left in
/// target/console.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Runs the task.
pub fn main(_: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Group::Build, Group::Console])?;
    let folder = shell::root().join("target/console");
    let mut command = shell::cargo(&["test", "--locked", "--quiet", "--package", "guard-control"]);
    command.args(["--test", "console", "picture"]);
    let status = command.status().with_context(|| format!("cannot run {}", shell::shown(&command)))?;
    ensure!(status.success(), "the pages could not be shown: see above");
    let (from, to) = (folder.join("overview-light-1280.png"), shell::root().join(PICTURE));
    fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {PICTURE}", from.display()))?;
    println!("{PICTURE} is new; every page: {}", folder.display());
    Ok(ExitCode::SUCCESS)
}
