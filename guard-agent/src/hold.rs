//! Holding statements that do not come through the proxy, in PostgreSQL's own processes.
//!
//! Servers of the configuration enter, and what the kernel side stops; each stopped backend leaves as policy says: it goes
//! on, or its statement is cancelled before it runs. Nobody stays stopped without somebody who decides: a watchdog sees to
//! that, and the kernel side stops nobody without both. It never ends a process of a server.

mod backend;
mod judge;
mod kernel;
mod probe;
mod process;
mod reading;
mod release;
mod shown;
mod sweep;
mod target;
mod waiting;
pub mod watchdog;

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use guard_common::{
    audit::{
        timestamp,
        v1::{Gap, record::Body},
    },
    kernel::hold::{HoldEvent, choice, count},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::LocalSet,
    time::timeout,
};

pub use self::{backend::Registry, judge::Lent, kernel::KernelError, shown::HeldServers};
use self::{
    judge::{Judge, Sentence},
    kernel::{HoldKernel, Maps, now_ns},
    release::ReleaseError,
    target::Target,
    watchdog::Watchdog,
};
use crate::{
    config::{Config, HoldChoice, SensorConfig, ServerConfig},
    sensor::Feature,
    servers::Server,
    session::{Worker, caps},
    sql::LargeTexts,
};

/// How often the agent shows that it works: the kernel side takes a second without it for its end.
const BEAT_EVERY: Duration = Duration::from_millis(100);
/// How long a decision may take. People may take longer: they are waited for elsewhere.
const DECIDED_WITHIN: Duration = Duration::from_millis(1_500);
/// Beats between two clean-ups.
const TIDY_EVERY: u32 = 50;
/// What reading a statement may take; see `sql`.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// Sets of servers that may wait.
const COMMANDS: usize = 16;

/// Why statements cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The kernel side does not work here.
    #[error(
        "statements cannot be held (`hold = true`): {0}; run `guard-agent doctor` to see what is missing, or take `hold` \
         out of the configuration"
    )]
    Kernel(#[from] KernelError),
    /// There is no watchdog, or it cannot do its work.
    #[error("statements cannot be held (`hold = true`) without their watchdog: {0}")]
    Watchdog(io::Error),
    /// The thread could not be started.
    #[error("the thread that holds statements cannot be started: {0}")]
    Thread(io::Error),
}

/// Whether statements could be held on this kernel, under this configuration of the sensor. Nothing is left behind.
pub fn try_out(sensor: &SensorConfig) -> Result<(), KernelError> {
    if does_without(sensor) { Err(KernelError::Without) } else { kernel::try_out() }
}

/// It leaves out what holding takes.
fn does_without(sensor: &SensorConfig) -> bool {
    let taken = [Feature::RingBuffer, Feature::Btf, Feature::Bpf];
    !sensor.ebpf || sensor.without.iter().any(|feature| taken.contains(feature))
}

/// A server by its name that may be held, or why not.
type Found = (String, Result<Target, String>);

/// What is wanted of the thread.
enum Command {
    /// Hold the statements of these servers, as far as they are configured so.
    Servers { servers: Vec<Arc<Server>>, found: Vec<Found>, done: oneshot::Sender<()> },
    /// Let everybody go, and end.
    End { done: oneshot::Sender<()> },
}

/// The room, from outside. Without a server to be held it does nothing.
#[derive(Debug)]
pub struct Hold {
    commands: Option<mpsc::Sender<Command>>,
    wanted: Arc<HashMap<String, Wanted>>,
    shown: HeldServers,
}

impl Hold {
    /// Starts it, where `config` names a server whose statements are to be held.
    pub fn start(config: &Config, lent: Lent) -> Result<Self, HoldError> {
        let wanted: HashMap<String, Wanted> =
            config.servers.iter().filter(|server| server.hold).map(Wanted::of).collect();
        if wanted.is_empty() {
            return Ok(Self { commands: None, wanted: Arc::default(), shown: lent.held });
        }
        if does_without(&config.sensor) {
            return Err(KernelError::Without.into());
        }
        let shown = lent.held.clone();
        let (commands, queue) = mpsc::channel(COMMANDS);
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let config = config.clone();
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = ready.send(Err(HoldError::Thread(error)));
                    return;
                }
            };
            runtime.block_on(LocalSet::new().run_until(async move {
                let worker = Worker::new(&config.proxy, Arc::clone(&lent.decider));
                let built = LargeTexts::start(caps(&config.proxy))
                    .map_err(HoldError::Thread)
                    .and_then(|large| Warden::new(lent, worker.with(large), &config));
                match built {
                    Ok(warden) => {
                        let _ = ready.send(Ok(()));
                        warden.run(queue).await;
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            }));
        };
        let thread = std::thread::Builder::new().name("guard-hold".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(run).map_err(HoldError::Thread)?;
        let ended = || HoldError::Thread(io::Error::other("it has ended"));
        started.recv().map_err(|_| ended())??;
        Ok(Self { commands: Some(commands), wanted: Arc::new(wanted), shown })
    }

    /// Which servers are held.
    pub fn shown(&self) -> &HeldServers {
        &self.shown
    }

    /// Holds the statements of these servers from now on, as far as they are configured so.
    pub async fn servers(&self, servers: Vec<Arc<Server>>) {
        let (wanted, shown, looked_at) = (Arc::clone(&self.wanted), self.shown.clone(), servers.clone());
        // It reads /proc and programs: not where decisions are made.
        let find =
            move || looked_at.iter().filter_map(|server| find(server, &wanted, &shown)).collect::<Vec<_>>();
        let found = tokio::task::spawn_blocking(find).await.unwrap_or_default();
        self.tell(|done| Command::Servers { servers, found, done }).await;
    }

    /// Lets everybody go. Nobody is held any more.
    pub async fn end(&self) {
        self.tell(|done| Command::End { done }).await;
    }

    async fn tell(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let Some(commands) = &self.commands else { return };
        let (done, told) = oneshot::channel();
        if commands.send(command(done)).await.is_ok() {
            let _ = told.await;
        }
    }
}

/// What is configured for a server.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    orphans: HoldChoice,
    unattended: HoldChoice,
    /// Its statements are observed, and counted there.
    observed: bool,
}

impl Wanted {
    fn of(server: &ServerConfig) -> (String, Self) {
        let wanted = Self {
            orphans: server.hold_orphans,
            unattended: server.hold_unattended,
            observed: server.observe,
        };
        (server.name.clone(), wanted)
    }
}

/// All about a server that is to be held, and is not yet. Whoever an agent before has left stopped goes on first.
fn find(server: &Arc<Server>, wanted: &HashMap<String, Wanted>, shown: &HeldServers) -> Option<Found> {
    let wanted = wanted.get(&server.name)?;
    if server.pid.is_some_and(|pid| shown.contains(pid)) {
        return None;
    }
    let target = Target::find(server, wanted.orphans, wanted.unattended);
    let target = target.map_err(|error| error.to_string()).map(|found| {
        let target = Target { counts: !wanted.observed, ..found };
        sweep::release(&target);
        target
    });
    Some((server.name.clone(), target))
}

/// The thread: takes what the kernel side stops, and shows that it works.
struct Warden {
    kernel: HoldKernel,
    maps: Rc<RefCell<Maps>>,
    judge: Rc<Judge>,
    /// By postmaster.
    held: HashMap<u32, Rc<Target>>,
    /// The same, for others.
    shown: HeldServers,
    /// Why a server is not held, as it was told.
    told: HashMap<String, String>,
    watchdog: Watchdog,
    policies: u64,
    beats: u32,
    undecided: u64,
}

impl Warden {
    fn new(lent: Lent, worker: Worker, config: &Config) -> Result<Self, HoldError> {
        let (run, limit) = (&config.paths.run, config.proxy.max_statement_bytes);
        let (kernel, maps) = HoldKernel::load()?;
        let watchdog = Watchdog::start(run, &kernel.for_watchdog).map_err(HoldError::Watchdog)?;
        release::can_divert(watchdog.pid()).map_err(HoldError::Watchdog)?;
        let maps = Rc::new(RefCell::new(maps));
        let (policies, shown) = (lent.decider.epoch(), lent.held.clone());
        let judge = Rc::new(Judge::new(lent, worker, limit, Rc::clone(&maps)));
        let (held, told) = (HashMap::new(), HashMap::new());
        Ok(Self { kernel, maps, judge, held, shown, told, watchdog, policies, beats: 0, undecided: 0 })
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut beat = tokio::time::interval(BEAT_EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = beat.tick() => self.beat(),
                stopped = stopped(&mut self.kernel) => stopped.into_iter().for_each(|event| self.take(event)),
                command = commands.recv() => match command {
                    Some(Command::Servers { servers, found, done }) => {
                        self.set_servers(&servers, found);
                        let _ = done.send(());
                    }
                    Some(Command::End { done }) => {
                        self.end().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return self.end().await,
                },
            }
        }
    }

    /// Shows that the agent works, and looks after what has to be looked after.
    fn beat(&mut self) {
        if let Err(error) = self.maps.borrow_mut().beat() {
            tracing::error!("the kernel side cannot be told that guard-agent works: {error}");
        }
        let policies = self.judge.decider.epoch();
        if policies != self.policies {
            self.policies = policies;
            self.forget_what_was_allowed();
        }
        if let Some(status) = self.watchdog.ended() {
            tracing::error!(%status, "the watchdog of held statements has ended: nobody is held until it is back");
            match self.watchdog.again(&self.kernel.for_watchdog) {
                Ok(()) => self.held.values().for_each(|target| self.hand_over(target)),
                Err(error) => tracing::error!("the watchdog cannot be started: {error}"),
            }
        }
        self.beats = self.beats.wrapping_add(1);
        if self.beats.is_multiple_of(TIDY_EVERY) {
            self.judge.tidy();
            self.tell_undecided();
        }
    }

    fn forget_what_was_allowed(&mut self) {
        for target in self.held.values_mut() {
            let mut changed = Target::clone(target);
            changed.held.epoch = changed.held.epoch.wrapping_add(1);
            if let Err(error) = self.maps.borrow_mut().set_server(changed.postmaster, changed.held) {
                tracing::error!(
                    server = changed.server.name,
                    "new policies do not reach the kernel side: {error}"
                );
            }
            *target = Rc::new(changed);
        }
    }

    fn tell_undecided(&mut self) {
        let undecided = self.maps.borrow().counts()[count::UNDECIDED as usize];
        if undecided > self.undecided {
            tracing::warn!(
                statements = undecided - self.undecided,
                "nobody could decide on statements round the proxy: they went the way of `hold_unattended`"
            );
            self.judge.audit.record(Body::Gap(Gap {
                source: "hold".to_owned(),
                lost: undecided - self.undecided,
                until: Some(timestamp(SystemTime::now())),
                detail: "statements that nobody could decide on: they went the way of `hold_unattended`"
                    .to_owned(),
                ..Gap::default()
            }));
            self.undecided = undecided;
        }
    }

    /// Holds those of `servers` that are to be held, and lets go of those that have gone.
    fn set_servers(&mut self, servers: &[Arc<Server>], found: Vec<Found>) {
        let gone: Vec<u32> = self
            .held
            .iter()
            .filter(|(pid, target)| {
                !servers.iter().any(|server| server.name == target.server.name && server.pid == Some(**pid))
                    || process::started_ticks(**pid) != Some(target.held.started)
            })
            .map(|(pid, _)| *pid)
            .collect();
        for pid in gone {
            let Some(target) = self.held.remove(&pid) else { continue };
            let others: Vec<_> = self.held.values().map(|other| other.file).collect();
            self.kernel.let_go(&mut self.maps.borrow_mut(), &target, &others);
            tracing::info!(
                server = target.server.name,
                "statements are not held any more: the server has ended"
            );
        }
        for found in found {
            if self.held.values().all(|target| target.server.name != found.0) {
                self.hold(found);
            }
        }
        let held = self.held.iter().map(|(pid, target)| (*pid, target.server.name.clone()));
        self.shown.set(held, &self.told);
    }

    fn hold(&mut self, found: Found) {
        let (server, result) = found;
        let result = result.and_then(|target| {
            let held = self.kernel.hold(&mut self.maps.borrow_mut(), &target);
            held.map(|()| target).map_err(|error| error.to_string())
        });
        match result {
            Ok(target) => {
                tracing::info!(
                    server,
                    postmaster = target.postmaster,
                    approvals = target.held.message_time != 0,
                    "statements round the proxy are held until policy has decided on them"
                );
                self.told.remove(&server);
                // In this order: the one that takes over leaves its word where the one before has left it.
                self.watchdog.relieve_the_one_before();
                self.hand_over(&target);
                self.held.insert(target.postmaster, Rc::new(target));
            }
            Err(error) => {
                if self.told.get(&server) != Some(&error) {
                    tracing::error!(server, "statements round the proxy are NOT held: {error}");
                    self.told.insert(server, error);
                }
            }
        }
    }

    fn take(&self, event: HoldEvent) {
        let target = self.held.get(&event.postmaster).map(Rc::clone);
        let (judge, maps) = (Rc::clone(&self.judge), Rc::clone(&self.maps));
        tokio::task::spawn_local(async move {
            let deciding = Box::pin(decide(event, target, judge, Rc::clone(&maps)));
            // Whatever goes wrong there, the backend does not stay stopped.
            if tokio::task::spawn_local(deciding).await.is_err() {
                end_stop(event, orphan(&event, "deciding on it has failed"), &maps).await;
            }
        });
    }

    /// Lets everybody go.
    async fn end(&mut self) {
        self.shown.set(std::iter::empty(), &HashMap::new());
        let held: Vec<_> = self.held.drain().collect();
        for (_, target) in held {
            self.kernel.let_go(&mut self.maps.borrow_mut(), &target, &[]);
        }
        let left = self.maps.borrow().stops();
        for (key, stop) in left {
            let cancelled = tokio::task::spawn_blocking(move || release::cancel(key.pid, &stop)).await;
            if let Ok(Err(error @ (ReleaseError::Signal(_) | ReleaseError::Doubtful(_)))) = cancelled {
                tracing::error!(backend = key.pid, "{error}");
            }
            self.maps.borrow_mut().ended(&key);
        }
        self.watchdog.dismiss();
    }

    /// Lets the watchdog keep the probes of a server beyond the agent's death, where nothing may run meanwhile.
    fn hand_over(&self, target: &Target) {
        if target.held.unattended == choice::CANCEL
            && let Err(error) = self.watchdog.keep(self.kernel.probes(target))
        {
            tracing::error!(
                server = target.server.name,
                "the watchdog cannot keep its probes: while no agent runs, statements run: {error}"
            );
        }
    }
}

/// Who has been stopped.
async fn stopped(kernel: &mut HoldKernel) -> Vec<HoldEvent> {
    /// Taken at once; then it is the heartbeat's turn.
    const BATCH: usize = 64;
    let Ok(mut ready) = kernel.events.readable_mut().await else {
        // It does not fail while the thread runs; if it did, the heartbeat would go on.
        return std::future::pending().await;
    };
    let mut events = Vec::new();
    while events.len() < BATCH {
        let Some(item) = ready.get_inner_mut().next() else {
            ready.clear_ready();
            break;
        };
        events.extend(kernel::event(&item));
    }
    events
}

/// Decides on one stop, and ends it.
async fn decide(event: HoldEvent, target: Option<Rc<Target>>, judge: Rc<Judge>, maps: Rc<RefCell<Maps>>) {
    // The watchdog may have let it go already, while this process was not there.
    if !maps.borrow().is_stopped(&event.key) {
        return;
    }
    let runs = match &target {
        Some(target) => match timeout(DECIDED_WITHIN, judge.judge(&event, target)).await {
            Ok(Ok(Sentence::Run)) => true,
            Ok(Ok(Sentence::Cancel)) => false,
            Ok(Ok(Sentence::Wait(waiting))) => judge.wait(*waiting).await,
            // It has ended, or the statement can be nobody's.
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => false,
            Ok(Err(error)) => {
                tracing::error!(
                    backend = event.key.pid,
                    "a held statement cannot be read, and is cancelled: {error}"
                );
                false
            }
            Err(_) => orphan(&event, "no decision in time"),
        },
        None => orphan(&event, "its server is not held any more"),
    };
    end_stop(event, runs, &maps).await;
}

fn orphan(event: &HoldEvent, why: &str) -> bool {
    let runs = event.stop.orphans == choice::RUN;
    let fate = if runs { "runs" } else { "is cancelled" };
    tracing::error!(backend = event.key.pid, "a held statement {fate}: {why}");
    runs
}

async fn end_stop(event: HoldEvent, runs: bool, maps: &RefCell<Maps>) {
    if !maps.borrow().is_stopped(&event.key) {
        return;
    }
    let (pid, stop) = (event.key.pid, event.stop);
    let released = if runs {
        release::run(pid, &stop)
    } else {
        let cancelled = tokio::task::spawn_blocking(move || release::cancel(pid, &stop)).await;
        cancelled.unwrap_or_else(|error| Err(ReleaseError::Signal(io::Error::other(error))))
    };
    // Who could not be signalled is not forgotten: the watchdog tries again when the agent ends.
    if !matches!(released, Err(ReleaseError::Signal(_))) {
        maps.borrow_mut().ended(&event.key);
    }
    tracing::debug!(
        backend = pid,
        runs,
        took_us = now_ns().saturating_sub(event.key.at_ns) / 1_000,
        "a stop has ended"
    );
    if let Err(error @ (ReleaseError::Signal(_) | ReleaseError::Doubtful(_))) = released {
        tracing::error!(backend = pid, "a held statement: {error}");
    }
}
