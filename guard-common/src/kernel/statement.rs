//! Statements as a database server runs them: seen by probes on functions of the server's program.
//!
//! The structures of the server differ by its version: the agent hands the programs the offsets that they need, one
//! [`Target`] for each server.

use super::EventHeader;

/// Servers that can be observed at the same time.
pub const SERVERS: u32 = 64;
/// Backends of which something is remembered.
pub const BACKENDS: u32 = 16_384;
/// Bytes of a text in a [`StatementEvent`], with the zero byte that ends them.
pub const TEXT_LEN: usize = 512;
/// Bytes of a text in a [`TextEvent`], with the zero byte that ends them.
pub const CHUNK_LEN: usize = 4096;
/// Chunks that follow a [`StatementEvent`] at most: about 1 MiB of text. A short statement's text is gone before the
/// agent could read the rest from the backend's memory.
pub const CHUNKS: u32 = 256;
/// Bytes of a name, with its zero byte: `NAMEDATALEN`.
pub const NAME_LEN: usize = 64;
/// Bytes of a setting that is kept, with its zero byte.
pub const SETTING_LEN: usize = 256;

/// Statements of one backend whose repeats are counted where they happen.
pub const RUNS: usize = 16;
/// [`StatementEvent::run`] of a statement whose repeats are told of one by one.
pub const NO_RUN: u32 = u32::MAX;

/// What the agent tells the programs: indices of `AWAKE`.
pub mod switch {
    /// 1 while the agent looks again and again by itself: nobody has to wake it.
    pub const AWAKE: u32 = 0;
    /// 1 while every run has to be told of by itself, because policy reads how many there are.
    pub const EACH: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// Where in a server the statement was seen.
pub mod level {
    /// The executor runs a plan.
    pub const EXECUTOR: u32 = 1;
    /// A utility statement is about to run.
    pub const UTILITY: u32 = 2;
    /// A function is called by its number, without any text.
    pub const FUNCTION: u32 = 3;
    /// A command of the replication protocol.
    pub const REPLICATION: u32 = 4;
}

/// Bits of [`StatementEvent::flags`].
pub mod flag {
    /// The text is not the one that the client has sent: it runs inside of that one.
    pub const NESTED: u32 = 1;
    /// More of the text follows in [`super::TextEvent`]s.
    pub const MORE: u32 = 2;
    /// Backslashes are ordinary in `'..'`.
    pub const STANDARD_STRINGS: u32 = 4;
    /// The text could not be read.
    pub const UNREADABLE: u32 = 8;
}

/// What is to be reported of one backend: bits of `BACKENDS`' [`Backend::mode`].
pub mod mode {
    /// Nothing: it belongs to no server that is observed, or to no client.
    pub const NOTHING: u32 = 0;
    /// Every statement.
    pub const ALL: u32 = 1;
    /// What runs inside of other statements alone: the proxy sees the rest.
    pub const NESTED: u32 = 2;
}

/// PostgreSQL's `QueryDesc`, the same in all versions: offsets of what is read of it, all at once.
pub mod query {
    /// The plan; the text follows it.
    pub const PLAN: u64 = 8;
    /// A byte that says that it has run before.
    pub const EXECUTED: u64 = 96;
    /// Words from the one to the other.
    pub const WORDS: usize = 12;
}

/// One observed server: where things are in the memory of its processes, which all share their addresses with the first
/// of them, and offsets in its structures. An address of 0 is one that its program does not have.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Target {
    /// `MyProcPort`: what the backend knows of its client.
    pub port: u64,
    /// `debug_query_string`: the text that the client has sent.
    pub client_text: u64,
    /// `role_string`.
    pub role: u64,
    /// `namespace_search_path`.
    pub search_path: u64,
    /// `application_name`.
    pub application_name: u64,
    /// `standard_conforming_strings`.
    pub standard_strings: u64,
    /// Of the socket in the backend's `Port`.
    pub port_socket: u32,
    /// Of the database's name.
    pub port_database: u32,
    /// Of the user's name.
    pub port_user: u32,
    /// Of where in the text the plan's statement begins; its length follows.
    pub plan_location: u32,
    /// 1 where the fourth argument of `standard_ProcessUtility` says where the statement comes from, 0 for the third.
    pub utility_fourth: u32,
    /// Zero.
    pub reserved: u32,
}

/// A statement whose repeats are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Run {
    /// A keyed hash of its text and of everything by which that is read: what has the same is the same statement. 0 for
    /// none.
    pub identity: u64,
    /// How often it ran again after it was told of.
    pub again: u64,
}

/// What is known of one backend. Only the backend itself writes it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Backend {
    /// Nanoseconds after boot at which it started.
    pub start_ns: u64,
    /// Stands for the settings that were reported last.
    pub settings: u64,
    /// The first process of its server.
    pub server_pid: u32,
    /// Events that were reported.
    pub sequence: u32,
    /// [`mode`].
    pub mode: u32,
    /// One bit for each of `runs` that ran again since `hand` last passed it.
    pub used: u32,
    /// [`Run::identity`] of the utility statement that ran last, 0 where it has none.
    pub utility: u64,
    /// Which of `runs` goes next.
    pub hand: u32,
    /// What the programs put down for a moment; nothing to anybody else.
    pub scratch: u32,
    /// What is counted.
    pub runs: [Run; RUNS],
}

/// Who a backend works for, and with which settings: sent before its first statement and when a setting has changed.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BackendEvent {
    /// Kind [`super::EventKind::Backend`].
    pub header: EventHeader,
    /// With `pid`, names the backend for good.
    pub start_ns: u64,
    /// The kernel's cookie of its socket; 0 where it never got one.
    pub cookie: u64,
    /// Inode number of its socket.
    pub inode: u64,
    /// Its process.
    pub pid: u32,
    /// The first process of its server.
    pub server_pid: u32,
    /// Who logged in, ended by a zero byte as all texts here.
    pub user: [u8; NAME_LEN],
    /// To which database.
    pub database: [u8; NAME_LEN],
    /// The role that it has taken: `none` for none.
    pub role: [u8; NAME_LEN],
    /// What the client calls itself.
    pub application_name: [u8; NAME_LEN],
    /// Where names without a schema are looked for.
    pub search_path: [u8; SETTING_LEN],
}

/// A server is about to run a statement.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StatementEvent {
    /// Kind [`super::EventKind::Statement`].
    pub header: EventHeader,
    /// With `pid`, names the backend for good.
    pub start_ns: u64,
    /// Where the text is in the backend's memory.
    pub address: u64,
    /// [`Run::identity`], where its repeats are counted from now on.
    pub identity: u64,
    /// [`Backend::utility`] before it.
    pub utility: u64,
    /// The backend.
    pub pid: u32,
    /// Counts the events of the backend.
    pub sequence: u32,
    /// [`level`].
    pub level: u32,
    /// [`flag`] bits.
    pub flags: u32,
    /// Where in the text the statement begins; -1 where that is not known.
    pub location: i32,
    /// Its bytes; 0: up to the text's end.
    pub length: i32,
    /// Number of the function, at level [`level::FUNCTION`].
    pub function: u32,
    /// Bytes of `text`.
    pub text_kept: u32,
    /// Which of the backend's `runs` counts its repeats, or [`NO_RUN`].
    pub run: u32,
    /// Zero.
    pub reserved: u32,
    /// The text.
    pub text: [u8; TEXT_LEN],
}

/// How often the statements of a backend have run again: before one of them makes room for another, before its settings
/// change, and when it ends. In between the agent reads [`Backend::runs`] itself.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RunsEvent {
    /// Kind [`super::EventKind::StatementRuns`].
    pub header: EventHeader,
    /// With `pid`, names the backend for good.
    pub start_ns: u64,
    /// The backend.
    pub pid: u32,
    /// Events of the backend before this one.
    pub sequence: u32,
    /// What is counted.
    pub runs: [Run; RUNS],
}

/// More of the text of the statement before.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TextEvent {
    /// Kind [`super::EventKind::StatementText`].
    pub header: EventHeader,
    /// The backend.
    pub pid: u32,
    /// As in the [`StatementEvent`].
    pub sequence: u32,
    /// Bytes of `text`.
    pub text_kept: u32,
    /// 1 where even more follows, 2 where more was left behind.
    pub more: u32,
    /// The text.
    pub text: [u8; CHUNK_LEN],
}
