//! Free TCP ports on the loopback address.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddress, UnixListener},
    },
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};

/// Below those that the kernel gives to clients: no connection of another test takes one of them.
const PORTS: Range<u16> = 12_000..32_000;

/// Where this process looks next; each starts elsewhere.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// An address on which nothing listens, and that no other test gets while this process lives.
pub fn free() -> Result<SocketAddr> {
    let (start, count) = (process::id().wrapping_mul(7), u32::from(PORTS.end - PORTS.start));
    PORTS
        .map(|_| start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count)
        .filter_map(|offset| u16::try_from(offset).ok().map(|offset| PORTS.start + offset))
        .find_map(|port| reserve(port).then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
        .context("no free port on 127.0.0.1")
}

/// Takes a port for this process, by a name that ends with it.
fn reserve(port: u16) -> bool {
    let name = format!("guard-tests-port-{port}");
    let Ok(address) = UnixAddress::from_abstract_name(name) else { return false };
    let Ok(mark) = UnixListener::bind_addr(&address) else { return false };
    let free = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    if free {
        // Kept until the process ends.
        std::mem::forget(mark);
    }
    free
}

/// Whether something accepts connections there.
pub fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}
