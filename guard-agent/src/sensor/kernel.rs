//! The running kernel side: the only owner of maps and links.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf},
    programs::Program,
};
use guard_common::kernel::{
    EventKind, UNIX_PATH_LEN, helper, maps,
    process::TaskInfo,
    socket::{FlowKey, watch},
    unix::{UnixBytes, UnixPath},
};

use super::{
    cgroup_attach::Attached,
    event::{Enforced, SocketId, Verdict, Watch},
    host,
    probe::{ObservedServer, Probes},
    refusals::Refusals,
    statements::StatementReader,
    stream::EventStream,
    unix_bytes::Counting,
};
use crate::config::SensorConfig;

/// By what means the programs do their work.
#[derive(Debug)]
pub struct Means {
    /// What is attached to cgroups without links.
    #[expect(dead_code, reason = "dropping them detaches")]
    pub attached: Vec<Attached>,
    /// TCP is followed by its changes of state, not on cgroups.
    pub by_state: bool,
    /// What the programs may call: bits of `guard_common::kernel::helper`.
    pub helpers: u32,
    /// Bytes on unix sockets can be counted.
    pub counts_unix: bool,
}

/// What of refusing was attached beforehand.
#[derive(Debug, Default)]
pub struct Hooks {
    /// That of unix sockets.
    pub unix: Option<OwnedFd>,
}

/// Maps and links; dropping it detaches everything.
pub struct Kernel {
    stream: EventStream,
    drops: PerCpuArray<MapData, u64>,
    ports: HashMap<MapData, u16, u8>,
    paths: HashMap<MapData, UnixPath, u8>,
    clients: HashMap<MapData, FlowKey, TaskInfo>,
    unix_bytes: HashMap<MapData, u64, UnixBytes>,
    messages: PerCpuArray<MapData, u64>,
    means: Means,
    namespace: u64,
    /// Nothing in the object for kernels without a ring buffer: statements take one.
    probes: Option<Probes>,
    flush_log: Option<Box<dyn FnMut() + Send>>,
    /// The kernel measures while this is open.
    _measuring: Option<OwnedFd>,
    /// What was counted up to the last look, by kind and CPU.
    counted: BTreeMap<(u32, u32), u64>,
    /// What refuses connections; nothing where this kernel cannot.
    refusals: Option<Refusals>,
    /// What counts the bytes on unix sockets, while they are counted.
    unix_counting: Option<Counting>,
    links: Ebpf,
}

impl Kernel {
    /// Takes over what was loaded and attached.
    pub fn new(
        mut ebpf: Ebpf,
        stream: EventStream,
        means: Means,
        config: &SensorConfig,
        refusal: Option<Hooks>,
    ) -> Result<Self, MapError> {
        let log = config.kernel_log && matches!(stream, EventStream::Ring(_));
        let flush_log = if log { logger(&mut ebpf) } else { None };
        let measuring = if config.measure_cost { measure() } else { None };
        let observed = ebpf.take_map(maps::OBSERVED).map(HashMap::try_from).transpose()?;
        let refusals = refusal.map(|hooks| Refusals::new(&mut ebpf, hooks.unix)).transpose()?;
        let mut take =
            |name: &str| ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() });
        Ok(Self {
            stream,
            drops: PerCpuArray::try_from(take(maps::DROPS)?)?,
            ports: HashMap::try_from(take(maps::WATCHED_PORTS)?)?,
            paths: HashMap::try_from(take(maps::WATCHED_PATHS)?)?,
            clients: HashMap::try_from(take(maps::CLIENTS)?)?,
            unix_bytes: HashMap::try_from(take(maps::UNIX_BYTES)?)?,
            messages: PerCpuArray::try_from(take(maps::MESSAGES)?)?,
            namespace: namespace(&means),
            means,
            probes: observed.map(Probes::new),
            flush_log,
            _measuring: measuring,
            counted: BTreeMap::new(),
            refusals,
            unix_counting: None,
            links: ebpf,
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

    /// The cookie of the network namespace that the programs numbered so; 0 where they have none.
    pub fn namespace_cookie(&self, number: u64) -> u64 {
        let by_cookie = !self.means.by_state && self.means.helpers & helper::NETNS_COOKIE != 0;
        if by_cookie { number } else { 0 }
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

    /// Has the bytes of unix connections counted, if they are not yet. Gives since when; nothing where this kernel cannot.
    pub fn count_unix(&mut self) -> Option<Duration> {
        if !self.means.counts_unix {
            return None;
        }
        if self.unix_counting.is_none() {
            match Counting::begin(&mut self.links) {
                Ok(counting) => self.unix_counting = Some(counting),
                Err(error) => {
                    tracing::warn!(%error, "bytes on unix sockets cannot be counted any more");
                    self.means.counts_unix = false;
                }
            }
        }
        self.unix_counting.as_ref().map(Counting::since)
    }

    /// How many messages were looked at for that, ever.
    pub fn messages(&self) -> u64 {
        let by_cpu = self.messages.get(&0, 0);
        by_cpu.map_or(0, |by_cpu| by_cpu.iter().fold(0, |sum, count| sum.wrapping_add(*count)))
    }

    /// Has them counted no more.
    pub fn stop_counting_unix(&mut self) {
        self.unix_counting = None;
    }

    /// Takes out what was counted under `key` for the unix socket `inode`: nobody counts it any further.
    pub fn take_unix_bytes(&mut self, key: u64, inode: u64) -> Option<UnixBytes> {
        let bytes = self.unix_bytes.get(&key, 0).ok().filter(|bytes| bytes.inode == inode)?;
        // Gone already at worst.
        let _ = self.unix_bytes.remove(&key);
        self.means.counts_unix.then_some(bytes)
    }

    /// What reads the statements; once.
    pub fn statements(ebpf: &mut Ebpf) -> Result<StatementReader, MapError> {
        let mut take =
            |name: &str| ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() });
        Ok(StatementReader::new(
            RingBuf::try_from(take(maps::STATEMENTS)?)?,
            HashMap::try_from(take(maps::BACKENDS)?)?,
            HashMap::try_from(take(maps::PROXIED)?)?,
            Array::try_from(take(maps::AWAKE)?)?,
        ))
    }

    /// Observes exactly these servers from now on; tells for each why not.
    pub fn observe(&mut self, servers: &[ObservedServer]) -> Vec<Result<(), String>> {
        match &mut self.probes {
            Some(probes) => probes.observe(&mut self.links, servers),
            None => vec![
                Err("statements take a ring buffer, which this kernel has not".to_owned());
                servers.len()
            ],
        }
    }

    /// Each program with how often it ran and how long all of that took, since it is measured.
    pub fn costs(&self) -> Vec<(String, u64, Duration)> {
        let cost = |(name, program): (&str, &Program)| {
            let info = program.info().ok()?;
            Some((name.to_owned(), info.run_count(), info.run_time()))
        };
        self.links.programs().filter_map(cost).collect()
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

    /// Takes other servers and policies for verdicts from now on; the verdicts of before are gone.
    pub fn enforce(&mut self, enforced: &Enforced) -> io::Result<()> {
        self.refusals.as_mut().map_or(Ok(()), |refusals| refusals.begin(enforced, &mut self.links))
    }

    /// Looks where the servers are reached now.
    pub fn follow_places(&mut self, enforced: &Enforced) -> io::Result<()> {
        self.refusals.as_mut().map_or(Ok(()), |refusals| refusals.set_places(enforced, &mut self.links))
    }

    /// Puts a verdict in force.
    pub fn refuse(&mut self, verdict: &Verdict) {
        if let Some(refusals) = &mut self.refusals {
            refusals.apply(verdict);
        }
    }

    /// What refuses connections; nothing where this kernel cannot.
    pub fn refusals(&mut self) -> Option<&mut Refusals> {
        self.refusals.as_mut()
    }

    /// Events of each kind that were lost since the last call, by CPU.
    pub fn lost(&mut self) -> Vec<(EventKind, Vec<(u32, u64)>)> {
        let mut lost = Vec::new();
        for kind in EventKind::ALL {
            let Ok(values) = self.drops.get(&(kind as u32), 0) else { continue };
            let mut by_cpu = Vec::new();
            for (cpu, total) in (0_u32..).zip(values.iter().copied()) {
                let counted = self.counted.entry((kind as u32, cpu)).or_default();
                if total > *counted {
                    by_cpu.push((cpu, total - *counted));
                    *counted = total;
                }
            }
            if !by_cpu.is_empty() {
                lost.push((kind, by_cpu));
            }
        }
        lost
    }
}

/// As `guard-ebpf/src/socket.rs` has it.
fn namespace(means: &Means) -> u64 {
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
    for port in &watched.elsewhere_ports {
        *bits.entry(*port).or_default() |= watch::ELSEWHERE;
    }
    bits
}

/// The kernel's form of a socket's path; nothing where it is longer than the kernel takes.
pub fn path_key(path: &Path) -> Option<[u8; UNIX_PATH_LEN]> {
    let mut bytes = [0; UNIX_PATH_LEN];
    let name = path.as_os_str().as_bytes();
    bytes.get_mut(..name.len())?.copy_from_slice(name);
    if bytes[0] == b'@' {
        bytes[0] = 0;
    }
    Some(bytes)
}

/// Has the kernel measure its programs. Best effort: without it, nothing is shown.
fn measure() -> Option<OwnedFd> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .inspect_err(|error| tracing::warn!(%error, "the cost of the eBPF programs cannot be measured"))
        .ok()
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
            elsewhere_ports: [5432, 7000].into(),
            ..Watch::default()
        };
        let bits: Vec<_> = port_bits(&watch).into_iter().collect();
        assert_eq!(bits, [(5432, 5), (6000, 3), (6432, 2), (7000, 4)]);
    }

    #[test]
    fn abstract_names_start_with_a_zero_byte() {
        assert_eq!(path_key(Path::new("@name")).map(|key| key[..6].to_vec()), Some(b"\0name\0".to_vec()));
        assert_eq!(path_key(Path::new("/a")).map(|key| key[..3].to_vec()), Some(b"/a\0".to_vec()));
        assert_eq!(path_key(Path::new(&"x".repeat(109))), None);
    }
}
