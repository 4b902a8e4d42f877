//! Servers in network namespaces of their own.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    process::{Child, Command, Stdio},
};

use guard_agent::{sensor::Watch, servers};
use guard_tests::skip::{self, Need};

use crate::sensor::{Sensor, assert_attested, listen, serve};

/// Listens on a port and a unix socket, says so, and answers nobody.
const SERVER: &str = "import os, socket, sys\n\
    s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n\
    u = socket.socket(socket.AF_UNIX); u.bind(sys.argv[2]); u.listen()\n\
    print('ready', flush=True)\nheld = []\n\
    import select\n\
    while True:\n    for l in select.select([s, u], [], [])[0]: held.append(l.accept())";

/// A server in a new network namespace; ends with the test.
struct Apart {
    child: Child,
    namespace: u64,
}

impl Apart {
    /// `program` runs the server's script: python under any name.
    fn start(program: &str, port: u16, socket: &str) -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up; exec \"$@\"", "sh", program, "-c", SERVER])
            .args([&port.to_string(), socket])
            .env("PYTHONHOME", "/usr")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let namespace = std::fs::metadata(format!("/proc/{}/ns/net", child.id())).unwrap().ino();
        Self { child, namespace }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client in the same namespace that stays connected for a while.
    fn client(&self, port: u16, seconds: f32) -> Child {
        let script = format!(
            "import socket, time; s = socket.create_connection(('127.0.0.1', {port})); time.sleep({seconds})"
        );
        Command::new("nsenter")
            .args(["--net", "--target", &self.pid().to_string(), "python3", "-c", &script])
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_same_port_in_two_namespaces_is_two_places() {
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    serve(listener);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let apart = Apart::start("/usr/bin/python3", address.port(), socket.to_str().unwrap());
    let inside = apart.client(address.port(), 0.0);
    let pid = inside.id();
    crate::sensor::finish(inside);
    let accepted = sensor.one();
    assert_eq!(accepted.namespace, apart.namespace);
    assert_eq!(accepted.workload.pid, pid);
    assert_attested(&accepted.workload);
    assert_eq!(u64::from(accepted.workload.namespaces.unwrap().net), apart.namespace);
    drop(std::net::TcpStream::connect(address).unwrap());
    sensor.until("the connection beside", |sensor| sensor.accepted.len() >= 2);
    let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    assert_eq!(sensor.accepted[1].namespace, own);
    assert_eq!(sensor.accepted[1].workload.pid, std::process::id());
}

#[test]
fn connections_from_before_are_found_in_other_namespaces() {
    if skip::without(&[Need::Ebpf]) {
        return;
    }
    let port = guard_tests::ports::free().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let apart = Apart::start("/usr/bin/python3", port, folder.path().join("s").to_str().unwrap());
    let mut inside = apart.client(port, 30.0);
    let connected = || {
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", apart.pid())).unwrap();
        table.lines().filter(|line| line.contains(" 01 ")).count() == 2
    };
    guard_tests::run::eventually("the client inside", std::time::Duration::from_secs(10), || Ok(connected()))
        .unwrap();
    let watch = Watch {
        database_ports: [port].into(),
        namespaces: [(apart.namespace, apart.pid())].into(),
        ..Watch::default()
    };
    let mut sensor = Sensor::watching(watch).unwrap();
    let accepted = sensor.one();
    assert!(accepted.preexisting);
    assert_eq!((accepted.namespace, accepted.workload.pid), (apart.namespace, inside.id()));
    assert_eq!(accepted.workload.known_by.as_ref().unwrap().process, "socket-owner");
    inside.kill().unwrap();
    inside.wait().unwrap();
    drop(apart);
    assert_eq!(sensor.ending().socket, accepted.socket);
}

#[test]
fn a_server_in_a_namespace_of_its_own_is_found() {
    if skip::without(&[Need::Ebpf]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("postgres");
    std::fs::copy(std::fs::canonicalize("/usr/bin/python3").unwrap(), &program).unwrap();
    let port = guard_tests::ports::free().unwrap().port();
    let socket = folder.path().join(format!(".s.PGSQL.{port}"));
    let apart = Apart::start(program.to_str().unwrap(), port, socket.to_str().unwrap());
    let found = servers::discover().into_iter().find(|server| server.pid == Some(apart.pid())).unwrap();
    let elsewhere = found.elsewhere.clone().unwrap();
    assert_eq!(elsewhere.namespace, Some(apart.namespace));
    assert_eq!(found.unix_sockets, [socket]);
    assert_eq!(found.addresses, [format!("127.0.0.1:{port}").parse().unwrap()]);
    assert!(found.name.starts_with(&format!("postgresql-{port}@")), "{}", found.name);
    // Its loopback is not this one's, and may trust whoever comes by it.
    assert_eq!(found.reachable_addresses().count(), 0);
    assert!(found.reachable_sockets().is_empty());
}

#[test]
fn unix_connections_from_before_are_found() {
    use std::os::unix::net::{UnixListener, UnixStream};
    if skip::without(&[Need::Ebpf]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".s.PGSQL.5432");
    let listener = UnixListener::bind(&path).unwrap();
    let script =
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()";
    let mut client = Command::new("python3")
        .args(["-c", script, path.to_str().unwrap()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let (server, _) = listener.accept().unwrap();
    let watch = Watch { unix_sockets: [path.clone()].into(), ..Watch::default() };
    let mut sensor = Sensor::watching(watch).unwrap();
    let accepted = sensor.one();
    assert!(accepted.preexisting);
    assert_eq!((accepted.workload.pid, accepted.server_pid), (client.id(), std::process::id()));
    // One that is opened now is told once.
    let later = UnixStream::connect(&path).unwrap();
    let (accepted_later, _) = listener.accept().unwrap();
    sensor.until("the later one", |sensor| sensor.accepted.len() >= 2);
    assert!(!sensor.accepted[1].preexisting);
    drop((later, accepted_later, server, client.stdin.take()));
    client.wait().unwrap();
    sensor.until("both ends", |sensor| sensor.closed.len() >= 2);
    assert_eq!(sensor.accepted.len(), 2);
}
