//! The process table: forks, execs and exits enter; what a process is and where it comes from leaves.
//!
//! The key is pid and start time, since pids are used again. /proc tells start times in clock ticks, so ticks
//! are what is compared.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use guard_common::kernel::process::TaskInfo;

use super::{
    ancestry::{Ancestry, Link, Source, extend},
    image::Image,
    procfs,
};

/// How long an ended process is remembered: its connections and children may be reported late.
const REMEMBERED: Duration = Duration::from_secs(60);

/// One process.
#[derive(Clone, Debug)]
pub struct Process {
    /// As last captured.
    pub task: TaskInfo,
    /// What it runs.
    pub image: Arc<Image>,
    /// It has called exec itself; its image is not its parent's.
    pub executed: bool,
    /// The nearest first.
    pub ancestry: Ancestry,
    /// How the image is known.
    pub source: Source,
}

impl Process {
    /// A process of which nothing else is known.
    pub fn unknown(task: TaskInfo) -> Self {
        let image = Image { comm: super::image::comm(&task.comm), ..Image::default() };
        Self {
            task,
            image: Arc::new(image),
            executed: false,
            ancestry: Ancestry::default(),
            source: Source::Unknown,
        }
    }

    fn link(&self) -> Link {
        Link {
            pid: self.task.pid,
            uid: self.task.uid,
            start_ns: self.task.start_ns,
            image: Arc::clone(&self.image),
            source: self.source,
        }
    }

    /// The ancestry of its children.
    fn lineage(&self) -> Ancestry {
        extend(self.link(), &self.ancestry)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    pid: u32,
    started_ticks: u64,
}

/// The processes of this host, the ended ones for a while. Bounded.
#[derive(Debug)]
pub struct ProcessTable {
    limit: usize,
    cgroup_root: Option<PathBuf>,
    /// Processes that the first scan has not reached yet; nothing before it began.
    unread: Option<Vec<u32>>,
    known: HashMap<Key, Process>,
    latest: HashMap<u32, Key>,
    ended: VecDeque<(Instant, Key)>,
}

impl ProcessTable {
    /// An empty table for at most `limit` processes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(64),
            cgroup_root: crate::sensor::cgroup_root(),
            unread: None,
            known: HashMap::new(),
            latest: HashMap::new(),
            ended: VecDeque::new(),
        }
    }

    /// Learns what runs now, a few processes at a time; false when it is done. What the kernel has told already
    /// stays: it knows more.
    pub fn scan_some(&mut self) -> bool {
        const AT_ONCE: usize = 16;
        let unread = self.unread.get_or_insert_with(procfs::pids);
        let some = unread.split_off(unread.len().saturating_sub(AT_ONCE));
        for pid in &some {
            self.read(*pid, 0);
        }
        !some.is_empty()
    }

    /// `task` is new.
    pub fn fork(&mut self, task: TaskInfo) {
        let parent = self.find_or_read(task.parent_pid, task.parent_start_ns);
        let process = match parent {
            Some(parent) => Process {
                task,
                image: Arc::clone(&parent.image),
                executed: false,
                ancestry: parent.lineage(),
                source: if parent.source == Source::Exec { Source::Fork } else { parent.source },
            },
            None => Process::unknown(task),
        };
        self.insert(process);
    }

    /// `task` has the image `image` from now on.
    pub fn exec(&mut self, task: TaskInfo, image: Image) {
        let image = Arc::new(image);
        let ancestry = match self.find(task.pid, task.start_ns) {
            // Two programs in one process: the first is an ancestor of the second. Between fork and the first
            // exec there is only a copy of the parent.
            Some(before) if before.executed => before.lineage(),
            Some(before) => Arc::clone(&before.ancestry),
            None => self
                .find_or_read(task.parent_pid, task.parent_start_ns)
                .map(|parent| parent.lineage())
                .unwrap_or_default(),
        };
        self.insert(Process { task, image, executed: true, ancestry, source: Source::Exec });
    }

    /// The process has ended.
    pub fn exit(&mut self, pid: u32, start_ns: u64) {
        let key = key(pid, start_ns);
        if self.known.contains_key(&key) {
            self.ended.push_back((Instant::now(), key));
        }
    }

    /// The process that was captured as `task`; from /proc where its start was missed, and bare where it is gone.
    pub fn known_or_read(&mut self, task: &TaskInfo) -> Process {
        if task.start_ns == 0 {
            return self.latest_or_read(task.pid).unwrap_or_else(|| Process::unknown(*task));
        }
        if let Some(process) = self.find_or_read(task.pid, task.start_ns) {
            return process.clone();
        }
        let ancestry = self
            .find_or_read(task.parent_pid, task.parent_start_ns)
            .map(|parent| parent.lineage())
            .unwrap_or_default();
        Process { ancestry, ..Process::unknown(*task) }
    }

    /// Whether that process still runs.
    pub fn lives(&self, pid: u32, start_ns: u64) -> bool {
        procfs::start_ns(pid).is_some_and(|started| ticks(started) == ticks(start_ns))
    }

    /// The processes that have not ended, as the kernel has told of them.
    pub fn running(&self) -> Vec<TaskInfo> {
        let ended: HashSet<Key> = self.ended.iter().map(|(_, key)| *key).collect();
        let told = self
            .known
            .iter()
            .filter(|(key, process)| process.task.identity().is_some() && !ended.contains(key));
        told.map(|(_, process)| process.task).collect()
    }

    /// Whether the image that is known is the one with which `task` was captured.
    pub fn is_current(&self, task: &TaskInfo) -> bool {
        let name = super::image::comm(&task.comm);
        self.find(task.pid, task.start_ns).is_some_and(|process| process.image.comm == name)
    }

    /// Whoever has that pid now, or had it last.
    pub fn latest_or_read(&mut self, pid: u32) -> Option<Process> {
        let known = self.latest.get(&pid).and_then(|key| self.known.get(key)).cloned();
        if let Some(started) = procfs::start_ns(pid)
            && known.as_ref().is_none_or(|known| ticks(known.task.start_ns) != ticks(started))
        {
            return self.read(pid, 0).cloned();
        }
        known
    }

    /// Whoever had that pid at `at_ns` after boot, as far as it was told of; whoever has it since then is somebody else.
    pub fn at(&mut self, pid: u32, at_ns: u64) -> Option<Process> {
        let latest = self.latest.get(&pid).filter(|key| key.started_ticks <= ticks(at_ns)).copied();
        let key = latest.or_else(|| {
            let earlier = |key: &&Key| key.pid == pid && key.started_ticks <= ticks(at_ns);
            self.known.keys().filter(earlier).max_by_key(|key| key.started_ticks).copied()
        });
        if let Some(process) = key.and_then(|key| self.known.get(&key)) {
            return Some(process.clone());
        }
        let started = procfs::start_ns(pid)?;
        if ticks(started) > ticks(at_ns) { None } else { self.read(pid, 0).cloned() }
    }

    /// Forgets processes that ended some time ago, and those of which no end was told.
    pub fn tidy(&mut self) {
        let crowded = self.known.len() >= self.limit;
        let enough = self.limit - self.limit / 8;
        while let Some((at, key)) = self.ended.front().copied() {
            if at.elapsed() < REMEMBERED && !(crowded && self.known.len() > enough) {
                break;
            }
            self.ended.pop_front();
            self.forget(key);
        }
        if self.known.len() >= self.limit {
            self.sweep(enough);
        }
    }

    fn find(&self, pid: u32, start_ns: u64) -> Option<&Process> {
        self.known.get(&key(pid, start_ns))
    }

    fn find_or_read(&mut self, pid: u32, start_ns: u64) -> Option<&Process> {
        if pid == 0 {
            return None;
        }
        if self.known.contains_key(&key(pid, start_ns)) {
            return self.find(pid, start_ns);
        }
        let started = procfs::start_ns(pid)?;
        if ticks(started) != ticks(start_ns) {
            return None; // Another process has the pid by now.
        }
        self.read(pid, 0)
    }

    /// Reads a process and those above it from /proc.
    fn read(&mut self, pid: u32, depth: usize) -> Option<&Process> {
        let found = procfs::read(pid, self.cgroup_root.as_deref())?;
        let key = key(pid, found.task.start_ns);
        if !self.known.contains_key(&key) {
            let parent = found.task.parent_pid;
            let mut ancestry = Ancestry::default();
            if depth < super::ancestry::DEPTH && parent != 0 {
                let latest = self.latest.get(&parent).copied().filter(|key| self.known.contains_key(key));
                let parent = match latest {
                    Some(key) => self.known.get(&key),
                    None => self.read(parent, depth + 1),
                };
                ancestry = parent.map(Process::lineage).unwrap_or_default();
            }
            let (task, image) = (found.task, Arc::new(found.image));
            self.insert(Process { task, image, executed: true, ancestry, source: Source::Procfs });
        }
        self.known.get(&key)
    }

    fn insert(&mut self, process: Process) {
        if self.known.len() >= self.limit {
            self.tidy();
        }
        let key = key(process.task.pid, process.task.start_ns);
        self.latest.insert(key.pid, key);
        self.known.insert(key, process);
    }

    fn forget(&mut self, key: Key) {
        self.known.remove(&key);
        if self.latest.get(&key.pid) == Some(&key) {
            self.latest.remove(&key.pid);
        }
    }

    /// The table is full of processes that have not ended as far as is known: events were lost, or the limit is
    /// too small. Those that are gone go first, then any, so that the limit holds.
    fn sweep(&mut self, enough: usize) {
        let running: HashSet<u32> = procfs::pids().into_iter().collect();
        let gone = |key: &Key| !running.contains(&key.pid);
        let mut leaving: Vec<Key> = self.known.keys().copied().filter(gone).collect();
        let surplus = self.known.len().saturating_sub(enough);
        if leaving.len() < surplus {
            leaving.extend(self.known.keys().copied().take(surplus - leaving.len()));
        }
        for key in leaving {
            self.forget(key);
        }
        self.ended.retain(|(_, key)| self.known.contains_key(key));
    }
}

fn key(pid: u32, start_ns: u64) -> Key {
    Key { pid, started_ticks: ticks(start_ns) }
}

/// Clock ticks as /proc shows them: 100 per second on every architecture that aya supports.
fn ticks(ns: u64) -> u64 {
    ns / procfs::NS_PER_TICK
}

#[cfg(test)]
mod tests {
    use super::{Image, ProcessTable, TaskInfo, procfs::NS_PER_TICK};

    // Beyond the largest pid of a kernel, so that /proc cannot fill in.
    const BASE: u32 = 5_000_000;

    fn task(pid: u32, parent: u32) -> TaskInfo {
        TaskInfo {
            pid: BASE + pid,
            start_ns: u64::from(pid) * NS_PER_TICK,
            parent_pid: BASE + parent,
            parent_start_ns: u64::from(parent) * NS_PER_TICK,
            ..TaskInfo::default()
        }
    }

    fn image(name: &str) -> Image {
        Image { executable: format!("/bin/{name}"), ..Image::default() }
    }

    fn names(table: &mut ProcessTable, task: TaskInfo) -> Vec<String> {
        let process = table.known_or_read(&task);
        let own = process.image.executable.clone();
        let above = process.ancestry.iter().map(|link| link.image.executable.clone());
        std::iter::once(own).chain(above).collect()
    }

    #[test]
    fn ancestry_outlives_the_ancestors() {
        let mut table = ProcessTable::new(1000);
        table.exec(task(1, 0), image("sh"));
        table.fork(task(2, 1));
        table.exec(task(2, 1), image("agent"));
        table.exit(task(1, 0).pid, task(1, 0).start_ns);
        table.forget(super::key(task(1, 0).pid, task(1, 0).start_ns));
        table.fork(task(3, 2));
        table.exec(task(3, 2), image("psql"));
        assert_eq!(names(&mut table, task(3, 2)), ["/bin/psql", "/bin/agent", "/bin/sh"]);
    }

    #[test]
    fn a_fork_runs_what_its_parent_runs() {
        let mut table = ProcessTable::new(1000);
        table.exec(task(1, 0), image("worker"));
        table.fork(task(2, 1));
        assert_eq!(names(&mut table, task(2, 1)), ["/bin/worker", "/bin/worker"]);
    }

    #[test]
    fn earlier_images_of_a_process_are_ancestors() {
        let mut table = ProcessTable::new(1000);
        table.exec(task(1, 0), image("init"));
        table.fork(task(2, 1));
        table.exec(task(2, 1), image("wrapper"));
        table.exec(task(2, 1), image("psql"));
        assert_eq!(names(&mut table, task(2, 1)), ["/bin/psql", "/bin/wrapper", "/bin/init"]);
    }

    #[test]
    fn a_pid_used_again_is_another_process() {
        let mut table = ProcessTable::new(1000);
        table.exec(task(1, 0), image("first"));
        let again = TaskInfo { start_ns: 900 * NS_PER_TICK, ..task(1, 0) };
        table.exec(again, image("second"));
        assert_eq!(names(&mut table, again), ["/bin/second"]);
        assert_eq!(names(&mut table, task(1, 0)), ["/bin/first"]);
    }

    #[test]
    fn a_pid_means_whoever_had_it_then() {
        let mut table = ProcessTable::new(1000);
        table.exec(task(1, 0), image("first"));
        table.exit(task(1, 0).pid, task(1, 0).start_ns);
        let again = TaskInfo { start_ns: 900 * NS_PER_TICK, ..task(1, 0) };
        table.exec(again, image("second"));
        let mut at = |tick: u64| {
            table.at(again.pid, tick * NS_PER_TICK).map(|process| process.image.executable.clone())
        };
        assert_eq!(at(899).as_deref(), Some("/bin/first"));
        assert_eq!(at(900).as_deref(), Some("/bin/second"));
        assert_eq!(at(0), None);
    }

    #[test]
    fn every_link_says_how_it_is_known() {
        use super::Source;
        let mut table = ProcessTable::new(1000);
        table.exec(task(1, 0), image("sh"));
        table.fork(task(2, 1));
        table.fork(task(3, 2));
        let process = table.known_or_read(&task(3, 2));
        assert_eq!(process.source, Source::Fork);
        let sources: Vec<Source> = process.ancestry.iter().map(|link| link.source).collect();
        assert_eq!(sources, [Source::Fork, Source::Exec]);
        assert_eq!(process.ancestry[1].start_ns, task(1, 0).start_ns);
    }

    #[test]
    fn the_limit_holds_without_any_exit() {
        let mut table = ProcessTable::new(100);
        for pid in 1..5_000 {
            table.exec(task(pid, 0), image("x"));
        }
        assert!(table.known.len() <= 100, "{}", table.known.len());
        assert!(table.latest.len() <= 100);
    }

    #[test]
    fn ended_processes_make_room_before_others() {
        let mut table = ProcessTable::new(100);
        table.exec(task(1, 0), image("server"));
        for pid in 2..5_000 {
            table.exec(task(pid, 0), image("x"));
            table.exit(task(pid, 0).pid, task(pid, 0).start_ns);
        }
        assert!(table.known.len() <= 100, "{}", table.known.len());
        assert_eq!(names(&mut table, task(1, 0)), ["/bin/server"]);
    }

    #[test]
    fn depth_is_bounded() {
        let mut table = ProcessTable::new(1000);
        for pid in 1..50 {
            table.fork(task(pid, pid - 1));
            table.exec(task(pid, pid - 1), image("x"));
        }
        assert_eq!(names(&mut table, task(49, 48)).len(), 1 + super::super::ancestry::DEPTH);
    }
}
