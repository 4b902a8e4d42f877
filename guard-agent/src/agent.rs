//! The running agent: puts the rooms together, waits for the end, takes them apart in order.
//!
//! A checked configuration enters. It starts to protect before it says that it is ready, and it stops by letting
//! sessions finish, then the journal.

mod approvals;
mod fleet;
mod handed;
mod local;
mod policies;
mod protection;
mod steering;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use guard_common::audit::v1::{AgentStarted, AgentStopped, record::Body};
use guard_policy::PolicyError;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Mutex, watch},
};

pub use approvals::connect as connect_approvals;
pub use local::{LocalError, socket_path, status};
pub use policies::load as load_policies;

use self::fleet::Fleet;
use crate::{
    approval::{Approvals, StoreError},
    audit::{AuditLog, JournalOpenError},
    clients::Clients,
    config::Config,
    connections::Connections,
    decide::Decider,
    enforce::{
        Enforcer,
        folders::{FolderError, Folders},
    },
    hold::{self, HeldServers, Hold, HoldError},
    listen::{ListenError, SessionThreads},
    observe::{self, Observer},
    sensor::{self, SensorError, SensorHandle},
    session::{KeyError, Masks},
    steering::Steering,
    tls::{ConnectorError, TlsError},
    uplink::{self, UplinkError, UplinkHandle},
};

/// How much longer than `drain_seconds` sessions may take to end when the agent stops: their last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the last records may take to reach the control plane. What does not arrive is shipped at the next start.
const LAST_SHIPMENT: Duration = Duration::from_secs(2);

/// Why the agent cannot run. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A folder cannot be made or used.
    #[error(
        "cannot use the folder `{path}`: {error}; run as root, or set `paths.{key}` in the configuration"
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The configuration key that names it.
        key: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// The policies are not valid.
    #[error(transparent)]
    Policies(#[from] PolicyError),
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] JournalOpenError),
    /// The sensor cannot be started.
    #[error(transparent)]
    Sensor(#[from] SensorError),
    /// The proxy cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificate that is configured cannot be presented.
    #[error("TLS of the proxy for `{server}`: {error}")]
    Tls {
        /// The server behind.
        server: String,
        /// Why not.
        error: Arc<TlsError>,
    },
    /// The authorities for a server's certificate cannot be used.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    /// The control plane's address is not one.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// The file of requests for approval.
    #[error(transparent)]
    Approvals(#[from] StoreError),
    /// The socket for the command line.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The key of masking cannot be used.
    #[error(transparent)]
    MaskingKey(#[from] KeyError),
    /// Statements cannot be held, as they are configured to be.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// Folders that an agent before has closed cannot be given back.
    #[error(transparent)]
    Folders(#[from] FolderError),
    /// The operating system refused something.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What the rooms of a running agent share.
pub(crate) struct Agent {
    pub(crate) config: Config,
    pub(crate) decider: Arc<Decider>,
    pub(crate) audit: AuditLog,
    pub(crate) sensor: SensorHandle,
    pub(crate) connections: Connections,
    pub(crate) clients: Clients,
    pub(crate) enforcer: Arc<Enforcer>,
    pub(crate) folders: Folders,
    pub(crate) masks: Arc<Masks>,
    pub(crate) observer: Observer,
    pub(crate) approvals: Approvals,
    pub(crate) hold: Hold,
    /// Taken when the agent stops.
    pub(crate) uplink: std::sync::Mutex<Option<UplinkHandle>>,
    pub(crate) fleet: Mutex<Fleet>,
    pub(crate) started: SystemTime,
    /// What leads connections to servers' own addresses to the proxy; taken when the agent stops.
    pub(crate) steering: std::sync::Mutex<Option<Steering>>,
    /// Why the newest policy files are not in force.
    pub(crate) policy_error: std::sync::Mutex<String>,
    /// Held while policy files are read, so that what was read first does not come into force last.
    pub(crate) reloading: Mutex<()>,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<(), AgentError> {
    let stamp = policies::Stamp::of(&config);
    let policies = load_policies(&config)?;
    take_descriptors(config.proxy.max_connections);
    make_folder(&config.paths.state, 0o700, "state")?;
    make_folder(&config.paths.run, 0o755, "run")?;
    let (audit, journal) = AuditLog::open(&config.journal, &config.paths.state.join("journal"))?;
    let decider = Arc::new(Decider::new(policies, &config));
    let connections = Connections::new(audit.clone(), Arc::clone(&decider));
    let clients = Clients::new(&config.clients, audit.clone());
    connections.report_by(clients.clone());
    let masks = Arc::new(Masks::new(&config)?);
    let (sensor, events) = sensor::start(&config.sensor, &config.identity)?;
    let folders = Folders::new(&config.paths.state)?;
    let (enforcer, candidates) = Enforcer::new(Arc::clone(&decider), sensor.clone());
    connections.act_by(Arc::clone(&enforcer));
    audit.record(Body::AgentStarted(started(&config, &decider)));
    let held = HeldServers::default();
    let observer = Observer::start(
        &sensor,
        observe::Rooms {
            connections: connections.clone(),
            decider: Arc::clone(&decider),
            audit: audit.clone(),
            limits: config.proxy.clone(),
            held: held.clone(),
        },
    )?;
    let approvals = Approvals::open(&config.approvals, &config.paths.state.join("approvals"), audit.clone())?;
    let lent = hold::Lent {
        decider: Arc::clone(&decider),
        audit: audit.clone(),
        approvals: approvals.clone(),
        registry: hold::Registry { sensor: sensor.clone(), connections: connections.clone() },
        held,
    };
    let hold = Hold::start(&config, lent)?;
    let threads = SessionThreads::start(&config.proxy, &decider)?;
    let (stop, stopping) = watch::channel(false);
    let identity = uplink::Identity {
        host: hostname(),
        mode: config.mode.as_str(),
        credentials: uplink::Credentials::in_state(&config.paths.state),
    };
    let (policies_door, offers) = uplink::Policies::new(config.policy.from_control);
    let doors = uplink::Doors {
        approvals: Some(approvals.clone()),
        policies: Some(policies_door.clone()),
        clients: Some(clients.clone()),
    };
    let uplink = uplink::start_with(&config.control, identity, audit.clone(), doors)?;
    let steering = Steering::new(&config.pins, &config.steering, &config.paths.state);
    let agent = Arc::new(Agent {
        fleet: Mutex::new(Fleet::new(threads, stopping.clone(), config.proxy.max_connections)),
        config,
        decider,
        audit,
        sensor,
        connections: connections.clone(),
        clients,
        enforcer: Arc::clone(&enforcer),
        folders,
        masks,
        observer,
        approvals: approvals.clone(),
        hold,
        uplink: std::sync::Mutex::new(Some(uplink)),
        started: SystemTime::now(),
        steering: std::sync::Mutex::new(Some(steering)),
        policy_error: std::sync::Mutex::default(),
        reloading: Mutex::default(),
    });
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(connections.run(events));
    tokio::spawn(enforcer.run(candidates));
    let keeping_time = tokio::spawn(approvals.keep_time());
    fleet::refresh(&agent).await?;
    let local = local::serve(Arc::clone(&agent)).await?;
    let people = approvals::serve(Arc::clone(&agent))?;
    let rediscovery = tokio::spawn(fleet::keep_up(Arc::clone(&agent)));
    let watch = tokio::spawn(policies::watch(Arc::clone(&agent), stamp));
    let handing = tokio::spawn(policies::follow_control(Arc::clone(&agent), policies_door, offers));
    announce(&agent).await;
    let reason = loop {
        tokio::select! {
            _ = hangup.recv() => {
                policies::reload(&agent).await;
                // Certificates as well.
                if let Err(error) = fleet::refresh(&agent).await {
                    tracing::warn!("{error}");
                }
            }
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
        }
    };
    tracing::info!("stopping: {reason}");
    rediscovery.abort();
    keeping_time.abort();
    watch.abort();
    handing.abort();
    let steering = steering::stop(&agent).await;
    let _ = stop.send(true);
    wait_for_sessions(&agent).await;
    agent.hold.end().await;
    steering::stopped(steering).await;
    agent.observer.stop().await;
    if let Err(error) = agent.folders.open_all() {
        tracing::error!("{error}; `guard-agent restore` tries again");
    }
    agent.audit.record(Body::AgentStopped(AgentStopped { reason: reason.to_owned() }));
    drop((local, people));
    let closed = journal.close().await;
    let uplink = agent.uplink.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some(uplink) = uplink {
        uplink.close(LAST_SHIPMENT).await;
    }
    closed.map_err(|error| AgentError::Io(io::Error::other(error)))
}

/// Every session takes two descriptors: as many as the system lets this process have.
fn take_descriptors(wanted: usize) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    /// For files, sockets and maps of the agent's own.
    const OWN: u64 = 256;
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    let wanted = (wanted as u64).saturating_mul(2).saturating_add(OWN);
    match raised {
        Ok(limit) if limit < wanted => tracing::warn!(
            limit,
            wanted,
            "this process may open fewer files than `proxy.max_connections` sessions take: raise LimitNOFILE in its unit"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

fn make_folder(path: &Path, mode: u32, key: &'static str) -> Result<(), AgentError> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|error| AgentError::Folder { path: path.to_owned(), key, error })
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// What this host calls itself.
pub fn hostname() -> String {
    line("/proc/sys/kernel/hostname")
}

fn started(config: &Config, decider: &Decider) -> AgentStarted {
    AgentStarted {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: hostname(),
        kernel: line("/proc/sys/kernel/osrelease"),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        mode: config.mode.as_str().to_owned(),
        policy_hash: decider.policies().hash().to_owned(),
        literals: config.journal.literals.as_str().to_owned(),
    }
}

async fn announce(agent: &Agent) {
    let policies = agent.decider.policies();
    for line in agent.fleet.lock().await.describe() {
        tracing::info!("{line}");
    }
    tracing::info!(
        mode = agent.config.mode.as_str(),
        policies = policies.len(),
        origin = %policies.origin(),
        rung = %agent.sensor.state().rung,
        "guard-agent ready"
    );
}

async fn wait_for_sessions(agent: &Agent) {
    let drained = agent.fleet.lock().await.drained();
    let limit = Duration::from_secs(agent.config.proxy.drain_seconds) + LAST_WORDS;
    if tokio::time::timeout(limit, drained).await.is_err() {
        tracing::warn!("some sessions did not end in time and are cut off");
    }
}
