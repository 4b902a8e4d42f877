//! The `sock_diag` family of netlink: a request leaves, its answers enter, one message at a time.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// `SOCK_DIAG_BY_FAMILY` of the kernel's `sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Room for one answer of the kernel: it makes them no larger than 32 KiB.
const ROOM: usize = 64 * 1024;
/// Answers that may wait: an end that does not fit is lost.
const QUEUE_BYTES: i32 = 8 * 1024 * 1024;
/// How long the kernel may take for one answer.
const ANSWER_WITHIN: libc::timeval = libc::timeval { tv_sec: 2, tv_usec: 0 };

/// A socket of the family.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Netlink {
    fn open(flags: i32) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags;
        // SAFETY: no pointers; the descriptor is checked.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) };
        check(fd as isize)?;
        // SAFETY: the descriptor was just opened and belongs to nobody else.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// One that hears what the kernel tells these groups.
    pub fn listening(groups: u32) -> io::Result<Self> {
        let socket = Self::open(libc::SOCK_NONBLOCK)?;
        // The larger queue takes CAP_NET_ADMIN; the usual one does as well, for less.
        let _ = socket.set(libc::SO_RCVBUFFORCE, &QUEUE_BYTES);
        // SAFETY: all zero is a valid address.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = groups;
        // SAFETY: the address lives through the call and is as long as said.
        check(unsafe {
            let pointer = (&raw const address).cast();
            libc::bind(socket.fd.as_raw_fd(), pointer, size_of_val(&address) as u32) as isize
        })?;
        Ok(socket)
    }

    /// Asks for a whole table, and hands every entry to `take`.
    pub fn dump(request: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let socket = Self::open(0)?;
        socket.set(libc::SO_RCVTIMEO, &ANSWER_WITHIN)?;
        let mut message = Vec::with_capacity(HEADER + request.len());
        message.extend(((HEADER + request.len()) as u32).to_ne_bytes());
        message.extend(BY_FAMILY.to_ne_bytes());
        message.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(request);
        // SAFETY: as many bytes as said.
        check(unsafe { libc::send(socket.fd.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) })?;
        let mut room = vec![0; ROOM];
        loop {
            let length = socket.receive(&mut room)?;
            if messages(&room[..length], &mut take)? {
                return Ok(());
            }
        }
    }

    /// Hands what has arrived to `take`, and tells how often the kernel had to drop some.
    pub fn drain(&self, mut take: impl FnMut(&[u8])) -> u64 {
        let mut room = vec![0; ROOM];
        let mut dropped = 0;
        loop {
            match self.receive(&mut room) {
                Ok(length) => {
                    let _ = messages(&room[..length], &mut take);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => dropped += 1,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return dropped,
            }
        }
    }

    fn receive(&self, room: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the room is as long as said.
        let length = unsafe { libc::recv(self.fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), 0) };
        check(length)
    }

    fn set<Value>(&self, option: i32, value: &Value) -> io::Result<()> {
        // SAFETY: the value lives through the call and is as long as said.
        let result = unsafe {
            let pointer = (&raw const *value).cast();
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                pointer,
                size_of::<Value>() as u32,
            )
        };
        check(result as isize).map(|_| ())
    }
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Splits one answer into its messages. True at the end of a table.
fn messages(mut bytes: &[u8], take: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (word(bytes, 0), half(bytes, 4)) {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let code = word(body, 0).unwrap_or_default().cast_signed();
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            libc::NLMSG_NOOP => {}
            _ => take(body),
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// The attributes of a message, from `start` on.
pub fn attributes(message: &[u8], start: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = message.get(start..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, kind) = (half(rest, 0)? as usize, half(rest, 2)?);
        let value = rest.get(4..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// Two bytes of this host's order.
pub fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Four bytes of this host's order.
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Eight bytes of this host's order.
pub fn double(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{attributes, messages};

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn splits_what_arrives_together() {
        let bytes = [message(20, b"first"), message(20, b"second"), message(3, &[0; 4])].concat();
        let mut taken = Vec::new();
        assert!(messages(&bytes, &mut |body| taken.push(body.to_vec())).unwrap());
        assert_eq!(taken, [b"first".to_vec(), b"second".to_vec()]);
    }

    #[test]
    fn an_error_is_told() {
        let bytes = message(2, &(-libc::ENOENT).to_ne_bytes());
        assert_eq!(messages(&bytes, &mut |_| {}).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn broken_lengths_end_it() {
        for length in [0_u32, 15, 17, 400, u32::MAX] {
            let mut bytes = message(20, &[]);
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            let mut taken = 0;
            assert!(!messages(&bytes, &mut |_| taken += 1).unwrap());
            assert_eq!(taken, 0);
        }
        assert_eq!(attributes(&[3, 0, 0, 0], 0).count(), 0);
        assert_eq!(attributes(&[9, 0, 0, 0, 1], 0).count(), 0);
        assert_eq!(attributes(&[5, 0, 1, 0, 7], 0).collect::<Vec<_>>(), [(1, &[7][..])]);
        assert_eq!(attributes(&[], 9).count(), 0);
    }
}
