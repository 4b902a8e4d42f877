//! Which listening sockets are databases: configured, or discovered by process and port.
//!
//! Enters: the configuration and /proc. Leaves: the servers of this host, each once. Nothing is asked of a server.

mod discover;
mod elsewhere;
mod merge;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

pub use discover::discover;
pub use elsewhere::Elsewhere;
pub use merge::{configured, merge};

use crate::config::Config;

/// The servers of this host: those that are listed, completed by what their processes tell, then those that are found
/// beside them, unless `config` says that only listed ones count. Reads /proc.
pub fn find(config: &Config) -> Vec<Server> {
    let listed = configured(&config.servers, &config.environment);
    let looks = config.discovery.enabled || !listed.is_empty();
    let discovered = if looks { discover() } else { Vec::new() };
    let count = listed.len();
    let mut found = merge(listed, discovered, &config.environment);
    if !config.discovery.enabled {
        found.truncate(count);
    }
    found
}

/// One database server on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Unique on this host: configured, or made of engine and port.
    pub name: String,
    /// What it speaks.
    pub engine: Engine,
    /// `production`, `staging`, ..: the top of the policy's resource hierarchy.
    pub environment: String,
    /// TCP addresses on which it listens.
    pub addresses: Vec<SocketAddr>,
    /// Unix sockets on which it listens; an abstract name starts with `@`.
    pub unix_sockets: Vec<PathBuf>,
    /// Process id of the listening process, where known.
    pub pid: Option<u32>,
    /// Where it runs, where that is not beside the agent.
    pub elsewhere: Option<Elsewhere>,
}

/// A database's wire protocol family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// PostgreSQL.
    #[default]
    Postgresql,
}

impl Engine {
    /// Its name in configuration and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
        }
    }
}

impl Server {
    /// Where it is reached on TCP: on loopback where it listens on every address. In another network namespace, where this
    /// host reaches it as its other clients do: its loopback is another one there, and it may trust whoever comes by it.
    pub fn reachable_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let elsewhere = self.elsewhere.as_ref().filter(|elsewhere| elsewhere.namespace.is_some());
        let beside =
            self.addresses.iter().filter(move |_| elsewhere.is_none()).map(|address| match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
                IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
                _ => *address,
            });
        let apart = elsewhere.into_iter().flat_map(|elsewhere| elsewhere.reachable(&self.addresses));
        beside.chain(apart)
    }

    /// Its unix sockets as far as the agent finds them under the same path.
    pub fn reachable_sockets(&self) -> &[PathBuf] {
        if self.elsewhere.is_some() { &[] } else { &self.unix_sockets }
    }

    /// Where it listens, as people write it.
    pub fn endpoints(&self) -> impl Iterator<Item = String> {
        let addresses = self.addresses.iter().map(ToString::to_string);
        addresses.chain(self.unix_sockets.iter().map(|path| path.display().to_string()))
    }
}
