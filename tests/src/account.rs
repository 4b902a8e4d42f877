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

    /// The account of this name, if the host has it and the caller may become it.
    pub fn named(name: &str) -> Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        let user = User::from_name(name)?;
        Ok(user.map(|user| Self { name: user.name, uid: user.uid, gid: user.gid }))
    }

    /// Its numbers, as chroot and chown take them.
    pub fn ids(&self) -> String {
        format!("{}:{}", self.uid, self.gid)
    }

    /// Lets `command` run as this account.
    pub fn apply(&self, command: &mut Command) {
        if Uid::effective().is_root() {
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
    }

    /// The same command as this account, started by root, and ended with it.
    pub fn confine(&self, command: &Command) -> Command {
        let mut confined = Command::new("setpriv");
        let (uid, gid) = (format!("--reuid={}", self.uid), format!("--regid={}", self.gid));
        confined.args([&uid, &gid, "--clear-groups", "--pdeathsig=INT", "--"]);
        confined.arg(command.get_program()).args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            confined.current_dir(folder);
        }
        confined
    }

    /// The same command by whoever this account belongs to: under it, and logged in as it, as far as the kernel lets the
    /// caller say so.
    pub fn in_person(&self, command: &Command) -> Command {
        let run = "echo $0 2>/dev/null > /proc/self/loginuid; \
                   exec setpriv --reuid=$0 --regid=$1 --clear-groups -- \"$2\" \"${@:3}\"";
        let mut shell = Command::new("bash");
        shell.args(["-c", run]).arg(self.uid.to_string()).arg(self.gid.to_string());
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell
    }

    /// Gives `path` to this account.
    pub fn own(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to {}", path.display(), self.name))
    }
}
