//! Acts on connections round the proxy that policy refuses: where it can, before they exist; else it ends them.
//!
//! Processes and accepted connections enter, with their decisions; verdicts for the kernel and orders to cut leave. The
//! kernel never decides: it goes by what the same [`Decider`] has said of the same workload, for one epoch of policies and
//! servers. INVARIANT: guard's own connections are never acted on, and in monitor mode nothing is.

pub mod folders;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use guard_common::audit::v1::{
    Decision, Enforcement, Workload, decision::Verdict as Verdicts, enforcement::Action,
};
use guard_policy::Principal;
use tokio::sync::mpsc;

use crate::{
    config::Mode,
    decide::{AppliedMode, ConnectRequest, Decider},
    sensor::{
        Accepted, Candidate, Candidates, Cutting, Endpoint, Enforced, EnforcedServer, SensorHandle, Subject,
        Target, Verdict,
    },
    servers::Server,
};

/// Candidates that may wait. Beyond, they are decided on when a server accepts.
const QUEUE: usize = 4_096;
/// Decisions on workloads that are remembered, for one epoch.
const REMEMBERED: usize = 4_096;
/// Servers that the kernel side can tell apart.
const SERVERS: u32 = 64;

/// Acts by decisions; shared by the connection table and whoever changes policies or servers.
#[derive(Debug)]
pub struct Enforcer {
    decider: Arc<Decider>,
    sensor: SensorHandle,
    candidates: Candidates,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// A number for each server that was ever enforced: never another's.
    numbers: BTreeMap<String, u32>,
    servers: Vec<Arc<Server>>,
    /// Servers whose addresses lead to the proxy.
    steered: BTreeSet<String>,
    /// What the kernel side goes by.
    told: Enforced,
    /// The policies that it was decided by.
    policy_hash: String,
    /// Counts every change; never 0.
    changes: u64,
}

/// What is decided by, as it was at one moment.
struct Scene {
    epoch: u64,
    servers: Vec<(u32, Arc<Server>)>,
}

impl Enforcer {
    /// Nothing is enforced yet. Who runs it gives it the candidates that are told.
    pub fn new(decider: Arc<Decider>, sensor: SensorHandle) -> (Arc<Self>, mpsc::Receiver<Candidate>) {
        let (candidates, told) = mpsc::channel(QUEUE);
        (Arc::new(Self { decider, sensor, candidates, state: Mutex::default() }), told)
    }

    /// The servers of this host from now on, and the names of those whose addresses lead to the proxy, whoever connects: a
    /// connect there is no way round it.
    pub fn set_servers(&self, servers: Vec<Arc<Server>>, steered: BTreeSet<String>) {
        {
            let mut state = self.state();
            state.servers = servers;
            state.steered = steered;
        }
        self.follow();
    }

    /// Other policies or servers may be in force: what the kernel refuses by those of before ends. Waits for the kernel
    /// side, for a second at most.
    pub fn follow(&self) {
        let enforced = {
            let mut state = self.state();
            let policies = self.decider.policies();
            let policy_hash = policies.hash().to_owned();
            let servers = self.enforced_servers(&mut state);
            if servers == state.told.servers && policy_hash == state.policy_hash {
                return;
            }
            state.changes += 1;
            let epoch = if servers.is_empty() { 0 } else { state.changes };
            state.policy_hash = policy_hash;
            let by_hash = policies.reads_hashes();
            state.told = Enforced { epoch, servers, by_hash };
            state.told.clone()
        };
        self.sensor.enforce(enforced, self.candidates.clone());
    }

    fn enforced_servers(&self, state: &mut State) -> Vec<EnforcedServer> {
        let mut enforced = Vec::new();
        for server in state.servers.clone() {
            if self.decider.mode(&server.name, "").mode != Mode::Enforce {
                continue;
            }
            let next = u32::try_from(state.numbers.len()).unwrap_or(u32::MAX);
            let number = *state.numbers.entry(server.name.clone()).or_insert(next);
            // Beyond, connections are cut when they are accepted.
            if number < SERVERS {
                enforced.push(EnforcedServer {
                    number,
                    name: server.name.clone(),
                    addresses: server.addresses.clone(),
                    unix_sockets: server.unix_sockets.clone(),
                    pid: server.pid,
                    steered: state.steered.contains(&server.name),
                });
            }
        }
        enforced
    }

    /// Decides on candidates until none can come any more.
    pub async fn run(self: Arc<Self>, mut candidates: mpsc::Receiver<Candidate>) {
        let mut known: HashMap<[u8; 16], (u64, u64)> = HashMap::new();
        let mut epoch = 0;
        while let Some(Candidate { client, workload }) = candidates.recv().await {
            let scene = self.scene();
            if scene.epoch != epoch || known.len() >= REMEMBERED {
                known.clear();
                epoch = scene.epoch;
            }
            if epoch == 0 || is_own(&workload) {
                continue;
            }
            let fingerprint = *Principal::new(&workload).fingerprint();
            let (tcp, unix) = *known.entry(fingerprint).or_insert_with(|| self.refused(&scene, &workload));
            self.sensor.refuse(Verdict { subject: Subject::Client(client), epoch, tcp, unix });
        }
    }

    /// Ends a connection round the proxy that was refused after the server has accepted it, and lets the kernel refuse
    /// the next ones of the same client. `decision` becomes what came of it.
    pub async fn cut(&self, accepted: &Accepted, server: &Server, decision: &mut Decision) -> Enforcement {
        if is_own(&accepted.workload) {
            return not_acted(decision, "guard's own connection is not cut");
        }
        self.remember(accepted);
        match self.sensor.cut(Target::new(accepted, server.pid)).await {
            Cutting::Done => acted(Action::Cut, ""),
            Cutting::Gone => not_acted(decision, "it had ended before it was cut"),
            Cutting::Failed(error) => not_acted(decision, &error),
        }
    }

    /// Lets the kernel refuse the next connections of the same client.
    fn remember(&self, accepted: &Accepted) {
        let scene = self.scene();
        let subject = match (&accepted.client, &accepted.endpoint) {
            (Some(client), _) => Subject::Client(*client),
            (None, Endpoint::Tcp { .. }) => match accepted.workload.remote_address.parse::<IpAddr>() {
                Ok(address) if !address.is_loopback() => Subject::Address(address),
                Ok(_) | Err(_) => return,
            },
            (None, Endpoint::Unix { .. }) => return,
        };
        if scene.epoch != 0 {
            let (tcp, unix) = self.refused(&scene, &accepted.workload);
            self.sensor.refuse(Verdict { subject, epoch: scene.epoch, tcp, unix });
        }
    }

    /// What is decided by now. The epoch is that of the policies or older: a verdict that says too little counts no more
    /// once the kernel side has the newer one.
    fn scene(&self) -> Scene {
        let state = self.state();
        let numbered = |server: &EnforcedServer| {
            let own = state.servers.iter().find(|own| own.name == server.name)?;
            Some((server.number, Arc::clone(own)))
        };
        Scene { epoch: state.told.epoch, servers: state.told.servers.iter().filter_map(numbered).collect() }
    }

    /// Bits of the servers that `workload` may not reach round the proxy: over TCP, and over unix sockets.
    fn refused(&self, scene: &Scene, workload: &Workload) -> (u64, u64) {
        let (mut tcp, mut unix) = (0, 0);
        for (number, server) in &scene.servers {
            for (transport, bits) in [("tcp", &mut tcp), ("unix", &mut unix)] {
                let request = ConnectRequest { workload, server, proxied: false, transport };
                if self.decider.connect(&request).verdict() == Verdicts::Refused {
                    *bits |= 1 << number;
                }
            }
        }
        (tcp, unix)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete when the lock is released, whatever happened to its holder.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kernel has refused it.
pub fn refused_in_kernel(listener: bool) -> Enforcement {
    if listener {
        acted(Action::Dropped, "its SYN was answered as if nobody listened")
    } else {
        acted(Action::RefusedInKernel, "connect has failed with EPERM")
    }
}

/// It goes on, because of `why`: the decision says so too.
pub fn not_acted(decision: &mut Decision, why: &str) -> Enforcement {
    decision.set_verdict(Verdicts::WouldRefuse);
    AppliedMode::NON_PROXIED.mode.as_str().clone_into(&mut decision.mode);
    AppliedMode::NON_PROXIED.from.as_str().clone_into(&mut decision.mode_from);
    acted(Action::Failed, why)
}

fn acted(action: Action, detail: &str) -> Enforcement {
    Enforcement { action: action.into(), detail: detail.to_owned(), attempts: 0 }
}

fn is_own(workload: &Workload) -> bool {
    workload.pid == std::process::id()
}
