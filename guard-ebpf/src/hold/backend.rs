//! The backend that runs right now: whose it is, and what its memory says.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user, generated::bpf_get_current_task},
    macros::map,
    maps::{HashMap, LruHashMap},
};
use guard_common::kernel::hold::{HeldBackend, HeldServer, TICK_NS};

use crate::read::{cleared, offset};

/// Servers whose statements are held.
#[map]
static HOLD_SERVERS: HashMap<u32, HeldServer> = HashMap::with_max_entries(64, 0);

/// What the agent has found out about backends.
#[map]
static HOLD_BACKENDS: LruHashMap<u32, HeldBackend> = LruHashMap::with_max_entries(16_384, 0);

/// A process that serves a client of a server whose statements are held.
pub struct Backend {
    /// Its server.
    pub server: &'static HeldServer,
    /// Its postmaster.
    pub postmaster: u32,
    /// Its own pid.
    pub pid: u32,
    /// When it started.
    pub start_ns: u64,
    /// What the agent knows of it.
    pub known: HeldBackend,
}

/// A value in the memory of the process.
#[inline(always)]
pub fn user<T: Copy>(address: u64) -> Option<T> {
    if address == 0 {
        return None;
    }
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}

impl Backend {
    /// Nothing where the process is none of a server that is held, serves no client, or is decided on elsewhere.
    #[inline(always)]
    pub fn current() -> Option<Self> {
        // SAFETY: a helper without arguments.
        let task = unsafe { bpf_get_current_task() };
        let parent: u64 = cleared(task, offset!(task_real_parent));
        let postmaster: u32 = cleared(parent, offset!(task_tgid));
        // SAFETY: the agent replaces a value as a whole; an old one is as good for this moment.
        let server = unsafe { HOLD_SERVERS.get(&postmaster) }?;
        if cleared::<u64>(parent, offset!(task_start_boottime)) / TICK_NS != server.started {
            return None;
        }
        // The checkpointer, autovacuum and parallel workers have no client.
        if user::<u64>(server.port).unwrap_or(0) == 0 {
            return None;
        }
        let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        let start_ns: u64 = cleared(task, offset!(task_start_boottime));
        // SAFETY: as above.
        let known = match unsafe { HOLD_BACKENDS.get(&pid) } {
            Some(known) if known.start_ns == start_ns => *known,
            _ => HeldBackend::default(),
        };
        if known.exempt != 0 {
            return None;
        }
        Some(Self { server, postmaster, pid, start_ns, known })
    }

    /// Where the text is that the client sent.
    #[inline(always)]
    pub fn client_text(&self) -> u64 {
        user(self.server.client_text).unwrap_or(0)
    }

    /// When the client's message came.
    #[inline(always)]
    pub fn message(&self) -> u64 {
        user(self.server.message_time).unwrap_or(0)
    }

    /// The roles in force and of the session.
    #[inline(always)]
    pub fn roles(&self) -> [u32; 2] {
        [user(self.server.current_user).unwrap_or(0), user(self.server.session_user).unwrap_or(0)]
    }
}
