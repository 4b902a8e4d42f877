//! The process beside the agent that leaves no backend stopped.
//!
//! It holds descriptors of the maps in which the kernel side writes down whom it stops, and when the agent last did its
//! work. When the agent dies, or hangs for a second, the watchdog lets all of them go, each as its server's
//! configuration says. The kernel side stops nobody while the watchdog itself is not there. It reads nothing else.

use std::{
    fs,
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use aya::maps::{Array, HashMap, MapData};
use guard_common::kernel::hold::{STALE_NS, Stop, StopKey, beat, choice};
use nix::{
    cmsg_space,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigHandler, SigSet, Signal, signal},
        socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
    },
};

use super::{
    kernel::{beats, now_ns, stops},
    process::{Process, started_ticks},
    release::{self, ReleaseError},
};

/// The hidden command that runs it.
pub const COMMAND: &str = "hold-watchdog";
/// What it is called in lists of processes, so that who ends the agent by its name does not end it as well.
const NAME: &str = "guard-watchdog";
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long it goes on looking after the agent's end: the last may have been stopped in that moment.
const LAST_LOOKS: Duration = Duration::from_millis(1_500);

/// Where a watchdog that will keep probes after its agent's death says who it is.
const LEFT: &str = "hold-watchdog";
/// More descriptors are not handed over at once: the probes of one server.
const MAX_HANDED: usize = 8;

/// What the agent says to it, with descriptors.
mod word {
    /// The maps of stops and heartbeats.
    pub(super) const MAPS: u8 = b'm';
    /// Probes to be kept when the agent dies.
    pub(super) const KEEP: u8 = b'k';
    /// The agent ends in order: nothing is kept.
    pub(super) const DISMISSED: u8 = b'd';
}

/// The watchdog, in the agent's hands. It ends with them.
#[derive(Debug)]
pub struct Watchdog {
    run: PathBuf,
    child: Child,
    socket: UnixStream,
}

impl Watchdog {
    /// Starts it with the two maps. `run` is the folder for sockets and the like.
    pub fn start(run: &Path, maps: &[OwnedFd; 2]) -> io::Result<Self> {
        let (socket, other) = UnixStream::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .arg(COMMAND)
            .arg(run)
            .stdin(Stdio::from(OwnedFd::from(other)))
            .stdout(Stdio::null())
            // A group of its own: what a terminal sends to the agent's is not for it.
            .process_group(0)
            .spawn()?;
        let watchdog = Self { run: run.to_owned(), child, socket };
        watchdog.tell(word::MAPS, maps)?;
        Ok(watchdog)
    }

    /// Starts it again.
    pub fn again(&mut self, maps: &[OwnedFd; 2]) -> io::Result<()> {
        *self = Self::start(&self.run, maps)?;
        Ok(())
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it has ended; nothing while it lives.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Lets it keep these probes when the agent dies.
    pub fn keep(&self, probes: &[OwnedFd]) -> io::Result<()> {
        self.tell(word::KEEP, probes)
    }

    /// Ends one that an agent before this has left with its probes: they are not needed any more.
    pub fn relieve_the_one_before(&self) {
        let path = self.run.join(LEFT);
        let Ok(left) = fs::read_to_string(&path) else { return };
        let mut numbers = left.split_whitespace().map_while(|number| number.parse().ok());
        let (pid, started) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if pid == u64::from(self.pid()) {
            return;
        }
        let relieved = u32::try_from(pid)
            .map_err(io::Error::other)
            .and_then(|pid| Process::open_ticks(pid, started))
            .and_then(|process| process.signal(Signal::SIGUSR1));
        match relieved {
            Ok(()) => {
                tracing::info!("statements are decided on again: they were cancelled while no agent ran")
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return tracing::warn!("the watchdog of an agent before this is still there: {error}");
            }
        }
        let _ = fs::remove_file(path);
    }

    /// It is not needed any more.
    pub fn dismiss(&mut self) {
        let _ = self.tell(word::DISMISSED, &[]);
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.child.try_wait();
    }

    fn tell(&self, word: u8, descriptors: &[OwnedFd]) -> io::Result<()> {
        let fds: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&[word])],
            rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }
}

/// The watchdog's whole life.
pub fn run(folder: &Path) -> ExitCode {
    // It outlives what ends the agent, and ends with it by itself. SIGUSR1 ends it, once whoever was stopped has gone on.
    let relief = SigSet::from(Signal::SIGUSR1);
    if let Err(error) = relief.thread_block() {
        eprintln!("{NAME}: SIGUSR1 ends it at once: {error}");
    }
    for ignored in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGPIPE] {
        // SAFETY: no handler is installed.
        let _ = unsafe { signal(ignored, SigHandler::SigIgn) };
    }
    let _ = fs::write("/proc/self/comm", NAME);
    let stdin = io::stdin();
    match Watching::new(stdin.as_raw_fd()) {
        Ok(mut watching) => {
            watching.watch(&stdin, folder);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{NAME}: it is started by guard-agent alone: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the agent says, and the descriptors that come with it; no word at its end.
fn received(socket: RawFd) -> io::Result<(Option<u8>, Vec<OwnedFd>)> {
    let mut byte = [0];
    let mut buffer = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([RawFd; MAX_HANDED]);
    let message = recvmsg::<()>(socket, &mut buffer, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let length = message.bytes;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(sent) = control {
            // SAFETY: the kernel has just opened them for this process, and nobody else knows them.
            fds.extend(sent.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(((length > 0).then_some(byte[0]), fds))
}

struct Watching {
    stops: HashMap<MapData, StopKey, Stop>,
    beats: Array<MapData, u64>,
    /// Probes that are to outlive the agent.
    kept: Vec<OwnedFd>,
}

impl Watching {
    fn new(socket: RawFd) -> io::Result<Self> {
        let (_, maps) = received(socket)?;
        let maps: Result<[OwnedFd; 2], _> = maps.try_into();
        let [first, second] = maps.map_err(|_| io::Error::other("it has not been handed what it needs"))?;
        let stops = stops(first).map_err(io::Error::other)?;
        Ok(Self { stops, beats: beats(second).map_err(io::Error::other)?, kept: Vec::new() })
    }

    fn watch(&mut self, agent: &io::Stdin, folder: &Path) {
        loop {
            let _ = self.beats.set(beat::WATCHDOG, now_ns(), 0);
            if has_something_to_say(agent) {
                match received(agent.as_raw_fd()) {
                    Ok((Some(word::KEEP), probes)) => {
                        self.kept.extend(probes);
                        leave_word(folder);
                    }
                    Ok((Some(word::DISMISSED), _)) => {
                        if !self.kept.is_empty() {
                            let _ = fs::remove_file(folder.join(LEFT));
                        }
                        self.kept.clear();
                        break;
                    }
                    Ok((Some(_), _)) => {}
                    Ok((None, _)) | Err(_) => break,
                }
            }
            if self.is_stale() {
                self.let_all_go();
            }
        }
        let until = Instant::now() + LAST_LOOKS;
        while Instant::now() < until {
            self.let_all_go();
            std::thread::sleep(Duration::from_millis(10));
        }
        if !self.kept.is_empty() {
            self.stay();
        }
    }

    /// Keeps the probes: without a heartbeat the kernel side cancels what it does not know, until an agent is back.
    fn stay(&mut self) -> ! {
        // The next agent may be there already.
        let _ = SigSet::from(Signal::SIGUSR1).thread_unblock();
        let own = std::process::id();
        eprintln!(
            "{NAME}: guard-agent has died; with `hold_unattended = \"cancel\"` statements that are not known to be allowed \
             are cancelled until it is back (or until `kill -USR1 {own}`)"
        );
        loop {
            std::thread::sleep(Duration::from_secs(1));
            self.let_all_go();
        }
    }

    fn is_stale(&self) -> bool {
        let last = self.beats.get(&beat::AGENT, 0).unwrap_or(0);
        now_ns().saturating_sub(last) >= STALE_NS
    }

    fn let_all_go(&mut self) {
        let stopped: Vec<(StopKey, Stop)> = self.stops.iter().flatten().collect();
        for (key, stop) in stopped {
            let released = match stop.orphans {
                choice::RUN => release::run(key.pid, &stop),
                _ => release::cancel(key.pid, &stop),
            };
            match &released {
                Ok(()) | Err(ReleaseError::Gone) => {}
                Err(error) => eprintln!("{NAME}: PostgreSQL process {}: {error}", key.pid),
            }
            // What could not be signalled is tried again.
            if !matches!(released, Err(ReleaseError::Signal(_))) {
                let _ = self.stops.remove(&key);
            }
        }
    }
}

/// Says who keeps probes, while the agent still lives: the next one may come before its end has been noticed.
fn leave_word(folder: &Path) {
    let own = std::process::id();
    let written = fs::write(folder.join(LEFT), format!("{own} {}\n", started_ticks(own).unwrap_or(0)));
    if let Err(error) = written {
        eprintln!("{NAME}: the next agent will not find it ({error}): end it with `kill -USR1 {own}`");
    }
}

/// Waits for the next look; true where the agent says something, or has ended.
fn has_something_to_say(agent: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(agent.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(LOOK_EVERY).unwrap_or(PollTimeout::ZERO);
    poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
}
