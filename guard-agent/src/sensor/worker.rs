//! The sensor's thread: drains the ring buffer, answers who connects, reports what happens on watched sockets.

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
        socket::{AcceptedEvent, ClosedEvent, FlowKey},
        unix::{UnixAcceptedEvent, UnixPath},
    },
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{mpsc, oneshot};

use super::{
    decode::{KernelEvent, decode},
    event::{Accepted, Bytes, Closed, Endpoint, Lost, SensorEvent, SocketId, Watch},
    flow, host,
    kernel::Kernel,
    load::Loaded,
    poller::Poller,
    probe::ObservedServer,
    sockets::{self, Connection},
    unix_table::UnixTable,
};
use crate::identity::{Identifier, Workload};

/// How often /proc is looked at, losses are counted and old entries are dropped.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two clean-ups.
const TIDY_EVERY: u32 = 20;
/// Ticks between two looks for the end of connections that were open before.
const LOOK_EVERY: u32 = 4;
/// Events handled before questions are answered again.
const BATCH: usize = 8_192;
/// Connections of which the end is awaited.
const OPEN_LIMIT: usize = 100_000;

/// What the rest of the agent asks.
#[derive(Debug)]
pub enum Command {
    /// Who is at the client's end.
    AttestTcp {
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
}

/// Where questions arrive.
#[derive(Debug)]
pub struct Inbox {
    /// The questions.
    pub queue: Receiver<Command>,
    /// Readable when there are new ones.
    pub wake: Arc<OwnedFd>,
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
    open: HashMap<u64, FlowKey>,
    /// What was told of since a change of what is watched, until /proc was looked at for older connections.
    told: Option<HashSet<(SocketAddr, SocketAddr)>>,
    poller: Poller,
    unix: UnixTable,
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
            open: HashMap::new(),
            told: None,
            poller: Poller::default(),
            unix: UnixTable::new(),
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
            } else {
                self.wait(next_tick.saturating_duration_since(Instant::now()));
            }
            self.drain();
            if !self.answer() {
                break;
            }
            self.unix_ended();
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                self.tick();
            }
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&self, at_most: Duration) {
        let at_most = self.unix.wait().map_or(at_most, |wait| wait.min(at_most));
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
            KernelEvent::Exec(event) => self.identifier.exec(&event),
            KernelEvent::Fork(event) => self.identifier.fork(event.task),
            KernelEvent::Exit(event) => {
                self.identifier.exit(event.pid, event.start_ns);
                self.unix.process_ended();
            }
            KernelEvent::Cgroup(event) => {
                let path = event.path.get(..event.path_kept as usize).unwrap_or_default();
                self.identifier.cgroup(event.id, String::from_utf8_lossy(path).into_owned());
            }
            KernelEvent::Accepted(event) => self.accepted(&event),
            KernelEvent::Closed(event) => self.closed(&event),
            KernelEvent::UnixAccepted(event) => self.unix_accepted(&event),
        }
    }

    fn accepted(&mut self, event: &AcceptedEvent) {
        let (client, server) = (flow::client(&event.flow), flow::server(&event.flow));
        let workload = if event.client.pid == 0 {
            self.uncaptured(client, server)
        } else {
            self.identifier.captured(&event.client)
        };
        if self.open.len() < OPEN_LIMIT {
            self.open.insert(event.cookie, event.flow);
        }
        if let Some(told) = &mut self.told {
            told.insert((client, server));
        }
        self.send(SensorEvent::Accepted(Accepted {
            socket: SocketId::Cookie(event.cookie),
            endpoint: Endpoint::Tcp { client, server },
            workload,
            at: Duration::from_nanos(event.header.at_ns),
            preexisting: false,
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
        let credentials = Some((event.client_uid, event.client_gid));
        let workload = self.identifier.by_pid(event.client_pid, credentials, Evidence::Attested);
        let at = Duration::from_nanos(event.header.at_ns);
        let socket = SocketId::Inode(event.inode);
        if self.unix.opened(event.inode, event.server_pid) {
            self.send(SensorEvent::Closed(Closed { socket, bytes: None, at }));
        }
        let endpoint = Endpoint::Unix { path: unix_path(&event.path), peer_inode: event.peer_inode };
        self.send(SensorEvent::Accepted(Accepted { socket, endpoint, workload, at, preexisting: false }));
    }

    fn unix_ended(&mut self) {
        for inode in self.unix.look() {
            self.ended(SocketId::Inode(inode));
        }
    }

    fn ended(&mut self, socket: SocketId) {
        self.send(SensorEvent::Closed(Closed { socket, bytes: None, at: host::monotonic() }));
    }

    /// Answers what was asked; false where nobody is left.
    fn answer(&mut self) -> bool {
        loop {
            match self.inbox.queue.try_recv() {
                Ok(Command::AttestTcp { client, local, reply }) => {
                    let _ =
                        reply.send(self.attest_tcp(sockets::canonical(client), sockets::canonical(local)));
                }
                Ok(Command::AttestUnix { pid, uid, gid, reply }) => {
                    let evidence =
                        if self.kernel.is_some() { Evidence::Attested } else { Evidence::Reported };
                    let _ = reply.send(self.identifier.by_pid(pid, Some((uid, gid)), evidence));
                }
                Ok(Command::Watch { watch, done }) => self.rewatch(watch, &done),
                Ok(Command::Observe { servers, reply }) => {
                    let results = match &mut self.kernel {
                        Some(kernel) => kernel.observe(&servers),
                        None => vec![Err("the eBPF programs are not loaded".to_owned()); servers.len()],
                    };
                    let _ = reply.send(results);
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn attest_tcp(&mut self, client: SocketAddr, local: SocketAddr) -> Arc<Workload> {
        // Events from before the question: the client's exec is among them.
        self.drain();
        let key = flow::key(client, local, self.namespace);
        match self.kernel.as_ref().and_then(|kernel| kernel.client(&key)) {
            Some(task) => {
                self.settle(&task);
                self.identifier.captured(&task)
            }
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
        if !self.own_addresses.contains(client.ip()) {
            return Identifier::remote(client.ip());
        }
        let table = sockets::connections();
        self.reported(&table, &[(client, server)]).pop().unwrap_or_else(|| Identifier::remote(client.ip()))
    }

    /// Clients of several connections, each by the process that holds the other end's socket.
    fn reported(&mut self, table: &[Connection], wanted: &[(SocketAddr, SocketAddr)]) -> Vec<Arc<Workload>> {
        let inodes: HashMap<(SocketAddr, SocketAddr), u64> =
            table.iter().map(|end| ((end.local, end.remote), end.inode)).collect();
        let searched: HashSet<u64> =
            wanted.iter().filter_map(|ends| inodes.get(ends)).copied().filter(|inode| *inode != 0).collect();
        let owners = sockets::owners(&searched);
        wanted
            .iter()
            .map(|ends| {
                let pid = inodes.get(ends).and_then(|inode| owners.get(inode)).and_then(|pids| pids.first());
                match pid {
                    Some(pid) => self.identifier.by_pid(*pid, None, Evidence::Reported),
                    None => Identifier::remote(ends.0.ip()),
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
        let new: BTreeSet<u16> =
            watch.database_ports.difference(&self.watch.database_ports).copied().collect();
        self.watch = watch;
        if !new.is_empty() {
            self.look(&new, true);
        }
        self.told = None;
    }

    /// Looks in /proc for connections on `ports` that no event has told of.
    fn look(&mut self, ports: &BTreeSet<u16>, preexisting: bool) {
        let table = sockets::connections();
        // What was accepted before the look is in the ring buffer by now.
        self.drain();
        let changes = self.poller.look(&table, ports);
        self.gone(changes.closed);
        let mut told = self.told.take().unwrap_or_default();
        told.extend(self.open.values().map(|flow| (flow::client(flow), flow::server(flow))));
        let (known, new): (Vec<Connection>, Vec<Connection>) =
            changes.opened.into_iter().partition(|end| told.contains(&(end.remote, end.local)));
        for connection in known {
            self.poller.forget(connection.inode);
        }
        let ends: Vec<(SocketAddr, SocketAddr)> = new.iter().map(|end| (end.remote, end.local)).collect();
        let workloads = self.reported(&table, &ends);
        for (connection, workload) in new.into_iter().zip(workloads) {
            self.send(SensorEvent::Accepted(Accepted {
                socket: SocketId::Inode(connection.inode),
                endpoint: Endpoint::Tcp { client: connection.remote, server: connection.local },
                workload,
                at: host::monotonic(),
                preexisting,
            }));
        }
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
            let changes = self.poller.ended(&sockets::connections());
            self.gone(changes.closed);
        }
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
        let mut lost: Vec<(&'static str, u64)> = match &mut self.kernel {
            Some(kernel) => kernel.lost().into_iter().map(|(kind, lost)| (kind.name(), lost)).collect(),
            None => Vec::new(),
        };
        if lost.iter().any(|(kind, _)| *kind == EventKind::Closed.name()) {
            self.reconcile();
        }
        lost.push(("queue", std::mem::take(&mut self.unsent)));
        for (kind, lost) in lost.into_iter().filter(|(_, lost)| *lost > 0) {
            let report = Lost { kind, lost, since: self.counted_at, until: now };
            if self.events.try_send(SensorEvent::Lost(report)).is_err() && kind == "queue" {
                self.unsent += lost;
            }
        }
        self.counted_at = now;
    }

    /// Ends of connections were lost: what is no longer in /proc has ended. Other network namespaces are not listed.
    fn reconcile(&mut self) {
        let present: HashSet<(SocketAddr, SocketAddr)> =
            sockets::connections().into_iter().map(|end| (end.remote, end.local)).collect();
        let gone: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, flow)| flow.namespace == 0 || flow.namespace == self.namespace)
            .filter(|(_, flow)| self.own_addresses.contains(flow::server(flow).ip()))
            .filter(|(_, flow)| !present.contains(&(flow::client(flow), flow::server(flow))))
            .map(|(cookie, _)| *cookie)
            .collect();
        for cookie in gone {
            self.open.remove(&cookie);
            self.ended(SocketId::Cookie(cookie));
        }
    }

    /// Never waits: a full queue is a loss, and is counted.
    fn send(&mut self, event: SensorEvent) {
        if self.events.try_send(event).is_err() {
            self.unsent += 1;
        }
    }
}

/// Payload bytes of a connection. The kernel's counters take the end of a direction (FIN) for one more byte, and
/// the state before the end tells which ones there were. One case stays open: in FIN-WAIT-2 the client's may have
/// been counted; it is not where the server closes first.
fn payload(event: &ClosedEvent) -> Bytes {
    const FIN_WAIT_2: u32 = 5;
    const CLOSE_WAIT: u32 = 8;
    const LAST_ACK: u32 = 9;
    const CLOSING: u32 = 11;
    let client_ended = matches!(event.previous_state, CLOSE_WAIT | LAST_ACK | CLOSING);
    let server_ended = matches!(event.previous_state, FIN_WAIT_2 | LAST_ACK | CLOSING);
    Bytes {
        from_client: event.received.saturating_sub(client_ended.into()),
        to_client: event.acked.saturating_sub(server_ended.into()),
    }
}

fn unix_path(path: &UnixPath) -> PathBuf {
    // An abstract name starts with a zero byte, and ends at its padding as a path does.
    let mut bytes = path.bytes.to_vec();
    if bytes[0] == 0 {
        bytes[0] = b'@';
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}
