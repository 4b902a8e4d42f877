//! The running kernel side: the only owner of maps and links.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::{fd::BorrowedFd, unix::ffi::OsStrExt},
    path::Path,
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError, PerCpuArray},
};
use guard_common::kernel::{
    EventKind, UNIX_PATH_LEN, helper, maps,
    process::TaskInfo,
    socket::{FlowKey, watch},
    unix::UnixPath,
};

use super::{
    cgroup_attach::Attached,
    event::{SocketId, Watch},
    host,
    stream::EventStream,
};

/// By what means the programs do their work.
#[derive(Clone, Copy, Debug)]
pub struct Means {
    /// TCP is followed by its changes of state, not on cgroups.
    pub by_state: bool,
    /// What the programs may call: bits of `guard_common::kernel::helper`.
    pub helpers: u32,
}

/// Maps and links; dropping it detaches everything.
pub struct Kernel {
    stream: EventStream,
    drops: PerCpuArray<MapData, u64>,
    ports: HashMap<MapData, u16, u8>,
    paths: HashMap<MapData, UnixPath, u8>,
    clients: HashMap<MapData, FlowKey, TaskInfo>,
    flush_log: Option<Box<dyn FnMut() + Send>>,
    counted: [u64; EventKind::ALL.len()],
    means: Means,
    namespace: u64,
    /// What is attached to cgroups without links.
    _attached: Vec<Attached>,
    _links: Ebpf,
}

impl Kernel {
    /// Takes over what was loaded and attached.
    pub fn new(
        mut ebpf: Ebpf,
        stream: EventStream,
        attached: Vec<Attached>,
        means: Means,
        log: bool,
    ) -> Result<Self, MapError> {
        let flush_log = if log { logger(&mut ebpf) } else { None };
        let mut take =
            |name: &str| ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() });
        Ok(Self {
            stream,
            drops: PerCpuArray::try_from(take(maps::DROPS)?)?,
            ports: HashMap::try_from(take(maps::WATCHED_PORTS)?)?,
            paths: HashMap::try_from(take(maps::WATCHED_PATHS)?)?,
            clients: HashMap::try_from(take(maps::CLIENTS)?)?,
            flush_log,
            counted: [0; EventKind::ALL.len()],
            namespace: namespace(means),
            means,
            _attached: attached,
            _links: ebpf,
        })
    }

    /// One of them becomes readable when there are events.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.stream.fds()
    }

    /// How the programs number this process's network namespace.
    pub fn namespace(&self) -> u64 {
        self.namespace
    }

    /// The name of a socket that the programs told of by this number.
    pub fn socket(&self, number: u64) -> SocketId {
        if self.means.by_state { SocketId::Serial(number) } else { SocketId::Cookie(number) }
    }

    /// Hands the next event to `take`; false where there is none.
    pub fn next(&mut self, take: impl FnOnce(&[u8])) -> bool {
        self.stream.next(take)
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

/// As `guard-ebpf/src/namespace.rs` has it.
fn namespace(means: Means) -> u64 {
    if means.by_state {
        0
    } else if means.helpers & helper::NETNS_COOKIE != 0 {
        host::namespace_cookie()
    } else if means.helpers & helper::SOCKET_READS != 0 {
        host::namespace_inode()
    } else {
        0
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
