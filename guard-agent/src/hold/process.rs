//! One process, held by a descriptor: signals reach it, or nobody.
//!
//! A pid names another process once the first has ended; the descriptor and the time at which it started do not.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use guard_common::kernel::hold::TICK_NS;
use nix::sys::signal::Signal;

/// Bytes that are read of a text at once.
const PIECE: usize = 4096;

/// A process that was there when it was opened.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    descriptor: OwnedFd,
}

impl Process {
    /// The process of this pid that started `start_ns` nanoseconds after boot; an error of the kind `NotFound` where there
    /// is none.
    pub fn open(pid: u32, start_ns: u64) -> io::Result<Self> {
        Self::open_ticks(pid, start_ns / TICK_NS)
    }

    /// The same, with the time as `/proc` tells it.
    pub fn open_ticks(pid: u32, started: u64) -> io::Result<Self> {
        let number = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
        // SAFETY: no pointers; the descriptor is checked.
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, number, 0) };
        let descriptor = i32::try_from(descriptor).unwrap_or(-1);
        if descriptor < 0 {
            let error = io::Error::last_os_error();
            let gone = error.raw_os_error() == Some(libc::ESRCH);
            return Err(if gone { io::ErrorKind::NotFound.into() } else { error });
        }
        // SAFETY: the descriptor was just opened and belongs to nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        // Looked at with the descriptor in hand: from here on it cannot become another.
        if started_ticks(pid) == Some(started) {
            Ok(Self { pid, descriptor })
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.send(signal as i32)
    }

    /// Whether it could be sent one.
    pub fn can_be_signalled(&self) -> io::Result<()> {
        self.send(0)
    }

    fn send(&self, signal: i32) -> io::Result<()> {
        let no_details = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: no details are given, which the call allows.
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.descriptor.as_raw_fd(), signal, no_details, 0)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// A second descriptor of what its descriptor `number` is.
    pub fn descriptor(&self, number: i32) -> io::Result<OwnedFd> {
        // SAFETY: no pointers; the descriptor is checked.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.descriptor.as_raw_fd(), number, 0_u32) };
        let fd = i32::try_from(fd).unwrap_or(-1);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and belongs to nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Its memory.
    pub fn memory(&self) -> io::Result<Memory> {
        File::open(format!("/proc/{}/mem", self.pid)).map(Memory)
    }
}

/// When a process started, in the kernel's ticks after boot.
pub fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in front may hold anything, but no line of it comes behind its last parenthesis.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The memory of another process. Whatever it says is checked by whoever reads it.
#[derive(Debug)]
pub struct Memory(File);

impl Memory {
    /// Bytes at `address`.
    pub fn bytes<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact_at(&mut bytes, (address != 0).then_some(address)?).ok()?;
        Some(bytes)
    }

    /// An address, or another word of 8 bytes.
    pub fn word(&self, address: u64) -> Option<u64> {
        self.bytes(address).map(u64::from_ne_bytes)
    }

    /// The text at `address`, without its zero byte; nothing where it is longer than `limit`, or not there.
    pub fn text(&self, address: u64, limit: usize) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let mut at = (address != 0).then_some(address)?;
        loop {
            let mut piece = [0; PIECE];
            let read = self.0.read_at(&mut piece, at).ok().filter(|read| *read > 0)?;
            let piece = &piece[..read];
            if let Some(end) = memchr::memchr(0, piece) {
                text.extend_from_slice(&piece[..end]);
                return (text.len() <= limit).then_some(text);
            }
            text.extend_from_slice(piece);
            if text.len() > limit {
                return None;
            }
            at += read as u64;
        }
    }

    /// The text to which the variable at `variable` points.
    pub fn text_of(&self, variable: u64, limit: usize) -> Option<Vec<u8>> {
        self.text(self.word(variable)?, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_start() -> u64 {
        started_ticks(std::process::id()).unwrap() * TICK_NS
    }

    #[test]
    fn a_pid_of_another_start_is_another_process() {
        let start = own_start();
        assert!(Process::open(std::process::id(), start).is_ok());
        let other = Process::open(std::process::id(), start + 1_000_000_000).unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::NotFound);
        assert_eq!(Process::open(4_000_000, 0).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn texts_are_read_to_their_end_and_no_further_than_allowed() {
        let memory = Process::open(std::process::id(), own_start()).unwrap().memory().unwrap();
        let text = [vec![b'x'; 3 * PIECE + 7], vec![0]].concat();
        let address = text.as_ptr() as u64;
        assert_eq!(memory.text(address, 4 * PIECE).unwrap().len(), 3 * PIECE + 7);
        assert_eq!(memory.text(address, PIECE), None);
        assert_eq!(memory.text(0, PIECE), None);
        assert_eq!(memory.text(8, PIECE), None);
        let pointer = address;
        assert_eq!(memory.text_of(&raw const pointer as u64, 4 * PIECE).unwrap().len(), 3 * PIECE + 7);
        assert_eq!(memory.bytes::<2>(address), Some(*b"xx"));
    }
}
