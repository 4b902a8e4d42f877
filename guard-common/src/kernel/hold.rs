//! Holding statements in PostgreSQL's own processes: what the probes in them and the agent tell each other.
//!
//! Every number that is an address is one in the memory of the backend. All backends of a server have the same layout,
//! since each is a fork of one postmaster.

/// Where a statement was stopped.
pub mod level {
    /// `pg_parse_query`: the text that a client sent.
    pub const PARSE: u32 = 1;
    /// `standard_ExecutorRun`: a plan, whatever it came from.
    pub const RUN: u32 = 2;
    /// `standard_ProcessUtility`: a command that has no plan.
    pub const UTILITY: u32 = 3;
    /// `HandleFunctionRequest`: a function by its number.
    pub const CALL: u32 = 4;
}

/// What happens to statements when nobody decides.
pub mod choice {
    /// They run.
    pub const RUN: u32 = 0;
    /// They are cancelled.
    pub const CANCEL: u32 = 1;
}

/// Indices into the map of heartbeats.
pub mod beat {
    /// The agent's.
    pub const AGENT: u32 = 0;
    /// The watchdog's.
    pub const WATCHDOG: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// Indices into the map of counters.
pub mod count {
    /// Statements that were known to be allowed.
    pub const KNOWN: u32 = 0;
    /// Statements that were stopped.
    pub const HELD: u32 = 1;
    /// Statements that nobody could decide on: the heartbeat was old, or there was no room.
    pub const UNDECIDED: u32 = 2;
    /// How many there are.
    pub const COUNT: u32 = 3;
}

/// A heartbeat that is older, in nanoseconds, is none: nobody is stopped any more.
pub const STALE_NS: u64 = 1_000_000_000;

/// Nanoseconds of a tick, in which `/proc` tells when a process started: the same on every machine.
pub const TICK_NS: u64 = 10_000_000;

/// Most bytes of a text that the kernel knows again; longer ones are always read by the agent.
pub const MAX_KNOWN: usize = 4 * 1024;

/// A server whose statements are held, by the pid of its postmaster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HeldServer {
    /// When its postmaster started, in [`TICK_NS`] after boot: a pid names another process later.
    pub started: u64,
    /// `MyProcPort`: NULL in whatever serves no client.
    pub port: u64,
    /// `debug_query_string`: the text that the client sent.
    pub client_text: u64,
    /// `namespace_search_path`.
    pub search_path: u64,
    /// `role_string`.
    pub role: u64,
    /// `application_name`.
    pub application_name: u64,
    /// `standard_conforming_strings`.
    pub plain_strings: u64,
    /// When the client's message came: a static variable; 0 where it is not known.
    pub message_time: u64,
    /// The role in force: a static variable; 0 where it is not known.
    pub current_user: u64,
    /// The session's role: a static variable; 0 where it is not known.
    pub session_user: u64,
    /// `ProcessInterrupts`.
    pub interrupt: u64,
    /// Counts the policies: what an older one allowed is not known any more.
    pub epoch: u32,
    /// [`choice`] for what is stopped when the agent goes.
    pub orphans: u32,
    /// [`choice`] for what comes while nobody decides.
    pub unattended: u32,
    /// Zero.
    pub reserved: u32,
}

/// What is known of a backend, by its pid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HeldBackend {
    /// When it started.
    pub start_ns: u64,
    /// Number of all that stays the same for the session: who, where, by what way.
    pub scope: u64,
    /// What was approved: the text's hash, and the message in which it runs.
    pub granted: [u64; 2],
    /// [`HeldServer::message_time`] of that message.
    pub granted_in: u64,
    /// 1: it is decided on elsewhere, or only watched.
    pub exempt: u32,
    /// Zero.
    pub reserved: u32,
}

/// A statement that is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Known {
    /// Hash of its text and of the session's settings as they were.
    pub hash: [u64; 2],
    /// [`HeldBackend::scope`].
    pub scope: u64,
    /// [`HeldServer::epoch`].
    pub epoch: u32,
    /// [`level`], with the kind of plan in the byte above.
    pub level: u32,
}

/// Names one stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct StopKey {
    /// `CLOCK_MONOTONIC` nanoseconds at which it happened.
    pub at_ns: u64,
    /// The backend.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
}

/// A backend that is stopped: all that is needed to let it go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Stop {
    /// When the backend started.
    pub start_ns: u64,
    /// Where the probe is.
    pub ip: u64,
    /// Its stack pointer there.
    pub sp: u64,
    /// Where the probed function returns to, where a register says so.
    pub lr: u64,
    /// [`HeldServer::interrupt`].
    pub interrupt: u64,
    /// [`level`].
    pub level: u32,
    /// [`HeldServer::orphans`].
    pub orphans: u32,
}

/// A backend was stopped.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct HoldEvent {
    /// Names the stop.
    pub key: StopKey,
    /// As it is in the map of stops.
    pub stop: Stop,
    /// The text of the statement, or the message of a function call.
    pub text: u64,
    /// Hash of text and settings; zero where the text is too long, or empty.
    pub hash: [u64; 2],
    /// [`HeldServer::message_time`] as it was.
    pub message: u64,
    /// The backend's scope, 0 where it has none yet.
    pub scope: u64,
    /// The epoch that the kernel side went by.
    pub epoch: u32,
    /// As in [`Known::level`].
    pub level: u32,
    /// The postmaster.
    pub postmaster: u32,
    /// The roles in force and of the session; 0 where they are not known.
    pub roles: [u32; 2],
    /// Zero.
    pub reserved: u32,
}

/// Names of the maps.
pub mod maps {
    /// The ring buffer of [`super::HoldEvent`].
    pub const EVENTS: &str = "HOLD_EVENTS";
    /// Postmaster's pid to [`super::HeldServer`].
    pub const SERVERS: &str = "HOLD_SERVERS";
    /// Backend's pid to [`super::HeldBackend`].
    pub const BACKENDS: &str = "HOLD_BACKENDS";
    /// [`super::Known`] to 1.
    pub const KNOWN: &str = "HOLD_KNOWN";
    /// [`super::StopKey`] to [`super::Stop`].
    pub const STOPS: &str = "HOLD_STOPS";
    /// [`super::beat`] to the time of the last one.
    pub const BEATS: &str = "HOLD_BEATS";
    /// [`super::count`] to how many, per CPU.
    pub const COUNTS: &str = "HOLD_COUNTS";
}
