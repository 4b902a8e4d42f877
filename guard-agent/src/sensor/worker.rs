//! The sensor's thread: drains the ring buffer, answers who connects, reports what happens on watched sockets.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    net::SocketAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError},
    },
    time::{Duration, Instant, SystemTime},
};

use guard_common::{
    audit::v1::workload::Evidence,
    kernel::{
        EventKind,
        process::TaskInfo,
        refusal::{RefusedEvent, way},
        socket::{AcceptedEvent, ClosedEvent, FlowKey, ended},
        unix::{UnixAcceptedEvent, UnixPath},
    },
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{mpsc, oneshot};

use super::{
    candidates::Enforcing,
    decode::{KernelEvent, decode},
    event::{
        Accepted, Bytes, Candidates, Client, Closed, Endpoint, Enforced, Lost, Refused, SensorEvent,
        SocketId, Verdict, Watch, Way,
    },
    flow, host,
    kernel::Kernel,
    load::Loaded,
    namespace,
    poller::Poller,
    probe::ObservedServer,
    sockets::{self, Connection},
    unix_diag,
    unix_table::{OpenUnix, UnixTable},
};
use crate::identity::{Identifier, Workload};

/// How often /proc is looked at, losses are counted and old entries are dropped.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two clean-ups.
const TIDY_EVERY: u32 = 20;
/// Ticks between two rounds in which all processes are candidates again: names of users and workloads change.
const ROUND_EVERY: u32 = 120;
/// Ticks between two looks where servers are reached.
const PLACES_EVERY: u32 = 20;
/// Ticks between two looks for the end of connections that were open before.
const LOOK_EVERY: u32 = 4;
/// Events handled before questions are answered again.
const BATCH: usize = 8_192;
/// Connections of which the end is awaited.
const OPEN_LIMIT: usize = 100_000;

/// How long an event or an answer waits for the hash of a program file.
const PENDING_FOR: Duration = Duration::from_millis(100);
/// Events that wait for it.
const OUTBOX_LIMIT: usize = 4_096;
/// Answers that wait for it.
const ASKED_LIMIT: usize = 1_024;

/// What the rest of the agent asks.
#[derive(Debug)]
pub enum Command {
    /// Who is at the client's end.
    AttestTcp {
        /// Cookie of the network namespace, where it is not the agent's own.
        namespace: Option<u64>,
        /// The client's end.
        client: SocketAddr,
        /// The proxy's end.
        local: SocketAddr,
        /// Takes the answer.
        reply: oneshot::Sender<Arc<Workload>>,
    },
    /// Who that peer is.
    AttestUnix {
        /// As in `SO_PEERCRED`.
        pid: u32,
        /// As in `SO_PEERCRED`.
        uid: u32,
        /// As in `SO_PEERCRED`.
        gid: u32,
        /// Takes the answer.
        reply: oneshot::Sender<Arc<Workload>>,
    },
    /// What each program costs.
    Costs {
        /// Takes name, runs and time of each.
        reply: oneshot::Sender<Vec<(String, u64, Duration)>>,
    },
    /// Observe the statements of exactly these servers.
    Observe {
        /// Which.
        servers: Vec<ObservedServer>,
        /// Takes why not, for each.
        reply: oneshot::Sender<Vec<Result<(), String>>>,
    },
    /// Watch exactly this.
    Watch {
        /// What to watch.
        watch: Watch,
        /// Told when the kernel side does.
        done: SyncSender<()>,
    },
    /// Refuse connections to exactly these servers, by verdicts to come.
    Enforce {
        /// What can be refused.
        enforced: Enforced,
        /// Where processes are told that may connect.
        candidates: Candidates,
        /// Told when the verdicts of before count no more.
        done: SyncSender<()>,
    },
    /// Go by this from now on.
    Verdict(Verdict),
}

/// Where questions arrive.
#[derive(Debug)]
pub struct Inbox {
    /// The questions.
    pub queue: Receiver<Command>,
    /// Readable when there are new ones.
    pub wake: Arc<OwnedFd>,
}

/// A connection by its ends, the client's first, and the server's network namespace: loopback addresses are in all of
/// them.
type Ends = (u64, SocketAddr, SocketAddr);

/// A TCP connection that the kernel side told of.
#[derive(Clone, Copy, Debug)]
struct Open {
    flow: FlowKey,
    /// Of the server; 0 where it is not known.
    namespace: u64,
}

impl Open {
    fn ends(&self) -> Ends {
        (self.namespace, flow::client(&self.flow), flow::server(&self.flow))
    }
}

/// The state of the thread.
#[derive(Debug)]
pub struct Worker {
    kernel: Option<Kernel>,
    identifier: Identifier,
    events: mpsc::Sender<SensorEvent>,
    inbox: Inbox,
    watch: Watch,
    namespace: u64,
    own_addresses: host::OwnAddresses,
    own_namespace: u64,
    open: HashMap<u64, Open>,
    /// What was told of since a change of what is watched, until /proc was looked at for older connections.
    told: Option<HashSet<Ends>>,
    poller: Poller,
    unix: UnixTable,
    outbox: Outbox,
    looks: Looks,
    /// Whoever has asked, and waits for what is pending about the answer.
    asked: Vec<(Instant, oneshot::Sender<Arc<Workload>>, Arc<Workload>)>,
    enforcing: Option<Enforcing>,
    unsent: u64,
    counted_at: SystemTime,
    ticks: u32,
}

impl Worker {
    /// A worker for what was loaded; nothing is watched yet.
    pub fn new(
        loaded: Loaded,
        identifier: Identifier,
        events: mpsc::Sender<SensorEvent>,
        inbox: Inbox,
    ) -> Self {
        let mut worker = Self {
            kernel: loaded.kernel,
            identifier,
            events,
            inbox,
            watch: Watch::default(),
            namespace: host::namespace_cookie(),
            own_addresses: host::OwnAddresses::default(),
            own_namespace: namespace::own().unwrap_or_default(),
            open: HashMap::new(),
            told: None,
            poller: Poller::default(),
            unix: UnixTable::new(),
            outbox: Outbox::default(),
            looks: Looks::default(),
            asked: Vec::new(),
            enforcing: None,
            unsent: 0,
            counted_at: SystemTime::now(),
            ticks: 0,
        };
        worker.send(SensorEvent::State(loaded.state));
        worker
    }

    /// Works until nobody is left who could ask or listen.
    pub fn run(mut self) {
        let mut next_tick = Instant::now() + TICK;
        let mut scanning = true;
        while !self.events.is_closed() {
            // What started before the programs were attached, a bit at a time: events and questions come first.
            if scanning {
                scanning = self.identifier.scan_some();
            } else if !self.tell_some() {
                self.wait(next_tick.saturating_duration_since(Instant::now()));
            }
            self.drain();
            if !self.answer() {
                break;
            }
            self.unix_ended();
            self.settle_pending();
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                self.tick();
            }
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&self, at_most: Duration) {
        let at_most = self.unix.wait().map_or(at_most, |wait| wait.min(at_most));
        let pending = !self.outbox.is_empty() || !self.asked.is_empty();
        let at_most = if pending { at_most.min(PENDING_FOR) } else { at_most };
        let timeout = PollTimeout::try_from(at_most + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO);
        let mut fds = vec![PollFd::new(self.inbox.wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.kernel.as_ref().map(|kernel| PollFd::new(kernel.ring(), PollFlags::POLLIN)));
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, timeout);
        let _ = nix::unistd::read(&self.inbox.wake, &mut [0; 8]);
    }

    /// Takes events until there are none, or enough for one turn.
    fn drain(&mut self) {
        for _ in 0..BATCH {
            let Some(kernel) = &mut self.kernel else { return };
            let mut event = None;
            if !kernel.next(|bytes| event = decode(bytes)) {
                return;
            }
            if let Some(event) = event {
                self.handle(event);
            }
        }
    }

    fn handle(&mut self, event: KernelEvent) {
        match event {
            KernelEvent::Exec(event) => {
                self.identifier.exec(&event);
                self.tell(&event.task);
            }
            KernelEvent::Fork(event) => {
                self.identifier.fork(event.task);
                self.tell(&event.task);
            }
            KernelEvent::Exit(event) => {
                self.identifier.exit(event.pid, event.start_ns);
                self.unix.process_ended();
                if let Some(refusals) = self.kernel.as_mut().and_then(Kernel::refusals) {
                    refusals.ended(event.pid, event.start_ns);
                }
            }
            KernelEvent::Cgroup(event) => {
                let path = event.path.get(..event.path_kept as usize).unwrap_or_default();
                self.identifier.cgroup(event.id, String::from_utf8_lossy(path).into_owned());
            }
            KernelEvent::Accepted(event) => self.accepted(&event),
            KernelEvent::Closed(event) => self.closed(&event),
            KernelEvent::UnixAccepted(event) => self.unix_accepted(&event),
            KernelEvent::Refused(event) => self.refused(&event),
        }
    }

    /// Tells of a process that may connect.
    fn tell(&mut self, task: &TaskInfo) {
        let Some(enforcing) = self.enforcing.as_ref().filter(|enforcing| enforcing.takes(task)) else {
            return;
        };
        let workload = self.identifier.captured(task);
        enforcing.offer(task, workload);
    }

    /// Tells of some more of those that run already; false where there are none.
    fn tell_some(&mut self) -> bool {
        let Some(enforcing) = self.enforcing.as_mut().filter(|enforcing| enforcing.has_pending()) else {
            return false;
        };
        let some = enforcing.next_of_round();
        some.iter().for_each(|task| self.tell(task));
        !some.is_empty()
    }

    fn enforce(&mut self, enforced: Enforced, candidates: Candidates, done: &SyncSender<()>) {
        if let Some(kernel) = &mut self.kernel
            && let Err(error) = kernel.enforce(&enforced)
        {
            tracing::error!(%error, "connections round the proxy are not refused in the kernel, but cut later");
        }
        let _ = done.try_send(());
        self.enforcing = Some(Enforcing::new(enforced, candidates));
        self.begin_round();
    }

    fn begin_round(&mut self) {
        let Some(enforcing) = self.enforcing.as_mut().filter(|enforcing| enforcing.is_on()) else { return };
        enforcing.begin_round(self.identifier.running());
    }

    /// Follows what changes without an event, while connections are refused.
    fn keep_refusing(&mut self) {
        let Some(enforcing) = self.enforcing.as_ref().filter(|enforcing| enforcing.is_on()) else { return };
        if self.ticks.is_multiple_of(PLACES_EVERY)
            && let Some(kernel) = &mut self.kernel
            && let Err(error) = kernel.follow_places(&enforcing.enforced)
        {
            tracing::error!(%error, "the kernel side does not know where servers are reached");
        }
        if self.ticks.is_multiple_of(ROUND_EVERY) {
            if let Some(refusals) = self.kernel.as_mut().and_then(Kernel::refusals) {
                refusals.retain(&self.identifier.all_pids());
            }
            self.begin_round();
        }
    }

    fn refused(&mut self, event: &RefusedEvent) {
        let (client, server) =
            (flow::address(event.peer, event.peer_port), flow::address(event.address, event.port));
        let workload = match Client::of(&event.client) {
            Some(_) => self.identifier.captured(&event.client),
            None => Identifier::remote(client.ip()),
        };
        let Some(refusals) = self.kernel.as_mut().and_then(Kernel::refusals) else { return };
        let way = match event.way {
            way::CONNECT => Way::Connect { server },
            way::CONNECT_UNIX => {
                Way::ConnectUnix { path: refusals.path(event.path).cloned().unwrap_or_default() }
            }
            _ => Way::Listener { client, server },
        };
        let Some(server) = refusals.server(event.server).map(str::to_owned) else { return };
        let at = Duration::from_nanos(event.header.at_ns);
        self.send(SensorEvent::Refused(Refused { server, way, workload, at, attempts: event.attempts }));
    }

    fn accepted(&mut self, event: &AcceptedEvent) {
        let (client, server) = (flow::client(&event.flow), flow::server(&event.flow));
        let workload = if event.client.pid == 0 {
            self.uncaptured(client, server)
        } else {
            self.identifier.captured(&event.client)
        };
        let open = Open { flow: event.flow, namespace: event.net_namespace.into() };
        if self.open.len() < OPEN_LIMIT {
            self.open.insert(event.cookie, open);
        }
        if let Some(told) = &mut self.told {
            told.insert(open.ends());
        }
        self.send(SensorEvent::Accepted(Accepted {
            socket: SocketId::Cookie(event.cookie),
            endpoint: Endpoint::Tcp { client, server },
            workload,
            at: Duration::from_nanos(event.header.at_ns),
            preexisting: false,
            client: Client::of(&event.client),
            namespace: open.namespace,
            namespace_cookie: event.namespace,
            server_pid: 0,
        }));
    }

    fn closed(&mut self, event: &ClosedEvent) {
        self.open.remove(&event.cookie);
        self.send(SensorEvent::Closed(Closed {
            socket: SocketId::Cookie(event.cookie),
            bytes: Some(payload(event)),
            at: Duration::from_nanos(event.header.at_ns),
        }));
    }

    fn unix_accepted(&mut self, event: &UnixAcceptedEvent) {
        let credentials = (event.client_uid, event.client_gid);
        let workload = if event.client.pid == 0 {
            let at_ns = event.header.at_ns.saturating_add(host::suspended_ns());
            self.identifier.peer(event.client_pid, credentials, at_ns)
        } else {
            self.identifier.live_peer(&event.client, credentials)
        };
        let at = Duration::from_nanos(event.header.at_ns);
        let socket = SocketId::Inode(event.inode);
        let open = OpenUnix { server_pid: event.server_pid, key: event.key };
        if let Some(before) = self.unix.opened(event.inode, open) {
            let bytes = if before.key == event.key { None } else { self.unix_bytes(event.inode, before.key) };
            self.send(SensorEvent::Closed(Closed { socket, bytes, at }));
        }
        let endpoint = Endpoint::Unix { path: unix_path(&event.path), peer_inode: event.peer_inode };
        self.send(SensorEvent::Accepted(Accepted {
            socket,
            endpoint,
            workload,
            at,
            preexisting: false,
            namespace: event.net_namespace.into(),
            namespace_cookie: 0,
            // The kernel told a pid alone: what it was when it connected is not certain.
            client: None,
            server_pid: event.server_pid,
        }));
    }

    fn unix_ended(&mut self) {
        for (inode, open) in self.unix.look() {
            let bytes = self.unix_bytes(inode, open.key);
            let socket = SocketId::Inode(inode);
            self.send(SensorEvent::Closed(Closed { socket, bytes, at: host::monotonic() }));
        }
    }

    /// What the kernel side has counted for a unix connection that has ended.
    fn unix_bytes(&mut self, inode: u64, key: u64) -> Option<Bytes> {
        let counted = self.kernel.as_mut()?.take_unix_bytes(key, inode)?;
        Some(Bytes { from_client: counted.received, to_client: counted.sent })
    }

    fn ended(&mut self, socket: SocketId) {
        self.send(SensorEvent::Closed(Closed { socket, bytes: None, at: host::monotonic() }));
    }

    /// Answers what was asked; false where nobody is left.
    fn answer(&mut self) -> bool {
        loop {
            match self.inbox.queue.try_recv() {
                Ok(Command::AttestTcp { namespace, client, local, reply }) => {
                    let namespace = namespace.unwrap_or(self.namespace);
                    let ends = (sockets::canonical(client), sockets::canonical(local));
                    let workload = self.attest_tcp(namespace, ends);
                    self.reply(reply, workload);
                }
                Ok(Command::AttestUnix { pid, uid, gid, reply }) => {
                    let evidence =
                        if self.kernel.is_some() { Evidence::Attested } else { Evidence::Reported };
                    let workload = self.identifier.by_pid(pid, (uid, gid), evidence);
                    self.reply(reply, workload);
                }
                Ok(Command::Watch { watch, done }) => self.rewatch(watch, &done),
                Ok(Command::Costs { reply }) => {
                    let _ = reply.send(self.kernel.as_ref().map(Kernel::costs).unwrap_or_default());
                }
                Ok(Command::Observe { servers, reply }) => {
                    let results = match &mut self.kernel {
                        Some(kernel) => kernel.observe(&servers),
                        None => vec![Err("the eBPF programs are not loaded".to_owned()); servers.len()],
                    };
                    let _ = reply.send(results);
                }
                Ok(Command::Enforce { enforced, candidates, done }) => {
                    self.enforce(enforced, candidates, &done);
                }
                Ok(Command::Verdict(verdict)) => {
                    if let Some(kernel) = &mut self.kernel {
                        kernel.refuse(&verdict);
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Answers at once, or in a moment where something is pending.
    fn reply(&mut self, reply: oneshot::Sender<Arc<Workload>>, workload: Arc<Workload>) {
        if Identifier::is_pending(&workload) && self.asked.len() < ASKED_LIMIT {
            self.asked.push((Instant::now() + PENDING_FOR, reply, workload));
        } else {
            let _ = reply.send(workload);
        }
    }

    /// Hands out what is pending no longer, or has been for long enough.
    fn settle_pending(&mut self) {
        let now = Instant::now();
        for (deadline, reply, mut workload) in std::mem::take(&mut self.asked) {
            if self.identifier.settle(&mut workload) || now >= deadline {
                let _ = reply.send(workload);
            } else {
                self.asked.push((deadline, reply, workload));
            }
        }
        while let Some(event) = self.outbox.next(now, &mut self.identifier) {
            self.hand_over(event);
        }
    }

    fn attest_tcp(&mut self, namespace: u64, (client, local): (SocketAddr, SocketAddr)) -> Arc<Workload> {
        // Events from before the question: the client's exec is among them.
        self.drain();
        let key = flow::key(client, local, namespace);
        match self.kernel.as_ref().and_then(|kernel| kernel.client(&key)) {
            Some(task) => {
                self.settle(&task);
                self.identifier.captured(&task)
            }
            // This one's /proc tells nothing of another namespace, where the same ends may be somebody else's.
            None if namespace != self.namespace => Identifier::remote(client.ip()),
            None => self.uncaptured(client, local),
        }
    }

    /// Another CPU may be in the middle of writing an event, and later ones wait behind it: for microseconds.
    fn settle(&mut self, task: &TaskInfo) {
        for _ in 0..3 {
            if self.identifier.is_current(task) {
                return;
            }
            std::thread::sleep(Duration::from_micros(50));
            self.drain();
        }
    }

    /// The best that is known of a client that the kernel side did not capture.
    fn uncaptured(&mut self, client: SocketAddr, server: SocketAddr) -> Arc<Workload> {
        if !self.own_addresses.contains(client.ip()) || !self.looks.may(Instant::now()) {
            return Identifier::remote(client.ip());
        }
        let table = sockets::connections();
        let own = Connection { local: server, remote: client, inode: 0, namespace: 0 };
        self.reported(&table, &[own]).pop().unwrap_or_else(|| Identifier::remote(client.ip()))
    }

    /// Clients of several connections, given by their server's ends, each by the process that holds the other end's
    /// socket.
    fn reported(&mut self, table: &[Connection], wanted: &[Connection]) -> Vec<Arc<Workload>> {
        let ends = ClientEnds::of(table);
        let inodes: Vec<Option<u64>> = wanted.iter().map(|server_end| ends.find(server_end)).collect();
        let owners = sockets::owners(&inodes.iter().flatten().copied().collect());
        wanted
            .iter()
            .zip(inodes)
            .map(|(server_end, inode)| {
                let pid = inode.and_then(|inode| owners.get(&inode)).and_then(|pids| pids.first());
                match pid {
                    Some(pid) => self.identifier.owner(*pid),
                    None => Identifier::remote(server_end.remote.ip()),
                }
            })
            .collect()
    }

    fn rewatch(&mut self, watch: Watch, done: &SyncSender<()>) {
        // A new connection may be told of and end before /proc is looked at, and is still no older one.
        self.told = Some(HashSet::new());
        if let Some(kernel) = &mut self.kernel
            && let Err(error) = kernel.watch(&watch)
        {
            tracing::error!(%error, "not everything can be watched");
        }
        let _ = done.try_send(());
        let mut new: BTreeSet<u16> =
            watch.database_ports.difference(&self.watch.database_ports).copied().collect();
        if watch.namespaces.keys().any(|namespace| !self.watch.namespaces.contains_key(namespace)) {
            // A known port may be one of another server there.
            new.clone_from(&watch.database_ports);
        }
        let new_paths: BTreeSet<PathBuf> =
            watch.unix_sockets.difference(&self.watch.unix_sockets).cloned().collect();
        self.watch = watch;
        if !new.is_empty() {
            self.look(&new, true);
        }
        if !new_paths.is_empty() && self.kernel.is_some() {
            self.look_for_unix(&new_paths);
        }
        self.told = None;
    }

    /// Looks in /proc for connections on `ports` that no event has told of.
    fn look(&mut self, ports: &BTreeSet<u16>, preexisting: bool) {
        let table = self.tables();
        // What was accepted before the look is in the ring buffer by now.
        self.drain();
        let changes = self.poller.look(&table, ports);
        self.gone(changes.closed);
        let mut told = self.told.take().unwrap_or_default();
        told.extend(self.open.values().map(Open::ends));
        let was_told = |end: &Connection| {
            let namespace = if end.namespace == 0 { self.own_namespace } else { end.namespace };
            [namespace, 0].iter().any(|namespace| told.contains(&(*namespace, end.remote, end.local)))
        };
        let (known, new): (Vec<Connection>, Vec<Connection>) = changes.opened.into_iter().partition(was_told);
        for connection in known {
            self.poller.forget(connection.inode);
        }
        if new.is_empty() {
            return;
        }
        let workloads = self.reported(&self.with_clients(table, preexisting), &new);
        for (connection, workload) in new.into_iter().zip(workloads) {
            let own = connection.namespace == 0;
            self.send(SensorEvent::Accepted(Accepted {
                socket: SocketId::Inode(connection.inode),
                endpoint: Endpoint::Tcp { client: connection.remote, server: connection.local },
                workload,
                at: host::monotonic(),
                preexisting,
                namespace: if own { self.own_namespace } else { connection.namespace },
                namespace_cookie: 0,
                client: None,
                server_pid: 0,
            }));
        }
    }

    /// Asks the kernel for connections on unix sockets that are older than the watch.
    fn look_for_unix(&mut self, paths: &BTreeSet<PathBuf>) {
        let found = match unix_diag::connected() {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "connections on unix sockets that are open already cannot be listed");
                return;
            }
        };
        // What was accepted before the look is in the ring buffer by now, and in the table.
        self.drain();
        let known = |inode: u64| self.unix.knows(inode);
        let new: Vec<_> =
            found.into_iter().filter(|end| paths.contains(&end.path) && !known(end.inode)).collect();
        let owners = sockets::owners(&new.iter().flat_map(|end| [end.inode, end.peer]).collect());
        let owner = |inode| owners.get(&inode).and_then(|pids| pids.first()).copied();
        for end in new {
            // The server has it in several processes for a moment; the last one is the one that serves it.
            let server_pid = owners.get(&end.inode).and_then(|pids| pids.last()).copied();
            let Some(server_pid) = server_pid else { continue };
            let workload = match owner(end.peer) {
                Some(pid) => self.identifier.owner(pid),
                None => Arc::new(Workload { evidence: Evidence::Address.into(), ..Workload::default() }),
            };
            self.unix.opened(end.inode, OpenUnix { server_pid, key: 0 });
            self.send(SensorEvent::Accepted(Accepted {
                socket: SocketId::Inode(end.inode),
                endpoint: Endpoint::Unix { path: end.path, peer_inode: end.peer },
                workload,
                at: host::monotonic(),
                preexisting: true,
                namespace: self.own_namespace,
                namespace_cookie: 0,
                server_pid,
                client: None,
            }));
        }
    }

    /// Connections of the agent's network namespace and of those of the servers.
    fn tables(&self) -> Vec<Connection> {
        let mut table = sockets::connections();
        for (namespace, pid) in &self.watch.namespaces {
            table.extend(sockets::connections_in(*namespace, *pid));
        }
        table
    }

    /// The same with all namespaces in which clients may be, where it is worth the time.
    fn with_clients(&self, mut table: Vec<Connection>, all: bool) -> Vec<Connection> {
        let others = if all { namespace::others() } else { BTreeMap::new() };
        for (namespace, pid) in others {
            if !self.watch.namespaces.contains_key(&namespace) {
                table.extend(sockets::connections_in(namespace, pid));
            }
        }
        table
    }

    fn gone(&mut self, inodes: Vec<u64>) {
        for inode in inodes {
            self.ended(SocketId::Inode(inode));
        }
    }

    fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        if self.kernel.is_none() {
            let ports = self.watch.database_ports.clone();
            self.look(&ports, false);
        } else if self.ticks.is_multiple_of(LOOK_EVERY) && !self.poller.is_empty() {
            let changes = self.poller.ended(&self.tables());
            self.gone(changes.closed);
        }
        self.keep_refusing();
        self.count_losses();
        if self.ticks.is_multiple_of(TIDY_EVERY) {
            self.identifier.tidy();
        }
        if let Some(kernel) = &mut self.kernel {
            kernel.flush_log();
        }
    }

    fn count_losses(&mut self) {
        let now = SystemTime::now();
        let since = self.counted_at;
        let mut lost: Vec<Lost> = Vec::new();
        for (kind, by_cpu) in self.kernel.as_mut().map(Kernel::lost).unwrap_or_default() {
            let total = by_cpu.iter().map(|(_, lost)| lost).sum();
            lost.push(Lost { kind: kind.name(), lost: total, since, until: now, by_cpu });
        }
        if lost.iter().any(|lost| lost.kind == EventKind::Closed.name()) {
            self.reconcile();
        }
        if lost.iter().any(|lost| lost.kind == EventKind::Accepted.name()) {
            // What was accepted unseen is still in /proc, unless it has ended already.
            let ports = self.watch.database_ports.clone();
            self.look(&ports, false);
        }
        lost.push(Lost {
            kind: "queue",
            lost: std::mem::take(&mut self.unsent),
            since,
            until: now,
            by_cpu: Vec::new(),
        });
        for report in lost.into_iter().filter(|report| report.lost > 0) {
            // The count is kept until it can be told.
            if let Err(error) = self.events.try_send(SensorEvent::Lost(report))
                && let SensorEvent::Lost(report) = error.into_inner()
            {
                self.unsent += report.lost;
            }
        }
        self.counted_at = now;
    }

    /// Ends of connections were lost: what is no longer in /proc has ended. Only the agent's network namespace and those
    /// of servers are listed.
    fn reconcile(&mut self) {
        let listed = |namespace: u64| {
            namespace == self.own_namespace || self.watch.namespaces.contains_key(&namespace)
        };
        let present: HashSet<Ends> = self
            .tables()
            .into_iter()
            .map(|end| {
                let own = end.namespace == 0;
                (if own { self.own_namespace } else { end.namespace }, end.remote, end.local)
            })
            .collect();
        let gone: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, open)| listed(open.namespace))
            .filter(|(_, open)| !present.contains(&open.ends()))
            .map(|(cookie, _)| *cookie)
            .collect();
        for cookie in gone {
            self.open.remove(&cookie);
            self.ended(SocketId::Cookie(cookie));
        }
    }

    /// In the order in which it happened.
    fn send(&mut self, event: SensorEvent) {
        let now = Instant::now();
        self.outbox.push(event, now);
        while let Some(event) = self.outbox.next(now, &mut self.identifier) {
            self.hand_over(event);
        }
    }

    /// Never waits: a full queue is a loss, and is counted.
    fn hand_over(&mut self, event: SensorEvent) {
        if self.events.try_send(event).is_err() {
            self.unsent += 1;
        }
    }
}

/// Looks into /proc for a single connection: each reads all of them, and nobody may have the sensor do that all the time.
#[derive(Debug, Default)]
struct Looks {
    since: Option<Instant>,
    count: u32,
}

impl Looks {
    const PER_SECOND: u32 = 20;

    fn may(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        self.count <= Self::PER_SECOND
    }
}

/// Events on their way out. One that waits for something about its workload holds back those behind it, for a moment.
#[derive(Debug, Default)]
struct Outbox {
    events: VecDeque<(Instant, SensorEvent)>,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    fn push(&mut self, event: SensorEvent, now: Instant) {
        self.events.push_back((now + PENDING_FOR, event));
    }

    fn next(&mut self, now: Instant, identifier: &mut Identifier) -> Option<SensorEvent> {
        let crowded = self.events.len() > OUTBOX_LIMIT;
        let (deadline, event) = self.events.front_mut()?;
        let ready = match event {
            SensorEvent::Accepted(accepted) => identifier.settle(&mut accepted.workload),
            SensorEvent::Refused(refused) => identifier.settle(&mut refused.workload),
            SensorEvent::Closed(_) | SensorEvent::Lost(_) | SensorEvent::State(_) => true,
        };
        if !ready && !crowded && now < *deadline {
            return None;
        }
        self.events.pop_front().map(|(_, event)| event)
    }
}

/// Inode numbers of clients' sockets, by how the server's end names them.
struct ClientEnds {
    whole: HashMap<Ends, u64>,
    /// By the client's end alone: where an address was translated on the way, the client knows another server than the
    /// one that it reached. 0 where several are possible.
    by_client: HashMap<SocketAddr, u64>,
}

impl ClientEnds {
    fn of(table: &[Connection]) -> Self {
        let mut ends = Self { whole: HashMap::new(), by_client: HashMap::new() };
        for end in table.iter().filter(|end| end.inode != 0) {
            ends.whole.insert((of_loopback(end.local, end.namespace), end.local, end.remote), end.inode);
            if !end.local.ip().is_loopback() {
                let several = ends.by_client.insert(end.local, end.inode).is_some();
                if several {
                    ends.by_client.insert(end.local, 0);
                }
            }
        }
        ends
    }

    fn find(&self, server_end: &Connection) -> Option<u64> {
        let client = server_end.remote;
        let key = (of_loopback(client, server_end.namespace), client, server_end.local);
        let found = self.whole.get(&key).or_else(|| self.by_client.get(&client));
        found.copied().filter(|inode| *inode != 0)
    }
}

/// A loopback address means something in its own namespace alone.
fn of_loopback(address: SocketAddr, namespace: u64) -> u64 {
    if address.ip().is_loopback() { namespace } else { 0 }
}

/// Payload bytes of a connection. The kernel's counters take the end of a direction (FIN) for one more byte: what the
/// program saw on the socket tells which ones there were. Where it could not look, the state before the end tells, with
/// one case open: in FIN-WAIT-2 the client's may have been counted; it is not where the server closes first.
fn payload(event: &ClosedEvent) -> Bytes {
    const FIN_WAIT_2: u32 = 5;
    const CLOSE_WAIT: u32 = 8;
    const LAST_ACK: u32 = 9;
    const CLOSING: u32 = 11;
    let state = event.previous_state;
    let server_ended = matches!(state, FIN_WAIT_2 | LAST_ACK | CLOSING);
    let (client_ended, acked) = if event.flags & ended::KNOWN != 0 {
        (event.flags & ended::BY_CLIENT != 0, event.flags & ended::ALL_ACKED != 0)
    } else {
        (matches!(state, CLOSE_WAIT | LAST_ACK | CLOSING), true)
    };
    Bytes {
        from_client: event.received.saturating_sub(client_ended.into()),
        to_client: event.acked.saturating_sub((server_ended && acked).into()),
    }
}

/// The path or name in the form that people write.
pub(super) fn unix_path(path: &UnixPath) -> PathBuf {
    // An abstract name starts with a zero byte, and ends at its padding as a path does.
    let mut bytes = path.bytes.to_vec();
    if bytes[0] == 0 {
        bytes[0] = b'@';
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}
