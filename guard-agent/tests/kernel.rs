//! The sensor on this machine's own kernel. Needs root; without it, every test counts as skipped.
//!
//! Each test watches ports, sockets and cgroups of its own alone, so that others may use the kernel at the same
//! time.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use guard_agent::{
    config::{IdentityConfig, SensorConfig},
    identity::Workload,
    sensor::{self, Accepted, Closed, Endpoint, SensorEvent, SensorHandle, Watch},
};
use guard_common::audit::v1::workload::Evidence;
use guard_tests::skip::{self, Need};
use tokio::sync::mpsc;

#[path = "kernel/ladder.rs"]
mod ladder;

/// A running sensor that keeps what it said.
struct Sensor {
    handle: SensorHandle,
    events: mpsc::Receiver<SensorEvent>,
    accepted: Vec<Accepted>,
    closed: Vec<Closed>,
}

impl Sensor {
    fn start(config: &SensorConfig) -> Option<Self> {
        let (handle, events) = sensor::start(config, &IdentityConfig::default()).unwrap();
        if config.ebpf {
            if skip::without(&[Need::Ebpf]) {
                return None;
            }
            let state = handle.state();
            let whole = config.without.is_empty();
            assert!(state.rung == "full" || !whole, "{}: {:?}", state.rung, state.missing);
        }
        Some(Self { handle, events, accepted: Vec::new(), closed: Vec::new() })
    }

    fn watching(watch: Watch) -> Option<Self> {
        let sensor = Self::start(&SensorConfig { ring_kib: 2048, ..SensorConfig::default() })?;
        sensor.handle.watch(watch);
        Some(sensor)
    }

    fn watching_port(port: u16) -> Option<Self> {
        Self::watching(Watch { database_ports: BTreeSet::from([port]), ..Watch::default() })
    }

    /// Takes events until `enough`.
    fn until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + patience();
        while !enough(self) {
            match self.events.try_recv() {
                Ok(SensorEvent::Accepted(accepted)) => self.accepted.push(accepted),
                Ok(SensorEvent::Closed(closed)) => self.closed.push(closed),
                Ok(SensorEvent::Lost(lost)) => panic!("lost: {lost:?}"),
                Ok(SensorEvent::State(_) | SensorEvent::Refused(_) | SensorEvent::Connected(_)) => {}
                Err(_) => {
                    let (accepted, closed) = (self.accepted.len(), self.closed.len());
                    assert!(Instant::now() < deadline, "no {what}: {accepted} accepted, {closed} closed");
                    thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }

    fn one(&mut self) -> Accepted {
        self.until("connection", |sensor| !sensor.accepted.is_empty());
        self.accepted[0].clone()
    }

    fn ending(&mut self) -> Closed {
        self.until("end of a connection", |sensor| !sensor.closed.is_empty());
        self.closed[0].clone()
    }
}

/// How long something may take: on an emulated machine everything does.
fn patience() -> Duration {
    Duration::from_secs(if std::env::var_os("GUARD_EMULATED").is_some() { 90 } else { 10 })
}

/// Who a client of the proxy is. A proxy waits half a second for that, in which an emulated machine does next to nothing:
/// there it is asked again.
fn attested(sensor: &Sensor, client: SocketAddr, local: SocketAddr) -> std::sync::Arc<Workload> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let deadline = Instant::now() + patience();
    loop {
        let workload = runtime.block_on(sensor.handle.attest_tcp(client, local));
        let again = std::env::var_os("GUARD_EMULATED").is_some() && Instant::now() < deadline;
        if workload.evidence() != Evidence::Address || !again {
            return workload;
        }
    }
}

/// Accepts and reads to the end, for as long as the test runs.
fn serve(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
}

fn listen(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn bash(script: &str) -> Child {
    Command::new("/bin/bash").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap()
}

/// A client in bash that connects and is gone at once.
fn dial(address: SocketAddr) -> String {
    format!("exec 3<>/dev/tcp/{}/{}", address.ip(), address.port())
}

fn finish(mut child: Child) {
    assert!(child.wait().unwrap().success());
}

fn executable_of(name: &str) -> String {
    fs::canonicalize(name).unwrap().to_string_lossy().into_owned()
}

fn assert_attested(workload: &Workload) {
    assert_eq!(workload.evidence(), Evidence::Attested, "{workload:?}");
}

#[test]
fn hundreds_of_short_lived_clients_are_told_apart() {
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    serve(listener);
    let mut pids = HashMap::new();
    for round in 0..75 {
        let children: Vec<Child> =
            (0..4).map(|number| bash(&format!(": {round}.{number}; {}", dial(address)))).collect();
        for (number, child) in children.into_iter().enumerate() {
            pids.insert(child.id(), format!(": {round}.{number};"));
            finish(child);
        }
    }
    sensor.until("300 connections", |sensor| sensor.accepted.len() >= 300);
    let mut seen = HashSet::new();
    for accepted in &sensor.accepted {
        let workload = &accepted.workload;
        assert_attested(workload);
        assert!(workload.argv[2].starts_with(&pids[&workload.pid]), "{workload:?}");
        assert_eq!(workload.executable, executable_of("/bin/bash"));
        assert_eq!(workload.ancestry[0].pid, std::process::id());
        assert!(seen.insert(workload.pid));
    }
    assert_eq!(seen.len(), pids.len());
}

#[test]
fn every_family_is_seen() {
    for (bind, to) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "::1"),
        ("[::]:0", "127.0.0.1"),
        ("[::]:0", "::ffff:127.0.0.1"),
    ] {
        let (listener, address) = listen(bind);
        let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
        let client = TcpStream::connect((to, address.port())).unwrap();
        let (server, _) = listener.accept().unwrap();
        let accepted = sensor.one();
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let expected = Endpoint::Tcp {
            client: canonical(client.local_addr().unwrap()),
            server: canonical(server.local_addr().unwrap()),
        };
        assert_eq!(accepted.endpoint, expected, "{bind} {to}");
        assert_attested(&accepted.workload);
        assert_eq!(accepted.workload.pid, std::process::id());
    }
}

#[test]
fn bytes_agree_with_what_was_sent() {
    for server_first in [false, true] {
        let (listener, address) = listen("127.0.0.1:0");
        let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[1; 123_456]).unwrap();
        server.read_exact(&mut [0; 123_456]).unwrap();
        server.write_all(&[2; 7_891]).unwrap();
        client.read_exact(&mut [0; 7_891]).unwrap();
        if server_first {
            drop(server);
            thread::sleep(Duration::from_millis(50));
            drop(client);
        } else {
            drop(client);
            thread::sleep(Duration::from_millis(50));
            drop(server);
        }
        let socket = sensor.one().socket;
        let closed = sensor.ending();
        assert_eq!(closed.socket, socket);
        let bytes = closed.bytes.unwrap();
        assert_eq!((bytes.from_client, bytes.to_client), (123_456, 7_891), "server first: {server_first}");
    }
}

#[test]
fn a_fork_without_exec_is_a_process_of_its_own() {
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    serve(listener);
    let parent = bash(&format!("( {} ) & wait", dial(address)));
    let parent_pid = parent.id();
    finish(parent);
    let workload = sensor.one().workload;
    assert_attested(&workload);
    assert_ne!(workload.pid, parent_pid);
    assert_eq!(workload.ancestry[0].pid, parent_pid);
    assert_eq!(workload.executable, executable_of("/bin/bash"));
}

#[test]
fn earlier_programs_of_a_process_are_in_its_ancestry() {
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    serve(listener);
    let child = bash(&format!("exec /usr/bin/env bash -c '{}'", dial(address)));
    let pid = child.id();
    finish(child);
    let workload = sensor.one().workload;
    assert_eq!(workload.pid, pid);
    let chain: Vec<(u32, &str)> = workload
        .ancestry
        .iter()
        .take(3)
        .map(|ancestor| (ancestor.pid, ancestor.executable.as_str()))
        .collect();
    let (env, shell) = (executable_of("/usr/bin/env"), executable_of("/bin/bash"));
    assert_eq!(chain[0], (pid, env.as_str()));
    assert_eq!(chain[1], (pid, shell.as_str()));
    assert_eq!(chain[2].0, std::process::id());
}

/// A cgroup that goes with the test.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        let root = sensor::cgroup_root().unwrap();
        let slice = root.join("system.slice");
        let _ = fs::create_dir(&slice);
        let folder = slice.join(name);
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
        // Others may be in it: it stays then.
        let _ = self.0.parent().map(fs::remove_dir);
    }
}

#[test]
fn the_unit_is_known_after_its_cgroup_is_gone() {
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    serve(listener);
    let unit = format!("guard-test-{}.service", std::process::id());
    let cgroup = Cgroup::new(&unit);
    let procs = cgroup.0.join("cgroup.procs");
    finish(bash(&format!("echo $$ > {}; {}", procs.display(), dial(address))));
    drop(cgroup);
    let workload = sensor.one().workload;
    assert_eq!(workload.unit, unit);
    assert_eq!(workload.cgroup, format!("/system.slice/{unit}"));
}

#[test]
fn the_proxy_learns_who_its_clients_are() {
    let (listener, address) = listen("127.0.0.1:0");
    let watch = Watch { proxy_ports: BTreeSet::from([address.port()]), ..Watch::default() };
    let Some(sensor) = Sensor::watching(watch) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..50 {
        let child = bash(&dial(address));
        let pid = child.id();
        finish(child);
        let (accepted, client) = listener.accept().unwrap();
        let local = accepted.local_addr().unwrap();
        let workload = attested(&sensor, client, local);
        assert_attested(&workload);
        assert_eq!(workload.pid, pid);
        assert_eq!(workload.executable, executable_of("/bin/bash"));
    }
    let stranger = runtime.block_on(sensor.handle.attest_tcp("192.0.2.1:9".parse().unwrap(), address));
    assert_eq!(stranger.evidence(), Evidence::Address);
    assert_eq!(stranger.remote_address, "192.0.2.1");
    let peer = runtime.block_on(sensor.handle.attest_unix(std::process::id(), 0, 0));
    assert_attested(&peer);
    assert_eq!(peer.executable, std::env::current_exe().unwrap().to_string_lossy());
}

#[test]
fn connections_from_before_are_found() {
    let (listener, address) = listen("127.0.0.1:0");
    let client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    let accepted = sensor.one();
    assert!(accepted.preexisting);
    assert_eq!(accepted.workload.pid, std::process::id());
    assert_eq!(accepted.workload.evidence(), Evidence::Reported);
    drop((client, server));
    assert_eq!(sensor.ending().socket, accepted.socket);
}

fn python(script: &str, argument: &Path) -> Child {
    Command::new("python3").arg("-c").arg(script).arg(argument).stdin(Stdio::null()).spawn().unwrap()
}

#[test]
fn unix_clients_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".s.PGSQL.5432");
    let listener = UnixListener::bind(&path).unwrap();
    let watch = Watch { unix_sockets: BTreeSet::from([path.clone()]), ..Watch::default() };
    let Some(mut sensor) = Sensor::watching(watch) else { return };
    let state = sensor.handle.state();
    // Older kernels than 6.3 do not tell of bytes on unix sockets, and older ones than 6.7 refuse no connect to them; a
    // host of older hierarchies says what it lacks. None of it is needed here.
    let elsewhere = ["sock_sent", "connects to unix sockets", "no cgroup v2 hierarchy"];
    let missing = state.missing.iter().filter(|said| elsewhere.iter().all(|part| !said.contains(part)));
    assert_eq!(missing.count(), 0, "{:?}", state.missing);
    const CONNECT: &str = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
    let mut pids = HashSet::new();
    for _ in 0..40 {
        let child = python(CONNECT, &path);
        pids.insert(child.id());
        finish(child);
    }
    sensor.until("40 connections", |sensor| sensor.accepted.len() >= 40);
    for accepted in &sensor.accepted {
        assert_attested(&accepted.workload);
        assert!(matches!(&accepted.endpoint, Endpoint::Unix { path: found, .. } if *found == path));
        assert!(pids.remove(&accepted.workload.pid), "{:?}", accepted.workload);
        assert_eq!(accepted.workload.argv[1..3], ["-c", CONNECT]);
    }
    sensor.until("40 ends", |sensor| sensor.closed.len() >= 40);
}

#[test]
fn both_sockets_of_a_unix_connection_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let watch = Watch { unix_sockets: BTreeSet::from([path.clone()]), ..Watch::default() };
    let Some(mut sensor) = Sensor::watching(watch) else { return };
    let client = UnixStream::connect(&path).unwrap();
    let (server, _) = listener.accept().unwrap();
    let accepted = sensor.one();
    let inode = |fd: i32| {
        let link = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        link.to_string_lossy().trim_start_matches("socket:[").trim_end_matches(']').parse::<u64>().unwrap()
    };
    use std::os::fd::AsRawFd;
    let peer_inode = inode(client.as_raw_fd());
    assert_eq!(accepted.endpoint, Endpoint::Unix { path, peer_inode });
    assert_eq!(accepted.socket, sensor::SocketId::Inode(inode(server.as_raw_fd())));
    drop((client, server));
    assert_eq!(sensor.ending().socket, accepted.socket);
}

#[test]
fn doctor_tells_whether_everything_attaches() {
    let found = sensor::probe(&SensorConfig::default());
    assert!(!found.state.programs.is_empty() || !found.state.missing.is_empty());
    if skip::without(&[Need::Ebpf]) {
        return;
    }
    assert_eq!(found.state.rung, "full", "{:?}", found.state.missing);
    let bytes = |name: &str| name == "sock_sent" || name == "sock_received";
    let all = found.state.programs.iter().all(|program| program.attached || bytes(&program.name));
    assert!(all, "{:?}", found.state);
    assert!(found.cgroup_root.is_some());
}

/// A kernel refuses what takes its verifier more than a million steps, and older ones take more of them than this one does.
#[test]
fn every_program_is_cheap_to_verify() {
    let (_listener, address) = listen("127.0.0.1:0");
    let Some(_sensor) = Sensor::watching_port(address.port()) else { return };
    let mut steps = Vec::new();
    for descriptor in fs::read_dir("/proc/self/fdinfo").unwrap().flatten() {
        // That of another test may be closed by now.
        let told = fs::read_to_string(descriptor.path()).unwrap_or_default();
        let number = |word: &str| told.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok());
        if let (Some(count), Some(id)) = (number("verified_insns:"), number("prog_id:")) {
            steps.push((count, id));
        }
    }
    let name = |id: u32| {
        let program = aya::programs::loaded_programs().flatten().find(|program| program.id() == id);
        program.and_then(|program| program.name_as_str().map(str::to_owned)).unwrap_or_default()
    };
    let many: Vec<_> =
        steps.iter().filter(|(count, _)| *count >= 100_000).map(|(count, id)| (count, name(*id))).collect();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version: Vec<u32> = release.split(['.', '-']).map_while(|part| part.parse().ok()).take(2).collect();
    assert!(steps.len() > 10 || version < vec![5, 16], "kernels since 5.16 tell: {steps:?}");
    assert!(many.is_empty(), "{many:?}");
    let most = steps.iter().max().map(|(count, id)| (*count, name(*id)));
    eprintln!("at most {most:?}");
}
