//! Namespaces, by the inode numbers that the kernel gives them.
//!
//! Everything comes from /proc of a process inside: nothing here enters a namespace, so it takes no right to.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt,
};

/// Namespaces that are looked at, at most.
const LIMIT: usize = 256;

/// The network namespace of process `pid`; nothing where it is gone, or where it may not be looked at.
pub fn of(pid: u32) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino())
}

/// The agent's own.
pub fn own() -> Option<u64> {
    Some(fs::metadata("/proc/self/ns/net").ok()?.ino())
}

/// Whether the agent's processes are numbered as the kernel side numbers them, in the initial namespace: its inode number
/// is `PROC_PID_INIT_INO` of `include/linux/proc_ns.h`, on every kernel.
pub fn has_initial_pids() -> bool {
    const PROC_PID_INIT_INO: u64 = 0xEFFF_FFFC;
    fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() == PROC_PID_INIT_INO)
}

/// Whether process `pid` sees another file under `path` than the agent does, or the agent none.
pub fn sees_another_file(pid: u32, path: &std::path::Path) -> bool {
    let Ok(relative) = path.strip_prefix("/") else { return false };
    let name = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let there = fs::metadata(std::path::Path::new(&format!("/proc/{pid}/root")).join(relative)).map(name);
    there.ok().is_some_and(|there| fs::metadata(path).map(name).ok() != Some(there))
}

/// One process in each network namespace of this host but the agent's own.
pub fn others() -> BTreeMap<u64, u32> {
    let own = own();
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir("/proc") else { return found };
    for pid in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some(namespace) = of(pid)
            && Some(namespace) != own
            && (found.len() < LIMIT || found.contains_key(&namespace))
        {
            found.entry(namespace).or_insert(pid);
        }
    }
    found
}

/// Addresses of the interfaces in the network namespace of process `pid`.
pub fn addresses(pid: u32) -> Vec<IpAddr> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
    local_v4(&read("fib_trie")).chain(local_v6(&read("if_inet6"))).collect()
}

/// The kernel's table of routes names each local address, then says that it is one: `|-- 10.0.0.1`, `/32 host LOCAL`.
fn local_v4(trie: &str) -> impl Iterator<Item = IpAddr> {
    let mut leaf = None;
    let mut found: Vec<IpAddr> = Vec::new();
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = leaf.map(IpAddr::from)
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found.into_iter()
}

/// An address is 32 digits, then a blank.
fn local_v6(table: &str) -> impl Iterator<Item = IpAddr> {
    table.lines().filter_map(|line| {
        let digits = line.split_ascii_whitespace().next()?;
        (digits.len() == 32).then_some(())?;
        Some(IpAddr::from(Ipv6Addr::from(u128::from_str_radix(digits, 16).ok()?)))
    })
}

/// Whether a packet to `address` goes out of an interface of this host straight to it, and not by a router: `routes` is
/// /proc/net/route.
pub fn is_on_link(address: Ipv4Addr, routes: &str) -> bool {
    let word = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::from_be);
    let address = u32::from(address);
    let best = routes.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (network, gateway, mask) = (word(fields.get(1)?)?, word(fields.get(2)?)?, word(fields.get(7)?)?);
        (address & mask == network).then_some((mask.leading_ones(), gateway))
    });
    best.max_by_key(|(length, _)| *length).is_some_and(|(length, gateway)| length > 0 && gateway == 0)
}

#[cfg(test)]
mod tests {
    use super::{addresses, is_on_link, local_v4, local_v6, of, others, own, sees_another_file};

    const TRIE: &str = "Main:\n  +-- 0.0.0.0/1 2 0 2\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 172.17.0.0/16 2 0 2\n        |-- 172.17.0.0\n           /16 link UNICAST\n        |-- 172.17.0.2\n           /32 host LOCAL\n        |-- 172.17.255.255\n           /32 link BROADCAST\nLocal:\n        |-- 172.17.0.2\n           /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";

    #[test]
    fn addresses_are_read_from_the_tables() {
        let v4: Vec<String> = local_v4(TRIE).map(|address| address.to_string()).collect();
        assert_eq!(v4, ["172.17.0.2", "127.0.0.1"]);
        let table = "00000000000000000000000000000001 01 80 10 80       lo\nshort 01 80 10 80 x\n";
        assert_eq!(local_v6(table).map(|address| address.to_string()).collect::<Vec<_>>(), ["::1"]);
        assert_eq!(local_v4("nonsense\n/32 host LOCAL").count(), 0);
    }

    #[test]
    fn only_what_needs_no_router_is_on_link() {
        assert!(is_on_link([172, 17, 0, 2].into(), ROUTES));
        assert!(!is_on_link([172, 18, 0, 2].into(), ROUTES));
        assert!(!is_on_link([172, 17, 0, 2].into(), "nonsense"));
    }

    #[test]
    fn knows_its_own_namespace() {
        assert_eq!(of(std::process::id()), own());
        assert!(!others().contains_key(&own().unwrap_or_default()));
        assert!(addresses(std::process::id()).iter().all(|address| !address.is_unspecified()));
        assert!(!sees_another_file(std::process::id(), std::path::Path::new("/proc")));
    }
}
