//! Two network namespaces with a cable between them: a server's host, and another one from which clients come.
//!
//! The server's host is 10.77.0.1 and fd77::1, the other one 10.77.0.2, 10.77.0.3 and fd77::2. Dropping it removes both.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Result, bail};

use crate::run::{self, CLIENT_LIMIT};

/// The server's host.
pub const SERVER: &str = "10.77.0.1";
/// The same by IPv6.
pub const SERVER_V6: &str = "fd77::1";
/// The other host.
pub const CLIENT: &str = "10.77.0.2";
/// Another address of the other host.
pub const OTHER_CLIENT: &str = "10.77.0.3";
/// The other host by IPv6.
pub const CLIENT_V6: &str = "fd77::2";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Both of them.
#[derive(Debug)]
pub struct Hosts {
    server: Namespace,
    client: Namespace,
}

/// A named network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Hosts {
    /// Makes them.
    pub fn new() -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("guard-{}-{number}-{end}", std::process::id());
        let network = Self { server: Namespace::new(name("s"))?, client: Namespace::new(name("c"))? };
        let (server, client) = (network.server.name.as_str(), network.client.name.as_str());
        ip(&[
            "link", "add", "cable", "netns", server, "type", "veth", "peer", "name", "cable", "netns", client,
        ])?;
        for (name, addresses) in
            [(server, &[SERVER, SERVER_V6][..]), (client, &[CLIENT, OTHER_CLIENT, CLIENT_V6])]
        {
            for address in addresses {
                let six = address.contains(':');
                let network = format!("{address}/{}", if six { 64 } else { 24 });
                let mut arguments = vec!["-n", name, "addr", "add", &network, "dev", "cable"];
                // Usable at once.
                arguments.extend(six.then_some("nodad"));
                ip(&arguments)?;
            }
            ip(&["-n", name, "link", "set", "cable", "up"])?;
        }
        Ok(network)
    }

    /// The host of the server.
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// The other one.
    pub fn client(&self) -> &Namespace {
        &self.client
    }
}

impl Namespace {
    fn new(name: String) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// The same command in there, with everything else of the caller's.
    pub fn enter(&self, command: &Command) -> Command {
        enter(&self.path(), command)
    }

    /// What `ip` prints there.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        ip(&[&["-n", &self.name], arguments].concat())
    }

    /// A setting of its network.
    pub fn sysctl(&self, path: &str) -> Result<String> {
        let mut command = Command::new("cat");
        command.arg(Path::new("/proc/sys/net").join(path));
        let finished = run::run(self.enter(&command), "", CLIENT_LIMIT)?.expect_ok("cat")?;
        Ok(finished.stdout.trim().to_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.name]) {
            eprintln!("{error:#}");
        }
    }
}

/// The same command in the network namespace at `path`.
pub fn enter(path: &Path, command: &Command) -> Command {
    let mut inside = Command::new("nsenter");
    inside.arg(format!("--net={}", path.display())).arg("--").arg(command.get_program());
    inside.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        inside.current_dir(folder);
    }
    inside
}

fn ip<Argument: AsRef<OsStr>>(arguments: &[Argument]) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(arguments);
    let shown = format!("{command:?}");
    let finished = run::run(command, "", CLIENT_LIMIT)?;
    if !finished.ok() {
        bail!("{shown}: {}", finished.stderr);
    }
    Ok(finished.stdout)
}
