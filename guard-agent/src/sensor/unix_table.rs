//! Open connections on unix sockets. The kernel tells of their beginning; their end is looked up in /proc, soon
//! after a process has ended and once a second.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::sockets;

const INTERVAL: Duration = Duration::from_secs(1);
/// After a process has ended its sockets are closed a little later.
const AFTER_EXIT: Duration = Duration::from_millis(20);
const LIMIT: usize = 100_000;

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenUnix {
    /// The process that accepted.
    pub server_pid: u32,
    /// Under which the kernel side counts its bytes; 0 where it does not.
    pub key: u64,
}

/// Server-side sockets, by inode number.
#[derive(Debug)]
pub struct UnixTable {
    open: HashMap<u64, OpenUnix>,
    due: Instant,
}

impl UnixTable {
    /// None is open.
    pub fn new() -> Self {
        Self { open: HashMap::new(), due: Instant::now() }
    }

    /// A connection was accepted. Gives the one that `inode` named before, which has ended.
    pub fn opened(&mut self, inode: u64, connection: OpenUnix) -> Option<OpenUnix> {
        if self.open.is_empty() {
            self.due = Instant::now() + INTERVAL;
        }
        if self.open.len() >= LIMIT && !self.open.contains_key(&inode) {
            return None;
        }
        self.open.insert(inode, connection)
    }

    /// Whether that socket's connection is open and known.
    pub fn knows(&self, inode: u64) -> bool {
        self.open.contains_key(&inode)
    }

    /// A process has ended: connections may have ended with it.
    pub fn process_ended(&mut self) {
        if !self.open.is_empty() {
            self.due = self.due.min(Instant::now() + AFTER_EXIT);
        }
    }

    /// How long until the next look.
    pub fn wait(&self) -> Option<Duration> {
        (!self.open.is_empty()).then(|| self.due.saturating_duration_since(Instant::now()))
    }

    /// Inode numbers of connections that have ended, where it is time to look.
    pub fn look(&mut self) -> Vec<(u64, OpenUnix)> {
        if self.open.is_empty() || Instant::now() < self.due {
            return Vec::new();
        }
        self.due = Instant::now() + INTERVAL;
        // Unix sockets are listed by network namespace; a server tells its own. Without it they are gone.
        let servers: HashSet<u32> = self.open.values().map(|open| open.server_pid).collect();
        let present: HashMap<u32, HashSet<u64>> =
            servers.into_iter().filter_map(|pid| Some((pid, sockets::unix_inodes(pid)?))).collect();
        let gone = |(inode, open): &(&u64, &OpenUnix)| {
            present.get(&open.server_pid).is_none_or(|inodes| !inodes.contains(inode))
        };
        let ended: Vec<(u64, OpenUnix)> =
            self.open.iter().filter(gone).map(|(inode, open)| (*inode, *open)).collect();
        for (inode, _) in &ended {
            self.open.remove(inode);
        }
        ended
    }
}
