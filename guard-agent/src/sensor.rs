//! The kernel side in userspace: loads what this kernel offers, reads the ring buffer, yields typed events.
//!
//! It is the only room with kernel handles. It parses nothing that a database peer wrote. A thread of its own
//! works; the rest of the agent holds a [`SensorHandle`] and receives [`SensorEvent`]s, both owned messages, so
//! that it can become a process of its own.

mod aligned;
mod btf;
mod candidates;
mod cgroup_attach;
mod client_ends;
mod cutter;
mod decode;
mod destroy;
mod dump;
mod event;
mod features;
mod flow;
mod host;
mod kernel;
mod load;
pub(crate) mod namespace;
mod outbox;
mod places;
mod poller;
mod probe;
mod refusals;
mod rung;
mod shutdown;
mod sockets;
mod statements;
mod stream;
mod unix_bytes;
mod unix_diag;
mod unix_hook;
mod unix_table;
mod worker;

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError, mpsc::SyncSender},
    time::Duration,
};

use guard_common::audit::v1::{SensorState, workload::Evidence};
use tokio::sync::{mpsc, oneshot};

use crate::{
    config::{IdentityConfig, SensorConfig},
    identity::{Identifier, Workload},
};

pub(crate) use aligned::hold_object;
pub(crate) use btf::kernel_layout;
pub use cutter::{Cut as Cutting, Target};
pub use dump::probe as probe_tables;
pub use event::{
    Accepted, Bytes, Candidate, Candidates, Client, Closed, Connected, Endpoint, Enforced, EnforcedServer,
    Lost, Refused, SensorEvent, SocketId, Subject, Verdict, Watch, Way,
};
pub use features::Features;
pub use host::{cgroup_root, interface_addresses, lift_memory_limit, namespace_cookie};
pub(crate) use host::{monotonic, random_key};
pub use load::{Capabilities, probe};
pub(crate) use load::{VERIFIER_LOG, chain};
pub use probe::ObservedServer;
pub use rung::{Feature, Rung};
pub use sockets::{Listener, UnixListener, listeners, socket_inodes, unix_listeners};
pub use statements::{BackendSeen, Cut, Level, RunsSeen, Seen, StatementReader, StatementSeen};
use worker::{Command, Worker};

/// Events that may wait for the connection table.
const EVENT_QUEUE: usize = 16_384;
/// Questions that may wait for the sensor.
const COMMAND_QUEUE: usize = 4_096;
/// How long a change of what is watched waits to be in force.
const WATCHED_WITHIN: Duration = Duration::from_secs(1);
/// How long a connection waits to learn who it is.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// How long cutting a connection may take.
const CUT_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no sensor.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// `sensor.required` is set and the kernel side does not work.
    #[error(
        "the eBPF programs cannot be loaded and `sensor.required` is set: {0}; \
         run `guard-agent doctor` to see what is missing"
    )]
    Required(String),
    /// This host is further down than `sensor.lowest_rung` allows.
    #[error(
        "this host is on the rung `{rung}` and `sensor.lowest_rung` is `{lowest}`; \
         run `guard-agent doctor` to see what would bring it higher"
    )]
    Below {
        /// Where it is.
        rung: String,
        /// Where it has to be.
        lowest: &'static str,
    },
    /// `sensor.ring_kib` is not one that the kernel takes.
    #[error("`sensor.ring_kib` is {0}: it must be a power of two between 64 and 1048576")]
    RingSize(u32),
    /// `sensor.statement_ring_kib` is not one that the kernel takes.
    #[error("`sensor.statement_ring_kib` is {0}: it must be a power of two between 64 and 1048576")]
    StatementRingSize(u32),
    /// The thread could not be started.
    #[error("the sensor's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Asks the sensor. Cheap to clone; the sensor ends with the last handle.
#[derive(Clone, Debug)]
pub struct SensorHandle {
    commands: SyncSender<Command>,
    wake: Arc<OwnedFd>,
    state: Arc<SensorState>,
    statements: Arc<Mutex<Option<StatementReader>>>,
    cutter: SyncSender<cutter::Order>,
}

impl SensorHandle {
    /// Who is at the client's end of a TCP connection that the proxy accepted: `client` and `local` are the ends as
    /// the accepted socket tells them. Always answers, with the best evidence there is in time.
    pub async fn attest_tcp(&self, client: SocketAddr, local: SocketAddr) -> Arc<Workload> {
        self.attest_tcp_in(None, client, local).await
    }

    /// The same in another network namespace, by its cookie: loopback addresses are not unique on a host.
    pub async fn attest_tcp_in(
        &self,
        namespace: Option<u64>,
        client: SocketAddr,
        local: SocketAddr,
    ) -> Arc<Workload> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::AttestTcp { namespace, client, local, reply });
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(workload)) => workload,
            Ok(Err(_)) | Err(_) => Identifier::remote(client.ip()),
        }
    }

    /// Who is at the other end of a unix socket that the proxy accepted, by its `SO_PEERCRED`.
    pub async fn attest_unix(&self, pid: u32, uid: u32, gid: u32) -> Arc<Workload> {
        self.attested_unix(pid, (uid, gid), ANSWER_WITHIN).await.unwrap_or_else(|| {
            Arc::new(Workload {
                evidence: Evidence::Reported.into(),
                pid,
                uid,
                gid,
                euid: uid,
                ..Workload::default()
            })
        })
    }

    /// The same, for whoever needs all of it: `None` where the sensor has not answered in time.
    pub async fn attested_unix(
        &self,
        pid: u32,
        (uid, gid): (u32, u32),
        within: Duration,
    ) -> Option<Arc<Workload>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::AttestUnix { pid, uid, gid, reply });
        tokio::time::timeout(within, answer).await.ok()?.ok()
    }

    /// Watches these ports and sockets from now on, and no others. Returns when the kernel side does: at once, or
    /// after a second where the sensor is busy; it follows then.
    pub fn watch(&self, watch: Watch) {
        let (done, applied) = std::sync::mpsc::sync_channel(1);
        self.ask(Command::Watch { watch, done });
        if applied.recv_timeout(WATCHED_WITHIN).is_err() {
            tracing::warn!("the sensor is busy: what is watched changes later");
        }
    }

    /// Observes the statements of exactly these servers from now on; tells for each why not.
    pub async fn observe(&self, servers: Vec<ObservedServer>) -> Vec<Result<(), String>> {
        let (reply, answer) = oneshot::channel();
        let count = servers.len();
        self.ask(Command::Observe { servers, reply });
        match tokio::time::timeout(WATCHED_WITHIN, answer).await {
            Ok(Ok(results)) => results,
            Ok(Err(_)) | Err(_) => vec![Err("the sensor is busy: it comes later".to_owned()); count],
        }
    }

    /// Where statements arrive: for the one who asks first, where this kernel lets them be seen.
    pub fn take_statements(&self) -> Option<StatementReader> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What the sensor can see right now, with what each program has cost so far, where that is measured.
    pub async fn measured_state(&self) -> SensorState {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Costs { reply });
        let costs = tokio::time::timeout(ANSWER_WITHIN, answer).await;
        let mut state = self.state();
        for (name, runs, time) in costs.ok().and_then(Result::ok).unwrap_or_default() {
            if let Some(program) = state.programs.iter_mut().find(|program| program.name == name) {
                program.runs = runs;
                program.run_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            }
        }
        state
    }

    /// Takes other servers and policies for verdicts from now on. The verdicts of before count no more when this
    /// returns, or a second later where the sensor is busy. Processes that may connect are told to `candidates`.
    pub fn enforce(&self, enforced: Enforced, candidates: Candidates) {
        let (done, applied) = std::sync::mpsc::sync_channel(1);
        self.ask(Command::Enforce { enforced, candidates, done });
        if applied.recv_timeout(WATCHED_WITHIN).is_err() {
            tracing::warn!("the sensor is busy: what the kernel refuses changes later");
        }
    }

    /// Lets the kernel go by `verdict`. Where it does not arrive, connections are decided on when they are accepted.
    pub fn refuse(&self, verdict: Verdict) {
        self.ask(Command::Verdict(verdict));
    }

    /// Ends a connection that a server has accepted.
    pub async fn cut(&self, target: Target) -> Cutting {
        let (reply, answer) = oneshot::channel();
        if self.cutter.try_send(cutter::Order { target, reply }).is_err() {
            return Cutting::Failed("too many connections wait to be cut".to_owned());
        }
        match tokio::time::timeout(CUT_WITHIN, answer).await {
            Ok(Ok(cut)) => cut,
            Ok(Err(_)) | Err(_) => Cutting::Failed("the kernel did not answer in time".to_owned()),
        }
    }

    /// What the sensor can see right now.
    pub fn state(&self) -> SensorState {
        self.state.as_ref().clone()
    }

    /// A full queue drops the question; who asked gets the fallback.
    fn ask(&self, command: Command) {
        if self.commands.try_send(command).is_ok() {
            let _ = nix::unistd::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

/// Starts the sensor: attaches first, then learns what already runs.
pub fn start(
    config: &SensorConfig,
    identity: &IdentityConfig,
) -> Result<(SensorHandle, mpsc::Receiver<SensorEvent>), SensorError> {
    if !config.ring_kib.is_power_of_two() || !(64..=1_048_576).contains(&config.ring_kib) {
        return Err(SensorError::RingSize(config.ring_kib));
    }
    if !config.statement_ring_kib.is_power_of_two() || !(64..=1_048_576).contains(&config.statement_ring_kib)
    {
        return Err(SensorError::StatementRingSize(config.statement_ring_kib));
    }
    let mut loaded = load::load(config);
    if config.required
        && let Some(reason) = loaded.essential_failure()
    {
        return Err(SensorError::Required(reason));
    }
    if let Some(lowest) = config.lowest_rung
        && Rung::named(&loaded.state.rung).is_none_or(|rung| rung > lowest)
    {
        return Err(SensorError::Below { rung: loaded.state.rung, lowest: lowest.name() });
    }
    let (events, receiver) = mpsc::channel(EVENT_QUEUE);
    let (commands, queue) = std::sync::mpsc::sync_channel(COMMAND_QUEUE);
    let wake = Arc::new(host::event_fd()?);
    let state = Arc::new(loaded.state.clone());
    let statements = Arc::new(Mutex::new(loaded.statements.take()));
    let cutter = cutter::start()?;
    let handle = SensorHandle { commands, wake: Arc::clone(&wake), state, statements, cutter };
    let identifier = Identifier::new(identity, Arc::clone(&wake));
    let worker = Worker::new(loaded, identifier, events, worker::Inbox { queue, wake });
    std::thread::Builder::new().name("guard-sensor".to_owned()).spawn(move || worker.run())?;
    Ok((handle, receiver))
}
