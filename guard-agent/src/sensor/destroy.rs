//! Ends exactly one TCP connection through the kernel's own interface for it (sock_diag with SOCK_DESTROY,
//! CONFIG_INET_DIAG_DESTROY).
//!
//! A socket is named by both ends and by its cookie: the kernel refuses the request where another socket has taken its
//! place. Both ends learn of it at once, the client by a reset.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `linux/inet_diag.h`: any socket between these ends.
const NO_COOKIE: u64 = u64::MAX;
/// States in which a connection has two ends.
const CONNECTED_STATES: u32 = 0xfff & !(1 << 10);
/// State of a socket that listens.
const TCP_LISTEN: u8 = 10;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// Header and `struct inet_diag_req_v2`.
const REQUEST: usize = HEADER + 56;
/// Longer than any answer about one socket.
const ANSWER: usize = 8192;
/// Seconds that the kernel may take.
static TIMEOUT: libc::timeval = libc::timeval { tv_sec: 2, tv_usec: 0 };

/// A socket of sock_diag. It belongs to the network namespace of the thread that opened it, for good.
#[derive(Debug)]
pub struct Diag(OwnedFd);

impl Diag {
    /// Opens one in the network namespace of this thread.
    pub fn open() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is checked.
        let descriptor = unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG)
        };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let length = size_of::<libc::timeval>() as libc::socklen_t;
        // SAFETY: the constant is as long as is said.
        let set = unsafe {
            let value = (&raw const TIMEOUT).cast();
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, value, length)
        };
        if set == 0 { Ok(Self(socket)) } else { Err(io::Error::last_os_error()) }
    }

    /// Cookie of its network namespace; 0 before Linux 5.14.
    pub fn namespace_cookie(&self) -> u64 {
        super::host::cookie_of_namespace(&self.0)
    }

    /// Ends the connection of that cookie between `local` and `remote`; false where it has ended already.
    pub fn destroy(&self, local: SocketAddr, remote: SocketAddr, cookie: u64) -> io::Result<bool> {
        self.send(SOCK_DESTROY, libc::NLM_F_REQUEST | libc::NLM_F_ACK, local, remote, cookie)?;
        match self.answer()? {
            Answer::Done => Ok(true),
            Answer::Failed(libc::ENOENT | libc::ESTALE) => Ok(false),
            Answer::Failed(error) => Err(io::Error::from_raw_os_error(error)),
            Answer::Socket { .. } => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Cookie and inode number of the connection between `local` and `remote`; nothing where there is none.
    pub fn find(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<(u64, u64)>> {
        self.send(SOCK_DIAG_BY_FAMILY, libc::NLM_F_REQUEST, local, remote, NO_COOKIE)?;
        match self.answer()? {
            Answer::Socket { cookie, inode, state } if state != TCP_LISTEN => Ok(Some((cookie, inode))),
            // Without a connection the kernel finds who listens for one.
            Answer::Socket { .. } | Answer::Done | Answer::Failed(libc::ENOENT | libc::ESTALE) => Ok(None),
            Answer::Failed(error) => Err(io::Error::from_raw_os_error(error)),
        }
    }

    fn send(
        &self,
        kind: u16,
        flags: libc::c_int,
        local: SocketAddr,
        remote: SocketAddr,
        cookie: u64,
    ) -> io::Result<()> {
        let message = request(kind, flags, (local, remote), cookie);
        // SAFETY: the message lives through the call.
        let sent = unsafe {
            libc::send(self.0.as_raw_fd(), message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL)
        };
        if sent == REQUEST as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn answer(&self) -> io::Result<Answer> {
        let mut bytes = [0_u8; ANSWER];
        // SAFETY: the buffer is as long as is said.
        let received = unsafe { libc::recv(self.0.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        read(bytes.get(..received).unwrap_or_default()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// What the kernel says.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    /// An error number.
    Failed(i32),
    Socket {
        cookie: u64,
        inode: u64,
        state: u8,
    },
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`. A mapped IPv6 address is asked for as IPv4: the kernel finds sockets of
/// either family by it.
fn request(kind: u16, flags: libc::c_int, ends: (SocketAddr, SocketAddr), cookie: u64) -> [u8; REQUEST] {
    let (local, remote) = (ends.0.ip().to_canonical(), ends.1.ip().to_canonical());
    let family = if local.is_ipv4() && remote.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut message = [0; REQUEST];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        message[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&(REQUEST as u32).to_ne_bytes());
    put(&kind.to_ne_bytes());
    put(&(flags as u16).to_ne_bytes());
    put(&1_u32.to_ne_bytes()); // sequence
    put(&[0; 4]); // port: the kernel
    put(&[family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    put(&CONNECTED_STATES.to_ne_bytes());
    put(&ends.0.port().to_be_bytes());
    put(&ends.1.port().to_be_bytes());
    put(&address(local, family));
    put(&address(remote, family));
    put(&[0; 4]); // any interface
    put(&(cookie as u32).to_ne_bytes());
    put(&((cookie >> 32) as u32).to_ne_bytes());
    message
}

fn address(ip: IpAddr, family: libc::c_int) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) if family == libc::AF_INET => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The first message of an answer. `struct inet_diag_msg` begins with family and state, has the cookie behind ports,
/// addresses and interface, and ends with the inode number.
fn read(bytes: &[u8]) -> Option<Answer> {
    const COOKIE: usize = HEADER + 4 + 4 + 32 + 4;
    const INODE: usize = HEADER + 4 + 48 + 16;
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    if i32::from(kind) == libc::NLMSG_ERROR {
        let error = word(HEADER)?.cast_signed();
        return Some(if error == 0 { Answer::Done } else { Answer::Failed(error.wrapping_neg()) });
    }
    if i32::from(kind) == libc::NLMSG_DONE {
        return Some(Answer::Done);
    }
    let cookie = u64::from(word(COOKIE)?) | u64::from(word(COOKIE + 4)?) << 32;
    (kind == SOCK_DIAG_BY_FAMILY).then_some(())?;
    Some(Answer::Socket { cookie, inode: word(INODE)?.into(), state: *bytes.get(HEADER + 1)? })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read, Write},
        net::{TcpListener, TcpStream},
    };

    use guard_tests::skip::{self, Need};

    use super::*;

    fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn ends(server: &TcpStream) -> (SocketAddr, SocketAddr) {
        (server.local_addr().unwrap(), server.peer_addr().unwrap())
    }

    #[test]
    fn ends_one_connection_and_leaves_the_one_beside_it() {
        if skip::without(&[Need::Ebpf]) {
            return;
        }
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let ((mut cut, server), (mut other, mut stays)) = (pair(&listener), pair(&listener));
            let diag = Diag::open().unwrap();
            let (local, remote) = ends(&server);
            let (cookie, inode) = diag.find(local, remote).unwrap().unwrap();
            assert!(inode > 0);
            assert!(!diag.destroy(local, remote, cookie + 1).unwrap(), "another socket's cookie");
            cut.set_nonblocking(true).unwrap();
            assert_eq!(cut.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert!(diag.destroy(local, remote, cookie).unwrap());
            assert_eq!(cut.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            assert!(!diag.destroy(local, remote, cookie).unwrap(), "it has ended");
            assert_eq!(diag.find(local, remote).unwrap(), None);
            other.write_all(b"x").unwrap();
            stays.read_exact(&mut [0]).unwrap();
        }
    }

    #[test]
    fn a_client_of_the_other_family_is_found_by_its_own_address() {
        if skip::without(&[Need::Ebpf]) {
            return;
        }
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let server = listener.accept().unwrap().0;
        let (local, remote) = ends(&server);
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let diag = Diag::open().unwrap();
        let found = diag.find(plain(local), plain(remote)).unwrap();
        assert!(found.is_some());
        assert_eq!(diag.find(local, remote).unwrap(), found);
    }

    #[test]
    fn answers_that_are_cut_off_are_no_answers() {
        assert_eq!(read(&[]), None);
        let mut error = vec![0; HEADER + 4];
        error[4] = libc::NLMSG_ERROR as u8;
        assert_eq!(read(&error), Some(Answer::Done));
        error[HEADER..].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(read(&error), Some(Answer::Failed(libc::EPERM)));
        for length in 0..error.len() {
            assert_eq!(read(&error[..length]), None, "{length}");
        }
    }
}
