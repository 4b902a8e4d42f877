//! The sk_lookup program in one network namespace: loaded, attached, pinned, and told what to steer where.
//!
//! Addresses and listening sockets enter; the kernel does the rest, also when this process is gone. Each load is new, with
//! maps of its own: the one that an earlier agent left goes on until this one is complete.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, SockMap},
    programs::{
        SkLookup,
        links::{FdLink, PinnedLink},
    },
};
use guard_common::kernel::steer::{
    BY_ANY, BY_LOOPBACK, OwnConnection, SteeredAddress, SteeringCount, SteeringRule, names,
};

use super::{SteeringError, namespace::Namespace};

/// Puts the bytes where an ELF reader may cast them.
#[repr(C, align(32))]
struct Aligned<Bytes: ?Sized>(Bytes);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/guard-steer.o")));

/// The name under which counts are pinned.
const COUNTS_PIN: &str = "counts";
/// In the kernel: not there already.
const BPF_NOEXIST: u64 = 1;

/// The attached program.
pub struct Program {
    rules: HashMap<MapData, SteeredAddress, SteeringRule>,
    listeners: SockMap<MapData>,
    own: OwnConnections,
    counts: PerCpuArray<MapData, u64>,
    link: Link,
    _programs: Ebpf,
}

#[derive(Debug)]
enum Link {
    /// Ends with this process.
    Held(#[expect(dead_code, reason = "held, not read")] FdLink),
    /// Outlives it.
    Pinned(#[expect(dead_code, reason = "held, not read")] PinnedLink, PathBuf),
}

/// The proxy's connections that are to pass. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OwnConnections(Arc<Mutex<HashMap<MapData, OwnConnection, u8>>>);

/// Lets one connection of the proxy pass, as long as this value lives.
#[derive(Debug)]
pub struct Pass {
    own: OwnConnections,
    key: OwnConnection,
}

impl Program {
    /// Loads and attaches it to `namespace`. Steers nothing yet. In `folder` of the BPF file system it outlives this process.
    pub fn attach(namespace: &Namespace, folder: Option<&Path>) -> Result<Self, SteeringError> {
        let mut ebpf = load(true).or_else(|_| load(false))?;
        let program: &mut SkLookup = program(&mut ebpf)?;
        let id = program.attach(namespace.file()).map_err(|error| failed(&error))?;
        let link: FdLink = program.take_link(id).map_err(|error| failed(&error))?.into();
        let link = match folder {
            Some(folder) => pinned(&ebpf, link, folder)?,
            None => Link::Held(link),
        };
        let mut take =
            |name: &str| ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() });
        let mut maps = || -> Result<_, MapError> {
            Ok((
                HashMap::try_from(take(names::RULES)?)?,
                SockMap::try_from(take(names::LISTENERS)?)?,
                HashMap::try_from(take(names::OWN)?)?,
                PerCpuArray::try_from(take(names::COUNTS)?)?,
            ))
        };
        let (rules, listeners, own, counts) = maps().map_err(|error| failed(&error))?;
        let own = OwnConnections(Arc::new(Mutex::new(own)));
        Ok(Self { rules, listeners, own, counts, link, _programs: ebpf })
    }

    /// Where it is pinned.
    pub fn folder(&self) -> Option<&Path> {
        match &self.link {
            Link::Pinned(_, folder) => Some(folder),
            Link::Held(_) => None,
        }
    }

    /// Puts a listening socket into its place.
    pub fn set_listener(&mut self, place: u32, listener: &TcpListener) -> Result<(), SteeringError> {
        self.listeners.set(place, listener, 0).map_err(|error| failed(&error))
    }

    /// Steers connections to `address`.
    pub fn steer(&mut self, address: SocketAddr, rule: SteeringRule) -> Result<(), SteeringError> {
        self.rules.insert(key(address), rule, 0).map_err(|error| failed(&error))
    }

    /// Steers them no longer.
    pub fn leave(&mut self, address: SocketAddr) {
        // It was not steered: as well.
        let _ = self.rules.remove(&key(address));
    }

    /// For connections that are to pass.
    pub fn own(&self) -> OwnConnections {
        self.own.clone()
    }

    /// How often it did what.
    pub fn count(&self, what: SteeringCount) -> u64 {
        count_of(&self.counts, what)
    }
}

impl OwnConnections {
    /// Lets the connection from `source` to `target` pass. An error of the kind `AddrInUse`: another one does already.
    pub fn pass(&self, source: SocketAddr, target: SocketAddr) -> io::Result<Pass> {
        let source_port = source.port();
        let key = OwnConnection { source: mapped(source.ip()), source_port, server_port: target.port() };
        let by = if target.ip().is_loopback() { BY_LOOPBACK } else { BY_ANY };
        let inserted = self.lock().insert(key, by, BPF_NOEXIST);
        match inserted {
            Ok(()) => Ok(Pass { own: self.clone(), key }),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {
                Err(io::ErrorKind::AddrInUse.into())
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MapData, OwnConnection, u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // It goes with the maps otherwise.
        let _ = self.own.lock().remove(&self.key);
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("link", &self.link).finish_non_exhaustive()
    }
}

/// What an earlier agent's program in `folder` has done since it was attached.
pub fn counts_in(folder: &Path) -> Option<PerCpuArray<MapData, u64>> {
    let data = MapData::from_pin(folder.join(COUNTS_PIN)).ok()?;
    PerCpuArray::try_from(Map::PerCpuArray(data)).ok()
}

/// One of these counts.
pub fn count_of(counts: &PerCpuArray<MapData, u64>, what: SteeringCount) -> u64 {
    counts.get(&(what as u32), 0).map(|values| values.iter().sum()).unwrap_or_default()
}

/// Pins the maps that others may want to read, and the link, which keeps the rest.
fn pinned(ebpf: &Ebpf, link: FdLink, folder: &Path) -> Result<Link, SteeringError> {
    let pins = |error: aya::pin::PinError| SteeringError::Pins(io::Error::other(chain(&error)));
    for (map, name) in [(names::RULES, "rules"), (names::COUNTS, COUNTS_PIN)] {
        ebpf.map(map).map_or(Ok(()), |map| map.pin(folder.join(name))).map_err(pins)?;
    }
    Ok(Link::Pinned(link.pin(folder.join("link")).map_err(pins)?, folder.to_owned()))
}

/// Whether this kernel takes the program.
pub fn probe() -> Result<(), SteeringError> {
    load(true).or_else(|_| load(false)).map(|_| ())
}

fn load(knows_device: bool) -> Result<Ebpf, SteeringError> {
    crate::sensor::lift_memory_limit();
    let knows = u32::from(knows_device);
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(crate::sensor::VERIFIER_LOG)
        .override_global("KNOWS_DEVICE", &knows, true)
        .load(&OBJECT.0)
        .map_err(|error| failed(&error))?;
    program(&mut ebpf)?.load().map_err(|error| failed(&error))?;
    Ok(ebpf)
}

fn program(ebpf: &mut Ebpf) -> Result<&mut SkLookup, SteeringError> {
    let program = ebpf.program_mut(names::PROGRAM);
    let program = program.ok_or_else(|| SteeringError::Program("not in the eBPF object".to_owned()))?;
    program.try_into().map_err(|error: aya::programs::ProgramError| failed(&error))
}

fn failed(error: &dyn std::error::Error) -> SteeringError {
    SteeringError::Program(chain(error))
}

/// An error with its causes; a verifier's log can fill pages, and its first lines name the reason.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.lines().take(3).collect::<Vec<_>>().join(" ")
}

fn key(address: SocketAddr) -> SteeredAddress {
    SteeredAddress { address: mapped(address.ip()), port: address.port().into() }
}

fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_form() {
        assert_eq!(mapped("::ffff:10.0.0.1".parse().unwrap()), mapped("10.0.0.1".parse().unwrap()));
        assert_eq!(mapped("0.0.0.0".parse().unwrap())[10..], [0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(mapped("::".parse().unwrap()), [0; 16]);
        assert_eq!(key("[::1]:5432".parse().unwrap()).port, 5432);
    }
}
