//! Memory of sessions that do nothing.
//!
//! The server is a stand-in that lets everybody in: a thousand backends of PostgreSQL would take more memory than what
//! is measured here.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use guard_tests::{Agent, AgentConfig, Postgres, wire};

use super::release_agent;

/// The most that the sessions of one listener may be in the bench's configuration.
const LIMITS: &str = "\n[proxy]\nmax_connections = 10000\n";

/// Memory per session in KiB.
pub fn measure(sessions: u32) -> Result<BTreeMap<String, f64>> {
    println!("idle: {sessions} sessions ..");
    let postgres = Postgres::start()?;
    let stand_in = stand_in()?;
    let config = AgentConfig {
        program: Some(release_agent()),
        extra: LIMITS.to_owned(),
        upstream: Some(stand_in),
        ..AgentConfig::default()
    };
    let agent = Agent::start(&config, &postgres)?;
    let before = agent.resident_kib()?;
    let clients: Vec<_> = (0..sessions).map(|_| log_in(agent.proxy())).collect::<Result<_>>()?;
    // Buffers of a login are given back.
    thread::sleep(Duration::from_secs(1));
    let after = agent.resident_kib()?;
    drop(clients);
    #[expect(clippy::cast_precision_loss, reason = "memory in KiB is far below 2^52")]
    let each = after.saturating_sub(before) as f64 / f64::from(sessions);
    println!(
        "{sessions} idle sessions: {each:.1} KiB each, the agent {before} KiB before and {after} KiB after"
    );
    Ok(BTreeMap::from([
        ("idle_sessions".to_owned(), f64::from(sessions)),
        ("idle_session_kib".to_owned(), each),
    ]))
}

fn log_in(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).context("connecting")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(&wire::startup("idle", "idle"))?;
    let mut answer = [0; 256];
    let mut seen = Vec::new();
    // ReadyForQuery ends the login.
    while !seen.ends_with(b"Z\0\0\0\x05I") {
        let read = stream.read(&mut answer).context("logging in")?;
        anyhow::ensure!(read > 0, "the connection ended in its login: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&answer[..read]);
    }
    Ok(stream)
}

/// A server that says yes to every startup packet and then nothing.
fn stand_in() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().flatten() {
            held.extend(welcome(stream));
        }
    });
    Ok(address)
}

fn welcome(mut stream: TcpStream) -> Option<TcpStream> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let rest = u32::from_be_bytes(length).checked_sub(4).filter(|rest| *rest < 1024)?;
    stream.read_exact(&mut vec![0; rest as usize]).ok()?;
    let mut answer = wire::message(b'R', &[0; 4]);
    answer.extend(wire::message(b'S', b"server_version\x0015.0\0"));
    answer.extend(wire::message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]));
    answer.extend(wire::message(b'Z', b"I"));
    stream.write_all(&answer).ok()?;
    Some(stream)
}
