//! Connected unix sockets of the agent's network namespace, with both of their ends: from the kernel, by netlink.
//!
//! How connections that are older than the agent are found. Bounded: an answer that is too long or broken ends the list.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
};

use guard_common::kernel::{UNIX_PATH_LEN, unix::UnixPath};

/// The end of a connection that has a name: the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Where the server listens; an abstract name starts with `@`.
    pub path: PathBuf,
    /// Inode number of this end.
    pub inode: u64,
    /// Inode number of the other end.
    pub peer: u64,
}

/// Connections that are listed, at most.
const LIMIT: usize = 100_000;
const BY_FAMILY: u16 = 20;
const DUMP: u16 = 0x301;
const DONE: u16 = 3;
const ERROR: u16 = 2;
const HEADER: usize = 16;
/// `struct unix_diag_msg`.
const MESSAGE: usize = 16;
const NAME: u16 = 0;
const PEER: u16 = 2;
const SHOW_NAME_AND_PEER: u32 = 0b101;
const ESTABLISHED: u32 = 1 << 1;

/// All of them.
pub fn connected() -> io::Result<Vec<Connected>> {
    let socket = open()?;
    let mut request = Vec::with_capacity(HEADER + 24);
    request.extend(40_u32.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    request.extend(ESTABLISHED.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend(SHOW_NAME_AND_PEER.to_ne_bytes());
    request.extend([0xff; 8]);
    nix::unistd::write(&socket, &request)?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = nix::unistd::read(&socket, &mut buffer)?;
        if !parse(&buffer[..length], &mut found) || found.len() >= LIMIT {
            return Ok(found);
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    const KIND: i32 = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the descriptor is checked.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, KIND, libc::NETLINK_SOCK_DIAG) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let limit = libc::timeval { tv_sec: 1, tv_usec: 0 };
    let length = size_of::<libc::timeval>() as libc::socklen_t;
    // SAFETY: the option lives through the call and is as long as is told.
    unsafe {
        let value = (&raw const limit).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, value, length);
    }
    Ok(socket)
}

/// Takes the messages of one datagram; false where the list has ended.
fn parse(mut bytes: &[u8], found: &mut Vec<Connected>) -> bool {
    if bytes.is_empty() {
        return false;
    }
    while let (Some(length), Some(kind)) = (word(bytes, 0), half(bytes, 4)) {
        let length = length as usize;
        if length < HEADER || length > bytes.len() || kind == DONE || kind == ERROR {
            return false;
        }
        if kind == BY_FAMILY && found.len() < LIMIT {
            found.extend(entry(&bytes[HEADER..length]));
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        if bytes.is_empty() {
            return true;
        }
    }
    false
}

fn entry(message: &[u8]) -> Option<Connected> {
    let inode = word(message, 4)?;
    let (mut name, mut peer) = (None, None);
    let mut attributes = message.get(MESSAGE..)?;
    while let (Some(length), Some(kind)) = (half(attributes, 0), half(attributes, 2)) {
        let value = attributes.get(4..usize::from(length))?;
        match kind {
            NAME => name = Some(value),
            PEER => peer = word(value, 0),
            _ => {}
        }
        attributes = attributes.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    let name = name.filter(|name| !name.is_empty() && name.len() <= UNIX_PATH_LEN)?;
    let mut path = UnixPath { bytes: [0; UNIX_PATH_LEN] };
    path.bytes[..name.len()].copy_from_slice(name);
    Some(Connected { path: super::worker::unix_path(&path), inode: inode.into(), peer: peer?.into() })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::{
        fs::MetadataExt,
        net::{UnixListener, UnixStream},
    };

    use super::{connected, parse};

    fn inode(stream: &UnixStream) -> u64 {
        use std::os::fd::AsRawFd;
        std::fs::metadata(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap().ino()
    }

    #[test]
    fn both_ends_of_a_connection_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        let found = connected().unwrap();
        let found: Vec<_> = found.iter().filter(|end| end.path == path).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].inode, found[0].peer), (inode(&server), inode(&client)));
    }

    #[test]
    fn broken_answers_end_the_list() {
        let mut answer = Vec::new();
        answer.extend(36_u32.to_ne_bytes());
        answer.extend(20_u16.to_ne_bytes());
        answer.extend([0; 10]);
        answer.extend([1, 1, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        answer.extend([200, 0, 0, 0]);
        for length in 0..answer.len() {
            for byte in 0..answer.len() {
                let mut broken = answer[..length].to_vec();
                if let Some(byte) = broken.get_mut(byte) {
                    *byte ^= 0xff;
                }
                let mut found = Vec::new();
                parse(&broken, &mut found);
                assert!(found.is_empty());
            }
        }
    }
}
