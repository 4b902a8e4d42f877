//! The sensor's thread: drains the ring buffer, answers who connects, reports what happens on watched sockets.

mod look;
mod outgoing;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
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
        socket::{AcceptedEvent, ClosedEvent, FlowKey},
        unix::{UnixAcceptedEvent, UnixPath},
    },
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{mpsc, oneshot};

use super::{
    candidates::Enforcing,
    client_ends::{Ends, Looks},
    decode::{KernelEvent, decode},
    dump::Endings,
    event::{
        Accepted, Bytes, Candidates, Client, Closed, Endpoint, Enforced, Lost, Refused, SensorEvent,
        SocketId, Verdict, Watch, Way,
    },
    flow, host,
    kernel::Kernel,
    load::Loaded,
    namespace,
    outbox::{Outbox, PENDING_FOR},
    poller::Poller,
    probe::ObservedServer,
    sockets, unix_bytes,
    unix_table::{OpenUnix, UnixTable},
};
use crate::identity::{Identifier, Workload};

/// How often tables are looked at, losses are counted and old entries are dropped.
const TICK: Duration = Duration::from_millis(250);
/// How many times as long as a look has taken there is none: a host with many sockets has other work.
const REST: u32 = 9;
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

/// Answers that wait for something pending.
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
    /// The agent as the kernel side names processes; `None` where it cannot know that.
    own_pid: Option<u32>,
    open: HashMap<u64, Open>,
    /// What was told of since a change of what is watched, until /proc was looked at for older connections.
    told: Option<HashSet<Ends>>,
    poller: Poller,
    /// The ends of all TCP connections, where the kernel side does not tell of them.
    endings: Option<Endings>,
    /// Connections on unix sockets have to be looked for.
    unix_unseen: bool,
    unix: UnixTable,
    /// When their bytes are counted.
    unix_counting: unix_bytes::Duty,
    outbox: Outbox,
    looks: Looks,
    /// Connections to other hosts' databases that were found by looking.
    outgoing: outgoing::Known,
    /// Whoever has asked, and waits for what is pending about the answer.
    asked: Vec<(Instant, oneshot::Sender<Arc<Workload>>, Arc<Workload>)>,
    enforcing: Option<Enforcing>,
    unsent: u64,
    counted_at: SystemTime,
    /// When it may be looked around again.
    rested: Instant,
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
        let namespace = loaded.kernel.as_ref().map_or(0, Kernel::namespace);
        let endings = if loaded.kernel.is_none() { look::listen_for_ends() } else { None };
        let poller = Poller::new(endings.is_some());
        let mut worker = Self {
            kernel: loaded.kernel,
            identifier,
            events,
            inbox,
            watch: Watch::default(),
            namespace,
            own_addresses: host::OwnAddresses::default(),
            own_namespace: namespace::own().unwrap_or_default(),
            own_pid: namespace::has_initial_pids().then(std::process::id),
            open: HashMap::new(),
            told: None,
            poller,
            endings,
            unix_unseen: !loaded.unix,
            unix: UnixTable::new(namespace::own().unwrap_or_default()),
            unix_counting: unix_bytes::Duty::new(Instant::now()),
            outbox: Outbox::default(),
            looks: Looks::default(),
            outgoing: outgoing::Known::default(),
            asked: Vec::new(),
            enforcing: None,
            unsent: 0,
            counted_at: SystemTime::now(),
            rested: Instant::now(),
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
            self.take_endings();
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
        let kernel = self.kernel.as_ref().map(Kernel::fds).unwrap_or_default();
        let endings = self.endings.as_ref().map(Endings::fd);
        fds.extend(kernel.into_iter().chain(endings).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
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
            KernelEvent::Connected(event) => self.connected(&event),
        }
    }

    /// Tells of a process that may connect.
    fn tell(&mut self, task: &TaskInfo) {
        let Some(enforcing) = self.enforcing.as_ref().filter(|enforcing| enforcing.takes(task)) else {
            return;
        };
        let workload = self.identifier.captured(task);
        // Where a policy asks for the hash of its program the decision could be another one without it.
        if !enforcing.enforced.by_hash || !Identifier::is_pending(&workload) {
            enforcing.offer(task, workload);
        } else if let Some(enforcing) = &mut self.enforcing {
            enforcing.keep(*task);
        }
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
            socket: self.socket(event.cookie),
            endpoint: Endpoint::Tcp { client, server },
            workload,
            at: Duration::from_nanos(event.header.at_ns),
            preexisting: false,
            client: Client::of(&event.client),
            namespace: open.namespace,
            namespace_cookie: self
                .kernel
                .as_ref()
                .map_or(0, |kernel| kernel.namespace_cookie(event.namespace)),
            server_pid: 0,
        }));
    }

    fn closed(&mut self, event: &ClosedEvent) {
        self.open.remove(&event.cookie);
        self.send(SensorEvent::Closed(Closed {
            socket: self.socket(event.cookie),
            bytes: flow::payload(event),
            late: false,
            at: Duration::from_nanos(event.header.at_ns),
        }));
    }

    /// The name of a socket that the kernel side told of.
    fn socket(&self, number: u64) -> SocketId {
        self.kernel.as_ref().map_or(SocketId::Serial(number), |kernel| kernel.socket(number))
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
        // The proxy counts what it sends itself: each of its messages would be counted twice.
        let counted_since =
            if self.own_pid == Some(event.client_pid) { None } else { self.count_unix_bytes() };
        let open = OpenUnix {
            namespace: event.client.net_namespace.into(),
            client_pid: event.client_pid,
            key: if counted_since.is_some() { event.key } else { 0 },
            late: counted_since.is_some_and(|since| at < since),
        };
        if let Some(before) = self.unix.opened(event.inode, open) {
            let bytes = if before.key == event.key { None } else { self.unix_bytes(event.inode, before.key) };
            self.send(SensorEvent::Closed(Closed { socket, bytes, late: before.late, at }));
        }
        if open.key == 0 {
            let _ = self.unix_bytes(event.inode, event.key);
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
            let at = host::monotonic();
            self.send(SensorEvent::Closed(Closed { socket, bytes, late: open.late, at }));
        }
    }

    /// Has the bytes of unix connections counted; gives since when, and nothing where this kernel cannot.
    fn count_unix_bytes(&mut self) -> Option<Duration> {
        self.unix_counting.begin(Instant::now());
        self.kernel.as_mut()?.count_unix()
    }

    /// Whether the bytes of unix connections that come are counted from the first.
    fn decide_counting(&mut self) {
        let Some(kernel) = &mut self.kernel else { return };
        let worth = self.unix_counting.decide(Instant::now(), self.unix.is_counted(), kernel.messages());
        if worth && !self.watch.unix_sockets.is_empty() {
            let _ = kernel.count_unix();
        } else {
            kernel.stop_counting_unix();
        }
    }

    /// What the kernel side has counted for a unix connection that has ended.
    fn unix_bytes(&mut self, inode: u64, key: u64) -> Option<Bytes> {
        let counted = self.kernel.as_mut()?.take_unix_bytes(key, inode)?;
        Some(Bytes { from_client: counted.received, to_client: counted.sent })
    }

    fn ended(&mut self, socket: SocketId) {
        self.send(SensorEvent::Closed(Closed { socket, bytes: None, late: false, at: host::monotonic() }));
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
        let unsettled = self.enforcing.as_mut().map(Enforcing::take_unsettled).unwrap_or_default();
        unsettled.iter().for_each(|task| self.tell(task));
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

    fn rewatch(&mut self, watch: Watch, done: &SyncSender<()>) {
        // A new connection may be told of and end before /proc is looked at, and is still no older one.
        self.told = Some(HashSet::new());
        if let Some(kernel) = &mut self.kernel
            && let Err(error) = kernel.watch(&watch)
        {
            tracing::error!(%error, "not everything can be watched");
        }
        let new_paths: BTreeSet<PathBuf> =
            watch.unix_sockets.difference(&self.watch.unix_sockets).cloned().collect();
        if self.watch.unix_sockets.is_empty() && !new_paths.is_empty() {
            // From their first connection.
            let _ = self.kernel.as_mut().map(Kernel::count_unix);
        }
        let _ = done.try_send(());
        let mut new: BTreeSet<u16> =
            watch.database_ports.difference(&self.watch.database_ports).copied().collect();
        if watch.namespaces.keys().any(|namespace| !self.watch.namespaces.contains_key(namespace)) {
            // A known port may be one of another server there.
            new.clone_from(&watch.database_ports);
        }
        let mut new_elsewhere: BTreeSet<u16> =
            watch.elsewhere_ports.difference(&self.watch.elsewhere_ports).copied().collect();
        if watch.elsewhere_looks != self.watch.elsewhere_looks {
            new_elsewhere.clone_from(&watch.elsewhere_ports);
        }
        self.watch = watch;
        if !new.is_empty() {
            self.look(&new, true);
        }
        if !new_paths.is_empty() {
            self.look_for_unix(&new_paths, true);
        }
        self.told = None;
        if !new_elsewhere.is_empty() {
            self.look_outgoing(&new_elsewhere, true);
        }
    }

    fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        let begun = Instant::now();
        if begun >= self.rested {
            self.look_around();
            self.rested = Instant::now() + begun.elapsed() * REST;
        }
        self.keep_refusing();
        self.count_losses();
        self.decide_counting();
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
