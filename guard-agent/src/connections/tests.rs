use std::{net::SocketAddr, sync::Arc, time::Duration};

use guard_common::audit::v1::{
    Completeness, Gap, connection_opened::Access, decision::Verdict, enforcement::Action, record::Body,
    workload::Evidence,
};
use tokio::sync::mpsc;

use super::{Connections, Counts, Ending, Opening, Transport, UpstreamSocket};
use crate::{
    audit::{AuditLog, Entry},
    decide::Decider,
    identity::Workload,
    sensor::{Accepted, Bytes, Closed, Endpoint, Refused, SensorEvent, SocketId, Way},
    servers::{Elsewhere, Engine, Server},
};

struct Fixture {
    connections: Connections,
    records: mpsc::Receiver<Entry>,
}

impl Fixture {
    fn new() -> Self {
        Self::with(guard_policy::PolicySet::built_in().unwrap(), &crate::config::Config::default())
    }

    /// Policies refuse whoever goes round the proxy, in enforce mode.
    fn refusing() -> Self {
        let policy = "@id(\"round\") @reason(\"go through the proxy\") forbid (principal, action == Guard::Action::\"connect\", resource)
            unless { context.proxied };
            @id(\"all\") permit (principal, action, resource);";
        let files = [("policy.cedar".to_owned(), policy.to_owned())].into();
        let policies = guard_policy::PolicySet::from_files(files, guard_policy::Origin::BuiltIn).unwrap();
        let config = crate::config::Config { mode: crate::config::Mode::Enforce, ..Default::default() };
        Self::with(policies, &config)
    }

    fn with(policies: guard_policy::PolicySet, config: &crate::config::Config) -> Self {
        let (audit, records) = AuditLog::to_queue(1000);
        let connections = Connections::new(audit, Arc::new(Decider::new(policies, config)));
        connections.set_servers(vec![server()]);
        Self { connections, records }
    }

    fn bodies(&mut self) -> Vec<Body> {
        std::iter::from_fn(|| self.records.try_recv().ok()).filter_map(|entry| entry.record.body).collect()
    }

    fn accept(&self, pid: u32, cookie: u64, client: &str) {
        self.connections.handle(SensorEvent::Accepted(accepted(pid, cookie, client)));
    }

    fn close(&self, cookie: u64) {
        self.connections.handle(SensorEvent::Closed(Closed {
            socket: SocketId::Cookie(cookie),
            bytes: Some(Bytes { from_client: 10, to_client: 20 }),
            late: false,
            at: Duration::from_millis(7),
        }));
    }

    fn wait_in_vain(&self) {
        self.connections.tick(std::time::Instant::now() + super::table::JOIN_WITHIN);
    }
}

fn server() -> Arc<Server> {
    Arc::new(Server {
        name: "main".to_owned(),
        engine: Engine::Postgresql,
        environment: "production".to_owned(),
        addresses: vec!["0.0.0.0:5432".parse().unwrap()],
        unix_sockets: vec!["/run/.s.PGSQL.5432".into()],
        pid: None,
        elsewhere: None,
    })
}

fn workload(pid: u32) -> Arc<Workload> {
    Arc::new(Workload { pid, evidence: Evidence::Attested.into(), ..Workload::default() })
}

const SERVER: &str = "127.0.0.1:5432";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn accepted(pid: u32, cookie: u64, client: &str) -> Accepted {
    Accepted {
        socket: SocketId::Cookie(cookie),
        endpoint: Endpoint::Tcp { client: address(client), server: address(SERVER) },
        workload: workload(pid),
        at: Duration::from_millis(2),
        preexisting: false,
        client: None,
        namespace_cookie: 0,
        namespace: 0,
        server_pid: 0,
    }
}

fn opening() -> Opening {
    Opening {
        workload: workload(77),
        server: server(),
        transport: Transport::Tcp,
        client_address: None,
        server_address: None,
        unix_path: None,
        decision: Arc::default(),
    }
}

fn upstream(client: &str) -> UpstreamSocket {
    UpstreamSocket::Tcp { local: address(client), peer: address(SERVER) }
}

#[test]
fn a_client_that_goes_round_the_proxy_is_recorded() {
    let mut fixture = Fixture::new();
    fixture.accept(77, 5, "127.0.0.1:9");
    let counts = fixture.connections.counts("main");
    assert_eq!((counts.non_proxied_open, counts.non_proxied_total, counts.proxied_total), (1, 1, 0));
    assert!(counts.last_non_proxied.is_some());
    fixture.close(5);
    let bodies = fixture.bodies();
    let [Body::ConnectionOpened(opened), Body::ConnectionClosed(closed)] = &bodies[..] else {
        panic!("{bodies:?}")
    };
    assert_eq!(opened.access(), Access::NonProxied);
    assert_eq!((opened.client_address.as_str(), opened.socket_cookie), ("127.0.0.1:9", 5));
    assert!(opened.decision.is_some());
    assert_eq!(closed.connection_id, opened.connection_id);
    assert_eq!((closed.bytes_from_client, closed.bytes_to_client, closed.duration_us), (10, 20, 5000));
    assert_eq!(closed.bytes_source, "kernel");
    assert_eq!(fixture.connections.counts("main").non_proxied_open, 0);
}

#[test]
fn what_the_proxy_opens_is_proxied_in_either_order() {
    for session_first in [true, false] {
        let mut fixture = Fixture::new();
        let own = std::process::id();
        let connection = fixture.connections.open_proxied(opening());
        if session_first {
            connection.upstream(upstream("127.0.0.1:9"));
            fixture.accept(own, 5, "127.0.0.1:9");
        } else {
            fixture.accept(own, 5, "127.0.0.1:9");
            connection.upstream(upstream("127.0.0.1:9"));
        }
        fixture.wait_in_vain();
        fixture.close(5);
        connection.close(Ending { reason: "done".to_owned(), statements: 3, ..Ending::default() });
        let bodies = fixture.bodies();
        let [Body::ConnectionOpened(opened), Body::ConnectionClosed(closed)] = &bodies[..] else {
            panic!("{bodies:?}")
        };
        assert_eq!(opened.access(), Access::Proxied);
        assert_eq!((closed.statements, closed.reason.as_str()), (3, "done"));
        assert_eq!(fixture.connections.counts("main"), Counts { proxied_total: 1, ..Counts::default() });
    }
}

#[test]
fn an_accept_that_comes_after_its_session_has_ended_is_proxied() {
    let mut fixture = Fixture::new();
    let connection = fixture.connections.open_proxied(opening());
    connection.upstream(upstream("127.0.0.1:9"));
    connection.close(Ending::default());
    fixture.accept(std::process::id(), 5, "127.0.0.1:9");
    fixture.wait_in_vain();
    assert_eq!(fixture.bodies().len(), 2);
}

#[test]
fn what_the_agent_opens_for_no_session_is_not_hidden() {
    let mut fixture = Fixture::new();
    fixture.accept(std::process::id(), 5, "127.0.0.1:9");
    fixture.close(5);
    assert!(fixture.bodies().is_empty());
    fixture.wait_in_vain();
    let bodies = fixture.bodies();
    let [Body::ConnectionOpened(opened), Body::ConnectionClosed(_)] = &bodies[..] else {
        panic!("{bodies:?}")
    };
    assert_eq!(opened.access(), Access::NonProxied);
    assert!(opened.decision.as_ref().unwrap().reason.contains("itself"));
}

#[test]
fn another_process_cannot_pass_for_the_proxy() {
    let mut fixture = Fixture::new();
    let connection = fixture.connections.open_proxied(opening());
    connection.upstream(upstream("127.0.0.1:9"));
    fixture.accept(77, 5, "127.0.0.1:9");
    let bodies = fixture.bodies();
    let [_, Body::ConnectionOpened(opened)] = &bodies[..] else { panic!("{bodies:?}") };
    assert_eq!(opened.access(), Access::NonProxied);
    drop(connection);
}

#[test]
fn a_dropped_session_has_an_end() {
    let mut fixture = Fixture::new();
    drop(fixture.connections.open_proxied(opening()));
    let bodies = fixture.bodies();
    let [_, Body::ConnectionClosed(closed)] = &bodies[..] else { panic!("{bodies:?}") };
    assert_eq!(closed.bytes_source, "none");
    assert_eq!(fixture.connections.counts("main").proxied_open, 0);
}

#[test]
fn an_address_that_is_not_configured_is_no_way_round() {
    let mut fixture = Fixture::new();
    let mut narrow = Server::clone(&server());
    narrow.addresses = vec![address("10.0.0.1:5432")];
    fixture.connections.set_servers(vec![Arc::new(narrow)]);
    fixture.accept(77, 5, "127.0.0.1:9");
    assert_eq!(fixture.bodies().len(), 1);
}

#[test]
fn other_ports_are_not_databases() {
    let mut fixture = Fixture::new();
    let mut other = accepted(77, 5, "127.0.0.1:9");
    other.endpoint = Endpoint::Tcp { client: address("127.0.0.1:9"), server: address("127.0.0.1:80") };
    fixture.connections.handle(SensorEvent::Accepted(other));
    assert!(fixture.bodies().is_empty());
}

#[test]
fn unix_sockets_are_joined_by_the_clients_inode() {
    let mut fixture = Fixture::new();
    let accept = |pid: u32, inode: u64, peer_inode: u64| {
        fixture.connections.handle(SensorEvent::Accepted(Accepted {
            socket: SocketId::Inode(inode),
            endpoint: Endpoint::Unix { path: "/run/.s.PGSQL.5432".into(), peer_inode },
            ..accepted(pid, 0, "127.0.0.1:9")
        }));
    };
    let connection = fixture.connections.open_proxied(opening());
    accept(std::process::id(), 1, 100);
    connection.upstream(UpstreamSocket::Unix { inode: 100 });
    accept(77, 2, 200);
    fixture.wait_in_vain();
    let bodies = fixture.bodies();
    let [_, Body::ConnectionOpened(opened)] = &bodies[..] else { panic!("{bodies:?}") };
    assert_eq!((opened.transport(), opened.unix_path.as_str()), (Transport::Unix, "/run/.s.PGSQL.5432"));
}

/// The same port and paths as [`server`], in another network namespace.
fn contained(namespace: u64) -> Arc<Server> {
    let elsewhere = Elsewhere {
        namespace: Some(namespace),
        pid: 8,
        own_addresses: Vec::new(),
        configured: Vec::new(),
        label: "web".to_owned(),
    };
    let name = format!("main@{namespace}");
    Arc::new(Server { name, pid: Some(8), elsewhere: Some(elsewhere), ..Server::clone(&server()) })
}

fn server_names(fixture: &mut Fixture) -> Vec<String> {
    let opened = fixture.bodies().into_iter().filter_map(|body| match body {
        Body::ConnectionOpened(opened) => opened.server.map(|server| server.name),
        _ => None,
    });
    opened.collect()
}

#[test]
fn the_same_port_in_another_namespace_is_another_server() {
    let mut fixture = Fixture::new();
    fixture.connections.set_servers(vec![server(), contained(7), contained(8)]);
    let own = crate::sensor::namespace::own().unwrap();
    for namespace in [7, own, 8, 0] {
        let accepted = Accepted { namespace, ..accepted(77, namespace, "127.0.0.1:9") };
        fixture.connections.handle(SensorEvent::Accepted(accepted));
    }
    assert_eq!(server_names(&mut fixture), ["main@7", "main", "main@8", "main"]);
    // Of several that have the same path, the one whose process has accepted.
    for (inode, server_pid) in [(1, 8), (2, 0)] {
        fixture.connections.handle(SensorEvent::Accepted(Accepted {
            socket: SocketId::Inode(inode),
            endpoint: Endpoint::Unix { path: "/run/.s.PGSQL.5432".into(), peer_inode: 0 },
            server_pid,
            ..accepted(77, 0, "127.0.0.1:9")
        }));
    }
    assert_eq!(server_names(&mut fixture), ["main@7", "main"]);
}

#[test]
fn a_server_that_has_just_started_is_waited_for() {
    let mut fixture = Fixture::new();
    let arrives = |cookie| {
        let accepted = Accepted { namespace: 7, ..accepted(77, cookie, "127.0.0.1:9") };
        fixture.connections.handle(SensorEvent::Accepted(accepted));
        fixture.close(cookie);
    };
    arrives(5);
    assert!(fixture.records.is_empty());
    fixture.connections.set_servers(vec![server(), contained(7)]);
    let bodies = fixture.bodies();
    let [Body::ConnectionOpened(opened), Body::ConnectionClosed(closed)] = &bodies[..] else {
        panic!("{bodies:?}")
    };
    assert_eq!(opened.server.as_ref().unwrap().name, "main@7");
    assert_eq!(closed.connection_id, opened.connection_id);
}

#[test]
fn what_is_accepted_where_no_server_is_known_is_recorded_all_the_same() {
    let mut fixture = Fixture::new();
    let accepted = Accepted { namespace: 9, ..accepted(77, 5, "127.0.0.1:9") };
    fixture.connections.handle(SensorEvent::Accepted(accepted));
    fixture.close(5);
    // Looked for in vain.
    fixture.connections.set_servers(vec![server()]);
    assert!(fixture.records.is_empty());
    fixture.wait_in_vain();
    let bodies = fixture.bodies();
    let [Body::ConnectionOpened(opened), Body::ConnectionClosed(_)] = &bodies[..] else {
        panic!("{bodies:?}")
    };
    assert!(opened.decision.as_ref().unwrap().reason.contains("no server is known"), "{opened:?}");
}

#[test]
fn an_end_says_what_is_missing() {
    let mut fixture = Fixture::new();
    let end = |fixture: &mut Fixture| {
        let closed = fixture.bodies().into_iter().find_map(|body| match body {
            Body::ConnectionClosed(closed) => closed.completeness,
            _ => None,
        });
        closed.unwrap()
    };
    fixture.accept(77, 5, "127.0.0.1:9");
    fixture.close(5);
    assert_eq!(end(&mut fixture), Completeness { whole: true, ..Completeness::default() });
    fixture.accept(77, 6, "127.0.0.1:9");
    let now = std::time::SystemTime::now();
    let by_cpu = vec![(0, 1), (1, 2)];
    fixture.connections.handle(SensorEvent::Lost(crate::sensor::Lost {
        kind: "closed",
        lost: 3,
        since: now,
        until: now,
        by_cpu,
    }));
    fixture.close(6);
    let partial = end(&mut fixture);
    assert_eq!((partial.whole, partial.lost_meanwhile, partial.missing.len()), (false, 3, 1));
    let (losses, lost) = fixture.connections.losses();
    let losses: Vec<_> = losses.iter().map(|loss| (loss.program.as_str(), loss.cpu, loss.lost)).collect();
    assert_eq!((losses, lost), (vec![("socket_ops", 0, 1), ("socket_ops", 1, 2)], 3));
    fixture.connections.handle(SensorEvent::Accepted(Accepted {
        preexisting: true,
        socket: SocketId::Inode(7),
        ..accepted(77, 0, "127.0.0.1:9")
    }));
    let ended = Closed { socket: SocketId::Inode(7), bytes: None, late: false, at: Duration::from_millis(9) };
    fixture.connections.handle(SensorEvent::Closed(ended));
    assert_eq!(end(&mut fixture).missing.len(), 2);
}

#[test]
fn fifty_thousand_connections_are_followed_to_their_ends() {
    const MANY: u64 = 50_000;
    let (audit, mut records) = AuditLog::to_queue(usize::try_from(3 * MANY).unwrap());
    let decider =
        Decider::new(guard_policy::PolicySet::built_in().unwrap(), &crate::config::Config::default());
    let connections = Connections::new(audit, Arc::new(decider));
    connections.set_servers(vec![server()]);
    for cookie in 1..=MANY {
        connections.handle(SensorEvent::Accepted(accepted(77, cookie, "127.0.0.1:9")));
    }
    assert_eq!(connections.counts("main").non_proxied_open, MANY);
    for cookie in 1..=MANY {
        let bytes = Some(Bytes::default());
        let socket = SocketId::Cookie(cookie);
        connections.handle(SensorEvent::Closed(Closed {
            socket,
            bytes,
            late: false,
            at: Duration::from_millis(7),
        }));
    }
    assert_eq!(connections.counts("main").non_proxied_open, 0);
    let count = std::iter::from_fn(|| records.try_recv().ok()).count();
    assert_eq!(count as u64, 2 * MANY);
}

#[test]
fn losses_are_recorded() {
    let mut fixture = Fixture::new();
    let now = std::time::SystemTime::now();
    let lost =
        crate::sensor::Lost { kind: "accepted", lost: 3, since: now, until: now, by_cpu: vec![(1, 3)] };
    fixture.connections.handle(SensorEvent::Lost(lost));
    let bodies = fixture.bodies();
    let [Body::Gap(Gap { source, lost: 3, .. })] = &bodies[..] else { panic!("{bodies:?}") };
    assert_eq!(source, "kernel-ring");
}

#[tokio::test]
async fn it_ends_with_the_sensor() {
    let mut fixture = Fixture::new();
    let (events, receiver) = mpsc::channel(10);
    events.send(SensorEvent::Accepted(accepted(std::process::id(), 5, "127.0.0.1:9"))).await.unwrap();
    drop(events);
    fixture.connections.clone().run(receiver).await;
    assert_eq!(fixture.bodies().len(), 1, "what waited is recorded at the end");
}

#[test]
fn what_is_steered_to_the_proxy_is_no_access_round_it() {
    let mut fixture = Fixture::new();
    fixture.connections.set_steered("main", true);
    let taken = |port: u16| {
        fixture.connections.taken(([127, 0, 0, 1], port).into(), ([127, 0, 0, 1], 5432).into());
    };
    // Whichever comes first, the kernel's word or the proxy's.
    fixture.accept(900, 1, "127.0.0.1:1");
    taken(1);
    taken(2);
    fixture.accept(900, 2, "127.0.0.1:2");
    fixture.close(1);
    fixture.connections.tick(std::time::Instant::now() + super::table::TAKEN_WITHIN);
    assert!(fixture.bodies().is_empty());
}

#[test]
fn what_slips_through_steering_is_told_of() {
    let mut fixture = Fixture::new();
    fixture.connections.set_steered("main", true);
    fixture.accept(900, 1, "127.0.0.1:1");
    fixture.wait_in_vain();
    assert!(fixture.bodies().is_empty(), "the proxy may be busy");
    fixture.connections.tick(std::time::Instant::now() + super::table::TAKEN_WITHIN);
    let bodies = fixture.bodies();
    let [Body::ConnectionOpened(opened)] = &bodies[..] else { panic!("{bodies:?}") };
    assert_eq!(opened.access(), Access::NonProxied);
    assert!(opened.decision.as_ref().unwrap().reason.contains("steered"));
}

#[test]
fn what_may_be_another_service_is_recorded_and_not_cut() {
    let mut fixture = Fixture::refusing();
    fixture.connections.misplaced(accepted(77, 5, "127.0.0.1:9"), server(), None);
    let bodies = fixture.bodies();
    let [Body::ConnectionOpened(opened)] = &bodies[..] else { panic!("{bodies:?}") };
    let enforcement = opened.enforcement.as_ref().unwrap();
    assert_eq!(enforcement.action(), Action::Failed);
    assert!(enforcement.detail.contains("nobody knows"), "{enforcement:?}");
    assert_eq!(opened.decision.as_ref().unwrap().verdict(), Verdict::WouldRefuse);
    assert_eq!(fixture.connections.counts("main").non_proxied_not_stopped, 1);
}

#[test]
fn what_the_kernel_has_refused_is_on_record_and_counted() {
    let mut fixture = Fixture::refusing();
    fixture.connections.handle(SensorEvent::Refused(Refused {
        server: "main".to_owned(),
        way: Way::Connect { server: address(SERVER) },
        workload: workload(77),
        at: Duration::from_millis(2),
        attempts: 3,
    }));
    let bodies = fixture.bodies();
    let [Body::ConnectionOpened(opened)] = &bodies[..] else { panic!("{bodies:?}") };
    let enforcement = opened.enforcement.as_ref().unwrap();
    assert_eq!((enforcement.action(), enforcement.attempts), (Action::RefusedInKernel, 3));
    let decision = opened.decision.as_ref().unwrap();
    assert_eq!((decision.verdict(), decision.policy.as_str()), (Verdict::Refused, "round"));
    assert_eq!((opened.server_address.as_str(), opened.client_address.as_str()), (SERVER, ""));
    let counts = fixture.connections.counts("main");
    assert_eq!((counts.non_proxied_refused, counts.non_proxied_total), (3, 0));
}
