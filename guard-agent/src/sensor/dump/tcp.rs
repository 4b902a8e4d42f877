//! TCP sockets, as `inet_diag` tells them (the kernel's `include/uapi/linux/inet_diag.h` and `tcp.h`).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{
    Bytes, Connection, Ended,
    netlink::{Netlink, attributes, double, word},
};
use crate::sensor::sockets::canonical;

/// The groups `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY`.
pub const DESTROYED: u32 = 1 | 1 << 2;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP: u8 = 6;
/// Asks for `struct tcp_info`.
const INFO: u16 = 2;
/// Established, or on its way to the end; not listening, not shaking hands, not only waiting.
const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// Bytes of `struct inet_diag_msg`.
const MESSAGE: usize = 72;

/// Which connections are asked for; port 0 is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// This end's port.
    pub local: u16,
    /// The other end's.
    pub remote: u16,
}

impl Ends {
    /// Those of a server on that port.
    pub fn local(port: u16) -> Self {
        Self { local: port, remote: 0 }
    }

    /// Those to a server on that port.
    pub fn remote(port: u16) -> Self {
        Self { local: 0, remote: port }
    }

    /// Whether a connection is one of them.
    pub fn fit(self, connection: &Connection) -> bool {
        (self.local == 0 || self.local == connection.local.port())
            && (self.remote == 0 || self.remote == connection.remote.port())
    }
}

/// Connections of this network namespace with one of these ends.
pub fn connections(wanted: &[Ends]) -> io::Result<Vec<Connection>> {
    let mut found = Vec::new();
    for ends in wanted {
        for family in [AF_INET, AF_INET6] {
            Netlink::dump(&request(family, *ends), |message| {
                // The kernel filters; an older one may not.
                found.extend(connection(message).filter(|connection| ends.fit(connection)));
            })?;
        }
    }
    Ok(found)
}

/// `struct inet_diag_req_v2`.
fn request(family: u8, ends: Ends) -> Vec<u8> {
    let mut request = vec![family, TCP, 1 << (INFO - 1), 0];
    request.extend(CONNECTED.to_ne_bytes());
    request.extend(ends.local.to_be_bytes());
    request.extend(ends.remote.to_be_bytes());
    // Any address, any interface, any cookie.
    request.extend([0; 36]);
    request.extend([0xff; 8]);
    request
}

fn connection(message: &[u8]) -> Option<Connection> {
    let family = *message.first()?;
    let inode = word(message, 68)?;
    let info = attributes(message, MESSAGE).find(|(kind, _)| *kind == INFO).map(|(_, info)| info);
    Some(Connection {
        local: canonical(SocketAddr::new(address(family, message.get(8..24)?)?, port(message, 4)?)),
        remote: canonical(SocketAddr::new(address(family, message.get(24..40)?)?, port(message, 6)?)),
        inode: inode.into(),
        namespace: 0,
        cookie: double(message, 44)?,
        // Of a socket that no process holds any more, it is nobody's.
        uid: (inode != 0).then(|| word(message, 64)).flatten(),
        bytes: info.and_then(payload),
    })
}

/// The server's side of a connection that has ended; nothing for a socket that was never connected.
pub fn ended(message: &[u8]) -> Option<Ended> {
    let connection = connection(message)?;
    let mut bytes = connection.bytes?;
    // The end of the client's direction counts as a byte. Where the client broke off there is none, but nothing here
    // tells that.
    bytes.from_client = bytes.from_client.saturating_sub(1);
    (connection.remote.port() != 0).then_some(Ended { connection, bytes })
}

/// From `struct tcp_info`; nothing where this kernel's ends before.
fn payload(info: &[u8]) -> Option<Bytes> {
    const ACKED: usize = 120;
    const RECEIVED: usize = 128;
    const SENT: usize = 200;
    const SENT_AGAIN: usize = 208;
    let (acked, received) = (double(info, ACKED)?, double(info, RECEIVED)?);
    // The end of this direction counts as an acknowledged byte, but not as a sent one.
    let sent =
        double(info, SENT).zip(double(info, SENT_AGAIN)).map(|(sent, again)| sent.saturating_sub(again));
    Some(Bytes { from_client: received, to_client: sent.map_or(acked, |sent| acked.min(sent)) })
}

fn port(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?).into()),
        AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Ends, connection, ended, request};

    #[test]
    fn the_request_has_the_kernels_size() {
        assert_eq!(request(2, Ends::local(5432)).len(), 56);
    }

    #[test]
    fn short_and_foreign_messages_are_nothing() {
        for length in 0..72 {
            assert!(connection(&vec![2; length]).is_none(), "{length}");
        }
        assert!(connection(&[1; 72]).is_none(), "an unknown family");
        assert!(ended(&[2; 72]).is_none(), "no counts");
    }
}
