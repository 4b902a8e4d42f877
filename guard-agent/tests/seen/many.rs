//! Many clients: none missed, none wrong.

use std::{
    collections::{BTreeSet, HashMap},
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use guard_agent::{config::SensorConfig, sensor::Watch};
use nix::{
    sys::wait::waitpid,
    unistd::{ForkResult, fork},
};

use crate::sensor::{Sensor, assert_attested, listen, serve};

/// Starts `count` programs at `rate` per second; gives the number of each by its pid.
fn start_clients(address: SocketAddr, count: u32, rate: u32) -> (HashMap<u32, u32>, Duration) {
    let program = guard_tests::binaries::path("guard-short-client").unwrap();
    let began = Instant::now();
    let (mut pids, mut running) = (HashMap::new(), std::collections::VecDeque::new());
    for number in 0..count {
        let due = began + Duration::from_secs(1) * number / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let child = Command::new(&program)
            .args(["tcp", &address.to_string(), &format!("client-{number}"), "d"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        pids.insert(child.id(), number);
        running.push_back(child);
        while running.len() > 64 {
            assert!(running.pop_front().unwrap().wait().unwrap().success());
        }
    }
    let took = began.elapsed();
    running.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
    (pids, took)
}

#[test]
fn ten_thousand_short_lived_clients_are_each_attributed_rightly() {
    const CLIENTS: u32 = 10_000;
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let clients = thread::spawn(move || start_clients(address, CLIENTS, 500));
    while !clients.is_finished() {
        sensor.take();
        thread::sleep(Duration::from_millis(5));
    }
    let (pids, took) = clients.join().unwrap();
    eprintln!("{:.0} clients per second", f64::from(CLIENTS) / took.as_secs_f64());
    sensor.until("all clients", |sensor| sensor.accepted.len() >= CLIENTS as usize);
    assert!(sensor.lost.is_empty(), "{:?}", sensor.lost);
    let mut seen = BTreeSet::new();
    for accepted in &sensor.accepted {
        let workload = &accepted.workload;
        assert_attested(workload);
        // A pid may have come round: the argument names the client.
        let number: u32 = workload.argv[3].strip_prefix("client-").unwrap().parse().unwrap();
        assert!(workload.executable.ends_with("/guard-short-client"), "{workload:?}");
        assert!(seen.insert(number), "client {number} twice");
        if let Some(expected) = pids.get(&workload.pid) {
            assert!(pids.len() < CLIENTS as usize || *expected == number, "{workload:?}");
        } else {
            panic!("nobody started {workload:?}");
        }
        assert_eq!(workload.ancestry[0].pid, std::process::id());
    }
    assert_eq!(seen.len(), CLIENTS as usize);
    sensor.until("all ends", |sensor| sensor.closed.len() >= CLIENTS as usize);
}

/// Neither exec nor time: forked, connected and gone within a millisecond.
#[test]
fn processes_of_less_than_a_millisecond_are_named() {
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    serve(listener);
    let mut expected = BTreeSet::new();
    let port = address.port().to_be();
    for _ in 0..300 {
        // SAFETY: the child makes system calls alone, and ends.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                // SAFETY: plain system calls on a structure of the size that is told.
                unsafe {
                    let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
                    let mut to: libc::sockaddr_in = std::mem::zeroed();
                    to.sin_family = libc::AF_INET as u16;
                    to.sin_port = port;
                    to.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
                    let length = size_of::<libc::sockaddr_in>() as u32;
                    let result = libc::connect(socket, (&raw const to).cast(), length);
                    libc::_exit(i32::from(result != 0));
                }
            }
            ForkResult::Parent { child } => {
                expected.insert(u32::try_from(child.as_raw()).unwrap());
                waitpid(child, None).unwrap();
            }
        }
    }
    sensor.until("300 connections", |sensor| sensor.accepted.len() >= 300);
    for accepted in &sensor.accepted {
        assert_attested(&accepted.workload);
        assert!(expected.remove(&accepted.workload.pid), "{:?}", accepted.workload);
        assert_eq!(accepted.workload.ancestry[0].pid, std::process::id());
    }
}

/// The smallest ring, and more at once than it holds: what is lost is counted, all of it.
#[test]
fn a_full_ring_loses_nothing_uncounted() {
    let (listener, address) = listen("127.0.0.1:0");
    let watch = Watch { database_ports: [address.port()].into(), ..Watch::default() };
    let config = SensorConfig { ring_kib: 64, ..SensorConfig::default() };
    let Some(mut sensor) = Sensor::with(watch, &config) else { return };
    let accepted_at = thread::spawn(move || accept(&listener, 4_000));
    let dialling: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..1_000 {
                    drop(TcpStream::connect(address).unwrap());
                }
            })
        })
        .collect();
    dialling.into_iter().for_each(|thread| thread.join().unwrap());
    accepted_at.join().unwrap();
    let lost = |sensor: &Sensor, kind: &str| -> u64 {
        sensor.lost.iter().filter(|lost| lost.kind == kind).map(|lost| lost.lost).sum()
    };
    sensor.until("4000 connections, seen or lost", |sensor| {
        sensor.accepted.len() as u64 + lost(sensor, "accepted") >= 4_000
    });
    for lost in &sensor.lost {
        assert_eq!(lost.by_cpu.iter().map(|(_, lost)| lost).sum::<u64>(), lost.lost, "{lost:?}");
        assert!(lost.since <= lost.until);
    }
}

fn accept(listener: &TcpListener, count: usize) {
    listener.incoming().take(count).for_each(drop);
}

/// Opens connections to the ports that it is given, says so, and holds them until its input ends.
const HOLD: &str = "import socket, sys, resource\n\
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)\n\
    held = [socket.create_connection(('127.0.0.1', int(sys.argv[1])), source_address=('127.0.1.' + sys.argv[2], 0)) \
    for _ in range(int(sys.argv[3]))]\nprint('ready', flush=True)\nsys.stdin.read()";
const ACCEPT: &str = "import socket, sys, resource\n\
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)\n\
    s = socket.create_server(('127.0.0.1', 0), backlog=4096); print(s.getsockname()[1], flush=True)\n\
    held = [s.accept()[0] for _ in range(int(sys.argv[1]))]\nsys.stdin.read()";

fn helper(script: &str, arguments: &[String]) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new("python3")
        .args(["-c", script])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

fn line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

#[test]
fn fifty_thousand_connections_are_open_at_once() {
    const SERVERS: usize = 5;
    const EACH: usize = 10_000;
    if guard_tests::skip::without(&[guard_tests::skip::Need::Ebpf]) {
        return;
    }
    let mut servers: Vec<_> = (0..SERVERS).map(|_| helper(ACCEPT, &[EACH.to_string()])).collect();
    let ports: Vec<u16> = servers.iter_mut().map(|(_, output)| line(output).parse().unwrap()).collect();
    let watch = Watch { database_ports: ports.iter().copied().collect(), ..Watch::default() };
    // What is counted here is the table, not the ring: room for all of them, however busy the machine is.
    let config = SensorConfig { ring_kib: 65_536, ..SensorConfig::default() };
    let mut sensor = Sensor::with(watch, &config).unwrap();
    let mut clients: Vec<_> = ports
        .iter()
        .zip(1..)
        .map(|(port, host)| helper(HOLD, &[port.to_string(), i32::to_string(&host), EACH.to_string()]))
        .collect();
    sensor.until("50,000 connections", |sensor| sensor.accepted.len() >= SERVERS * EACH);
    clients.iter_mut().for_each(|(_, output)| assert_eq!(line(output), "ready"));
    let pids: BTreeSet<u32> = clients.iter().map(|(child, _)| child.id()).collect();
    let others: Vec<_> =
        sensor.accepted.iter().filter(|accepted| !pids.contains(&accepted.workload.pid)).collect();
    assert!(others.is_empty(), "{} others, such as {:?}", others.len(), others[0]);
    assert!(sensor.closed.is_empty() && sensor.lost.is_empty(), "{:?}", sensor.lost);
    // With all of these open, one more is told of as fast as ever.
    let (listener, address) = listen("127.0.0.1:0");
    serve(listener);
    let mut watched: BTreeSet<u16> = ports.iter().copied().collect();
    watched.insert(address.port());
    sensor.handle.watch(Watch { database_ports: watched, ..Watch::default() });
    let began = Instant::now();
    drop(TcpStream::connect(address).unwrap());
    sensor.until("one more", |sensor| sensor.accepted.len() > SERVERS * EACH);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for (child, _) in clients.iter_mut().chain(&mut servers) {
        drop(child.stdin.take());
    }
    for (mut child, _) in clients.into_iter().chain(servers) {
        assert!(child.wait().unwrap().success());
    }
    // So many at one moment are more than the queue takes: what does not fit is counted.
    sensor.until("all ends", |sensor| {
        let lost: u64 = sensor.lost.iter().map(|lost| lost.lost).sum();
        sensor.closed.len() as u64 + lost > (SERVERS * EACH) as u64
    });
}
