//! A network namespace with a cable to the host's own, as a container has it.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail};

use crate::run::{self, CLIENT_LIMIT};

/// Networks of four addresses in 10.213.0.0/16.
const NUMBERS: u32 = 16_384;

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
        static MADE: AtomicU32 = AtomicU32::new(0);
        // Tests of several processes run at once: what another has is left alone.
        for _ in 0..100 {
            let number = (std::process::id() * 64 + MADE.fetch_add(1, Ordering::Relaxed)) % NUMBERS;
            let name = format!("guard-{number}");
            if ip(&["netns", "add", &name]).is_err() {
                continue;
            }
            let [high, low] = (u16::try_from(number)? * 4).to_be_bytes();
            let (host, inside) =
                (Ipv4Addr::new(10, 213, high, low + 1), Ipv4Addr::new(10, 213, high, low + 2));
            let network = Self { name, host, inside };
            network.make().with_context(|| format!("cannot make the network namespace {}", network.name))?;
            return Ok(network);
        }
        bail!("`ip netns add` makes no network namespace")
    }

    fn make(&self) -> Result<()> {
        let (name, near, far) =
            (self.name.as_str(), format!("g{}h", self.number()), format!("g{}n", self.number()));
        let (host, inside) = (format!("{}/30", self.host), format!("{}/30", self.inside));
        for words in [
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

    /// Hides from now on which process connects from inside, as another host does: source ports are rewritten on the way.
    pub fn hide_clients(&self) -> Result<()> {
        let rules = format!(
            "table ip guard_test {{ chain out {{ type nat hook postrouting priority 100; policy accept; \
             meta l4proto tcp snat to {}:40000-60000 fully-random; }}; }}\n",
            self.inside
        );
        let mut nft = Command::new("nft");
        nft.args(["-f", "-"]);
        run::run(self.wrap(&nft), &rules, CLIENT_LIMIT)?.expect_ok("nft")?;
        Ok(())
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
