//! What the sessions of one thread share: runtime, policies in force, a socket on which the server listens.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use guard_agent::{
    approval::Approvals,
    audit::{AuditLog, Entry},
    config::{ApprovalsConfig, Config, Mode, ProxyConfig, UpstreamTlsMode},
    connections::Connections,
    decide::Decider,
    listen::Logins,
    servers::{Engine, Server},
    session::{Masks, Proxy, ServerSlot, Ways, Worker},
};
use guard_policy::PolicySet;
use tokio::{net::UnixListener, runtime::Runtime, sync::mpsc, sync::watch};

/// Small: so that short inputs reach it.
const MAX_STATEMENT_BYTES: usize = 256;

/// The same.
const MAX_PREPARED: usize = 4;

/// Records that may wait; a session of one input makes far fewer.
const RECORDS: usize = 4_096;

/// Everything but the session itself.
pub struct World {
    pub runtime: Runtime,
    pub listener: UnixListener,
    pub enforcing: Guard,
    pub monitoring: Guard,
    // INVARIANT: outlives the listener in it.
    _folder: tempfile::TempDir,
    _stop: watch::Sender<bool>,
}

/// guard in one mode.
pub struct Guard {
    pub proxy: Arc<Proxy>,
    pub worker: Rc<Worker>,
    pub records: RefCell<mpsc::Receiver<Entry>>,
}

impl World {
    /// Makes one.
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(".s.PGSQL.5432");
        let listener = {
            let _entered = runtime.enter();
            UnixListener::bind(&path).expect("a socket in a folder of its own")
        };
        let (stop, stopping) = watch::channel(false);
        let guard = |mode| {
            let server = Server {
                name: "main".to_owned(),
                engine: Engine::Postgresql,
                environment: "production".to_owned(),
                addresses: Vec::new(),
                unix_sockets: vec![path.clone()],
                pid: None,
                elsewhere: None,
            };
            let (audit, records) = AuditLog::to_queue(RECORDS);
            let config = Config { mode, ..Config::default() };
            let policies = PolicySet::built_in().expect("the built-in policies");
            let decider = Arc::new(Decider::new(policies, &config));
            let limits = ProxyConfig {
                max_statement_bytes: MAX_STATEMENT_BYTES,
                max_prepared_statements: MAX_PREPARED,
                ..ProxyConfig::default()
            };
            let worker = Rc::new(Worker::new(&limits, Arc::clone(&decider)));
            let proxy = Proxy {
                server: ServerSlot::new(server),
                tls: Arc::default(),
                ways: Ways::new(true, UpstreamTlsMode::Off, None),
                logins: Logins::default(),
                limits,
                connections: Connections::new(audit.clone(), Arc::clone(&decider)),
                decider,
                approvals: Approvals::in_memory(&ApprovalsConfig::default(), audit.clone()),
                audit,
                sensor: None,
                masks: Arc::new(Masks::off()),
                counters: Arc::default(),
                stopping: stopping.clone(),
            };
            Guard { proxy: Arc::new(proxy), worker, records: RefCell::new(records) }
        };
        let (enforcing, monitoring) = (guard(Mode::Enforce), guard(Mode::Monitor));
        Self { runtime, listener, enforcing, monitoring, _folder: folder, _stop: stop }
    }
}
