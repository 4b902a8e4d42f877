//! Structures that the eBPF programs and the agent share: `repr(C)`, no std, no pointers, no padding.
//!
//! One file per kind of event, with the same stem as the program that writes it. Every event begins with an
//! [`EventHeader`]; the kinds double as indices into the drop counters.

pub mod cgroup;
pub mod helper;
pub mod hold;
pub mod layout;
#[cfg(feature = "user")]
mod pod;
pub mod process;
pub mod refusal;
pub mod socket;
pub mod state;
pub mod statement;
pub mod steer;
pub mod unix;

/// Longest path of a unix socket that the kernel takes (`sun_path`), in bytes.
pub const UNIX_PATH_LEN: usize = 108;

/// What an event in the ring buffer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// [`process::ExecEvent`].
    Exec = 0,
    /// [`process::ForkEvent`].
    Fork = 1,
    /// [`process::ExitEvent`].
    Exit = 2,
    /// [`cgroup::CgroupEvent`].
    Cgroup = 3,
    /// [`socket::AcceptedEvent`].
    Accepted = 4,
    /// [`socket::ClosedEvent`].
    Closed = 5,
    /// [`unix::UnixAcceptedEvent`].
    UnixAccepted = 6,
    /// [`statement::StatementEvent`].
    Statement = 7,
    /// [`statement::TextEvent`].
    StatementText = 8,
    /// [`statement::BackendEvent`].
    Backend = 9,
    /// [`refusal::RefusedEvent`].
    Refused = 10,
    /// [`statement::RunsEvent`].
    StatementRuns = 11,
    /// [`socket::ConnectedEvent`].
    Connected = 12,
}

impl EventKind {
    /// Every kind, in the order of its number.
    pub const ALL: [Self; 13] = [
        Self::Exec,
        Self::Fork,
        Self::Exit,
        Self::Cgroup,
        Self::Accepted,
        Self::Closed,
        Self::UnixAccepted,
        Self::Statement,
        Self::StatementText,
        Self::Backend,
        Self::Refused,
        Self::StatementRuns,
        Self::Connected,
    ];

    /// The kind with that number.
    pub fn from_u32(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }

    /// The program that writes it.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Exec => "process_exec",
            Self::Fork => "process_fork",
            Self::Exit => "process_exit",
            Self::Cgroup => "cgroup_mkdir",
            Self::Accepted | Self::Closed | Self::Connected => "socket_ops",
            Self::UnixAccepted => "accept",
            Self::Statement | Self::StatementText | Self::Backend | Self::StatementRuns => {
                "statement_executor"
            }
            Self::Refused => "connect4",
        }
    }

    /// Its name in messages and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Fork => "fork",
            Self::Exit => "exit",
            Self::Cgroup => "cgroup",
            Self::Accepted => "accepted",
            Self::Closed => "closed",
            Self::UnixAccepted => "unix-accepted",
            Self::Statement => "statement",
            Self::StatementText => "statement-text",
            Self::Backend => "backend",
            Self::Refused => "refused",
            Self::StatementRuns => "statement-runs",
            Self::Connected => "connected",
        }
    }
}

/// How every event begins.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct EventHeader {
    /// An [`EventKind`].
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// `CLOCK_MONOTONIC` nanoseconds at which it happened.
    pub at_ns: u64,
}

/// Names of the maps, as both sides know them.
pub mod maps {
    /// All events: a ring buffer, or a perf event array.
    pub const EVENTS: &str = "EVENTS";
    /// Per-CPU count of events that found no room, by [`super::EventKind`].
    pub const DROPS: &str = "DROPS";
    /// Port (host order, `u16`) to [`super::socket::watch`] bits.
    pub const WATCHED_PORTS: &str = "WATCHED_PORTS";
    /// [`super::unix::UnixPath`] to 1.
    pub const WATCHED_PATHS: &str = "WATCHED_PATHS";
    /// [`super::unix::UnixAcceptedEvent::key`] to [`super::unix::UnixBytes`].
    pub const UNIX_BYTES: &str = "UNIX_BYTES";
    /// How many messages were looked at for them: one number.
    pub const MESSAGES: &str = "MESSAGES";
    /// Socket cookie to [`super::process::TaskInfo`], between connect and the choice of the local port.
    pub const CONNECTING: &str = "CONNECTING";
    /// [`super::socket::FlowKey`] to [`super::process::TaskInfo`] of local clients.
    pub const CLIENTS: &str = "CLIENTS";
    /// The ring buffer of statements: of its own, so that they cannot crowd out connections.
    pub const STATEMENTS: &str = "STATEMENTS";
    /// Process id of an observed server's first process to its [`super::statement::Target`].
    pub const OBSERVED: &str = "OBSERVED";
    /// Process id of a backend to its [`super::statement::Backend`].
    pub const BACKENDS: &str = "BACKENDS";
    /// Process id of a backend whose client the proxy sees to the time of its start.
    pub const PROXIED: &str = "PROXIED";
    /// Words of the agent by [`super::statement::switch`].
    pub const AWAKE: &str = "AWAKE";
    /// The epoch of verdicts that are in force; 0: none is.
    pub const EPOCH: &str = "EPOCH";
    /// [`super::process::TaskInfo::identity`] to [`super::refusal::Verdict`].
    pub const VERDICTS: &str = "VERDICTS";
    /// [`super::refusal::Place`] to the number of the server that listens there.
    pub const PLACES: &str = "PLACES";
    /// [`super::unix::UnixPath`] to [`super::refusal::UnixPlace`].
    pub const UNIX_PLACES: &str = "UNIX_PLACES";
    /// [`super::refusal::Peer`] to [`super::refusal::PeerVerdict`].
    pub const PEERS: &str = "PEERS";
}
