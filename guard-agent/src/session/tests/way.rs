//! Ways to scripted servers: one on TCP, one on a unix socket, each with its own rules.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::mpsc,
};

use super::*;
use crate::{
    audit::AuditLog,
    config::Config,
    connections::{Connections, Opening, ProxiedConnection, Transport as Came},
    decide::Decider,
    servers::{Engine, Server},
};

const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
const SCRAM: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
const PASSWORD: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
const REFUSED: &[u8] = b"E\0\0\0\x0cC28P01\0\0";
const PACKET: &[u8] = b"\0\0\0\x14\0\x03\0\0user\0ana\0\0\0";

/// A server whose sockets answer a startup packet with these words.
struct Scripted {
    server: Arc<Server>,
    ways: Ways,
    connection: ProxiedConnection,
    asked: mpsc::UnboundedReceiver<&'static str>,
    _folder: tempfile::TempDir,
}

async fn answer(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, word: &'static [u8]) {
    let mut packet = [0; PACKET.len()];
    if stream.read_exact(&mut packet).await.is_ok() {
        stream.write_all(word).await.unwrap();
        let _ = stream.read(&mut [0]).await;
    }
}

impl Scripted {
    async fn new(tcp_word: &'static [u8], unix_word: &'static [u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join(".s.PGSQL.5432");
        let (unix, tcp) =
            (UnixListener::bind(&path).unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = tcp.local_addr().unwrap();
        let (tell, asked) = mpsc::unbounded_channel();
        let told = tell.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = tcp.accept().await {
                let _ = told.send("tcp");
                tokio::spawn(answer(stream, tcp_word));
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = unix.accept().await {
                let _ = tell.send("unix");
                tokio::spawn(answer(stream, unix_word));
            }
        });
        let server = Arc::new(Server {
            name: "main".to_owned(),
            engine: Engine::Postgresql,
            environment: "production".to_owned(),
            addresses: vec![address],
            unix_sockets: vec![path],
            pid: None,
            elsewhere: None,
        });
        let (audit, _) = AuditLog::to_queue(10);
        let policies = guard_policy::PolicySet::built_in().unwrap();
        let decider = Arc::new(Decider::new(policies, &Config::default()));
        let connection = Connections::new(audit, decider).open_proxied(Opening {
            workload: Arc::default(),
            server: Arc::clone(&server),
            transport: Came::Tcp,
            client_address: None,
            server_address: None,
            unix_path: None,
            decision: Arc::default(),
        });
        let ways = Ways::new(false, UpstreamTlsMode::Off, None);
        Self { server, ways, connection, asked, _folder: folder }
    }

    async fn open(&self, peer: &Peer) -> Result<Way, SessionError> {
        let dial = Dial {
            server: &self.server,
            connection: &self.connection,
            limit: Duration::from_secs(5),
            gate: None,
            origin: None,
        };
        let startup = Startup { minor: 0, parameters: vec![("user".to_owned(), "ana".to_owned())] };
        self.ways.open(dial, Asked { peer, secured: None, startup: &startup, packet: PACKET }).await
    }

    /// The way that a client from the network is taken, and what the server had said by then.
    async fn network_client(&self) -> (Transport, Vec<u8>) {
        let address = "127.0.0.1:1".parse().unwrap();
        let way = self.open(&Peer::Tcp { client: address, local: address }).await.unwrap();
        (way.upstream.transport, way.upstream.said.to_vec())
    }

    /// The sockets that were connected to.
    fn asked(&mut self) -> Vec<&'static str> {
        std::iter::from_fn(|| self.asked.try_recv().ok()).collect()
    }
}

#[tokio::test]
async fn the_unix_socket_is_taken_where_both_ask_for_the_same() {
    for word in [SCRAM, OK] {
        let mut scripted = Scripted::new(word, word).await;
        assert_eq!(scripted.network_client().await, (Transport::Tcp, word.to_vec()), "nothing is known yet");
        for _ in 0..3 {
            assert_eq!(scripted.network_client().await, (Transport::Unix, word.to_vec()));
        }
        assert_eq!(scripted.asked(), ["tcp", "unix", "unix", "unix"]);
    }
}

#[tokio::test]
async fn the_local_lines_let_nobody_in_whom_the_host_lines_would_not() {
    // trust and peer on local lines, a password on host lines; a refusal; another kind of password on either.
    for (tcp, unix) in [(SCRAM, OK), (REFUSED, OK), (REFUSED, SCRAM), (PASSWORD, PASSWORD), (OK, SCRAM)] {
        let mut scripted = Scripted::new(tcp, unix).await;
        for _ in 0..4 {
            assert_eq!(scripted.network_client().await, (Transport::Tcp, tcp.to_vec()));
        }
        let tried = scripted.asked().iter().filter(|way| **way == "unix").count();
        assert!(tried <= 1, "a difference is remembered: {tried}");
    }
}

#[tokio::test]
async fn what_is_known_is_not_believed_for_ever() {
    let mut scripted = Scripted::new(SCRAM, SCRAM).await;
    scripted.network_client().await;
    assert_eq!(scripted.network_client().await.0, Transport::Unix);
    for seen in lock(&scripted.ways.seen).values_mut() {
        seen.until = Instant::now();
    }
    assert_eq!(scripted.network_client().await.0, Transport::Tcp);
    assert_eq!(scripted.network_client().await.0, Transport::Unix);
    assert_eq!(scripted.asked(), ["tcp", "unix", "tcp", "unix"]);
}

#[tokio::test]
async fn clients_of_the_unix_socket_and_the_configuration_go_by_it_alone() {
    let peer = Peer::Unix { pid: 1, uid: 0, gid: 0, path: "/run/x".into() };
    let mut scripted = Scripted::new(SCRAM, OK).await;
    assert_eq!(scripted.open(&peer).await.unwrap().upstream.transport, Transport::Unix);
    scripted.ways = Ways::new(true, UpstreamTlsMode::Auto, None);
    assert_eq!(scripted.network_client().await.0, Transport::Unix);
    assert_eq!(scripted.asked(), ["unix", "unix"]);
}

#[tokio::test]
async fn logins_that_are_remembered_are_bounded() {
    let scripted = Scripted::new(SCRAM, SCRAM).await;
    let dial = Dial {
        server: &scripted.server,
        connection: &scripted.connection,
        limit: Duration::from_secs(5),
        gate: None,
        origin: None,
    };
    for number in 0..MAX_REMEMBERED + 10 {
        let login = Login { user: number.to_string(), database: String::new(), replication: false };
        scripted.ways.remember(login, &Method::Scram, dial);
    }
    assert_eq!(lock(&scripted.ways.seen).len(), MAX_REMEMBERED);
}
