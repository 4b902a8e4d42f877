//! Packages by apt, without the side effects that they have on a server: no cluster is created, no service started.

use std::{fs, io::ErrorKind, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use crate::shell;

const CLUSTERS: &str = "/etc/postgresql-common/createcluster.conf";
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Whether this system installs packages by apt.
pub fn is_here() -> bool {
    shell::answers("apt-get", &["--version"])
}

/// Installs packages, with a fresh package list only where the old one does not know them.
pub fn install(packages: &[&str]) -> Result<()> {
    if !Uid::effective().is_root() && !shell::answers("sudo", &["--version"]) {
        bail!("installing packages needs root: run `cargo xtask setup` as root");
    }
    let fresh = !packages.iter().all(|package| is_known(package));
    if fresh {
        update()?;
    }
    let _quiet = ServicePolicy::none_starts()?;
    if packages.iter().any(|package| package.starts_with("postgresql")) {
        // First, since it decides whether the server's package creates a cluster.
        install_now(&["postgresql-common"], fresh)?;
        create_no_cluster()?;
    }
    install_now(packages, fresh)?;
    if packages.contains(&"pgbouncer") && Path::new("/run/systemd/system").exists() {
        // Its package starts a public instance at the next boot.
        shell::quietly(root("systemctl", &["disable", "pgbouncer"]), "disabling the pgbouncer service")?;
    }
    Ok(())
}

fn install_now(packages: &[&str], fresh: bool) -> Result<()> {
    let what = format!("installing {}", packages.join(" "));
    let attempt = || {
        let mut command = root("apt-get", &["install", "-y", "--no-install-recommends"]);
        command.args(packages);
        shell::quietly(command, &what)
    };
    match attempt() {
        // A package list from last month names files that the mirror has replaced.
        Err(_) if !fresh => {
            update()?;
            attempt()
        }
        outcome => outcome,
    }
}

fn update() -> Result<()> {
    shell::quietly(root("apt-get", &["update"]), "reading the package lists")
}

fn is_known(package: &str) -> bool {
    let policy = shell::output(shell::command("apt-cache", &["policy", package])).unwrap_or_default();
    policy.lines().any(|line| line.trim().starts_with("Candidate:") && !line.contains("(none)"))
}

/// Keeps PostgreSQL's package from creating a cluster on port 5432, unless somebody has decided on that already.
fn create_no_cluster() -> Result<()> {
    let text = fs::read_to_string(CLUSTERS).with_context(|| format!("cannot read {CLUSTERS}"))?;
    if text.lines().any(|line| line.trim_start().starts_with("create_main_cluster")) {
        return Ok(());
    }
    println!("  setting create_main_cluster = false in {CLUSTERS}: no PostgreSQL cluster is created");
    let line = format!("printf '%s\\n' 'create_main_cluster = false' >> {CLUSTERS}");
    shell::quietly(root("sh", &["-c", &line]), "changing PostgreSQL's defaults for new clusters")
}

/// A command as root, by sudo where the caller is somebody else.
fn root(program: &str, arguments: &[&str]) -> Command {
    let mut command = if Uid::effective().is_root() {
        shell::command(program, arguments)
    } else {
        let mut command = shell::command("sudo", &["DEBIAN_FRONTEND=noninteractive", program]);
        command.args(arguments);
        command
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// While it lives, packages start no services. A policy that exists already stays in force.
struct ServicePolicy {
    made: bool,
}

impl ServicePolicy {
    fn none_starts() -> Result<Self> {
        if !Uid::effective().is_root() {
            return Ok(Self { made: false });
        }
        match fs::File::create_new(POLICY) {
            Ok(mut file) => {
                use std::io::Write;
                file.write_all(b"#!/bin/sh\n# Temporary, by `cargo xtask setup`: packages start no services.\nexit 101\n")?;
                file.set_permissions(fs::Permissions::from_mode(0o755))?;
                Ok(Self { made: true })
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Self { made: false }),
            Err(error) => Err(error).with_context(|| format!("cannot write {POLICY}")),
        }
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if self.made
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("cannot remove {POLICY}: {error}; please remove it, or packages start no services");
        }
    }
}
