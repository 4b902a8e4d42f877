//! Users, descriptors, pids, programs: each that can be changed behind a connection.

use std::{
    ffi::{CStr, CString},
    fs,
    io::{Read, Write},
    process::Command,
    time::{Duration, Instant},
};

use guard_agent::{config::SensorConfig, sensor::Watch};
use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::Pid,
};

use crate::sensor::{Sensor, assert_attested, dial, finish, listen, python, serve, serve_unix};

#[test]
fn users_are_those_at_the_time_of_connecting() {
    const CONNECT: &str = "import os, socket, sys\nos.setresuid(65534, 0, 0)\n\
        s = socket.create_connection((sys.argv[1], sys.argv[2]))\nos.setresuid(65534, 65534, 65534)\ns.close()";
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    serve(listener);
    finish(python(CONNECT, &[&address.ip().to_string(), &address.port().to_string()]));
    let workload = sensor.one().workload;
    assert_attested(&workload);
    assert_eq!((workload.uid, workload.euid, workload.user.as_str()), (65534, 0, "nobody"));
}

#[test]
fn users_of_unix_clients_are_those_at_the_time_of_connecting() {
    const CONNECT: &str = "import os, socket, sys, time\nos.setresuid(0, 65534, 0)\n\
        s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\nos.setresuid(0, 0, 0)\ntime.sleep(0.3)";
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = folder.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let watch = Watch { unix_sockets: [path.clone()].into(), ..Watch::default() };
    let Some(mut sensor) = Sensor::watching(watch) else { return };
    serve_unix(listener);
    finish(python(CONNECT, &[path.to_str().unwrap()]));
    let workload = sensor.one().workload;
    assert_attested(&workload);
    assert_eq!(workload.euid, 65534);
    assert_eq!(workload.known_by.as_ref().unwrap().process, "peer");
}

#[test]
fn abstract_sockets_are_watched_as_others_are() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("guard-test-{}/.s.PGSQL.5432", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let watch = Watch { unix_sockets: [format!("@{name}").into()].into(), ..Watch::default() };
    let Some(mut sensor) = Sensor::watching(watch) else { return };
    serve_unix(listener);
    let child =
        python("import socket, sys; socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[1])", &[&name]);
    let pid = child.id();
    finish(child);
    let accepted = sensor.one();
    assert_eq!(accepted.workload.pid, pid);
    assert_attested(&accepted.workload);
    assert!(matches!(
        &accepted.endpoint,
        guard_agent::sensor::Endpoint::Unix { path, .. } if path.to_str() == Some(&format!("@{name}"))
    ));
    sensor.ending();
}

/// Whoever has connected is named, whoever has the descriptor by now: it has let the other one in. What the other one
/// does with it is counted.
#[test]
fn a_descriptor_that_is_passed_on_stays_its_makers() {
    const PASS: &str = "import os, socket, sys\na, b = socket.socketpair(socket.AF_UNIX)\n\
        s = socket.create_connection((sys.argv[1], sys.argv[2]))\n\
        if os.fork() == 0:\n    s.close(); a.close(); _, fds, _, _ = socket.recv_fds(b, 1, 1)\n    \
        t = socket.socket(fileno=fds[0]); b.recv(1); t.sendall(b'x' * 1000); t.close(); os._exit(0)\n\
        socket.send_fds(a, [b'.'], [s.fileno()]); s.close(); a.send(b'!'); a.close(); os.wait()";
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    serve(listener);
    let child = python(PASS, &[&address.ip().to_string(), &address.port().to_string()]);
    let pid = child.id();
    finish(child);
    let accepted = sensor.one();
    assert_eq!(accepted.workload.pid, pid);
    assert_attested(&accepted.workload);
    assert_eq!(sensor.ending().bytes.unwrap().from_client, 1000);
    assert_eq!(sensor.accepted.len(), 1);
}

/// Starts a program under a pid that was chosen, and waits for its end. Nothing where the kernel does not let us.
fn run_as(pid: i32, argv: &[&str]) -> Option<()> {
    #[repr(C)]
    #[derive(Default)]
    struct Arguments {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    let words: Vec<CString> = argv.iter().map(|word| CString::new(*word).unwrap()).collect();
    let words: Vec<&CStr> = words.iter().map(CString::as_c_str).collect();
    let mut pointers: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let arguments = Arguments {
        exit_signal: libc::SIGCHLD as u64,
        set_tid: (&raw const pid) as u64,
        set_tid_size: 1,
        ..Arguments::default()
    };
    // SAFETY: as fork, with a structure of the size that is told; the child calls nothing but execv and _exit.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<Arguments>()) };
    if child == 0 {
        // SAFETY: the pointers end with a null and point to strings that live.
        unsafe {
            libc::execv(pointers[0], pointers.as_ptr());
            libc::_exit(127);
        }
    }
    if child < 0 {
        return None;
    }
    assert_eq!(child, i64::from(pid));
    assert!(matches!(waitpid(Pid::from_raw(pid), None), Ok(WaitStatus::Exited(_, 0))));
    Some(())
}

#[test]
fn a_pid_that_is_used_again_is_somebody_else() {
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    serve(listener);
    let limit: i32 = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap().trim().parse().unwrap();
    let pid = limit - 1 - i32::try_from(std::process::id() % 1000).unwrap();
    for number in 0..20 {
        let script = format!(": {number}; {}", dial(address));
        if run_as(pid, &["/bin/bash", "-c", &script]).is_none() {
            eprintln!("the kernel does not let a pid be chosen, or it is taken");
            return;
        }
    }
    sensor.until("20 connections", |sensor| sensor.accepted.len() >= 20);
    let mut started: Vec<u64> = Vec::new();
    for (number, accepted) in sensor.accepted.iter().enumerate() {
        assert_attested(&accepted.workload);
        assert_eq!(accepted.workload.pid, u32::try_from(pid).unwrap());
        assert!(accepted.workload.argv[2].starts_with(&format!(": {number};")), "{:?}", accepted.workload);
        started.push(accepted.workload.process_started_ns);
    }
    started.dedup();
    assert_eq!(started.len(), 20);
}

#[test]
fn a_program_is_known_by_its_contents_and_its_namespaces_by_their_numbers() {
    use std::os::unix::fs::MetadataExt;
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    serve(listener);
    let output = Command::new("sha256sum").arg("/bin/bash").output().unwrap();
    let sum = String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned();
    // Gone long before it is looked at: its file is not.
    finish(Command::new("/bin/bash").args(["-c", &dial(address)]).spawn().unwrap());
    let workload = sensor.one().workload;
    let file = workload.program_file.clone().unwrap();
    assert_eq!(file.inode, fs::metadata("/bin/bash").unwrap().ino());
    assert_eq!((file.sha256.as_str(), file.unhashed.as_str()), (sum.as_str(), ""));
    let own = |name: &str| fs::metadata(format!("/proc/self/ns/{name}")).unwrap().ino();
    let namespaces = workload.namespaces.unwrap();
    assert_eq!(u64::from(namespaces.pid), own("pid"));
    assert_eq!((u64::from(namespaces.mount), u64::from(namespaces.net)), (own("mnt"), own("net")));
    let known_by = workload.known_by.clone().unwrap();
    assert_eq!((known_by.process.as_str(), known_by.executable.as_str()), ("connect", "exec"));
    assert!(workload.ancestry.iter().all(|link| !link.known_by.is_empty() && link.started_ns > 0));
}

#[test]
fn ancestry_reaches_eight_up() {
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    serve(listener);
    let script = format!(
        "import os, socket, sys\nfor depth in range(12):\n    pid = os.fork()\n    if pid: os.waitpid(pid, 0); os._exit(0)\n\
         socket.create_connection(('{}', {})); os._exit(0)",
        address.ip(),
        address.port()
    );
    finish(python(&script, &[]));
    let workload = sensor.one().workload;
    assert_eq!(workload.ancestry.len(), 8);
    assert!(
        workload.ancestry.iter().all(|link| link.known_by == "fork" && link.executable.contains("python"))
    );
    assert_eq!(workload.known_by.as_ref().unwrap().executable, "fork");
}

#[test]
fn bytes_on_unix_sockets_agree_with_what_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let watch = Watch { unix_sockets: [path.clone()].into(), ..Watch::default() };
    let Some(mut sensor) = Sensor::watching(watch) else { return };
    let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  s.sendall(b'1' * 12345)\nleft = 6790\nwhile left: left -= len(s.recv(left))";
    for round in 0..3 {
        let client = python(script, &[path.to_str().unwrap()]);
        let (mut server, _) = listener.accept().unwrap();
        server.read_exact(&mut [0; 12_345]).unwrap();
        server.write_all(&[2; 6_789 + 1]).unwrap();
        finish(client);
        drop(server);
        sensor.until("the end", |sensor| sensor.closed.len() > round);
        let closed = &sensor.closed[round];
        let bytes = closed.bytes.unwrap();
        assert_eq!((bytes.from_client, bytes.to_client, closed.late), (12_345, 6_790, false));
    }
}

/// Each look at a message costs something: where there are many and none is for a database's unix socket, there is none, until
/// one is connected to.
#[test]
fn a_busy_host_has_bytes_of_unix_sockets_counted_when_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let watch = Watch { unix_sockets: [path.clone()].into(), ..Watch::default() };
    let config = SensorConfig { measure_cost: true, ..SensorConfig::default() };
    let Some(mut sensor) = Sensor::with(watch, &config) else { return };
    let begun = Instant::now();
    while messages_seen(&sensor, 10_000) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "they are still looked at");
    }
    let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\ns.recv(9)";
    for late in [true, false] {
        let client = python(script, &[path.to_str().unwrap()]);
        let (mut server, _) = listener.accept().unwrap();
        sensor.until("the beginning", |sensor| !sensor.accepted.is_empty());
        server.write_all(&[2; 9]).unwrap();
        finish(client);
        assert!(messages_seen(&sensor, 10_000) > 0, "until it has ended, and for a while after that");
        drop(server);
        sensor.until("the end", |sensor| !sensor.closed.is_empty());
        let closed = sensor.closed.remove(0);
        assert_eq!((closed.late, closed.bytes.unwrap().to_client), (late, 9));
        sensor.accepted.clear();
    }
}

/// Sends `count` messages over a socket of no database; gives how many messages on any were looked at meanwhile.
fn messages_seen(sensor: &Sensor, count: u32) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let looked = || {
        let state = runtime.block_on(sensor.handle.measured_state());
        let counting = state.programs.iter().filter(|program| program.name.starts_with("sock_"));
        assert_eq!(counting.clone().filter(|program| program.attached).count(), 2);
        counting.map(|program| program.runs).sum::<u64>()
    };
    let before = looked();
    let (mut one, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
    for _ in 0..count {
        one.write_all(&[0; 10]).unwrap();
        other.read_exact(&mut [0; 10]).unwrap();
    }
    looked() - before
}

/// The kernel makes the server's end of such a connection in the client's network namespace, as a container's over a mounted
/// socket: it is listed where neither the server nor the agent is.
#[test]
fn a_unix_connection_of_another_network_namespace_is_seen_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let watch = Watch { unix_sockets: [path.clone()].into(), ..Watch::default() };
    let Some(mut sensor) = Sensor::watching(watch) else { return };
    // Longer than two looks, and then more.
    let script = "import socket, sys, time\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  s.sendall(b'1' * 345)\ntime.sleep(2.5)\ns.sendall(b'2' * 6000)";
    let mut client = Command::new("unshare");
    client.args(["--net", "python3", "-c", script]).arg(&path);
    let client = client.spawn().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    sensor.one();
    server.read_exact(&mut [0; 345]).unwrap();
    server.read_exact(&mut [0; 6_000]).unwrap();
    sensor.take();
    assert!(sensor.closed.is_empty(), "it was open until now");
    finish(client);
    drop(server);
    sensor.until("the end", |sensor| !sensor.closed.is_empty());
    assert_eq!(sensor.closed[0].bytes.unwrap().from_client, 6_345);
}

/// The proxy knows what it sends.
#[test]
fn bytes_of_the_agents_own_unix_sockets_are_not_counted_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let watch = Watch { unix_sockets: [path.clone()].into(), ..Watch::default() };
    let Some(mut sensor) = Sensor::watching(watch) else { return };
    let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    sensor.one();
    client.write_all(&[1; 345]).unwrap();
    server.read_exact(&mut [0; 345]).unwrap();
    drop((client, server));
    sensor.until("the end", |sensor| !sensor.closed.is_empty());
    assert_eq!(sensor.closed[0].bytes, None);
}

/// What `TCP_INFO` says of the server's socket in the end is what is recorded, whoever ends first.
#[test]
fn bytes_agree_with_the_sockets_own() {
    use std::{
        io::{Read, Write},
        net::{Shutdown, TcpStream},
    };
    for (who, expected) in
        [("client", (5_000, 70_000)), ("server", (5_000, 70_000)), ("half", (5_001, 70_000))]
    {
        let (listener, address) = listen("127.0.0.1:0");
        let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[1; 5_000]).unwrap();
        server.read_exact(&mut [0; 5_000]).unwrap();
        server.write_all(&[2; 70_000]).unwrap();
        client.read_exact(&mut [0; 70_000]).unwrap();
        let pause = || std::thread::sleep(std::time::Duration::from_millis(30));
        match who {
            "client" => {
                drop(client);
                pause();
                drop(server);
            }
            "server" => {
                drop(server);
                pause();
                drop(client);
            }
            // The server ends its direction first and goes on reading.
            _ => {
                server.shutdown(Shutdown::Write).unwrap();
                pause();
                client.write_all(b"x").unwrap();
                drop(client);
                server.read_exact(&mut [0]).unwrap();
                pause();
                drop(server);
            }
        }
        let bytes = sensor.ending().bytes.unwrap();
        assert_eq!((bytes.from_client, bytes.to_client), expected, "{who}");
    }
}
