//! PROXY protocol, version 2: the header that a load balancer puts in front of a connection to say whose it is.
//!
//! Bytes enter, addresses leave; additional fields (TLVs) are skipped. Facts:
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, chapter 2.2.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// What every header starts with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of signature, command, family and length.
pub const PREFIX_BYTES: usize = 16;

/// Longest rest of a header: addresses and additional fields.
pub const MAX_REST_BYTES: usize = 4_096;

/// What makes bytes no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The text form.
    #[error("PROXY protocol version 1 is not spoken here: let the load balancer send version 2")]
    Version1,
    /// Something else.
    #[error("expected a PROXY protocol version 2 header")]
    Missing,
    /// The header is broken.
    #[error("invalid PROXY protocol header: {0}")]
    Invalid(&'static str),
}

/// The first bytes of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    local: bool,
    family: u8,
    /// Bytes that follow.
    pub rest: usize,
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The load balancer's own, such as a health check, or of somebody without an address.
    Own,
    /// Somebody's.
    Relayed {
        /// Where the client connected from.
        client: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
    },
}

impl Prefix {
    /// Reads the first bytes.
    pub fn read(bytes: &[u8; PREFIX_BYTES]) -> Result<Self, HeaderError> {
        let (signature, rest) = bytes.split_at(SIGNATURE.len());
        if signature != SIGNATURE {
            let text = signature.starts_with(b"PROXY ");
            return Err(if text { HeaderError::Version1 } else { HeaderError::Missing });
        }
        let local = match rest[0] {
            0x20 => true,
            0x21 => false,
            _ => return Err(HeaderError::Invalid("unknown version or command")),
        };
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if length > MAX_REST_BYTES {
            return Err(HeaderError::Invalid("it is longer than 4096 bytes"));
        }
        Ok(Self { local, family: rest[1], rest: length })
    }

    /// Reads what follows: exactly as many bytes as the prefix said.
    pub fn route(self, rest: &[u8]) -> Result<Route, HeaderError> {
        if self.local {
            return Ok(Route::Own);
        }
        let short = HeaderError::Invalid("its addresses are cut off");
        match self.family {
            // TCP over IPv4.
            0x11 => {
                let [a, b, c, d, e, f, g, h, p, q, r, s] = *rest.first_chunk().ok_or(short)?;
                Ok(relayed(Ipv4Addr::new(a, b, c, d), [p, q], Ipv4Addr::new(e, f, g, h), [r, s]))
            }
            // TCP over IPv6.
            0x21 => {
                let addresses: &[u8; 36] = rest.first_chunk().ok_or(short)?;
                let address = |at: usize| -> Result<Ipv6Addr, HeaderError> {
                    let bytes: &[u8; 16] = addresses[at..].first_chunk().ok_or(short)?;
                    Ok(Ipv6Addr::from(*bytes))
                };
                let port = |at: usize| [addresses[at], addresses[at + 1]];
                Ok(relayed(address(0)?, port(32), address(16)?, port(34)))
            }
            // Unspecified, and unix sockets: there is no address to go by.
            0x00 | 0x31 => Ok(Route::Own),
            _ => Err(HeaderError::Invalid("it is about no TCP connection")),
        }
    }
}

fn relayed(
    client: impl Into<std::net::IpAddr>,
    client_port: [u8; 2],
    destination: impl Into<std::net::IpAddr>,
    destination_port: [u8; 2],
) -> Route {
    let at = |address, port| SocketAddr::new(address, u16::from_be_bytes(port));
    Route::Relayed {
        client: at(client.into(), client_port),
        destination: at(destination.into(), destination_port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(command: u8, family: u8, rest: &[u8]) -> Result<Route, HeaderError> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        let prefix = [&SIGNATURE[..], &[command, family], &length].concat();
        let prefix = Prefix::read(prefix.first_chunk().unwrap())?;
        assert_eq!(prefix.rest, rest.len());
        prefix.route(rest)
    }

    #[test]
    fn addresses_are_read_and_additional_fields_skipped() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0x15, 0x38, 0x04, 0, 1, 0];
        let expected = Route::Relayed {
            client: "192.0.2.7:12345".parse().unwrap(),
            destination: "10.0.0.1:5432".parse().unwrap(),
        };
        assert_eq!(read(0x21, 0x11, &v4), Ok(expected));
        let mut v6 = [0; 36];
        (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 3, 4);
        let expected =
            Route::Relayed { client: "[::1]:3".parse().unwrap(), destination: "[::2]:4".parse().unwrap() };
        assert_eq!(read(0x21, 0x21, &v6), Ok(expected));
    }

    #[test]
    fn health_checks_come_from_the_balancer_itself() {
        assert_eq!(read(0x20, 0x00, b""), Ok(Route::Own));
        assert_eq!(read(0x20, 0x11, &[0; 12]), Ok(Route::Own));
        assert_eq!(read(0x21, 0x00, b""), Ok(Route::Own));
        assert_eq!(read(0x21, 0x31, &[0; 216]), Ok(Route::Own));
    }

    #[test]
    fn broken_headers_are_refused() {
        for (command, family, length) in
            [(0x21, 0x11, 11), (0x21, 0x21, 35), (0x21, 0x12, 12), (0x22, 0x11, 12), (0x11, 0x11, 12)]
        {
            assert!(read(command, family, &vec![0; length]).is_err(), "{command:x} {family:x} {length}");
        }
        assert_eq!(Prefix::read(b"PROXY TCP4 192.0"), Err(HeaderError::Version1));
        assert_eq!(Prefix::read(b"\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\0\0\0\0\0"), Err(HeaderError::Missing));
        let long = [&SIGNATURE[..], &[0x21, 0x11, 0x10, 0x01]].concat();
        assert!(Prefix::read(long.first_chunk().unwrap()).is_err());
    }
}
