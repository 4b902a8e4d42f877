//! Transparent steering: connections to a server's own address and port reach the proxy, with nothing changed in clients or
//! in the server.
//!
//! Servers enter, listening sockets for the proxy and gates to the servers leave. It loads and pins what does it, in the
//! network namespace of each server, and takes it away again. It reads nothing that a peer wrote. INVARIANT: a server is
//! steered only where the proxy can reach it from each client's own address, so that the server's rules by address keep
//! their meaning.

mod detach;
mod gate;
mod manifest;
mod namespace;
mod netlink;
mod pins;
mod program;
mod redirect;
mod way_back;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use guard_common::kernel::steer::{SteeringCount, SteeringRule};
use nix::sys::socket::{Backlog, listen};

use self::{
    detach::restore,
    manifest::{Entry, Manifest},
    namespace::Namespace,
    program::Program,
    redirect::Redirected,
};
pub use self::{
    detach::{Detached, Failure, Item, detach},
    gate::{Connected, Gate, Origin},
    pins::Pins,
    program::Pass,
};
use crate::{
    config::{OnStop, PinsConfig, SteeringConfig, SteeringMeans, WhenProxyGone},
    servers::Server,
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4_096;
/// Folders of [`Pins`] in which a namespace's program is.
const PREFIX: &str = "steer-";

/// Why a server is not steered. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The server's network namespace cannot be entered.
    #[error(
        "the network namespace `{path}` of the server cannot be entered: {error}; one that is not the agent's own takes \
         CAP_SYS_ADMIN"
    )]
    Namespace {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The kernel takes no such program.
    #[error("the kernel does not take the sk_lookup program: {0}")]
    Program(String),
    /// Nothing can be pinned, and the choice is to refuse connections when the proxy is gone.
    #[error(
        "nothing can be pinned in /sys/fs/bpf ({0}), and without that `when_proxy_gone = \"refuse\"` cannot be kept: \
         mount it with `mount -t bpf bpf /sys/fs/bpf`, or choose \"pass\""
    )]
    Pins(io::Error),
    /// The server would see guard's address instead of its clients'.
    #[error(
        "the server could not be reached from its clients' own addresses, and its rules by address would lose their \
         meaning: {what} {family} cannot be set: {error}"
    )]
    WayBack {
        /// What was to be set.
        what: &'static str,
        /// For which family.
        family: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// No socket to steer to.
    #[error("no listening socket can be made in the server's network namespace: {0}")]
    Listen(io::Error),
    /// The server is somewhere else.
    #[error(
        "{0} is no address of this host, or of the network namespace in which the server runs: guard steers what arrives \
         on the host that it runs on"
    )]
    Elsewhere(SocketAddr),
    /// nftables does not do it either.
    #[error("nftables does not redirect: {0}")]
    Redirect(io::Error),
    /// nftables cannot keep the choice.
    #[error(
        "this kernel has no sk_lookup, and what nftables redirects cannot pass when the proxy is gone: choose \
         `when_proxy_gone = \"refuse\"`"
    )]
    PassByRedirect,
    /// What was set cannot be written down, and would not be found again.
    #[error("what is set in the kernel cannot be written down in the state folder: {0}")]
    Manifest(io::Error),
    /// Another mark was used before.
    #[error(
        "an agent with `steering.mark = {0:#x}` has left settings behind: run `guard-agent detach` with that configuration \
         first"
    )]
    OtherMark(u32),
}

/// A server that has just been steered, or steered anew.
#[derive(Debug)]
pub struct Steered {
    /// Sockets that take its clients' connections; none where those from before go on.
    pub listeners: Vec<TcpListener>,
    /// The way to the server.
    pub gate: Arc<Gate>,
    /// How, for people.
    pub description: String,
}

/// How often what was done, over all servers of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteeringCounts {
    /// Connections that were led to the proxy.
    pub steered: u64,
    /// Refused, or let through to the server, since there was no proxy.
    pub without_proxy: u64,
}

/// What became of connections while no agent ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meanwhile {
    /// Refused.
    pub refused: u64,
    /// Let through to the server.
    pub passed: u64,
}

/// Everything that this agent steers.
#[derive(Debug)]
pub struct Steering {
    pins: PinsConfig,
    config: SteeringConfig,
    state: PathBuf,
    spaces: HashMap<u64, Space>,
    /// A server that should be steered is not: what an earlier agent left for it stays.
    incomplete: bool,
}

/// One network namespace.
#[derive(Debug)]
struct Space {
    namespace: Arc<Namespace>,
    means: Means,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
enum Means {
    SkLookup(Box<Program>),
    Redirect(String),
}

/// One server in its namespace.
#[derive(Debug)]
struct Place {
    addresses: Vec<SocketAddr>,
    refuse: bool,
    /// Where its sockets are in the program's map: for IPv4 and for IPv6.
    slots: (u32, u32),
    /// The ports of its sockets.
    ports: (u16, Option<u16>),
    gate: Arc<Gate>,
}

impl Steering {
    /// Nothing is steered yet; what an earlier agent has pinned goes on.
    pub fn new(pins: &PinsConfig, config: &SteeringConfig, state: &Path) -> Self {
        Self {
            pins: pins.clone(),
            config: config.clone(),
            state: state.to_owned(),
            spaces: HashMap::new(),
            incomplete: false,
        }
    }

    /// Steers `server`, or follows it to where it is now. `None`: nothing has changed.
    pub fn steer(&mut self, server: &Server, gone: WhenProxyGone) -> Result<Option<Steered>, SteeringError> {
        let result = self.place(server, gone == WhenProxyGone::Refuse);
        self.incomplete |= result.is_err();
        result
    }

    /// What one server's namespace has counted.
    pub fn counts(&self, name: &str) -> Option<SteeringCounts> {
        let space = self.spaces.values().find(|space| space.places.contains_key(name))?;
        let Means::SkLookup(program) = &space.means else { return Some(SteeringCounts::default()) };
        let without = program.count(SteeringCount::Refused) + program.count(SteeringCount::Passed);
        Some(SteeringCounts { steered: program.count(SteeringCount::Steered), without_proxy: without })
    }

    /// Removes what earlier agents have left, now that everything is in place that this one wants. To be called when each
    /// server has been steered once.
    pub fn settle(&mut self) -> Meanwhile {
        let mut meanwhile = Meanwhile::default();
        if std::mem::take(&mut self.incomplete) {
            return meanwhile;
        }
        let current: Vec<&Path> = self.spaces.values().filter_map(Space::folder).collect();
        let pins = Pins::existing(&self.pins.instance);
        for folder in pins.iter().flat_map(|pins| pins.subfolders(PREFIX)) {
            if current.contains(&folder.as_path()) {
                continue;
            }
            if let Some(counts) = program::counts_in(&folder) {
                let count = |what| program::count_of(&counts, what);
                meanwhile.refused += count(SteeringCount::Refused);
                meanwhile.passed += count(SteeringCount::Passed);
            }
            if let (_, Some(error)) = pins::remove_tree(&folder) {
                tracing::warn!("{} cannot be removed: {error}", folder.display());
            }
        }
        if let Err(error) = self.restore_others() {
            tracing::warn!("settings of earlier agents cannot be taken back: {error}");
        }
        meanwhile
    }

    /// What the end of the agent takes away: everything, or nothing, as is configured.
    pub fn stop(&mut self) {
        if self.pins.on_stop == OnStop::Keep {
            return;
        }
        for space in self.spaces.values() {
            if let (Means::SkLookup(_), Some(folder)) = (&space.means, space.folder()) {
                let (_, error) = pins::remove_tree(folder);
                if let Some(error) = error {
                    tracing::warn!("{} cannot be removed: {error}", folder.display());
                }
            }
            if let Means::Redirect(table) = &space.means
                && let Err(error) = redirect::remove(&space.namespace, table)
            {
                tracing::warn!("the nftables table {table} cannot be removed: {error}");
            }
        }
        // Dropping the last handle of a link detaches it. The way back stays until the last session has ended.
        self.spaces.clear();
    }

    /// What is left when the last session has ended.
    pub fn stopped(self) {
        if self.pins.on_stop == OnStop::Keep {
            return;
        }
        for failure in detach(&self.pins, &self.config, &self.state).failed {
            tracing::warn!("{} is still there: {}", failure.item, failure.error);
        }
    }

    /// Namespaces of earlier agents in which this one steers nothing.
    fn restore_others(&self) -> io::Result<()> {
        let mut manifest = Manifest::read(&self.state, &self.pins.instance, self.config.mark)?;
        for entry in manifest.namespaces().to_vec() {
            if self.spaces.contains_key(&entry.inode) {
                continue;
            }
            let mut done = Detached::default();
            if let Some(namespace) = Namespace::with_inode(entry.inode) {
                restore(&namespace, &entry, manifest.mark(), &mut done);
            }
            if done.failed.is_empty() {
                manifest.forget(entry.inode)?;
            }
        }
        Ok(())
    }

    fn place(&mut self, server: &Server, refuse: bool) -> Result<Option<Steered>, SteeringError> {
        // A server that is away keeps its place: when it comes back, nobody reaches it before guard has found it.
        let known = self.spaces.values().find_map(|space| space.places.get(&server.name));
        let pid = server.pid.filter(|pid| Path::new("/proc").join(pid.to_string()).exists());
        if pid.is_none() && known.is_some_and(|place| place.refuse == refuse) {
            return Ok(None);
        }
        let inode = Namespace::inode_of(pid)
            .map_err(|error| SteeringError::Namespace { path: "/proc".into(), error })?;
        let known = self.spaces.get(&inode).and_then(|space| space.places.get(&server.name));
        if known.is_some_and(|place| place.addresses == server.addresses && place.refuse == refuse) {
            return Ok(None);
        }
        // It has moved: what was there goes when it is in its new place.
        let moved: Vec<u64> = self.spaces.keys().copied().filter(|other| *other != inode).collect();
        let steered = self.place_in(inode, server, refuse)?;
        for other in moved {
            self.leave(other, &server.name);
        }
        Ok(Some(steered))
    }

    fn place_in(&mut self, inode: u64, server: &Server, refuse: bool) -> Result<Steered, SteeringError> {
        if !self.spaces.contains_key(&inode) {
            let space = self.open(server, refuse)?;
            self.spaces.insert(inode, space);
        }
        let mark = self.config.mark;
        let Some(space) = self.spaces.get_mut(&inode) else {
            return Err(SteeringError::Program("its network namespace is gone".to_owned()));
        };
        space.take(server, refuse, mark)
    }

    /// Prepares a namespace: the way back first, then what leads there.
    fn open(&self, server: &Server, refuse: bool) -> Result<Space, SteeringError> {
        let namespace = Arc::new(Namespace::of(server.pid)?);
        check_addresses(&namespace, &server.addresses)?;
        let means = self.means(&namespace, refuse)?;
        let table = match &means {
            Means::Redirect(table) => table.clone(),
            Means::SkLookup(_) => String::new(),
        };
        let mut manifest = Manifest::read(&self.state, &self.pins.instance, self.config.mark)
            .map_err(SteeringError::Manifest)?;
        if !manifest.fits(self.config.mark) {
            return Err(SteeringError::OtherMark(manifest.mark()));
        }
        let earlier = manifest.namespaces().iter().find(|entry| entry.inode == namespace.inode());
        if let Some(left) =
            earlier.map(|entry| &entry.nftables).filter(|left| **left != table && !left.is_empty())
        {
            redirect::remove(&namespace, left).map_err(SteeringError::Redirect)?;
        }
        let before = way_back::fwmark_accept(&namespace)?;
        let entry = Entry { inode: namespace.inode(), fwmark_accept: before, nftables: table };
        manifest.add(entry, self.config.mark).map_err(SteeringError::Manifest)?;
        let needs_v6 = server.addresses.iter().any(SocketAddr::is_ipv6);
        way_back::make(&namespace, self.config.mark, needs_v6)?;
        Ok(Space { namespace, means, places: BTreeMap::new() })
    }

    /// sk_lookup where the kernel has it, else nftables.
    fn means(&self, namespace: &Namespace, refuse: bool) -> Result<Means, SteeringError> {
        let by_program = || self.program(namespace, refuse).map(|program| Means::SkLookup(Box::new(program)));
        match self.config.means {
            SteeringMeans::SkLookup => by_program(),
            SteeringMeans::Nftables => self.table(refuse),
            SteeringMeans::Auto => match by_program() {
                Err(SteeringError::Program(reason)) => {
                    tracing::info!("steering by nftables: {reason}");
                    self.table(refuse)
                }
                other => other,
            },
        }
    }

    fn table(&self, refuse: bool) -> Result<Means, SteeringError> {
        if !refuse {
            return Err(SteeringError::PassByRedirect);
        }
        Ok(Means::Redirect(redirect::table_name(&self.pins.instance)))
    }

    fn program(&self, namespace: &Namespace, refuse: bool) -> Result<Program, SteeringError> {
        let generation = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let folder = Pins::open(&self.pins.instance)
            .and_then(|pins| pins.subfolder(&format!("{PREFIX}{}-{generation}", namespace.inode())));
        let pinned = match &folder {
            Ok(folder) => Program::attach(namespace, Some(folder)),
            Err(error) => Err(SteeringError::Pins(io::Error::new(error.kind(), error.to_string()))),
        };
        match pinned {
            Err(SteeringError::Pins(error)) if !refuse => {
                tracing::warn!("steering ends with this process: nothing can be pinned: {error}");
                Program::attach(namespace, None)
            }
            Err(error) => {
                // Half of it is of no use.
                folder.iter().for_each(|folder| drop(pins::remove_tree(folder)));
                Err(error)
            }
            Ok(program) => Ok(program),
        }
    }

    fn leave(&mut self, inode: u64, name: &str) {
        let Some(space) = self.spaces.get_mut(&inode) else { return };
        let Some(place) = space.places.remove(name) else { return };
        if let Means::SkLookup(program) = &mut space.means {
            place.addresses.iter().for_each(|address| program.leave(*address));
        }
        if !space.places.is_empty() {
            return;
        }
        if let Some(folder) = space.folder().map(Path::to_owned) {
            let _ = pins::remove_tree(&folder);
        }
        if let Means::Redirect(table) = &space.means {
            let _ = redirect::remove(&space.namespace, table);
        }
        self.spaces.remove(&inode);
    }
}

impl Space {
    fn folder(&self) -> Option<&Path> {
        match &self.means {
            Means::SkLookup(program) => program.folder(),
            Means::Redirect(_) => None,
        }
    }

    /// Puts `server` into its place. Its sockets stay where it has some.
    fn take(&mut self, server: &Server, refuse: bool, mark: u32) -> Result<Steered, SteeringError> {
        check_addresses(&self.namespace, &server.addresses)?;
        let before = self.places.remove(&server.name);
        let old = before.as_ref().map(|place| place.addresses.clone()).unwrap_or_default();
        let (listeners, mut place) = match before {
            Some(place) => (Vec::new(), place),
            None => self.new_place(mark)?,
        };
        place.addresses.clone_from(&server.addresses);
        place.refuse = refuse;
        let gate = Arc::clone(&place.gate);
        let result = self.rule(&place, &listeners, &old);
        self.places.insert(server.name.clone(), place);
        if let Err(error) = result {
            self.places.remove(&server.name);
            return Err(error);
        }
        self.retable(mark)?;
        Ok(Steered { listeners, gate, description: self.describe(refuse) })
    }

    fn new_place(&self, mark: u32) -> Result<(Vec<TcpListener>, Place), SteeringError> {
        let wide = matches!(self.means, Means::Redirect(_));
        let v4 = listener(&self.namespace, false, wide).map_err(SteeringError::Listen)?;
        // Without IPv6 there is nothing to steer.
        let v6 = listener(&self.namespace, true, wide).ok();
        let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        let first = (0..).step_by(2).find(|slot| self.places.values().all(|place| place.slots.0 != *slot));
        let slots = first.map(|slot| (slot, slot + 1)).unwrap_or_default();
        let own = match &self.means {
            Means::SkLookup(program) => Some(program.own()),
            Means::Redirect(_) => None,
        };
        // Zero: this kernel does not tell.
        let cookie = || self.namespace.inside(|| Ok(crate::sensor::namespace_cookie())).ok();
        let cookie = (!self.namespace.is_own()).then(cookie).flatten().filter(|cookie| *cookie != 0);
        let gate = Arc::new(Gate { namespace: Arc::clone(&self.namespace), cookie, mark, own });
        let ports = (port(&v4).map_err(SteeringError::Listen)?, v6.as_ref().and_then(|v6| port(v6).ok()));
        let place = Place { addresses: Vec::new(), refuse: true, slots, ports, gate };
        Ok((std::iter::once(v4).chain(v6).collect(), place))
    }

    /// Tells the program, sockets before rules.
    fn rule(
        &mut self,
        place: &Place,
        listeners: &[TcpListener],
        old: &[SocketAddr],
    ) -> Result<(), SteeringError> {
        let Means::SkLookup(program) = &mut self.means else { return Ok(()) };
        let slots = [place.slots.0, place.slots.1];
        for (slot, listener) in slots.into_iter().zip(listeners) {
            program.set_listener(slot, listener)?;
        }
        for address in &place.addresses {
            let listener = if address.is_ipv4() { place.slots.0 } else { place.slots.1 };
            program.steer(*address, SteeringRule { listener, refuse: u32::from(place.refuse) })?;
        }
        old.iter()
            .filter(|address| !place.addresses.contains(address))
            .for_each(|address| program.leave(*address));
        Ok(())
    }

    /// Writes the table of nftables anew.
    fn retable(&self, mark: u32) -> Result<(), SteeringError> {
        let Means::Redirect(table) = &self.means else { return Ok(()) };
        let redirected =
            |place: &Place| Redirected { addresses: place.addresses.clone(), ports: place.ports };
        let servers: Vec<_> = self.places.values().map(redirected).collect();
        redirect::install(&self.namespace, table, mark, &servers)
    }

    fn describe(&self, refuse: bool) -> String {
        let means = match &self.means {
            Means::SkLookup(program) if program.folder().is_some() => "sk_lookup, pinned",
            Means::SkLookup(_) => "sk_lookup, not pinned",
            Means::Redirect(_) => "nftables",
        };
        let own = if self.namespace.is_own() { "" } else { ", in the server's network namespace" };
        let gone = if refuse { "refused" } else { "let through" };
        format!("{means}{own}; connections are {gone} when the proxy is gone")
    }
}

/// What steering takes of a host, as `guard-agent doctor` shows it: name, whether it is there, what was found.
pub fn probe() -> Vec<(&'static str, bool, String)> {
    let text = |result: Result<(), String>, good: &str| match result {
        Ok(()) => (true, good.to_owned()),
        Err(error) => (false, error),
    };
    let program = text(program::probe().map_err(|error| error.to_string()), "the kernel takes the program");
    let table = text(redirect::probe().map_err(|error| error.to_string()), "nftables can redirect");
    let pins = match pins::is_mounted() {
        true => (true, "/sys/fs/bpf is mounted".to_owned()),
        false => {
            (false, "/sys/fs/bpf is not mounted: the agent mounts it when it steers, if it may".to_owned())
        }
    };
    let own = Namespace::of(None);
    let accept = own.and_then(|own| way_back::possible(&own)).map_err(|error| error.to_string());
    let accept = text(accept, "the server can be reached from its clients' own addresses");
    vec![
        ("sk_lookup", program.0, program.1),
        ("nftables", table.0, table.1),
        ("bpffs", pins.0, pins.1),
        ("client address", accept.0, accept.1),
    ]
}

/// A socket to steer to. It is found by the program, or by its port; its own address takes part in nothing.
fn listener(namespace: &Namespace, v6: bool, wide: bool) -> io::Result<TcpListener> {
    namespace.inside(move || {
        let socket = gate::stream_socket(v6)?;
        // Accepted sockets take it over: the server may listen on their port again while they are open.
        gate::set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        let ip = match (v6, wide) {
            (false, false) => Ipv4Addr::LOCALHOST.into(),
            (false, true) => Ipv4Addr::UNSPECIFIED.into(),
            (true, false) => Ipv6Addr::LOCALHOST.into(),
            (true, true) => Ipv6Addr::UNSPECIFIED.into(),
        };
        if v6 {
            gate::set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        }
        gate::bind(&socket, SocketAddr::new(ip, 0))?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(TcpListener::from(socket))
    })
}

/// Nothing is steered that does not arrive here.
fn check_addresses(namespace: &Namespace, addresses: &[SocketAddr]) -> Result<(), SteeringError> {
    let here =
        |address: &&SocketAddr| address.ip().is_unspecified() || gate::is_local(namespace, address.ip());
    match addresses.iter().find(|address| !here(address)) {
        Some(address) => Err(SteeringError::Elsewhere(*address)),
        None => Ok(()),
    }
}
