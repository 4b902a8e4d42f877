//! Where servers are reached: their addresses, paths and namespaces enter, keys of the kernel side leave.
//!
//! INVARIANT: a place leads to its server and to no other. What is not certain is left out: a connection there is decided
//! on when the server accepts it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use guard_common::kernel::{refusal::Place, refusal::UnixPlace};

use super::event::EnforcedServer;

/// Lines of a table of addresses that are read.
const LINES: usize = 20_000;

/// Everything that the kernel side needs to know a server by.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// TCP.
    pub tcp: HashMap<Place, u32>,
    /// Unix sockets, by their path.
    pub unix: BTreeMap<PathBuf, UnixPlace>,
    /// The paths, by [`UnixPlace::path`].
    pub paths: Vec<PathBuf>,
    /// Network namespaces of the servers: inode number and a process in it.
    pub namespaces: BTreeMap<u32, u32>,
}

impl Places {
    /// Of these servers, as they run now.
    pub fn of(servers: &[EnforcedServer]) -> Self {
        let mut places = Self::default();
        let mut ambiguous = HashSet::new();
        for server in servers {
            // A server whose process is not known is taken to run where the agent does.
            let pid = server.pid.unwrap_or_else(std::process::id);
            let Some(network) = namespace(pid, "net") else { continue };
            places.namespaces.insert(network, pid);
            if !server.steered {
                let own = addresses_of(pid);
                for (address, namespace) in reached(&server.addresses, &own, network) {
                    let place = place(address, namespace);
                    let before = places.tcp.insert(place, server.number);
                    if before.is_some_and(|before| before != server.number) {
                        ambiguous.insert(place);
                    }
                }
            }
            let mount = namespace(pid, "mnt");
            for path in &server.unix_sockets {
                let is_abstract = path.as_os_str().as_encoded_bytes().first() == Some(&b'@');
                let Some(namespace) = (if is_abstract { Some(network) } else { mount }) else { continue };
                let number = u32::try_from(places.paths.len()).unwrap_or(u32::MAX);
                places
                    .unix
                    .insert(path.clone(), UnixPlace { server: server.number, namespace, path: number });
                places.paths.push(path.clone());
            }
        }
        places.tcp.retain(|place, _| !ambiguous.contains(place));
        places
    }
}

/// Inode number of a namespace of a process.
pub fn namespace(pid: u32, kind: &str) -> Option<u32> {
    let target = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    let text = target.to_str()?;
    text.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

/// Every address that leads to a server which listens at `listening` where `own` are the addresses of its namespace; with
/// the namespace in which it does: any other (0) only for addresses that are not loopback ones.
fn reached(listening: &[SocketAddr], own: &[IpAddr], network: u32) -> Vec<(SocketAddr, u32)> {
    let mut reached = Vec::new();
    let mut add = |ip: IpAddr, port: u16| {
        reached.push((SocketAddr::new(ip, port), network));
        if !ip.is_loopback() {
            reached.push((SocketAddr::new(ip, port), 0));
        }
    };
    for address in listening {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        if !ip.is_unspecified() {
            add(ip, port);
            continue;
        }
        // An unspecified IPv6 address takes IPv4 clients too, unless the server says otherwise; it then has a second
        // socket for them, or nobody answers there.
        let wanted = |own: &&IpAddr| ip.is_ipv6() || own.is_ipv4();
        own.iter().filter(wanted).for_each(|own| add(*own, port));
        add(Ipv4Addr::LOCALHOST.into(), port);
        // The kernel side takes it for all that begin with 127.
        add(Ipv4Addr::new(127, 0, 0, 0).into(), port);
        if ip.is_ipv6() {
            add(Ipv6Addr::LOCALHOST.into(), port);
        }
    }
    reached
}

/// The kernel's form of an address.
pub fn place(address: SocketAddr, namespace: u32) -> Place {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    Place { address: ip.octets(), namespace, port: address.port(), reserved: 0 }
}

/// Addresses of the network namespace of a process.
fn addresses_of(pid: u32) -> Vec<IpAddr> {
    let read = |name: &str| {
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("net").join(name))
            .unwrap_or_default()
    };
    let mut addresses = v4_addresses(&read("fib_trie"));
    addresses.extend(v6_addresses(&read("if_inet6")));
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The local addresses in `/proc/net/fib_trie`: an address stands on a line of its own, what it is on the next.
fn v4_addresses(text: &str) -> Vec<IpAddr> {
    let mut last = None;
    let mut found = Vec::new();
    for line in text.lines().take(LINES).map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(last.map(IpAddr::from));
        }
    }
    found
}

/// The addresses in `/proc/net/if_inet6`: hexadecimal, first on each line. Link-local ones are left out: they mean
/// something together with an interface alone.
fn v6_addresses(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let hex = line.split_whitespace().next()?;
        (hex.len() == 32).then(|| u128::from_str_radix(hex, 16).ok()).flatten().map(Ipv6Addr::from)
    };
    text.lines()
        .take(LINES)
        .filter_map(address)
        .filter(|address| !address.is_unicast_link_local())
        .map(IpAddr::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_table_are_those_marked_local() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.1.0.0\n        /24 link UNICAST\n     |-- 10.1.0.7\n        /32 \
                     host LOCAL\n     |-- 10.1.0.255\n        /32 link BROADCAST\n     |-- 127.0.0.0\n        /8 host LOCAL\n";
        assert_eq!(v4_addresses(table), ["10.1.0.7".parse::<IpAddr>().unwrap()]);
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n\
                     fe800000000000000000000000000001 02 40 20 80     eth0\n\
                     20010db8000000000000000000000007 02 40 00 80     eth0\nbroken\n";
        assert_eq!(v6_addresses(table), ["::1", "2001:db8::7"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn a_server_on_every_address_is_reached_at_each() {
        let own = ["10.1.0.7", "::1", "2001:db8::7"].map(|ip| ip.parse().unwrap());
        let at = |listening: &str| -> Vec<String> {
            let mut all: Vec<_> = reached(&[listening.parse().unwrap()], &own, 9)
                .into_iter()
                .map(|(address, namespace)| format!("{address} {namespace}"))
                .collect();
            all.sort();
            all
        };
        assert_eq!(at("0.0.0.0:5"), ["10.1.0.7:5 0", "10.1.0.7:5 9", "127.0.0.0:5 9", "127.0.0.1:5 9"]);
        assert!(at("[::]:5").contains(&"[2001:db8::7]:5 0".to_owned()));
        assert_eq!(at("127.0.0.1:5"), ["127.0.0.1:5 9"]);
    }

    #[test]
    fn what_two_servers_share_belongs_to_neither() {
        let server = |number, address: &str| EnforcedServer {
            number,
            name: number.to_string(),
            addresses: vec![address.parse().unwrap()],
            unix_sockets: Vec::new(),
            pid: None,
            steered: false,
        };
        let places =
            Places::of(&[server(0, "127.0.0.1:5"), server(1, "127.0.0.1:5"), server(2, "127.0.0.1:6")]);
        assert_eq!(places.tcp.values().copied().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_steered_server_has_no_places_of_its_own_on_tcp() {
        let server = EnforcedServer {
            number: 0,
            name: "a".to_owned(),
            addresses: vec!["127.0.0.1:5".parse().unwrap()],
            unix_sockets: vec!["/run/s".into(), "@name".into()],
            pid: None,
            steered: true,
        };
        let places = Places::of(&[server]);
        assert!(places.tcp.is_empty());
        assert_eq!(places.paths.len(), 2);
        let of = |path: &str| places.unix[Path::new(path)].namespace;
        assert_eq!(Some(of("@name")), namespace(std::process::id(), "net"));
        assert_eq!(Some(of("/run/s")), namespace(std::process::id(), "mnt"));
    }
}
