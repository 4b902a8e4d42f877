//! The proxy's own connections to a steered server: past the program, and from the client's own address.
//!
//! Enters: who the session's client is and where it connected to. Leaves: a connected socket whose other end sees that
//! client's address, so that rules by address keep their meaning. A local client's address is simply bound. A remote
//! one's takes `IP_TRANSPARENT`, and a mark by which the server's answers are delivered here instead of to the client.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::Arc,
};

use tokio::net::{TcpSocket, TcpStream};

use super::{
    namespace::Namespace,
    program::{OwnConnections, Pass},
};

/// How often another port is tried.
const ATTEMPTS: usize = 16;
/// Ports from which hosts do not connect by themselves as they are delivered.
const QUIET_PORTS: std::ops::Range<u16> = 1_024..32_768;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client's end.
    pub client: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

/// The way to one steered server.
#[derive(Debug)]
pub struct Gate {
    pub(super) namespace: Arc<Namespace>,
    /// Of the namespace, where it is not the agent's own.
    pub(super) cookie: Option<u64>,
    pub(super) mark: u32,
    /// What has to be told of each connection; where the mark is enough, nothing.
    pub(super) own: Option<OwnConnections>,
}

/// A connection that has been made.
#[derive(Debug)]
pub struct Connected {
    /// The socket.
    pub stream: TcpStream,
    /// Kept until the server has answered.
    pub pass: Option<Pass>,
}

/// One end to bind to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    address: SocketAddr,
    /// Share the port with connections to elsewhere.
    shared: bool,
}

impl Gate {
    /// Where a session of `origin` reaches a server that listens on `listening`, in order.
    ///
    /// A remote client's connection goes to the loopback address where the server listens there: its own connection to
    /// the server's other addresses has the same ends but for that.
    pub fn targets(&self, origin: Origin, listening: &[SocketAddr]) -> Vec<SocketAddr> {
        let destination = origin.destination;
        if self.is_local(origin.client.ip()) {
            return vec![destination];
        }
        let loopback = loopback(destination.ip());
        let reaches_loopback = listening.iter().any(|own| {
            own.port() == destination.port()
                && own.is_ipv4() == destination.is_ipv4()
                && (own.ip() == loopback || own.ip().is_unspecified())
        });
        let first = reaches_loopback.then(|| SocketAddr::new(loopback, destination.port()));
        first.into_iter().chain([destination]).collect()
    }

    /// Connects to `target`, an address of the server: as `origin`, or as the proxy itself.
    pub async fn connect(&self, origin: Option<Origin>, target: SocketAddr) -> io::Result<Connected> {
        let remote = origin.filter(|origin| !self.is_local(origin.client.ip()));
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for source in sources(origin, remote.is_some(), target) {
            match self.attempt(source, target).await {
                Err(error) if is_taken(&error) => failure = error,
                other => return other,
            }
        }
        Err(failure)
    }

    async fn attempt(&self, source: Source, target: SocketAddr) -> io::Result<Connected> {
        let (mark, v6) = (self.mark, target.is_ipv6());
        let socket = self.namespace.inside(move || bound(source, mark, v6))?;
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
        let pass = match &self.own {
            Some(own) => Some(own.pass(socket.local_addr()?, target)?),
            None => None,
        };
        let stream = socket.connect(target).await?;
        Ok(Connected { stream, pass })
    }

    /// The cookie of the server's network namespace, where it is not the agent's own.
    pub fn namespace_cookie(&self) -> Option<u64> {
        self.cookie
    }

    /// Whether `address` is one of the server's own host.
    pub fn is_local(&self, address: IpAddr) -> bool {
        is_local(&self.namespace, address)
    }
}

/// Whether `address` belongs to a network namespace: then a socket that talks to it talks from it. No packet is sent.
pub fn is_local(namespace: &Namespace, address: IpAddr) -> bool {
    if address.to_canonical().is_loopback() {
        return true;
    }
    let look = move || {
        let any: IpAddr =
            if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        Ok(socket.local_addr()?.ip() == address)
    };
    // There is no way to it: it is not here.
    namespace.inside(look).unwrap_or(false)
}

fn loopback(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// The ends from which to try.
fn sources(origin: Option<Origin>, is_remote: bool, target: SocketAddr) -> Vec<Source> {
    let ip = origin.map_or(target.ip(), |origin| origin.client.ip());
    let at = |port, shared| Source { address: SocketAddr::new(ip, port), shared };
    let any_port = std::iter::once(at(0, false)).chain(std::iter::repeat_n(at(0, true), ATTEMPTS));
    match origin.filter(|_| is_remote) {
        // The same ends as the client's own connection: another port, and none that it is likely to use next.
        Some(origin) if target == origin.destination => quiet_ports().map(|port| at(port, true)).collect(),
        Some(origin) => std::iter::once(at(origin.client.port(), true)).chain(any_port).collect(),
        None => any_port.collect(),
    }
}

fn quiet_ports() -> impl Iterator<Item = u16> {
    let width = QUIET_PORTS.end - QUIET_PORTS.start;
    let random = uuid::Uuid::new_v4().as_u128();
    (0..ATTEMPTS).map(move |attempt| {
        let bits = (random >> (attempt % 8 * 16)) as u16;
        QUIET_PORTS.start + bits.rotate_left(attempt as u32 / 8) % width
    })
}

/// Whether another port may help.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// A socket that is bound to `source`, whether or not that is an address of this host.
fn bound(source: Source, mark: u32, v6: bool) -> io::Result<OwnedFd> {
    let socket = stream_socket(v6)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_MARK, mark as i32)?;
    if v6 {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1)?;
    } else {
        set(&socket, libc::SOL_IP, libc::IP_TRANSPARENT, 1)?;
    }
    if source.shared {
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    }
    bind(&socket, source.address)?;
    Ok(socket)
}

/// A TCP socket that does not block.
pub(super) fn stream_socket(v6: bool) -> io::Result<OwnedFd> {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: no pointers; the descriptor is checked.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an option that is a number.
pub(super) fn set(socket: &OwnedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value is as long as is said, and lives through the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(super) fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let storage = nix::sys::socket::SockaddrStorage::from(address);
    Ok(nix::sys::socket::bind(socket.as_raw_fd(), &storage)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(client: &str, destination: &str) -> Origin {
        Origin { client: client.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn gate() -> Gate {
        Gate { namespace: Arc::new(Namespace::of(None).unwrap()), cookie: None, mark: 0x0067_fff0, own: None }
    }

    #[test]
    fn a_local_client_reaches_the_address_that_it_asked_for() {
        let asked = origin("127.0.0.1:40000", "127.0.0.2:5432");
        let targets = gate().targets(asked, &["0.0.0.0:5432".parse().unwrap()]);
        assert_eq!(targets, [asked.destination]);
        let from: Vec<_> = sources(Some(asked), false, asked.destination);
        assert!(
            from.iter().all(|source| source.address.ip() == asked.client.ip() && source.address.port() == 0)
        );
    }

    #[test]
    fn a_remote_client_keeps_its_port_on_the_way_by_loopback() {
        let asked = origin("192.0.2.7:40000", "10.0.0.1:5432");
        let listening = ["0.0.0.0:5432".parse().unwrap()];
        let targets = gate().targets(asked, &listening);
        assert_eq!(targets, ["127.0.0.1:5432".parse().unwrap(), asked.destination]);
        assert_eq!(sources(Some(asked), true, targets[0])[0].address, asked.client);
        // Another server may listen on loopback.
        let other = [
            "10.0.0.1:5432".parse().unwrap(),
            "127.0.0.1:5433".parse().unwrap(),
            "[::]:5432".parse().unwrap(),
        ];
        assert_eq!(gate().targets(asked, &other), [asked.destination]);
    }

    #[test]
    fn the_same_destination_never_takes_the_clients_port() {
        let asked = origin("192.0.2.7:40000", "10.0.0.1:5432");
        let from = sources(Some(asked), true, asked.destination);
        assert_eq!(from.len(), ATTEMPTS);
        assert!(from.iter().all(|source| QUIET_PORTS.contains(&source.address.port())));
    }

    #[test]
    fn addresses_of_this_host_are_told_from_others() {
        let namespace = Namespace::of(None).unwrap();
        assert!(is_local(&namespace, "127.0.0.9".parse().unwrap()));
        assert!(is_local(&namespace, "::1".parse().unwrap()));
        assert!(!is_local(&namespace, "192.0.2.7".parse().unwrap()));
    }
}
