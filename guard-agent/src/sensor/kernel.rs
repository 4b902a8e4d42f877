//! The running kernel side: the only owner of maps and links.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf},
};
use guard_common::kernel::{
    EventKind, UNIX_PATH_LEN, maps,
    process::TaskInfo,
    socket::{FlowKey, watch},
    unix::UnixPath,
};

use super::{
    event::Watch,
    probe::{ObservedServer, Probes},
    statements::StatementReader,
};

/// Maps and links; dropping it detaches everything.
pub struct Kernel {
    ring: RingBuf<MapData>,
    drops: PerCpuArray<MapData, u64>,
    ports: HashMap<MapData, u16, u8>,
    paths: HashMap<MapData, UnixPath, u8>,
    clients: HashMap<MapData, FlowKey, TaskInfo>,
    probes: Probes,
    flush_log: Option<Box<dyn FnMut() + Send>>,
    counted: [u64; EventKind::ALL.len()],
    links: Ebpf,
}

impl Kernel {
    /// Takes over what was loaded and attached.
    pub fn new(mut ebpf: Ebpf, log: bool) -> Result<Self, MapError> {
        let flush_log = if log { logger(&mut ebpf) } else { None };
        let mut take =
            |name: &str| ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() });
        Ok(Self {
            ring: RingBuf::try_from(take(maps::EVENTS)?)?,
            drops: PerCpuArray::try_from(take(maps::DROPS)?)?,
            ports: HashMap::try_from(take(maps::WATCHED_PORTS)?)?,
            paths: HashMap::try_from(take(maps::WATCHED_PATHS)?)?,
            clients: HashMap::try_from(take(maps::CLIENTS)?)?,
            probes: Probes::new(HashMap::try_from(take(maps::OBSERVED)?)?),
            flush_log,
            counted: [0; EventKind::ALL.len()],
            links: ebpf,
        })
    }

    /// Becomes readable when there are events.
    pub fn ring(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Hands the next event to `take`; false where there is none.
    pub fn next(&mut self, take: impl FnOnce(&[u8])) -> bool {
        match self.ring.next() {
            Some(item) => {
                take(&item);
                true
            }
            None => false,
        }
    }

    /// Prints what the programs logged.
    pub fn flush_log(&mut self) {
        if let Some(flush) = &mut self.flush_log {
            flush();
        }
    }

    /// The local process at the client's end of a connection.
    pub fn client(&self, flow: &FlowKey) -> Option<TaskInfo> {
        self.clients.get(flow, 0).ok()
    }

    /// What reads the statements; once.
    pub fn statements(ebpf: &mut Ebpf) -> Result<StatementReader, MapError> {
        let mut take =
            |name: &str| ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() });
        Ok(StatementReader::new(
            RingBuf::try_from(take(maps::STATEMENTS)?)?,
            HashMap::try_from(take(maps::BACKENDS)?)?,
            Array::try_from(take(maps::AWAKE)?)?,
        ))
    }

    /// Observes exactly these servers from now on; tells for each why not.
    pub fn observe(&mut self, servers: &[ObservedServer]) -> Vec<Result<(), String>> {
        self.probes.observe(&mut self.links, servers)
    }

    /// Watches exactly `watch` from now on. Goes on after a failure, and returns the first.
    pub fn watch(&mut self, watch: &Watch) -> io::Result<()> {
        let mut failure = Ok(());
        let mut keep = |result: Result<(), MapError>| {
            if let (Err(error), true) = (result, failure.is_ok()) {
                failure = Err(io::Error::other(error));
            }
        };
        let wanted = port_bits(watch);
        let current: Vec<u16> = self.ports.keys().flatten().collect();
        for (port, bits) in &wanted {
            keep(self.ports.insert(port, bits, 0));
        }
        for port in current.iter().filter(|port| !wanted.contains_key(port)) {
            keep(self.ports.remove(port));
        }
        let wanted: BTreeSet<[u8; UNIX_PATH_LEN]> =
            watch.unix_sockets.iter().filter_map(|path| path_key(path)).collect();
        let current: Vec<UnixPath> = self.paths.keys().flatten().collect();
        for bytes in &wanted {
            keep(self.paths.insert(UnixPath { bytes: *bytes }, 1, 0));
        }
        for path in current.iter().filter(|path| !wanted.contains(&path.bytes)) {
            keep(self.paths.remove(path));
        }
        failure
    }

    /// Events of each kind that were lost since the last call.
    pub fn lost(&mut self) -> Vec<(EventKind, u64)> {
        let mut lost = Vec::new();
        for kind in EventKind::ALL {
            let index = kind as u32;
            let Ok(values) = self.drops.get(&index, 0) else { continue };
            let total: u64 = values.iter().sum();
            let counted = &mut self.counted[index as usize];
            if total > *counted {
                lost.push((kind, total - *counted));
                *counted = total;
            }
        }
        lost
    }
}

fn port_bits(watched: &Watch) -> BTreeMap<u16, u8> {
    let mut bits = BTreeMap::new();
    for port in &watched.database_ports {
        *bits.entry(*port).or_default() |= watch::DATABASE;
    }
    for port in &watched.proxy_ports {
        *bits.entry(*port).or_default() |= watch::PROXY;
    }
    bits
}

/// The kernel's form of a socket's path; nothing where it is longer than the kernel takes.
fn path_key(path: &Path) -> Option<[u8; UNIX_PATH_LEN]> {
    let mut bytes = [0; UNIX_PATH_LEN];
    let name = path.as_os_str().as_bytes();
    bytes.get_mut(..name.len())?.copy_from_slice(name);
    if bytes[0] == b'@' {
        bytes[0] = 0;
    }
    Some(bytes)
}

/// Hands what the programs log to the agent's own log.
fn logger(ebpf: &mut Ebpf) -> Option<Box<dyn FnMut() + Send>> {
    match aya_log::EbpfLogger::init(ebpf) {
        Ok(mut logger) => Some(Box::new(move || logger.flush())),
        Err(error) => {
            tracing::warn!(%error, "the log of the eBPF programs cannot be read");
            None
        }
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("counted", &self.counted).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Watch, path_key, port_bits};

    #[test]
    fn a_port_can_be_both() {
        let watch = Watch {
            database_ports: [5432, 6000].into(),
            proxy_ports: [6000, 6432].into(),
            ..Watch::default()
        };
        let bits: Vec<_> = port_bits(&watch).into_iter().collect();
        assert_eq!(bits, [(5432, 1), (6000, 3), (6432, 2)]);
    }

    #[test]
    fn abstract_names_start_with_a_zero_byte() {
        assert_eq!(path_key(Path::new("@name")).map(|key| key[..6].to_vec()), Some(b"\0name\0".to_vec()));
        assert_eq!(path_key(Path::new("/a")).map(|key| key[..3].to_vec()), Some(b"/a\0".to_vec()));
        assert_eq!(path_key(Path::new(&"x".repeat(109))), None);
    }
}
