//! A temporary folder that other accounts may enter, gone when its value is.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::Account;

/// A temporary folder. Its path is short: a unix socket's path ends after 107 bytes.
#[derive(Debug)]
pub struct Folder {
    path: TempDir,
}

impl Folder {
    /// Makes one whose name starts with `guard-`, then `what`.
    pub fn new(what: &str) -> Result<Self> {
        Self::within(&std::env::temp_dir(), what)
    }

    /// Makes one of such a name in `parent`.
    pub fn within(parent: &Path, what: &str) -> Result<Self> {
        let path = tempfile::Builder::new()
            .prefix(&format!("guard-{what}-"))
            .tempdir_in(parent)
            .context("cannot make a temporary folder")?;
        fs::set_permissions(path.path(), Permissions::from_mode(0o755))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.path.path()
    }

    /// A path in it; nothing is made there.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Makes a folder in it that belongs to `owner`.
    pub fn subfolder(&self, name: &str, owner: &Account) -> Result<PathBuf> {
        let path = self.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        owner.own(&path)?;
        Ok(path)
    }

    /// Writes a file into it, readable for everybody.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}
