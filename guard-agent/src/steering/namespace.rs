//! Network namespaces: work that has to be done inside of one.
//!
//! A process id enters; sockets, netlink requests and sysctls of that process's namespace are made by a thread that has
//! gone there and never comes back. The agent's own namespace takes no thread.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use nix::sched::{CloneFlags, setns};

use super::SteeringError;

/// The namespace of this process.
const OWN: &str = "/proc/self/ns/net";

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, kept alive by this value.
#[derive(Debug)]
pub struct Namespace {
    inode: u64,
    file: File,
    /// `None`: the agent's own.
    thread: Option<Mutex<mpsc::Sender<Job>>>,
}

impl Namespace {
    /// The number of a process's namespace; of the agent's own where the process is not known.
    pub fn inode_of(pid: Option<u32>) -> io::Result<u64> {
        Ok(fs::metadata(path_of(pid))?.ino())
    }

    /// The namespace of a process, or the agent's own.
    pub fn of(pid: Option<u32>) -> Result<Self, SteeringError> {
        Self::open(Path::new(&path_of(pid)))
    }

    /// The namespace of this number, if any process is in it.
    pub fn with_inode(inode: u64) -> Option<Self> {
        let own = || Self::of(None).ok().filter(|own| own.inode == inode);
        own().or_else(|| {
            let processes = fs::read_dir("/proc").ok()?;
            processes.flatten().find_map(|entry| {
                let path = entry.path().join("ns/net");
                let found = fs::metadata(&path).ok()?.ino() == inode;
                if found { Self::open(&path).ok() } else { None }
            })
        })
    }

    fn open(path: &Path) -> Result<Self, SteeringError> {
        let failed = |error: io::Error| SteeringError::Namespace { path: path.to_owned(), error };
        let file = File::open(path).map_err(failed)?;
        let inode = file.metadata().map_err(failed)?.ino();
        if inode == Self::inode_of(None).map_err(failed)? {
            return Ok(Self { inode, file, thread: None });
        }
        let there = file.try_clone().map_err(failed)?;
        let (send, jobs) = mpsc::channel::<Job>();
        let (entered, has_entered) = mpsc::channel();
        let work = move || {
            let result = setns(there.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
            let inside = result.is_ok();
            let _ = entered.send(result);
            if inside {
                jobs.into_iter().for_each(|job| job());
            }
        };
        thread::Builder::new().name(format!("netns-{inode}")).spawn(work).map_err(failed)?;
        has_entered.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())).map_err(failed)?;
        Ok(Self { inode, file, thread: Some(Mutex::new(send)) })
    }

    /// Its number, as `/proc/PID/ns/net` shows it.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether it is the agent's own.
    pub fn is_own(&self) -> bool {
        self.thread.is_none()
    }

    /// For attaching a program to it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Does `job` inside, and waits for it. Jobs are short: they make a socket or change a setting.
    pub fn inside<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Some(thread) = &self.thread else { return job() };
        let (send, result) = mpsc::channel();
        let job: Job = Box::new(move || drop(send.send(job())));
        let sent = thread.lock().unwrap_or_else(PoisonError::into_inner).send(job);
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        result.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

fn path_of(pid: Option<u32>) -> String {
    pid.map_or_else(|| OWN.to_owned(), |pid| format!("/proc/{pid}/ns/net"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_takes_no_thread_and_works() {
        let own = Namespace::of(Some(std::process::id())).unwrap();
        assert!(own.is_own());
        assert_eq!(own.inode(), Namespace::inode_of(None).unwrap());
        assert_eq!(own.inside(|| Ok(7)).unwrap(), 7);
        assert!(Namespace::with_inode(own.inode()).is_some());
        assert!(Namespace::with_inode(1).is_none());
    }

    #[test]
    fn another_namespace_is_worked_in_from_outside() {
        if !nix::unistd::Uid::effective().is_root() {
            return;
        }
        let (send, made) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let maker = thread::spawn(move || {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let there = Namespace::open(Path::new("/proc/thread-self/ns/net"));
            send.send(there.map(|there| there.inode())).unwrap();
            let _ = ended.recv();
        });
        let inode = made.recv().unwrap().unwrap();
        assert_ne!(inode, Namespace::inode_of(None).unwrap());
        drop(end);
        maker.join().unwrap();
    }
}
