//! The rungs of the ladder, each forced on this kernel: what still is known there, and what is said about the rest.

use guard_agent::sensor::Feature;

use super::*;

fn config(without: &[Feature]) -> SensorConfig {
    SensorConfig { ring_kib: 2048, without: without.to_vec(), ..SensorConfig::default() }
}

/// A sensor without these, on that port; nothing where this machine lets no eBPF in.
fn forced(without: &[Feature], rung: &str, port: u16) -> Option<Sensor> {
    let sensor = Sensor::start(&config(without))?;
    assert_eq!(sensor.handle.state().rung, rung, "{:?}", sensor.handle.state().missing);
    assert!(!sensor.handle.state().missing.is_empty(), "it says what is missing");
    sensor.handle.watch(Watch { database_ports: BTreeSet::from([port]), ..Watch::default() });
    Some(sensor)
}

/// Clients that are gone at once: each is known with everything.
fn knows_short_clients(without: &[Feature], rung: &str) {
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = forced(without, rung, address.port()) else { return };
    serve(listener);
    let mut scripts = HashMap::new();
    for round in 0..40 {
        let script = format!(": {round}; {}", dial(address));
        let child = bash(&script);
        scripts.insert(child.id(), script);
        finish(child);
    }
    sensor.until("40 connections", |sensor| sensor.accepted.len() >= 40);
    for accepted in &sensor.accepted {
        let workload = &accepted.workload;
        assert_attested(workload);
        assert_eq!(scripts.remove(&workload.pid).as_ref(), workload.argv.get(2), "{workload:?}");
        assert_eq!(workload.ancestry[0].pid, std::process::id());
    }
    sensor.until("40 ends", |sensor| sensor.closed.len() >= 40);
}

/// A client that is there while it is looked for, and the bytes at its end.
fn knows_a_lasting_client(without: &[Feature], rung: &str, evidence: Evidence) {
    for bind in ["127.0.0.1:0", "[::1]:0"] {
        let (listener, address) = listen(bind);
        let Some(mut sensor) = forced(without, rung, address.port()) else { return };
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let accepted = sensor.one();
        assert_eq!(accepted.workload.pid, std::process::id());
        assert_eq!(accepted.workload.evidence(), evidence);
        let executable = std::env::current_exe().unwrap();
        assert_eq!(accepted.workload.executable, executable.to_string_lossy());
        client.write_all(&[1; 123_456]).unwrap();
        server.read_exact(&mut [0; 123_456]).unwrap();
        server.write_all(&[2; 7_891]).unwrap();
        client.read_exact(&mut [0; 7_891]).unwrap();
        drop(client);
        thread::sleep(Duration::from_millis(50));
        drop(server);
        let closed = sensor.ending();
        assert_eq!(closed.socket, accepted.socket);
        if let Some(bytes) = closed.bytes {
            assert_eq!((bytes.from_client, bytes.to_client), (123_456, 7_891));
        } else {
            assert!(without.contains(&Feature::Btf), "the bytes are known");
        }
    }
}

#[test]
fn without_a_ring_buffer_nothing_else_is_missing() {
    knows_short_clients(&[Feature::RingBuffer], "no-ring-buffer");
    knows_a_lasting_client(&[Feature::RingBuffer], "no-ring-buffer", Evidence::Attested);
}

#[test]
fn without_links_nothing_else_is_missing() {
    knows_short_clients(&[Feature::BpfLink], "no-bpf-link");
}

#[test]
fn without_links_and_ring_buffer() {
    knows_short_clients(&[Feature::BpfLink, Feature::RingBuffer], "no-bpf-link");
}

#[test]
fn without_btf_connections_are_seen_and_processes_read() {
    knows_a_lasting_client(&[Feature::Btf], "no-btf", Evidence::Reported);
    knows_a_lasting_client(&[Feature::Btf, Feature::RingBuffer], "no-btf", Evidence::Reported);
}

#[test]
fn without_btf_a_client_that_is_gone_has_its_pid_and_user() {
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = forced(&[Feature::Btf], "no-btf", address.port()) else { return };
    serve(listener);
    let child = bash(&dial(address));
    let pid = child.id();
    finish(child);
    let workload = sensor.one().workload;
    assert_eq!((workload.pid, workload.uid), (pid, nix::unistd::Uid::effective().as_raw()));
}

#[test]
fn without_cgroups_connections_are_followed_by_their_state() {
    knows_short_clients(&[Feature::CgroupV2], "cgroup-v1");
    knows_a_lasting_client(&[Feature::CgroupV2], "cgroup-v1", Evidence::Attested);
    let old = [Feature::CgroupV2, Feature::RingBuffer];
    knows_short_clients(&old, "cgroup-v1");
    let oldest = [Feature::CgroupV2, Feature::RingBuffer, Feature::Btf, Feature::BpfLink];
    knows_a_lasting_client(&oldest, "cgroup-v1", Evidence::Reported);
}

#[test]
fn without_cgroups_the_proxy_learns_who_its_clients_are() {
    let (listener, address) = listen("127.0.0.1:0");
    let Some(sensor) = Sensor::start(&config(&[Feature::CgroupV2])) else { return };
    sensor.handle.watch(Watch { proxy_ports: BTreeSet::from([address.port()]), ..Watch::default() });
    for _ in 0..10 {
        let child = bash(&dial(address));
        let pid = child.id();
        finish(child);
        let (accepted, client) = listener.accept().unwrap();
        let local = accepted.local_addr().unwrap();
        let workload = attested(&sensor, client, local);
        assert_attested(&workload);
        assert_eq!(workload.pid, pid);
    }
}

#[test]
fn without_bpf_connections_come_from_the_kernels_tables() {
    for config in [config(&[Feature::Bpf]), SensorConfig { ebpf: false, ..SensorConfig::default() }] {
        let (listener, address) = listen("127.0.0.1:0");
        let (handle, events) = sensor::start(&config, &IdentityConfig::default()).unwrap();
        let mut sensor = Sensor { handle, events, accepted: Vec::new(), closed: Vec::new() };
        assert_eq!(sensor.handle.state().rung, "no-bpf");
        sensor.handle.watch(Watch { database_ports: BTreeSet::from([address.port()]), ..Watch::default() });
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let accepted = sensor.one();
        assert_eq!(accepted.workload.pid, std::process::id());
        assert_eq!(accepted.workload.evidence(), Evidence::Reported);
        client.write_all(&[1; 1_000]).unwrap();
        server.read_exact(&mut [0; 1_000]).unwrap();
        drop(client);
        thread::sleep(Duration::from_millis(50));
        drop(server);
        let closed = sensor.ending();
        assert_eq!(closed.socket, accepted.socket);
        if matches!(closed.socket, sensor::SocketId::Cookie(_)) {
            assert_eq!(closed.bytes.map(|bytes| (bytes.from_client, bytes.to_client)), Some((1_000, 0)));
        }
    }
}

#[test]
fn it_does_not_start_below_the_lowest_rung() {
    let allowed = |lowest| {
        let config = SensorConfig { lowest_rung: Some(lowest), ..config(&[Feature::Bpf]) };
        sensor::start(&config, &IdentityConfig::default()).map(|_| ()).map_err(|error| error.to_string())
    };
    let refused = allowed(sensor::Rung::CgroupV1).unwrap_err();
    assert!(refused.contains("`no-bpf`") && refused.contains("guard-agent doctor"), "{refused}");
    assert_eq!(allowed(sensor::Rung::NoBpf), Ok(()));
}

#[test]
fn without_bpf_no_connection_is_too_short() {
    let (listener, address) = listen("127.0.0.1:0");
    let (handle, events) = sensor::start(&config(&[Feature::Bpf]), &IdentityConfig::default()).unwrap();
    let mut sensor = Sensor { handle, events, accepted: Vec::new(), closed: Vec::new() };
    sensor.handle.watch(Watch { database_ports: BTreeSet::from([address.port()]), ..Watch::default() });
    serve(listener);
    for _ in 0..50 {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(&[1; 77]).unwrap();
    }
    sensor.until("50 ends", |sensor| sensor.closed.len() >= 50);
    assert_eq!(sensor.accepted.len(), 50);
    for (accepted, closed) in sensor.accepted.iter().zip(&sensor.closed) {
        assert_eq!(closed.bytes.map(|bytes| bytes.from_client), Some(77), "{accepted:?}");
    }
}

#[test]
fn without_bpf_unix_clients_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let (handle, events) = sensor::start(&config(&[Feature::Bpf]), &IdentityConfig::default()).unwrap();
    let mut sensor = Sensor { handle, events, accepted: Vec::new(), closed: Vec::new() };
    sensor.handle.watch(Watch { unix_sockets: BTreeSet::from([path.clone()]), ..Watch::default() });
    let client = UnixStream::connect(&path).unwrap();
    let (server, _) = listener.accept().unwrap();
    let accepted = sensor.one();
    assert!(matches!(&accepted.endpoint, Endpoint::Unix { path: found, .. } if *found == path));
    assert_eq!(accepted.workload.pid, std::process::id());
    assert_eq!(accepted.workload.evidence(), Evidence::Reported);
    drop((client, server));
    assert_eq!(sensor.ending().socket, accepted.socket);
}

/// Ids of the programs that a process holds.
fn programs_of(pid: u32) -> HashSet<u32> {
    let folder = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let info = |entry: fs::DirEntry| fs::read_to_string(entry.path()).unwrap_or_default();
    let id = |info: String| {
        info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse::<u32>().ok())
    };
    folder.flatten().map(info).filter_map(id).collect()
}

#[test]
fn what_a_killed_run_left_attached_is_taken_away() {
    if skip::without(&[Need::Ebpf]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let config_file = place("guard.toml");
    let text = format!(
        "[paths]\nstate = \"{}\"\nrun = \"{}\"\n[sensor]\nwithout = [\"bpf-link\"]\n[discovery]\nenabled = false\n",
        place("state"),
        place("run")
    );
    fs::write(&config_file, text).unwrap();
    let log = fs::File::create(place("log")).unwrap();
    let mut agent = Command::new(guard_tests::binaries::path("guard-agent").unwrap())
        .args(["run", "--config", &config_file])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + patience();
    while !fs::read_to_string(place("log")).unwrap().contains("guard-agent ready") {
        assert!(Instant::now() < deadline, "{}", fs::read_to_string(place("log")).unwrap());
        thread::sleep(Duration::from_millis(20));
    }
    let programs = programs_of(agent.id());
    agent.kill().unwrap();
    agent.wait().unwrap();
    let left = || {
        let loaded = aya::programs::loaded_programs().flatten();
        loaded.filter(|program| programs.contains(&program.id())).count()
    };
    let before = left();
    assert!(before >= 3, "two for connects, one for sockets are not held by links: {before}");
    let sensor = Sensor::start(&config(&[Feature::BpfLink])).unwrap();
    let deadline = Instant::now() + patience();
    while left() != 0 {
        assert!(Instant::now() < deadline, "{} programs are still attached", left());
        thread::sleep(Duration::from_millis(20));
    }
    drop(sensor);
}
