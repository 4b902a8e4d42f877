//! Ends a connection by the server's own descriptor of it: unix sockets, for which the kernel has no other way, and TCP
//! where its namespace cannot be entered.
//!
//! The descriptor is borrowed with pidfd_getfd (Linux 5.6) and shut down. The server reads an end, as if the client had
//! gone; no process gets a signal.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    thread,
    time::Duration,
};

/// Which socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// By its inode number.
    Inode(u64),
    /// By its cookie.
    Cookie(u64),
}

/// The server hands a new connection from its listening process to the one that serves it, and may be in the middle of
/// it. So often it is looked for.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(4);
/// Processes that are looked at, at most.
const PROCESSES: usize = 4_096;

/// Shuts it down, where one of `servers` or a process that it started holds it; false where nobody does (any more).
pub fn shutdown(servers: &[u32], wanted: Wanted) -> io::Result<bool> {
    let mut failure = None;
    for look in 0..LOOKS {
        if look > 0 {
            thread::sleep(PAUSE * look);
        }
        for pid in family(servers) {
            match descriptor(pid, wanted) {
                Ok(Some(socket)) => {
                    // SAFETY: no pointers.
                    let result = unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
                    let error = io::Error::last_os_error();
                    if result == 0 || error.raw_os_error() == Some(libc::ENOTCONN) {
                        return Ok(true);
                    }
                    return Err(error);
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
    }
    failure.map_or(Ok(false), Err)
}

/// The processes and all that they started, the youngest first: who serves a new connection was started last.
fn family(servers: &[u32]) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found: Vec<u32> = servers.to_vec();
    let mut seen: HashSet<u32> = servers.iter().copied().collect();
    let mut next = 0;
    while next < found.len() && found.len() < PROCESSES {
        let below = children.get(&found[next]).cloned().unwrap_or_default();
        found.extend(below.into_iter().filter(|pid| seen.insert(*pid)));
        next += 1;
    }
    found.reverse();
    found
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, brackets included.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A copy of the descriptor with which `pid` holds the socket.
fn descriptor(pid: u32, wanted: Wanted) -> io::Result<Option<OwnedFd>> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Ok(None) };
    let mut process = None;
    for entry in entries.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let Some(inode) = target.to_str().and_then(inode) else { continue };
        if matches!(wanted, Wanted::Inode(own) if own != inode) {
            continue;
        }
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        let process = match &process {
            Some(process) => process,
            None => process.insert(pidfd(pid)?),
        };
        let socket = match copy(process, number) {
            Ok(socket) => socket,
            // Closed in the meantime.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBADF | libc::ESRCH)) => continue,
            Err(error) => return Err(error),
        };
        if is_wanted(&socket, wanted) {
            return Ok(Some(socket));
        }
    }
    Ok(None)
}

fn inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The number may name another file by now: what was copied is looked at.
fn is_wanted(socket: &OwnedFd, wanted: Wanted) -> bool {
    match wanted {
        Wanted::Inode(own) => nix::sys::stat::fstat(socket).is_ok_and(|stat| stat.st_ino == own),
        Wanted::Cookie(own) => super::host::socket_option(socket, libc::SO_COOKIE) == Some(own),
    }
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor is checked.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

fn copy(process: &OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: as above.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: just opened, and nobody else's.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        os::{fd::AsRawFd, unix::net::UnixStream},
    };

    use super::{Wanted, family, shutdown};

    fn inode_of(socket: &impl AsRawFd) -> u64 {
        let target = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        super::inode(target.to_str().unwrap()).unwrap()
    }

    #[test]
    fn ends_the_one_socket_and_no_other() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let (other, _kept) = UnixStream::pair().unwrap();
        assert!(shutdown(&[std::process::id()], Wanted::Inode(inode_of(&server))).unwrap());
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the end");
        other.set_nonblocking(true).unwrap();
        let mut other = &other;
        assert_eq!(other.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_nobody_holds_is_not_found() {
        assert!(!shutdown(&[std::process::id()], Wanted::Inode(1)).unwrap());
    }

    #[test]
    fn a_process_and_its_children_are_looked_at() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = family(&[std::process::id()]);
        assert!(found.contains(&child.id()) && found.last() == Some(&std::process::id()), "{found:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
