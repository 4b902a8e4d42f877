//! The kernel side of holding: the only owner of its maps and links.
//!
//! An object of its own is loaded, apart from the sensor's: nothing else depends on it. Its probes are in files, not in
//! processes: other servers that run the same program pay for a look at whose they are, and nothing more.

use std::{
    collections::HashMap as Table,
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::UProbe,
};
use guard_common::kernel::hold::{
    HeldBackend, HeldServer, HoldEvent, Known, Stop, StopKey, beat, count, maps,
};
use tokio::io::unix::AsyncFd;

use super::{
    probe,
    target::{PROBES, Target},
};
use crate::{
    probes::FileId,
    sensor::{VERIFIER_LOG, chain, hold_object, kernel_layout, lift_memory_limit, monotonic, random_key},
};

/// Why the kernel side cannot work here.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Offsets of kernel structures are not known.
    #[error("no offsets of kernel structures: {0}; a kernel with CONFIG_DEBUG_INFO_BTF brings them")]
    Layout(String),
    /// The configuration does without what it takes.
    #[error(
        "`sensor.ebpf` and `sensor.without` leave no eBPF, no BTF or no ring buffer, and it takes all of them"
    )]
    Without,
    /// The kernel refuses the object or one of its programs.
    #[error("the kernel does not take its programs: {0}")]
    Programs(String),
    /// Its maps cannot be used.
    #[error("its maps cannot be used: {0}")]
    Maps(#[from] MapError),
    /// The system refuses something else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Programs and probes; dropping it takes them away.
pub struct HoldKernel {
    /// Who was stopped; readable when there is somebody.
    pub events: AsyncFd<RingBuf<MapData>>,
    /// Second descriptors of the maps that the watchdog needs: stops and heartbeats.
    pub for_watchdog: [OwnedFd; 2],
    ebpf: Ebpf,
    attached: Table<FileId, Vec<OwnedFd>>,
}

/// What agent and programs tell each other.
pub struct Maps {
    servers: HashMap<MapData, u32, HeldServer>,
    backends: HashMap<MapData, u32, HeldBackend>,
    known: HashMap<MapData, Known, u32>,
    stops: HashMap<MapData, StopKey, Stop>,
    beats: Array<MapData, u64>,
    counts: PerCpuArray<MapData, u64>,
}

impl HoldKernel {
    /// Loads the programs; nothing is probed yet.
    pub fn load() -> Result<(Self, Maps), KernelError> {
        let mut ebpf = programs()?;
        let for_watchdog = [shared(&ebpf, maps::STOPS)?, shared(&ebpf, maps::BEATS)?];
        let mut take =
            |name: &str| ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() });
        let ring = RingBuf::try_from(take(maps::EVENTS)?)?;
        // SAFETY: the buffer's descriptor is the same, and open, as long as the buffer lives.
        let events = unsafe { AsyncFd::register(ring) }.map_err(io::Error::from)?;
        let maps = Maps {
            servers: HashMap::try_from(take(maps::SERVERS)?)?,
            backends: HashMap::try_from(take(maps::BACKENDS)?)?,
            known: HashMap::try_from(take(maps::KNOWN)?)?,
            stops: HashMap::try_from(take(maps::STOPS)?)?,
            beats: Array::try_from(take(maps::BEATS)?)?,
            counts: PerCpuArray::try_from(take(maps::COUNTS)?)?,
        };
        Ok((Self { events, for_watchdog, ebpf, attached: Table::new() }, maps))
    }

    /// Holds the statements of a server from now on.
    pub fn hold(&mut self, maps: &mut Maps, target: &Target) -> Result<(), KernelError> {
        // Known before it is probed: whoever comes first is held already.
        maps.set_server(target.postmaster, target.held)?;
        if self.attached.contains_key(&target.file) {
            return Ok(());
        }
        let mut probes = Vec::new();
        for ((name, symbol), offset) in PROBES.iter().zip(target.offsets) {
            match self.attach(name, offset, target) {
                Ok(probe) => probes.push(probe),
                Err(error) => {
                    let _ = maps.servers.remove(&target.postmaster);
                    return Err(KernelError::Programs(format!("{symbol}: {error}")));
                }
            }
        }
        self.attached.insert(target.file, probes);
        Ok(())
    }

    fn attach(&mut self, name: &str, offset: u64, target: &Target) -> io::Result<OwnedFd> {
        let program = self.ebpf.program_mut(name).ok_or_else(|| io::Error::other("not in the object"))?;
        let program: &mut UProbe = program.try_into().map_err(io::Error::other)?;
        let program = program.fd().map_err(io::Error::other)?;
        probe::attach(program.as_fd(), &target.program, offset)
    }

    /// The probes in the program of `target`.
    pub fn probes(&self, target: &Target) -> &[OwnedFd] {
        self.attached.get(&target.file).map_or(&[], Vec::as_slice)
    }

    /// Holds nothing of it any more. The probes stay as long as another server of `others` runs the same program.
    pub fn let_go(&mut self, maps: &mut Maps, target: &Target, others: &[FileId]) {
        let _ = maps.servers.remove(&target.postmaster);
        if !others.contains(&target.file) {
            self.attached.remove(&target.file);
        }
    }
}

impl std::fmt::Debug for HoldKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HoldKernel").field("attached", &self.attached).finish_non_exhaustive()
    }
}

/// Whether this kernel takes the programs, and probes in programs at all. Nothing is left behind.
pub fn try_out() -> Result<(), KernelError> {
    programs()?;
    probe::kind()?;
    Ok(())
}

fn programs() -> Result<Ebpf, KernelError> {
    let layout = kernel_layout().map_err(|error| KernelError::Layout(error.to_string()))?;
    lift_memory_limit();
    let key = random_key()?;
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(VERIFIER_LOG)
        .override_global("LAYOUT", &layout, true)
        .override_global("HASH_KEY", &key, true)
        .load(hold_object())
        .map_err(|error| KernelError::Programs(chain(&error)))?;
    for (name, _) in PROBES {
        let failed =
            |error: &dyn std::error::Error| KernelError::Programs(format!("{name}: {}", chain(error)));
        let program = ebpf.program_mut(name).ok_or_else(|| KernelError::Programs(name.to_owned()))?;
        let program: &mut UProbe = program.try_into().map_err(|error| failed(&error))?;
        program.load().map_err(|error| failed(&error))?;
    }
    Ok(ebpf)
}

impl Maps {
    /// The agent is alive.
    pub fn beat(&mut self) -> Result<(), MapError> {
        self.beats.set(beat::AGENT, now_ns(), 0)
    }

    /// What an older epoch allowed is not known any more.
    pub fn set_server(&mut self, postmaster: u32, server: HeldServer) -> Result<(), MapError> {
        self.servers.insert(postmaster, server, 0)
    }

    /// Tells the programs about a backend.
    pub fn set_backend(&mut self, pid: u32, backend: HeldBackend) {
        // Where there is no room it is stopped more often than it would have to be.
        if let Err(error) = self.backends.insert(pid, backend, 0) {
            tracing::debug!(pid, %error, "a backend is not remembered");
        }
    }

    /// A statement is allowed.
    pub fn know(&mut self, known: Known) {
        if let Err(error) = self.known.insert(known, 1, 0) {
            tracing::debug!(%error, "an allowed statement is not remembered");
        }
    }

    /// Whether this stop is still this agent's to end.
    pub fn is_stopped(&self, key: &StopKey) -> bool {
        self.stops.get(key, 0).is_ok()
    }

    /// All that are stopped.
    pub fn stops(&self) -> Vec<(StopKey, Stop)> {
        self.stops.iter().flatten().collect()
    }

    /// It has ended.
    pub fn ended(&mut self, key: &StopKey) {
        // The watchdog may have been faster.
        let _ = self.stops.remove(key);
    }

    /// How often each of [`count`] has happened.
    pub fn counts(&self) -> [u64; count::COUNT as usize] {
        let mut counts = [0; count::COUNT as usize];
        for (index, sum) in (0..count::COUNT).zip(&mut counts) {
            *sum = self.counts.get(&index, 0).map_or(0, |values| values.iter().sum());
        }
        counts
    }
}

/// Now, on the clock of the programs.
pub fn now_ns() -> u64 {
    u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX)
}

/// The event in `bytes`; nothing for what is too short.
pub fn event(bytes: &[u8]) -> Option<HoldEvent> {
    let bytes = bytes.get(..size_of::<HoldEvent>())?;
    // SAFETY: as many bytes as the type has, which is made of integers alone: every bit pattern is valid.
    Some(unsafe { bytes.as_ptr().cast::<HoldEvent>().read_unaligned() })
}

/// The map of stops or of heartbeats behind a descriptor that the agent handed over.
pub fn stops(fd: OwnedFd) -> Result<HashMap<MapData, StopKey, Stop>, MapError> {
    HashMap::try_from(Map::HashMap(MapData::from_fd(fd)?))
}

/// See [`stops`].
pub fn beats(fd: OwnedFd) -> Result<Array<MapData, u64>, MapError> {
    Array::try_from(Map::Array(MapData::from_fd(fd)?))
}

fn shared(ebpf: &Ebpf, name: &str) -> io::Result<OwnedFd> {
    match ebpf.map(name) {
        Some(Map::HashMap(data) | Map::Array(data)) => data.fd().as_fd().try_clone_to_owned(),
        _ => Err(io::Error::other(format!("no map {name} in the object"))),
    }
}
