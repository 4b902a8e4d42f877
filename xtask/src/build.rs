//! Builds the programs of the workspace.

use anyhow::Result;

use crate::shell;

/// Builds every program of the workspace. One selection of packages for every task, so that nothing is built twice.
pub fn workspace(release: bool) -> Result<()> {
    let mut command = shell::cargo(&["build", "--workspace", "--locked"]);
    if release {
        command.arg("--release");
    }
    shell::run(command, "the build")
}
