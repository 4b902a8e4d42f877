//! Whole sessions on in-memory sockets, with a scripted server.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use guard_common::audit::v1::{decision::Verdict, outcome::Status, record::Body, statement::Protocol};
use guard_policy::PolicySet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::{JoinHandle, LocalSet},
};

use super::*;
use crate::{
    audit::{AuditError, AuditLog},
    config::{ApprovalsConfig, Config, Mode},
    servers::Engine,
    wire::postgres::{ErrorFields, HEADER_BYTES, Header, parse_message},
};

mod held;
mod lies;
mod opening;

/// A session between a client and a server that both are the test.
struct Session {
    client: DuplexStream,
    server: DuplexStream,
    bodies: Rc<RefCell<Vec<Body>>>,
    task: JoinHandle<Result<String, SessionError>>,
    approvals: Approvals,
    decider: Arc<Decider>,
    stop: watch::Sender<bool>,
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0").as_bytes())
}

fn bind_execute() -> Vec<u8> {
    let bind = message(b'B', b"\0\0\0\0\0\0\0\0");
    [bind, message(b'E', b"\0\0\0\0\0")].concat()
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn syntax_error(near: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C42601\0Msyntax error at or near \"{near}\"\0P1\0\0").as_bytes())
}

async fn read_message(stream: &mut DuplexStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head).await.ok()?;
    let header = Header::read(&head, 1 << 24).unwrap().unwrap();
    let mut body = vec![0; header.body];
    stream.read_exact(&mut body).await.ok()?;
    Some((header.tag, body))
}

async fn read_tags(stream: &mut DuplexStream, count: usize) -> String {
    let mut tags = String::new();
    for _ in 0..count {
        tags.push(read_message(stream).await.map_or('-', |(tag, _)| tag.into()));
    }
    tags
}

fn code(error: &[u8]) -> String {
    String::from_utf8_lossy(ErrorFields::read(error).unwrap().code).into_owned()
}

/// What a session shares with others, before a server that nobody reaches; it stops with the sender.
fn proxy(mode: Mode, audit: AuditLog) -> (Proxy, watch::Sender<bool>) {
    let config = Config { mode, ..Config::default() };
    let decider = Arc::new(Decider::new(PolicySet::built_in().unwrap(), &config));
    let (stop, stopping) = watch::channel(false);
    let server = Server {
        name: "main".to_owned(),
        engine: Engine::Postgresql,
        environment: "production".to_owned(),
        addresses: Vec::new(),
        unix_sockets: Vec::new(),
        pid: None,
        elsewhere: None,
    };
    let proxy = Proxy {
        server: ServerSlot::new(server),
        tls: Arc::default(),
        ways: Ways::default(),
        logins: Logins::default(),
        limits: ProxyConfig {
            max_statement_bytes: 4_096,
            max_prepared_statements: 8,
            ..ProxyConfig::default()
        },
        connections: Connections::new(audit.clone(), Arc::clone(&decider)),
        decider,
        approvals: Approvals::in_memory(&ApprovalsConfig::default(), audit.clone()),
        audit,
        sensor: None,
        masks: Arc::new(Masks::off()),
        counters: Arc::default(),
        stopping,
    };
    (proxy, stop)
}

impl Session {
    async fn begin(mode: Mode) -> Self {
        Self::with_journal(mode, Ok(())).await
    }

    /// The server has the startup packet. The journal answers thus when a record has to be durable.
    async fn logging_in(mode: Mode, answer: Result<(), AuditError>) -> Self {
        Self::logging_in_under(mode, answer, PolicySet::built_in().unwrap()).await
    }

    async fn logging_in_under(mode: Mode, answer: Result<(), AuditError>, policies: PolicySet) -> Self {
        let (audit, mut entries) = AuditLog::to_queue(1_000);
        let bodies = Rc::<RefCell<Vec<Body>>>::default();
        let kept = Rc::clone(&bodies);
        tokio::task::spawn_local(async move {
            while let Some(entry) = entries.recv().await {
                entry.durable.map(|durable| durable.send(answer.clone()));
                kept.borrow_mut().extend(entry.record.body);
            }
        });
        let (proxy, stop) = proxy(mode, audit);
        proxy.decider.replace(policies);
        let (approvals, decider) = (proxy.approvals.clone(), Arc::clone(&proxy.decider));
        let (client, client_end) = tokio::io::duplex(1 << 20);
        let (server, server_end) = tokio::io::duplex(1 << 20);
        let task = tokio::task::spawn_local(drive(proxy, client_end, server_end));
        let mut session = Self { client, server, bodies, task, approvals, decider, stop };
        let mut packet = vec![0; 14];
        session.server.read_exact(&mut packet).await.unwrap();
        session
    }

    async fn with_journal(mode: Mode, answer: Result<(), AuditError>) -> Self {
        Self::logging_in(mode, answer).await.logged_in().await
    }

    async fn logged_in(self) -> Self {
        let mut session = self;
        let hello = [message(b'R', &[0; 4]), message(b'S', b"client_encoding\0UTF8\0"), ready()].concat();
        session.server.write_all(&hello).await.unwrap();
        assert_eq!(read_tags(&mut session.client, 3).await, "RSZ");
        session
    }

    async fn send(&mut self, parts: &[Vec<u8>]) {
        self.client.write_all(&parts.concat()).await.unwrap();
    }

    async fn answer(&mut self, parts: &[Vec<u8>]) {
        self.server.write_all(&parts.concat()).await.unwrap();
    }

    /// The word that took the place of a refused statement, in the next message for the server.
    async fn replacement(&mut self, tag: u8) -> String {
        let (got, body) = read_message(&mut self.server).await.unwrap();
        assert_eq!(got, tag);
        let word = body.split(|byte| *byte == 0).next().unwrap();
        String::from_utf8(word.to_vec()).unwrap()
    }

    /// Everything on record, once the session is over.
    async fn end(self) -> (String, Vec<Body>) {
        drop((self.client, self.server));
        let result = self.task.await.unwrap();
        // The journal's task takes what is still in its queue.
        tokio::time::sleep(Duration::from_secs(1)).await;
        (result.unwrap_or_else(|error| error.to_string()), self.bodies.take())
    }
}

async fn drive(proxy: Proxy, client: DuplexStream, server: DuplexStream) -> Result<String, SessionError> {
    let worker = Worker::new(&proxy.limits, Arc::clone(&proxy.decider));
    let known = proxy.server.get();
    let peer = Peer::Unix { pid: 1, uid: 0, gid: 0, path: "/run/x".into() };
    let workload = Arc::default();
    let connection = proxy.connections.open_proxied(opening(&known, &peer, &workload, &Arc::default()));
    let attested =
        Attested { server: &known, peer, surplus: false, steered: false, workload, connection: &connection };
    let packet = b"\0\0\0\x0e\0\x03\0\0user\0a\0\0";
    let Ok(StartupPacket::Start(startup)) = StartupPacket::read(&[&packet[..14], b"\0\0"].concat()) else {
        panic!("a startup message");
    };
    let via = login::Via { transport: UpstreamTransport::Tcp, binding: Binding::NoTls, client_tls: "" };
    let login = login::Login::new(&proxy, &worker, &attested, startup, via);
    login.admit()?;
    let mut pipe = Pipe::new(Stream::Memory(client), Stream::Memory(server), bytes::BytesMut::new());
    pipe.requests.insert(&packet[..14]);
    let relayed = login.relay(pipe).await?;
    let served = match relayed {
        login::End::Ready(relay) => Box::pin(relay.run()).await?,
        login::End::Over(served) => served,
    };
    Ok(served.reason)
}

fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        tokio::time::timeout(Duration::from_secs(3_600), test).await.expect("the session hangs")
    }))
}

fn statements(bodies: &[Body]) -> Vec<(String, Verdict)> {
    let statement = |body: &Body| match body {
        Body::Statement(statement) => {
            Some((statement.text.clone(), statement.decision.as_ref().unwrap().verdict()))
        }
        _ => None,
    };
    bodies.iter().filter_map(statement).collect()
}

fn outcomes(bodies: &[Body]) -> Vec<(Status, String, u64)> {
    let outcomes = bodies.iter().filter_map(|body| match body {
        Body::Outcomes(outcomes) => Some(&outcomes.outcomes),
        _ => None,
    });
    outcomes.flatten().map(|outcome| (outcome.status(), outcome.sqlstate.clone(), outcome.rows)).collect()
}

#[test]
fn a_refused_query_is_answered_in_its_place_and_the_session_goes_on() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        session.send(&[query("DROP TABLE customers"), query("SELECT 1")]).await;
        let word = session.replacement(b'Q').await;
        assert!(!word.to_lowercase().contains("drop"), "{word}");
        assert_eq!(read_message(&mut session.server).await.unwrap().1, b"SELECT 1\0");
        session.answer(&[syntax_error(&word), ready(), message(b'C', b"SELECT 1\0"), ready()]).await;
        let (tag, error) = read_message(&mut session.client).await.unwrap();
        assert_eq!((tag, code(&error).as_str()), (b'E', "42501"));
        let text = String::from_utf8_lossy(&error).into_owned();
        assert!(
            text.contains("no-drop") && text.contains("customers") && text.contains("migration"),
            "{text}"
        );
        assert_eq!(read_tags(&mut session.client, 3).await, "ZCZ");
        let (_, bodies) = session.end().await;
        let verdicts: Vec<Verdict> = statements(&bodies).into_iter().map(|(_, verdict)| verdict).collect();
        assert_eq!(verdicts, [Verdict::Refused, Verdict::Allowed]);
        assert_eq!(outcomes(&bodies), [(Status::Completed, String::new(), 1)]);
    });
}

#[test]
fn a_refused_parse_fails_its_pipeline_and_nothing_else() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        let parse = |text| parse_message("", text);
        session
            .send(&[parse("SELECT 1"), bind_execute(), parse("DELETE FROM t"), bind_execute(), sync()])
            .await;
        session.send(&[parse("SELECT 2"), bind_execute(), sync()]).await;
        assert_eq!(read_tags(&mut session.server, 3).await, "PBE");
        let word = session.replacement(b'P').await;
        assert_eq!(read_tags(&mut session.server, 5).await, "SPBES");
        let good = || [message(b'1', b""), message(b'2', b""), message(b'C', b"SELECT 1\0")].concat();
        session.answer(&[good(), syntax_error(&word), ready(), good(), ready()]).await;
        assert_eq!(read_tags(&mut session.client, 3).await, "12C");
        assert_eq!(code(&read_message(&mut session.client).await.unwrap().1), "42501");
        assert_eq!(read_tags(&mut session.client, 5).await, "Z12CZ");
        let (_, bodies) = session.end().await;
        assert_eq!(statements(&bodies).len(), 3);
        assert_eq!(outcomes(&bodies).len(), 2);
    });
}

#[test]
fn an_earlier_failure_in_the_pipeline_keeps_its_own_error() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        let parse = |text| parse_message("", text);
        session.send(&[parse("SELECT broken"), bind_execute(), parse("TRUNCATE t"), sync()]).await;
        assert_eq!(read_tags(&mut session.server, 3).await, "PBE");
        session.replacement(b'P').await;
        session.answer(&[message(b'E', b"SERROR\0VERROR\0C42703\0Mno such column\0\0"), ready()]).await;
        assert_eq!(code(&read_message(&mut session.client).await.unwrap().1), "42703");
        assert_eq!(read_tags(&mut session.client, 1).await, "Z");
        let (_, bodies) = session.end().await;
        assert_eq!(outcomes(&bodies), [(Status::Skipped, String::new(), 0)]);
    });
}

#[test]
fn any_split_of_the_bytes_gives_the_same_messages() {
    local(async {
        let script = [
            query("SELECT 1"),
            parse_message("s", "SELECT 2"),
            message(b'B', b"\0s\0\0\0\0\0\0\0"),
            message(b'E', b"\0\0\0\0\0"),
            sync(),
            query("DROP TABLE t"),
            message(b'd', &[7; 300]),
            message(b'c', b""),
        ]
        .concat();
        let mut seen = Vec::new();
        for step in [1, 2, 3, 7, 64, script.len()] {
            let mut session = Session::begin(Mode::Enforce).await;
            for piece in script.chunks(step) {
                session.client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut messages = Vec::new();
            for _ in 0..8 {
                let (tag, body) = read_message(&mut session.server).await.unwrap();
                let replaced = body.starts_with(b"guard_refused_");
                messages.push((tag, if replaced { Vec::new() } else { body }));
            }
            seen.push(messages);
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
        assert!(seen[0].iter().any(|(_, body)| body.is_empty()), "the DROP was replaced");
    });
}

#[test]
fn nonsense_ends_the_session_with_08p01() {
    let nonsense: [&[u8]; 6] = [
        b"!\0\0\0\x04",
        b"Q\0\0\0\x03",
        b"Q\xff\xff\xff\xff",
        b"Q\x7f\xff\xff\xff",
        b"p\0\0\0\x08pass",
        b"P\0\0\0\x06ab",
    ];
    for bytes in nonsense {
        local(async {
            let mut session = Session::begin(Mode::Enforce).await;
            session.client.write_all(bytes).await.unwrap();
            let (tag, error) = read_message(&mut session.client).await.unwrap();
            assert_eq!((tag, code(&error).as_str()), (b'E', "08P01"), "{bytes:?}");
            assert_eq!(read_message(&mut session.client).await, None);
            assert_eq!(read_message(&mut session.server).await, None, "nothing of it was passed on");
        });
    }
}

#[test]
fn a_statement_that_is_too_long_is_refused_and_not_kept() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        let long = format!("SELECT '{}'", "x".repeat(500_000));
        session.send(&[query(&long), query("SELECT 1")]).await;
        let word = session.replacement(b'Q').await;
        assert_eq!(read_message(&mut session.server).await.unwrap().1, b"SELECT 1\0");
        session.answer(&[syntax_error(&word), ready()]).await;
        assert_eq!(code(&read_message(&mut session.client).await.unwrap().1), "42501");
    });
}

#[test]
fn monitoring_refuses_nothing() {
    local(async {
        let mut session = Session::begin(Mode::Monitor).await;
        let long = format!("SELECT '{}'", "x".repeat(500_000));
        session.send(&[query("DROP TABLE t"), query(&long)]).await;
        assert_eq!(read_message(&mut session.server).await.unwrap().1, b"DROP TABLE t\0");
        assert_eq!(read_message(&mut session.server).await.unwrap().1.len(), long.len() + 1);
        let (_, bodies) = session.end().await;
        assert!(statements(&bodies).iter().all(|(_, verdict)| *verdict == Verdict::WouldRefuse));
        assert_eq!(statements(&bodies).len(), 2);
    });
}

#[test]
fn a_client_that_vanishes_in_mid_message_is_told_of() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        let half = query("DELETE FROM t WHERE id = 1");
        session.client.write_all(&half[..12]).await.unwrap();
        session.client.shutdown().await.unwrap();
        assert_eq!(read_message(&mut session.server).await, None, "half a statement is no statement");
        let (reason, bodies) = session.end().await;
        assert_eq!(reason, "the client vanished in mid-message");
        assert!(statements(&bodies).is_empty());
    });
}

#[test]
fn a_statement_in_flight_ends_as_unknown_when_the_server_dies() {
    local(async {
        let mut session = Session::begin(Mode::Monitor).await;
        session.send(&[query("UPDATE t SET a = 1 WHERE id = 2")]).await;
        assert_eq!(read_tags(&mut session.server, 1).await, "Q");
        session.server.shutdown().await.unwrap();
        assert_eq!(read_message(&mut session.client).await, None);
        let (reason, bodies) = session.end().await;
        assert_eq!(reason, "closed by the server");
        assert_eq!(outcomes(&bodies)[0].0, Status::Unknown);
    });
}

#[test]
fn without_a_journal_nothing_is_changed_but_reading_goes_on() {
    local(async {
        let full = Err(AuditError::Write("no space left on device".to_owned()));
        let mut session = Session::with_journal(Mode::Enforce, full).await;
        session.send(&[query("INSERT INTO t VALUES (1)"), query("SELECT 1")]).await;
        let word = session.replacement(b'Q').await;
        assert_eq!(read_message(&mut session.server).await.unwrap().1, b"SELECT 1\0");
        session.answer(&[syntax_error(&word), ready()]).await;
        let (_, error) = read_message(&mut session.client).await.unwrap();
        assert_eq!(code(&error), "58030");
        assert!(String::from_utf8_lossy(&error).contains("disk space"));
    });
}

#[test]
fn one_prepared_statement_too_many_is_refused() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        for number in 0..8 {
            session.send(&[parse_message(&format!("s{number}"), "SELECT 1"), sync()]).await;
            assert_eq!(read_tags(&mut session.server, 2).await, "PS");
            session.answer(&[message(b'1', b""), ready()]).await;
            assert_eq!(read_tags(&mut session.client, 2).await, "1Z");
        }
        session.send(&[parse_message("s8", "SELECT 1"), sync()]).await;
        let word = session.replacement(b'P').await;
        session.answer(&[syntax_error(&word), ready()]).await;
        assert_eq!(read_tags(&mut session.server, 1).await, "S");
        assert_eq!(code(&read_message(&mut session.client).await.unwrap().1), "53400");
    });
}

#[test]
fn an_unknown_prepared_statement_is_on_record_as_unknown() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        session.send(&[message(b'B', b"\0hidden\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"), sync()]).await;
        assert_eq!(read_tags(&mut session.server, 3).await, "BES");
        let (_, bodies) = session.end().await;
        let statement = bodies.iter().find_map(|body| match body {
            Body::Statement(statement) => Some(statement),
            _ => None,
        });
        let statement = statement.expect("it is on record");
        assert_eq!(statement.effects[0].action, "execute");
        assert_eq!(statement.protocol(), Protocol::Extended);
    });
}

#[test]
fn a_server_that_lies_ends_the_session() {
    for lie in [message(b'1', b""), ready(), message(b'?', b""), message(b'E', b"SERROR\0")] {
        local(async {
            let mut session = Session::begin(Mode::Enforce).await;
            session.answer(std::slice::from_ref(&lie)).await;
            let (tag, error) = read_message(&mut session.client).await.unwrap();
            assert_eq!((tag, code(&error).as_str()), (b'E', "08P01"), "{lie:?}");
        });
    }
}

fn failed(code: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{code}\0Mno\0\0").as_bytes())
}

#[test]
fn what_follows_a_failure_before_the_sync_gets_no_answer() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        let parse = |text| parse_message("", text);
        session.send(&[parse("SELECT broken"), message(b'H', b"")]).await;
        assert_eq!(read_tags(&mut session.server, 2).await, "PH");
        session.answer(&[failed("42703")]).await;
        assert_eq!(read_tags(&mut session.client, 1).await, "E");
        // The client has not read it yet and goes on.
        session.send(&[parse("SELECT 1"), bind_execute(), query("DROP TABLE t"), sync()]).await;
        session.send(&[parse("SELECT 2"), bind_execute(), sync()]).await;
        assert_eq!(
            read_tags(&mut session.server, 5).await,
            "SPBES",
            "what the server would skip is not sent"
        );
        let good = [message(b'1', b""), message(b'2', b""), message(b'C', b"SELECT 1\0"), ready()].concat();
        session.answer(&[ready(), good]).await;
        assert_eq!(read_tags(&mut session.client, 5).await, "Z12CZ");
        let (_, bodies) = session.end().await;
        let status: Vec<Status> = outcomes(&bodies).into_iter().map(|(status, ..)| status).collect();
        assert_eq!(status, [Status::Completed]);
    });
}

#[test]
fn an_error_may_quote_a_value_of_any_length() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        session.send(&[query("SELECT 'x'::int"), query("SELECT 1")]).await;
        assert_eq!(read_tags(&mut session.server, 2).await, "QQ");
        let long = format!("SERROR\0VERROR\0C22P02\0Minvalid input: {}\0\0", "x".repeat(3_000_000));
        let (mut server, mut client) = (session.server, session.client);
        let answers =
            [message(b'E', long.as_bytes()), ready(), message(b'C', b"SELECT 1\0"), ready()].concat();
        let answering = tokio::task::spawn_local(async move {
            server.write_all(&answers).await.unwrap();
            server
        });
        let mut head = [0; HEADER_BYTES];
        client.read_exact(&mut head).await.unwrap();
        let mut body = vec![0; long.len()];
        client.read_exact(&mut body).await.unwrap();
        assert!(head[0] == b'E' && body == long.as_bytes());
        assert_eq!(read_tags(&mut client, 3).await, "ZCZ");
        session.server = answering.await.unwrap();
        session.client = client;
        let (_, bodies) = session.end().await;
        assert_eq!(outcomes(&bodies)[0], (Status::Failed, "22P02".to_owned(), 0));
    });
}

#[test]
fn a_function_call_is_decided_by_its_number_whatever_the_length_of_its_arguments() {
    local(async {
        let mut session = Session::begin(Mode::Monitor).await;
        // lo_lseek; longer than what is read of a statement.
        let call = message(b'F', &[&956_u32.to_be_bytes()[..], &[0; 200_000]].concat());
        session.send(&[call]).await;
        let (tag, body) = read_message(&mut session.server).await.unwrap();
        assert_eq!((tag, body.len()), (b'F', 200_004));
        session.answer(&[message(b'V', &[0; 4]), ready()]).await;
        assert_eq!(read_tags(&mut session.client, 2).await, "VZ");
        let (_, bodies) = session.end().await;
        assert!(statements(&bodies)[0].0.contains("lo_lseek"), "{bodies:?}");
    });
}

#[test]
fn deallocated_statements_make_room_for_others() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        for number in 0..30 {
            let name = format!("s{number}");
            session
                .send(&[parse_message(&name, "SELECT 1"), sync(), query(&format!("DEALLOCATE {name}"))])
                .await;
            assert_eq!(read_tags(&mut session.server, 3).await, "PSQ", "{number}");
            session.answer(&[message(b'1', b""), ready(), message(b'C', b"DEALLOCATE\0"), ready()]).await;
            assert_eq!(read_tags(&mut session.client, 4).await, "1ZCZ");
        }
    });
}

#[test]
fn monitoring_sets_no_limit_to_prepared_statements() {
    local(async {
        let mut session = Session::begin(Mode::Monitor).await;
        for number in 0..30 {
            session.send(&[parse_message(&format!("s{number}"), "SELECT 1"), sync()]).await;
            assert_eq!(read_tags(&mut session.server, 2).await, "PS", "{number}");
            session.answer(&[message(b'1', b""), ready()]).await;
            assert_eq!(read_tags(&mut session.client, 2).await, "1Z");
        }
    });
}

#[test]
fn a_client_that_takes_no_more_ends_the_session_for_the_server() {
    local(async {
        let mut session = Session::begin(Mode::Monitor).await;
        session.send(&[query("SELECT * FROM large")]).await;
        assert_eq!(read_tags(&mut session.server, 1).await, "Q");
        let (gone, _) = tokio::io::duplex(1);
        drop(std::mem::replace(&mut session.client, gone));
        let row = message(b'D', &[0; 1_000]);
        let rows: Vec<u8> = row.iter().copied().cycle().take(row.len() * 10_000).collect();
        assert!(session.server.write_all(&rows).await.is_err(), "nobody takes all these rows");
        let (reason, bodies) = session.end().await;
        assert_eq!(reason, "the client vanished");
        assert_eq!(outcomes(&bodies)[0].0, Status::Unknown);
    });
}

#[test]
fn a_statement_sent_ahead_of_the_login_waits_for_it() {
    local(async {
        let mut session = Session::logging_in(Mode::Enforce, Ok(())).await;
        session.send(&[query("SELECT 1")]).await;
        session.client.shutdown().await.unwrap();
        session.answer(&[message(b'R', &[0; 4]), ready()]).await;
        assert_eq!(read_tags(&mut session.client, 2).await, "RZ");
        assert_eq!(read_message(&mut session.server).await, Some((b'Q', b"SELECT 1\0".to_vec())));
        assert_eq!(read_message(&mut session.server).await, None);
        session.answer(&[message(b'C', b"SELECT 1\0"), ready()]).await;
        assert_eq!(read_tags(&mut session.client, 2).await, "CZ");
    });
}

#[test]
fn a_client_that_closed_its_side_still_reads_why_it_cannot_log_in() {
    local(async {
        let mut session = Session::logging_in(Mode::Enforce, Ok(())).await;
        session.client.shutdown().await.unwrap();
        assert_eq!(read_message(&mut session.server).await, None);
        session.answer(&[failed("28000")]).await;
        session.server.shutdown().await.unwrap();
        assert_eq!(code(&read_message(&mut session.client).await.unwrap().1), "28000");
        assert_eq!(read_message(&mut session.client).await, None);
    });
}

/// What waits for the next statement, without its buffers: thousands of sessions do nothing for most of their time.
#[test]
fn a_session_that_waits_is_small() {
    local(async {
        let (audit, _entries) = AuditLog::to_queue(10);
        let (proxy, _stop) = proxy(Mode::Enforce, audit);
        let worker = Rc::new(Worker::new(&proxy.limits, Arc::clone(&proxy.decider)));
        let (one, _other) = tokio::io::duplex(64);
        let peer = Peer::Unix { pid: 1, uid: 0, gid: 0, path: "/run/x".into() };
        let client = Client { stream: Stream::Memory(one), peer, surplus: false, steered: false };
        let task = size_of_val(&serve(Arc::new(proxy), worker, client));
        assert!(task <= 1_792, "{task} bytes: a phase that ends should have a box of its own");
        let relay = size_of::<relay::Relay<'_>>();
        assert!(relay <= 1_600, "{relay} bytes");
    });
}
