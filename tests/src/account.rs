//! Whom servers run as: PostgreSQL and PgBouncer refuse to run as root.

use std::{os::unix::process::CommandExt, path::Path, process::Command};

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid, User, chown};

/// An unprivileged account of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    uid: Uid,
    gid: Gid,
}

impl Account {
    /// The caller's own account, or `postgres` (else `nobody`) where the caller is root.
    pub fn unprivileged() -> Result<Self> {
        let own = Uid::effective();
        if !own.is_root() {
            let user = User::from_uid(own)?.with_context(|| format!("uid {own} has no account"))?;
            return Ok(Self { name: user.name, uid: own, gid: user.gid });
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name)? {
                return Ok(Self { name: user.name, uid: user.uid, gid: user.gid });
            }
        }
        anyhow::bail!(
            "neither `postgres` nor `nobody` is an account of this host, and PostgreSQL does not run as root"
        )
    }

    /// Lets `command` run as this account.
    pub fn apply(&self, command: &mut Command) {
        if Uid::effective().is_root() {
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
    }

    /// Gives `path` to this account.
    pub fn own(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to {}", path.display(), self.name))
    }
}
