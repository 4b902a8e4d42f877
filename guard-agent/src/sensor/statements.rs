//! Reads the ring buffer of statements: pieces enter, whole texts leave in the order in which they ran.
//!
//! The reader belongs to one thread. While statements come it looks by itself every few milliseconds, so that the
//! servers need not wake it for each; else it sleeps until one does. Texts are a peer's: they are only copied here.

use std::{
    collections::HashMap,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use aya::maps::{Array, HashMap as KernelMap, MapData, RingBuf};
use guard_common::kernel::statement::{
    Backend, BackendEvent, RUNS, Run, RunsEvent, StatementEvent, TextEvent, flag, level, mode, switch,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::decode::{StatementPiece, decode_statement};

/// How long the reader leaves the buffer alone while statements come.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Without a statement for this long, it sleeps until it is woken.
const SLEEPY_AFTER: Duration = Duration::from_secs(1);
/// Pieces taken at once.
const BATCH: usize = 16_384;
/// Texts of which more is awaited; they wait for microseconds.
const UNFINISHED: usize = 1_024;

/// Where in the server a statement was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The executor runs a plan.
    Executor,
    /// A utility statement.
    Utility,
    /// A function call by number.
    Function(u32),
    /// A command of the replication protocol, or SQL on such a connection.
    Replication,
}

/// A server's process and what it works for.
#[derive(Clone, Debug)]
pub struct BackendSeen {
    /// Its number.
    pub pid: u32,
    /// When it started: with `pid`, its name for good.
    pub start_ns: u64,
    /// The first process of its server.
    pub server_pid: u32,
    /// Cookie of its socket, 0 for none.
    pub cookie: u64,
    /// Inode number of its socket.
    pub inode: u64,
    /// Who logged in.
    pub user: String,
    /// To which database.
    pub database: String,
    /// The role that it has taken; `none` for none.
    pub role: String,
    /// What the client calls itself.
    pub application_name: String,
    /// Where names without a schema are looked for.
    pub search_path: String,
}

/// A statement that is about to run.
#[derive(Clone, Debug)]
pub struct StatementSeen {
    /// The backend's number.
    pub pid: u32,
    /// When it started.
    pub start_ns: u64,
    /// On the clock of the kernel's events.
    pub at: Duration,
    /// Counts the events of the backend.
    pub sequence: u32,
    /// Where it was seen.
    pub level: Level,
    /// It is not the text that the client has sent, but runs inside of that.
    pub nested: bool,
    /// Backslashes are ordinary in `'..'`.
    pub standard_strings: bool,
    /// Where in the text it begins; nothing where that is not known.
    pub location: Option<usize>,
    /// Its bytes; 0: up to the text's end.
    pub length: usize,
    /// The whole string, which may hold other statements.
    pub text: Vec<u8>,
    /// Where the string is in the backend's memory.
    pub address: u64,
    /// Not all of the string is in `text`.
    pub cut: Option<Cut>,
    /// Under which identity, and where, the kernel side counts from now on how often it runs again.
    pub counted: Option<(u64, usize)>,
    /// Identity of the utility statement that ran last on this backend; 0 where it has none.
    pub utility: u64,
}

/// How often the statements of a backend have run again.
#[derive(Clone, Debug)]
pub struct RunsSeen {
    /// The backend's number.
    pub pid: u32,
    /// When it started.
    pub start_ns: u64,
    /// The last event of the backend before.
    pub sequence: u32,
    /// What is counted.
    pub runs: [Run; RUNS],
}

/// Why a text is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is longer than what is copied.
    Long,
    /// A part of it found no room in the buffer, or its memory could not be read.
    Lost,
}

/// What was seen.
#[derive(Clone, Debug)]
pub enum Seen {
    /// Who a backend works for, from now on.
    Backend(BackendSeen),
    /// A statement of a backend.
    Statement(StatementSeen),
    /// Statements of a backend that ran again.
    Runs(RunsSeen),
}

/// The one reader of statements.
pub struct StatementReader {
    ring: RingBuf<MapData>,
    backends: KernelMap<MapData, u32, Backend>,
    proxied: KernelMap<MapData, u32, u64>,
    switches: Array<MapData, u32>,
    assembler: Assembler,
    last: Instant,
    polling: bool,
}

impl StatementReader {
    pub(super) fn new(
        ring: RingBuf<MapData>,
        backends: KernelMap<MapData, u32, Backend>,
        proxied: KernelMap<MapData, u32, u64>,
        switches: Array<MapData, u32>,
    ) -> Self {
        let last = Instant::now();
        Self { ring, backends, proxied, switches, assembler: Assembler::default(), last, polling: false }
    }

    /// Sleeps until there may be something, at most for `at_most`.
    pub fn wait(&mut self, at_most: Duration) {
        if self.polling && self.last.elapsed() > SLEEPY_AFTER {
            self.look_by_itself(false);
        }
        if self.polling {
            std::thread::sleep(LOOK_EVERY.min(at_most));
            return;
        }
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::ZERO);
        // An interrupted wait is a short one.
        let _ = poll(&mut [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)], timeout);
    }

    /// Appends what was seen to `seen`; false where nothing was.
    pub fn read(&mut self, seen: &mut Vec<Seen>) -> bool {
        let before = seen.len();
        let mut taken = 0;
        while taken < BATCH {
            let Some(item) = self.ring.next() else { break };
            let piece = decode_statement(&item);
            drop(item);
            taken += 1;
            if let Some(piece) = piece {
                self.assembler.take(piece, seen);
            }
        }
        if taken > 0 {
            self.last = Instant::now();
            if !self.polling {
                self.look_by_itself(true);
            }
        }
        seen.len() > before || taken == BATCH
    }

    /// What is counted of a backend at this moment; nothing where it is not known to the kernel side.
    pub fn runs(&self, pid: u32, start_ns: u64) -> Option<RunsSeen> {
        let backend = self.backends.get(&pid, 0).ok().filter(|backend| backend.start_ns == start_ns)?;
        Some(RunsSeen { pid, start_ns, sequence: backend.sequence, runs: backend.runs })
    }

    /// Whether from now on each run is told of by itself, and none is counted.
    pub fn tell_each(&mut self, each: bool) {
        if let Err(error) = self.switches.set(switch::EACH, u32::from(each), 0) {
            tracing::error!("the kernel side goes on to count what policy wants to see one by one: {error}");
        }
    }

    /// From now on, of this backend only what runs inside of other statements is reported.
    pub fn only_nested(&mut self, pid: u32, start_ns: u64) {
        // Where it does not fit, the rest is left out later.
        let _ = self.proxied.insert(pid, start_ns, 0);
    }

    /// Tells anew who this backend works for, before its next statement. Gives how many runs were counted of it that
    /// nobody has looked up, at most.
    pub fn introduce_again(&mut self, pid: u32, start_ns: u64) -> u64 {
        let counted = self.runs(pid, start_ns);
        // The values are the backends' own: it makes itself a new one.
        let _ = self.backends.remove(&pid);
        counted.map_or(0, |counted| counted.runs.iter().map(|run| run.again).sum())
    }

    /// What is observed has changed: processes that belonged to nothing that is observed are looked at anew.
    pub fn look_again(&mut self) {
        let ignored: Vec<u32> = self
            .backends
            .iter()
            .flatten()
            .filter(|(_, backend)| backend.mode == mode::NOTHING)
            .map(|(pid, _)| pid)
            .collect();
        for pid in ignored {
            let _ = self.backends.remove(&pid);
        }
    }

    fn look_by_itself(&mut self, polling: bool) {
        if self.switches.set(switch::AWAKE, u32::from(polling), 0).is_ok() {
            self.polling = polling;
        }
    }
}

impl std::fmt::Debug for StatementReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatementReader").field("polling", &self.polling).finish_non_exhaustive()
    }
}

/// Makes whole texts of the pieces in which they come.
#[derive(Debug, Default)]
struct Assembler {
    unfinished: HashMap<u32, StatementSeen>,
}

impl Assembler {
    fn take(&mut self, piece: StatementPiece, seen: &mut Vec<Seen>) {
        match piece {
            StatementPiece::Backend(event) => {
                self.finish(event.pid, seen);
                seen.push(Seen::Backend(backend(&event)));
            }
            StatementPiece::Statement(event) => {
                self.finish(event.pid, seen);
                let statement = statement(&event);
                if event.flags & flag::MORE == 0 {
                    seen.push(Seen::Statement(statement));
                    return;
                }
                if self.unfinished.len() >= UNFINISHED {
                    // Of backends that were killed in between.
                    let pids: Vec<u32> = self.unfinished.keys().copied().collect();
                    pids.into_iter().for_each(|pid| self.finish(pid, seen));
                }
                self.unfinished.insert(event.pid, statement);
            }
            StatementPiece::Text(event) => self.append(&event, seen),
            StatementPiece::Runs(event) => {
                self.finish(event.pid, seen);
                let RunsEvent { pid, start_ns, sequence, runs, .. } = *event;
                seen.push(Seen::Runs(RunsSeen { pid, start_ns, sequence, runs }));
            }
        }
    }

    fn append(&mut self, event: &TextEvent, seen: &mut Vec<Seen>) {
        let Some(statement) = self.unfinished.get_mut(&event.pid) else { return };
        if statement.sequence != event.sequence {
            return;
        }
        let kept = (event.text_kept as usize).min(event.text.len());
        statement.text.extend_from_slice(&event.text[..kept]);
        if event.more == 1 {
            return;
        }
        statement.cut = (event.more != 0).then_some(Cut::Long);
        self.unfinished.remove(&event.pid).into_iter().for_each(|whole| seen.push(Seen::Statement(whole)));
    }

    /// Something else of the same backend comes: what is missing of its text was lost.
    fn finish(&mut self, pid: u32, seen: &mut Vec<Seen>) {
        seen.extend(self.unfinished.remove(&pid).map(Seen::Statement));
    }
}

fn backend(event: &BackendEvent) -> BackendSeen {
    BackendSeen {
        pid: event.pid,
        start_ns: event.start_ns,
        server_pid: event.server_pid,
        cookie: event.cookie,
        inode: event.inode,
        user: text(&event.user),
        database: text(&event.database),
        role: text(&event.role),
        application_name: text(&event.application_name),
        search_path: text(&event.search_path),
    }
}

fn statement(event: &StatementEvent) -> StatementSeen {
    let kept = (event.text_kept as usize).min(event.text.len());
    let level = match event.level {
        level::EXECUTOR => Level::Executor,
        level::FUNCTION => Level::Function(event.function),
        level::REPLICATION => Level::Replication,
        _ => Level::Utility,
    };
    // Until its last piece is there, the rest counts as lost.
    let incomplete = event.flags & (flag::MORE | flag::UNREADABLE) != 0;
    StatementSeen {
        pid: event.pid,
        start_ns: event.start_ns,
        at: Duration::from_nanos(event.header.at_ns),
        sequence: event.sequence,
        level,
        nested: event.flags & flag::NESTED != 0,
        standard_strings: event.flags & flag::STANDARD_STRINGS != 0,
        location: usize::try_from(event.location).ok(),
        length: usize::try_from(event.length).unwrap_or(0),
        text: event.text[..kept].to_vec(),
        address: event.address,
        cut: incomplete.then_some(Cut::Lost),
        counted: usize::try_from(event.run).ok().filter(|run| *run < RUNS).map(|run| (event.identity, run)),
        utility: event.utility,
    }
}

/// Up to the zero byte, or to the end where there is none.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use guard_common::kernel::{
        EventHeader, EventKind,
        statement::{CHUNK_LEN, NO_RUN, TEXT_LEN},
    };

    use super::*;

    fn first(pid: u32, sequence: u32, text: &[u8], more: bool) -> StatementPiece {
        let mut event = StatementEvent {
            header: EventHeader { kind: EventKind::Statement as u32, reserved: 0, at_ns: 1 },
            start_ns: 7,
            address: 0,
            identity: 0,
            utility: 0,
            pid,
            sequence,
            level: level::EXECUTOR,
            flags: if more { flag::MORE } else { 0 },
            location: -1,
            length: 0,
            function: 0,
            text_kept: text.len() as u32,
            run: NO_RUN,
            reserved: 0,
            text: [0; TEXT_LEN],
        };
        event.text[..text.len()].copy_from_slice(text);
        StatementPiece::Statement(Box::new(event))
    }

    fn next(pid: u32, sequence: u32, text: &[u8], more: u32) -> StatementPiece {
        let mut event = TextEvent {
            header: EventHeader { kind: EventKind::StatementText as u32, reserved: 0, at_ns: 1 },
            pid,
            sequence,
            text_kept: text.len() as u32,
            more,
            text: [0; CHUNK_LEN],
        };
        event.text[..text.len()].copy_from_slice(text);
        StatementPiece::Text(Box::new(event))
    }

    fn assembled(pieces: Vec<StatementPiece>) -> Vec<(u32, String, Option<Cut>)> {
        let (mut assembler, mut seen) = (Assembler::default(), Vec::new());
        pieces.into_iter().for_each(|piece| assembler.take(piece, &mut seen));
        let statement = |seen| match seen {
            Seen::Statement(seen) => Some((seen.pid, String::from_utf8(seen.text).unwrap(), seen.cut)),
            Seen::Backend(_) | Seen::Runs(_) => None,
        };
        seen.into_iter().filter_map(statement).collect()
    }

    #[test]
    fn texts_of_several_backends_come_together() {
        let whole = assembled(vec![
            first(1, 1, b"a", true),
            first(2, 1, b"short", false),
            first(3, 9, b"x", true),
            next(1, 1, b"b", 1),
            next(3, 9, b"y", 0),
            next(1, 1, b"c", 0),
        ]);
        let expected = [(2, "short", None), (3, "xy", None), (1, "abc", None)];
        assert_eq!(whole, expected.map(|(pid, text, cut)| (pid, text.to_owned(), cut)));
    }

    #[test]
    fn what_is_missing_is_told() {
        let whole = assembled(vec![
            first(1, 1, b"long", true),
            next(1, 1, b"er", 2),
            first(1, 2, b"lost", true),
            // The second piece found no room.
            first(1, 3, b"next", false),
            next(1, 2, b"late", 0),
            next(4, 1, b"nobody's", 0),
        ]);
        let expected = [(1, "longer", Some(Cut::Long)), (1, "lost", Some(Cut::Lost)), (1, "next", None)];
        assert_eq!(whole, expected.map(|(pid, text, cut)| (pid, text.to_owned(), cut)));
    }

    #[test]
    fn unfinished_texts_are_bounded() {
        let mut assembler = Assembler::default();
        let mut seen = Vec::new();
        for pid in 0..10_000 {
            assembler.take(first(pid, 1, b"never ends", true), &mut seen);
            assert!(assembler.unfinished.len() <= UNFINISHED);
        }
        assert!(seen.len() >= 10_000 - UNFINISHED);
    }
}
