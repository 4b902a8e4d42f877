//! Where a server runs that is not beside the agent: another network namespace, another view of the files.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use crate::{identity, sensor::namespace};

/// What is different where a server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Inode number of its network namespace, where that is not the agent's own.
    pub namespace: Option<u64>,
    /// A process there: the server's.
    pub pid: u32,
    /// Addresses of the interfaces in that network namespace.
    pub own_addresses: Vec<IpAddr>,
    /// Where the configuration says that it is reached, whatever way leads there.
    pub configured: Vec<SocketAddr>,
    /// What people call it: the container's name, else the start of its id; for a network namespace without a container,
    /// the unit in it, else its number. Empty where only the files are others.
    pub label: String,
}

impl Elsewhere {
    /// Of the process `pid`, which listens on `unix_sockets`; nothing where it runs beside the agent.
    pub fn of(pid: u32, unix_sockets: &[PathBuf]) -> Option<Self> {
        let namespace = namespace::of(pid).filter(|namespace| Some(*namespace) != namespace::own());
        let other_files = unix_sockets.iter().any(|path| namespace::sees_another_file(pid, path));
        if namespace.is_none() && !other_files {
            return None;
        }
        let own_addresses = if namespace.is_some() { namespace::addresses(pid) } else { Vec::new() };
        let unit = || namespace.and_then(|_| identity::unit_of(pid));
        let number = || namespace.map(|number| format!("net-{number}"));
        let label = identity::container_label(pid).or_else(unit).or_else(number).unwrap_or_default();
        Some(Self { namespace, pid, own_addresses, configured: Vec::new(), label })
    }

    /// Where this host reaches a server that listens on `addresses` there.
    pub fn reachable(&self, addresses: &[SocketAddr]) -> impl Iterator<Item = SocketAddr> {
        let routes = std::fs::read_to_string("/proc/self/net/route").unwrap_or_default();
        let found = self.at(addresses, |ip| match ip {
            IpAddr::V4(ip) => namespace::is_on_link(ip, &routes),
            IpAddr::V6(_) => false,
        });
        let configured = self.configured.clone();
        let other: Vec<SocketAddr> =
            found.into_iter().filter(|address| !configured.contains(address)).collect();
        configured.into_iter().chain(other)
    }

    /// Where a server that listens on `addresses` there is found from outside, if a way leads there.
    pub fn outside(&self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        self.at(addresses, |_| true)
    }

    fn at(&self, addresses: &[SocketAddr], has_way: impl Fn(IpAddr) -> bool) -> Vec<SocketAddr> {
        let own: Vec<IpAddr> =
            self.own_addresses.iter().copied().filter(|ip| !ip.is_loopback() && has_way(*ip)).collect();
        let mut found: Vec<SocketAddr> = Vec::new();
        for address in addresses {
            let ip = address.ip().to_canonical();
            for own in own.iter().filter(|own| ip.is_unspecified() || **own == ip) {
                let reached = SocketAddr::new(*own, address.port());
                if !found.contains(&reached) {
                    found.push(reached);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::Elsewhere;

    #[test]
    fn a_container_is_reached_by_its_bridge_and_never_by_its_loopback() {
        let elsewhere = Elsewhere {
            namespace: Some(1),
            pid: 1,
            own_addresses: ["127.0.0.1", "172.17.0.2", "10.9.9.9"].map(|ip| ip.parse().unwrap()).to_vec(),
            configured: Vec::new(),
            label: "web".to_owned(),
        };
        let reached = |addresses: &[&str]| {
            let addresses: Vec<_> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let on_link = |ip: std::net::IpAddr| ip.to_string().starts_with("172.17.");
            let found = elsewhere.at(&addresses, on_link);
            found.into_iter().map(|address| address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(reached(&["0.0.0.0:5432", "[::]:5432"]), ["172.17.0.2:5432"]);
        assert!(reached(&["127.0.0.1:5432"]).is_empty());
        assert!(reached(&["10.9.9.9:5432"]).is_empty(), "some other host may have that address");
    }

    #[test]
    fn what_runs_beside_the_agent_is_not_elsewhere() {
        assert_eq!(Elsewhere::of(std::process::id(), &["/proc".into()]), None);
    }
}
