//! Open connections on unix sockets. The kernel tells of their beginning; their end is looked up in /proc, soon
//! after a process has ended and once a second.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{namespace, sockets};

const INTERVAL: Duration = Duration::from_secs(1);
/// After a process has ended its sockets are closed a little later.
const AFTER_EXIT: Duration = Duration::from_millis(20);
/// The share of the time that may go into looking: one part in so many. A host with many unix sockets is looked at less
/// often.
const SHARE: u32 = 50;
const LIMIT: usize = 100_000;

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenUnix {
    /// The client's network namespace, by its inode number: the kernel makes both ends in it, and lists them there. 0 where
    /// it is not known.
    pub namespace: u64,
    /// A process in that namespace: the client.
    pub client_pid: u32,
    /// Under which the kernel side counts its bytes; 0 where it does not.
    pub key: u64,
    /// It had been accepted when they began to be counted.
    pub late: bool,
}

/// Server-side sockets, by inode number.
#[derive(Debug)]
pub struct UnixTable {
    open: HashMap<u64, OpenUnix>,
    due: Instant,
    /// No look before this, whatever ends.
    not_before: Instant,
    own_namespace: u64,
}

impl UnixTable {
    /// None is open. `own_namespace` is the network namespace of the agent.
    pub fn new(own_namespace: u64) -> Self {
        let now = Instant::now();
        Self { open: HashMap::new(), due: now, not_before: now, own_namespace }
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

    /// Whether bytes of one of them are counted.
    pub fn is_counted(&self) -> bool {
        self.open.values().any(|open| open.key != 0)
    }

    /// A process has ended: connections may have ended with it.
    pub fn process_ended(&mut self) {
        if !self.open.is_empty() {
            self.due = self.due.min(Instant::now() + AFTER_EXIT).max(self.not_before);
        }
    }

    /// How long until the next look.
    pub fn wait(&self) -> Option<Duration> {
        (!self.open.is_empty()).then(|| self.due.saturating_duration_since(Instant::now()))
    }

    /// Inode numbers of connections that have ended, where it is time to look.
    pub fn look(&mut self) -> Vec<(u64, OpenUnix)> {
        let begin = Instant::now();
        if self.open.is_empty() || begin < self.due {
            return Vec::new();
        }
        let ended = self.ended();
        for (inode, _) in &ended {
            self.open.remove(inode);
        }
        let now = Instant::now();
        self.not_before = now + (now - begin) * SHARE;
        self.due = self.not_before.max(begin + INTERVAL);
        ended
    }

    fn ended(&self) -> Vec<(u64, OpenUnix)> {
        let mut clients: HashMap<u64, Vec<u32>> = HashMap::new();
        for open in self.open.values() {
            clients.entry(open.namespace).or_default().push(open.client_pid);
        }
        // Each namespace is read once: its table lists the sockets of all the processes in it.
        let present: HashMap<u64, HashSet<u64>> = clients
            .into_iter()
            .filter_map(|(namespace, clients)| Some((namespace, self.sockets_of(namespace, &clients)?)))
            .collect();
        let (mut ended, mut untold) = (Vec::new(), Vec::new());
        for (inode, open) in &self.open {
            match present.get(&open.namespace) {
                Some(inodes) if inodes.contains(inode) => {}
                Some(_) => ended.push((*inode, *open)),
                None => untold.push((*inode, *open)),
            }
        }
        // No table tells of these: they are open as long as a process holds them.
        let held = sockets::owners(&untold.iter().map(|(inode, _)| *inode).collect());
        ended.extend(untold.into_iter().filter(|(inode, _)| !held.contains_key(inode)));
        ended
    }

    /// Inode numbers of the unix sockets in `namespace`, where `clients` were; nothing where that cannot be told now.
    fn sockets_of(&self, namespace: u64, clients: &[u32]) -> Option<HashSet<u64>> {
        if namespace == self.own_namespace {
            return sockets::unix_inodes(std::process::id());
        }
        let mut there = clients.iter().copied().filter(|pid| namespace::of(*pid) == Some(namespace));
        there.find_map(sockets::unix_inodes)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::MetadataExt, net::UnixStream},
        thread,
        time::{Duration, Instant},
    };

    use super::{AFTER_EXIT, OpenUnix, UnixTable};
    use crate::sensor::namespace;

    fn inode(stream: &UnixStream) -> u64 {
        use std::os::fd::AsRawFd;
        std::fs::metadata(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap().ino()
    }

    fn looked(table: &mut UnixTable) -> Vec<u64> {
        table.due = Instant::now();
        let mut ended: Vec<u64> = table.look().into_iter().map(|(inode, _)| inode).collect();
        ended.sort_unstable();
        ended
    }

    #[test]
    fn a_connection_ends_with_its_socket() {
        let own = namespace::own().unwrap();
        // As listed, and where nobody can list it: no process has this pid.
        for namespace in [own, 0, 1] {
            let mut table = UnixTable::new(own);
            let (stays, goes) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
            let (kept, closed) = (inode(&stays.0), inode(&goes.0));
            for inode in [kept, closed] {
                table.opened(inode, OpenUnix { namespace, client_pid: u32::MAX - 1, key: 0, late: false });
            }
            assert_eq!(looked(&mut table), [0_u64; 0]);
            drop(goes);
            assert_eq!(looked(&mut table), [closed]);
            assert!(table.knows(kept));
        }
    }

    #[test]
    fn looking_takes_no_more_than_its_share_however_many_processes_end() {
        let mut table = UnixTable::new(namespace::own().unwrap());
        let pair = UnixStream::pair().unwrap();
        table.opened(
            inode(&pair.0),
            OpenUnix { namespace: table.own_namespace, client_pid: 1, key: 0, late: false },
        );
        table.not_before = Instant::now() + Duration::from_secs(60);
        table.process_ended();
        assert!(table.wait().unwrap() > Duration::from_secs(50));
        table.not_before = Instant::now();
        table.due = Instant::now() + Duration::from_secs(60);
        table.process_ended();
        assert!(table.wait().unwrap() <= AFTER_EXIT);
        thread::sleep(AFTER_EXIT);
        assert!(table.look().is_empty());
        assert!(table.not_before > Instant::now() - AFTER_EXIT, "a look has been timed");
    }
}
