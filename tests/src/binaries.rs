//! Where the programs under test are: beside the one that runs.

use std::{env, path::PathBuf};

use anyhow::{Context, Result};

/// The program `name` of this build: in the folder that `GUARD_BIN_DIR` names, else where the caller was built.
pub fn path(name: &str) -> Result<PathBuf> {
    if let Some(folder) = env::var_os("GUARD_BIN_DIR") {
        let path = PathBuf::from(folder).join(name);
        anyhow::ensure!(path.exists(), "{} does not exist; GUARD_BIN_DIR names its folder", path.display());
        return Ok(path);
    }
    let own = env::current_exe().context("the path of this program is not known")?;
    // Tests are one folder deeper than programs.
    own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.exists()).with_context(
        || format!("{name} is not built beside {}; `cargo build --workspace` builds it", own.display()),
    )
}
