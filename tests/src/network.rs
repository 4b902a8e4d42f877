//! A network namespace with a cable to the host's own, as a container has it.

use std::{net::IpAddr, net::Ipv4Addr, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::run::{self, CLIENT_LIMIT};

/// A network namespace. Dropping it removes it and its cable.
#[derive(Debug)]
pub struct Network {
    name: String,
    host: Ipv4Addr,
    inside: Ipv4Addr,
}

impl Network {
    /// Makes one whose addresses nobody else on this host has, as long as its process runs.
    pub fn new() -> Result<Self> {
        let number = std::process::id() % 16_000;
        let [high, low] = (u16::try_from(number)? * 4).to_be_bytes();
        let (host, inside) = (Ipv4Addr::new(10, 213, high, low + 1), Ipv4Addr::new(10, 213, high, low + 2));
        let network = Self { name: format!("guard-{number}"), host, inside };
        network.make().with_context(|| format!("cannot make the network namespace {}", network.name))?;
        Ok(network)
    }

    fn make(&self) -> Result<()> {
        let (name, near, far) =
            (self.name.as_str(), format!("g{}h", self.number()), format!("g{}n", self.number()));
        let (host, inside) = (format!("{}/30", self.host), format!("{}/30", self.inside));
        for words in [
            vec!["netns", "add", name],
            vec!["link", "add", &near, "type", "veth", "peer", "name", &far, "netns", name],
            vec!["address", "add", &host, "dev", &near],
            vec!["link", "set", &near, "up"],
            vec!["-n", name, "address", "add", &inside, "dev", &far],
            vec!["-n", name, "link", "set", &far, "up"],
            vec!["-n", name, "link", "set", "lo", "up"],
        ] {
            ip(&words)?;
        }
        Ok(())
    }

    fn number(&self) -> &str {
        self.name.rsplit('-').next().unwrap_or_default()
    }

    /// The host's address at the near end.
    pub fn host(&self) -> IpAddr {
        self.host.into()
    }

    /// The address at the far end.
    pub fn inside(&self) -> IpAddr {
        self.inside.into()
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// The same command inside.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("ip");
        wrapped.args(["netns", "exec", &self.name]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The cable goes with its far end.
        for words in [["netns", "delete", &self.name], ["link", "delete", &format!("g{}h", self.number())]] {
            if let Err(error) = ip(&words)
                && words[0] == "netns"
            {
                eprintln!("{error:#}");
            }
        }
    }
}

fn ip(words: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(words);
    run::run(command, "", CLIENT_LIMIT)?.expect_ok("ip")?;
    Ok(())
}
