//! Between the kernel's form of a TCP connection and the agent's: its ends, its bytes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use guard_common::kernel::socket::{ClosedEvent, FlowKey, ended};

use super::event::Bytes;

/// The key under which the kernel side remembers the client of that connection.
pub fn key(client: SocketAddr, server: SocketAddr, namespace: u64) -> FlowKey {
    FlowKey {
        client: bytes(client.ip()),
        server: bytes(server.ip()),
        namespace: if client.ip().to_canonical().is_loopback() { namespace } else { 0 },
        client_port: client.port(),
        server_port: server.port(),
        reserved: 0,
    }
}

/// The client's end.
pub fn client(flow: &FlowKey) -> SocketAddr {
    address(flow.client, flow.client_port)
}

/// The server's end.
pub fn server(flow: &FlowKey) -> SocketAddr {
    address(flow.server, flow.server_port)
}

/// An end of a connection.
pub fn address(bytes: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(bytes).to_canonical(), port)
}

fn bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Payload bytes of a connection. The kernel's counters take the end of a direction (FIN) for one more byte: what the
/// program saw on the socket tells which ones there were. Where it could not look, the state before the end tells, with
/// one case open: in FIN-WAIT-2 the client's may have been counted; it is not where the server closes first.
pub fn payload(event: &ClosedEvent) -> Option<Bytes> {
    if event.received == ClosedEvent::UNCOUNTED || event.acked == ClosedEvent::UNCOUNTED {
        return None;
    }
    const FIN_WAIT_2: u32 = 5;
    const CLOSE_WAIT: u32 = 8;
    const LAST_ACK: u32 = 9;
    const CLOSING: u32 = 11;
    let state = event.previous_state;
    let server_ended = matches!(state, FIN_WAIT_2 | LAST_ACK | CLOSING);
    let (client_ended, acked) = if event.flags & ended::KNOWN != 0 {
        (event.flags & ended::BY_CLIENT != 0, event.flags & ended::ALL_ACKED != 0)
    } else {
        (matches!(state, CLOSE_WAIT | LAST_ACK | CLOSING), true)
    };
    Some(Bytes {
        from_client: event.received.saturating_sub(client_ended.into()),
        to_client: event.acked.saturating_sub((server_ended && acked).into()),
    })
}

#[cfg(test)]
mod tests {
    use super::{client, key, server};

    #[test]
    fn there_and_back() {
        for (from, to) in
            [("127.0.0.1:1", "127.0.0.1:2"), ("[::1]:3", "[::1]:4"), ("10.0.0.1:5", "10.0.0.2:6")]
        {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let flow = key(from, to, 7);
            assert_eq!((client(&flow), server(&flow)), (from, to));
        }
    }

    #[test]
    fn mapped_addresses_are_the_same_connection() {
        let plain = key("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap(), 7);
        let mapped = key("[::ffff:127.0.0.1]:1".parse().unwrap(), "[::ffff:127.0.0.1]:2".parse().unwrap(), 7);
        assert_eq!(plain, mapped);
    }

    #[test]
    fn only_loopback_depends_on_the_namespace() {
        let of = |address: &str| key(address.parse().unwrap(), "10.0.0.2:2".parse().unwrap(), 7).namespace;
        assert_eq!(of("127.0.0.2:1"), 7);
        assert_eq!(of("[::1]:1"), 7);
        assert_eq!(of("10.0.0.1:1"), 0);
        assert_eq!(of("[2001:db8::1]:1"), 0);
    }
}
