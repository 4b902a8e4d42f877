//! The kernel side's verdicts: what is decided enters, maps of the running programs change.
//!
//! INVARIANT: the epoch is ended before anything else changes, so that no verdict of before counts for what comes after.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    path::PathBuf,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap as Map, MapData, MapError},
    programs::{ProgramError, SkLookup, sk_lookup::SkLookupLink},
};
use guard_common::kernel::{
    maps,
    process::TaskInfo,
    refusal::{Peer, PeerVerdict, Place, SERVERS, UnixPlace, Verdict},
    unix::UnixPath,
};

use super::{
    event::{Client, Enforced, Subject},
    kernel::path_key,
    places::Places,
};

/// The program that looks at SYNs.
const LOOKUP: &str = "refuse_peer";
/// Processes with a verdict.
const LIMIT: usize = 65_000;

/// Verdicts that are in force, and the hooks that go by them.
pub struct Refusals {
    epoch: Array<MapData, u64>,
    verdicts: Map<MapData, TaskInfo, Verdict>,
    places: Map<MapData, Place, u32>,
    unix_places: Map<MapData, UnixPath, UnixPlace>,
    peers: Map<MapData, Peer, PeerVerdict>,
    /// In force; 0: none is.
    current: u64,
    /// The processes that have a verdict, by pid.
    known: HashMap<u32, Vec<TaskInfo>>,
    count: usize,
    /// Paths of unix sockets, as events number them.
    paths: Vec<PathBuf>,
    /// Names of servers, by their numbers.
    names: BTreeMap<u32, String>,
    lookups: BTreeMap<u32, SkLookupLink>,
    lookup_fails: bool,
    _unix: Option<OwnedFd>,
}

impl Refusals {
    /// Takes the maps; `unix` keeps the hook of unix sockets attached.
    pub fn new(ebpf: &mut Ebpf, unix: Option<OwnedFd>) -> Result<Self, MapError> {
        let mut take =
            |name: &str| ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() });
        Ok(Self {
            epoch: Array::try_from(take(maps::EPOCH)?)?,
            verdicts: Map::try_from(take(maps::VERDICTS)?)?,
            places: Map::try_from(take(maps::PLACES)?)?,
            unix_places: Map::try_from(take(maps::UNIX_PLACES)?)?,
            peers: Map::try_from(take(maps::PEERS)?)?,
            current: 0,
            known: HashMap::new(),
            count: 0,
            paths: Vec::new(),
            names: BTreeMap::new(),
            lookups: BTreeMap::new(),
            lookup_fails: false,
            _unix: unix,
        })
    }

    /// Ends every verdict that is in force, and takes `enforced` for those to come.
    pub fn begin(&mut self, enforced: &Enforced, programs: &mut Ebpf) -> io::Result<()> {
        self.set_epoch(0)?;
        self.forget_all();
        self.set_places(enforced, programs)?;
        self.set_epoch(enforced.epoch)
    }

    /// Follows addresses and namespaces, which change without anybody telling.
    pub fn set_places(&mut self, enforced: &Enforced, programs: &mut Ebpf) -> io::Result<()> {
        let places = if enforced.epoch == 0 { Places::default() } else { Places::of(&enforced.servers) };
        replace(&mut self.places, &places.tcp)?;
        let unix = places.unix.iter().filter_map(|(path, place)| Some((path_key(path)?, *place)));
        replace_unix(&mut self.unix_places, &unix.collect())?;
        self.paths = places.paths;
        self.names = enforced.servers.iter().map(|server| (server.number, server.name.clone())).collect();
        self.look_in(&places.namespaces, programs);
        Ok(())
    }

    fn set_epoch(&mut self, epoch: u64) -> io::Result<()> {
        self.epoch.set(0, epoch, 0).map_err(io::Error::other)?;
        self.current = epoch;
        Ok(())
    }

    /// Watches SYNs in these network namespaces and in no others.
    fn look_in(&mut self, namespaces: &BTreeMap<u32, u32>, programs: &mut Ebpf) {
        self.lookups.retain(|namespace, _| namespaces.contains_key(namespace));
        for (namespace, pid) in namespaces {
            if self.lookups.contains_key(namespace) {
                continue;
            }
            match attach_lookup(programs, *pid) {
                Ok(link) => drop(self.lookups.insert(*namespace, link)),
                Err(error) if !self.lookup_fails => {
                    self.lookup_fails = true;
                    tracing::warn!("clients of other hosts are cut after they connect, not refused: {error}");
                }
                Err(_) => {}
            }
        }
    }

    /// Puts a verdict in force, where it is of the epoch of now.
    pub fn apply(&mut self, verdict: &super::event::Verdict) {
        if verdict.epoch != self.current || self.current == 0 {
            return;
        }
        match verdict.subject {
            Subject::Client(Client(task)) => self.refuse_process(&task, verdict),
            Subject::Address(address) => self.refuse_peer(address, verdict),
        }
    }

    fn refuse_process(&mut self, task: &TaskInfo, verdict: &super::event::Verdict) {
        let known = self.known.entry(task.pid).or_default();
        let position = known.iter().position(|other| other == task);
        if verdict.tcp == 0 && verdict.unix == 0 {
            if let Some(position) = position {
                known.swap_remove(position);
                self.count -= 1;
                let _ = self.verdicts.remove(task);
            }
            if known.is_empty() {
                self.known.remove(&task.pid);
            }
            return;
        }
        // Beyond the limit they are decided on where the server accepts.
        if position.is_none() && self.count >= LIMIT {
            return;
        }
        let entry = Verdict { epoch: verdict.epoch, tcp: verdict.tcp, unix: verdict.unix };
        if self.verdicts.insert(task, entry, 0).is_ok() && position.is_none() {
            known.push(*task);
            self.count += 1;
        }
    }

    fn refuse_peer(&mut self, address: IpAddr, verdict: &super::event::Verdict) {
        if self.lookups.is_empty() {
            return;
        }
        let ip = match address {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let refused = (0..SERVERS as u32).filter(|number| verdict.tcp & (1 << number) != 0);
        for server in refused {
            let peer = Peer { address: ip.octets(), server };
            let entry = PeerVerdict { epoch: verdict.epoch, ..PeerVerdict::default() };
            // The oldest makes room.
            let _ = self.peers.insert(peer, entry, 0);
        }
    }

    /// The process has ended.
    pub fn ended(&mut self, pid: u32, start_ns: u64) {
        let Some(known) = self.known.get_mut(&pid) else { return };
        known.retain(|task| {
            let stays = task.start_ns != start_ns;
            if !stays {
                self.count -= 1;
                let _ = self.verdicts.remove(task);
            }
            stays
        });
        if known.is_empty() {
            self.known.remove(&pid);
        }
    }

    /// Forgets processes that are not among `running`: their end was missed.
    pub fn retain(&mut self, running: &HashSet<u32>) {
        let gone: Vec<u32> = self.known.keys().copied().filter(|pid| !running.contains(pid)).collect();
        for pid in gone {
            for task in self.known.remove(&pid).unwrap_or_default() {
                self.count -= 1;
                let _ = self.verdicts.remove(&task);
            }
        }
    }

    fn forget_all(&mut self) {
        for task in std::mem::take(&mut self.known).into_values().flatten() {
            let _ = self.verdicts.remove(&task);
        }
        self.count = 0;
        // Those of peers end with their epoch, and make room for others.
    }

    /// The name of the server with that number.
    pub fn server(&self, number: u32) -> Option<&str> {
        self.names.get(&number).map(String::as_str)
    }

    /// The path of a unix socket with that number.
    pub fn path(&self, number: u32) -> Option<&PathBuf> {
        self.paths.get(number as usize)
    }
}

fn attach_lookup(programs: &mut Ebpf, pid: u32) -> Result<SkLookupLink, String> {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).map_err(|error| error.to_string())?;
    let program = programs.program_mut(LOOKUP).ok_or("not in the eBPF object")?;
    let program: &mut SkLookup = program.try_into().map_err(|error: ProgramError| error.to_string())?;
    if program.fd().is_err() {
        program.load().map_err(|error| super::load::chain(&error))?;
    }
    let link = program.attach(namespace).map_err(|error| super::load::chain(&error))?;
    program.take_link(link).map_err(|error| error.to_string())
}

fn replace(map: &mut Map<MapData, Place, u32>, wanted: &HashMap<Place, u32>) -> io::Result<()> {
    let current: Vec<Place> = map.keys().flatten().collect();
    for place in current.iter().filter(|place| !wanted.contains_key(place)) {
        let _ = map.remove(place);
    }
    for (place, server) in wanted {
        map.insert(place, server, 0).map_err(io::Error::other)?;
    }
    Ok(())
}

type UnixPlaces = BTreeMap<[u8; guard_common::kernel::UNIX_PATH_LEN], UnixPlace>;

fn replace_unix(map: &mut Map<MapData, UnixPath, UnixPlace>, wanted: &UnixPlaces) -> io::Result<()> {
    let current: Vec<UnixPath> = map.keys().flatten().collect();
    for path in current.iter().filter(|path| !wanted.contains_key(&path.bytes)) {
        let _ = map.remove(path);
    }
    for (bytes, place) in wanted {
        map.insert(UnixPath { bytes: *bytes }, place, 0).map_err(io::Error::other)?;
    }
    Ok(())
}

impl std::fmt::Debug for Refusals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refusals").field("epoch", &self.current).field("processes", &self.count).finish()
    }
}
