//! Thousands of agents at one control plane: each with a certificate of its own, a TLS connection and a stream, sending now
//! and then. `cargo xtask bench control` runs it. The control plane is the real program, so that its memory can be told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench ends where something fails")]

#[path = "shared/fleet.rs"]
mod fleet;
#[path = "shared/room.rs"]
mod room;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fleet::Host;
use guard_common::api::control::{
    AgentMessage, Batch, ControlMessage, agent_message::Message as FromAgent,
    control_message::Message as ToAgent, ingest_client::IngestClient,
};
use guard_control::{
    ca::Authority,
    enrol::{self, Applicant, Registrar},
    store::Store,
};
use hyper_util::rt::TokioIo;
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{Signal, kill},
};
use rcgen::{CertificateParams, KeyPair};
use room::{Room, resident_mib};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{net::TcpStream, sync::Semaphore, sync::mpsc};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    codec::CompressionEncoding,
    transport::{Endpoint, Uri},
};

/// Records of one batch.
const BATCH: usize = 20;
/// How often each agent sends.
const EVERY: Duration = Duration::from_secs(5);
/// Agents that connect at once.
const AT_ONCE: usize = 64;

struct Arguments {
    agents: usize,
    seconds: u64,
}

impl Arguments {
    fn read() -> Self {
        let mut arguments = Self { agents: 2_000, seconds: 30 };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--agents" => arguments.agents = words.next().unwrap().parse().unwrap(),
                "--seconds" => arguments.seconds = words.next().unwrap().parse().unwrap(),
                _ => {}
            }
        }
        arguments
    }
}

fn main() {
    let arguments = Arguments::read();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let room = Room::with(1024 * 1024 * 1024);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.spawn(room.leave_on_interrupt());
    let members = runtime.block_on(enrolled(room.path(), arguments.agents));
    let mut figures = BTreeMap::new();
    let control = Control::start(room.path());
    let rest = resident_mib("VmRSS", control.pid());
    let sent = runtime.block_on(measure(&control, members, arguments.seconds, &mut figures));
    figures.insert("agents_idle_control_mib", rest);
    figures.insert("agents_control_peak_mib", resident_mib("VmHWM", control.pid()));
    control.stop();
    // What was acknowledged is there.
    let (store, handle) = Store::open(room.path()).unwrap();
    let agents = runtime.block_on(store.agents()).unwrap();
    let stored: u64 = agents.iter().map(|agent| agent.stored_sequence).sum();
    assert_eq!(stored, sent, "records were acknowledged and are not stored");
    drop(store);
    handle.close();
    println!("{}", serde_json::to_string(&figures).unwrap());
}

/// A host with its certificate.
struct Member {
    host: Host,
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

/// Gives every host a certificate, by the way that hosts get one.
async fn enrolled(dir: &Path, agents: usize) -> Vec<Member> {
    let (store, handle) = Store::open(dir).unwrap();
    let authority = Authority::open(&dir.join("keys")).unwrap();
    let registrar = Arc::new(Registrar::new(authority, Duration::from_secs(86_400)));
    let mut joining = tokio::task::JoinSet::new();
    let mut members = Vec::with_capacity(agents);
    for number in 0..agents {
        let (store, registrar) = (store.clone(), registrar.clone());
        joining.spawn(async move {
            let host = Host::new(number as u64);
            let key = KeyPair::generate().unwrap();
            let request = CertificateParams::default().serialize_request(&key).unwrap();
            let token = enrol::create_token(&store, "bench", Duration::from_secs(600)).await.unwrap();
            let applicant =
                Applicant { agent_id: host.id.parse().unwrap(), host: host.hello().host, signing_key: None };
            let issued = registrar.enrol(&store, &token, &applicant, request.der()).await.unwrap();
            Member { host, key, certificate: issued.certificate }
        });
        if joining.len() >= AT_ONCE {
            members.push(joining.join_next().await.unwrap().unwrap());
        }
    }
    members.extend(joining.join_all().await);
    drop(store);
    tokio::task::spawn_blocking(|| handle.close()).await.unwrap();
    members
}

/// The real program.
struct Control {
    child: Child,
    address: SocketAddr,
    authority: Authority,
}

impl Control {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_guard-control"));
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--listen-tls",
            "127.0.0.1:0",
            "--console",
            "none",
            "--data",
        ]);
        let mut child =
            command.arg(dir).env("GUARD_CONTROL_LOG", "error").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{line}"));
        Self { child, address, authority: Authority::load(&dir.join("keys")).unwrap() }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// Connects all, lets them send, and tells how many records were acknowledged.
async fn measure(
    control: &Control,
    members: Vec<Member>,
    seconds: u64,
    figures: &mut BTreeMap<&'static str, f64>,
) -> u64 {
    let agents = members.len();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let began = Instant::now();
    let mut connecting = tokio::task::JoinSet::new();
    for member in members {
        let (places, config, address) =
            (places.clone(), config(&control.authority, &member), control.address);
        connecting.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            Agent::connect(member.host, address, config).await
        });
    }
    let connected = connecting.join_all().await;
    figures.insert("agents_connected", agents as f64);
    figures.insert("agents_all_connected_s", began.elapsed().as_secs_f64());
    figures.insert("agents_connected_control_mib", resident_mib("VmRSS", control.pid()));
    let until = Instant::now() + Duration::from_secs(seconds);
    let (began, mut working) = (Instant::now(), tokio::task::JoinSet::new());
    for (number, agent) in connected.into_iter().enumerate() {
        let first = EVERY.mul_f64(number as f64 / agents as f64);
        working.spawn(agent.work(first, until));
    }
    let worked = working.join_all().await;
    let mut waits: Vec<Duration> = worked.iter().flat_map(|agent| agent.waits.iter().copied()).collect();
    let records = (waits.len() * BATCH) as f64;
    waits.sort();
    let wait = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
    figures.insert("agents_records_per_s", records / began.elapsed().as_secs_f64());
    figures.insert("agents_acknowledged_median_ms", wait(0.5));
    figures.insert("agents_acknowledged_p95_ms", wait(0.95));
    figures.insert("agents_control_mib", resident_mib("VmRSS", control.pid()));
    worked.iter().map(|agent| agent.host.told).sum()
}

fn config(authority: &Authority, member: &Member) -> ClientConfig {
    let key = PrivateKeyDer::try_from(member.key.serialize_der()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(authority.roots().unwrap())
        .with_client_auth_cert(vec![member.certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// An agent whose stream is open.
struct Agent {
    host: Host,
    messages: mpsc::Sender<AgentMessage>,
    answers: Streaming<ControlMessage>,
    /// For acknowledgements.
    waits: Vec<Duration>,
}

impl Agent {
    async fn connect(host: Host, address: SocketAddr, config: ClientConfig) -> Self {
        let connector = TlsConnector::from(Arc::new(config));
        let service = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let socket = TcpStream::connect(address).await?;
                let stream = connector.connect("localhost".try_into().unwrap(), socket).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let channel =
            Endpoint::from_static("http://localhost").connect_with_connector(service).await.unwrap();
        let mut client = IngestClient::new(channel).send_compressed(CompressionEncoding::Zstd);
        let (messages, receiver) = mpsc::channel(4);
        let hello = AgentMessage { message: Some(FromAgent::Hello(host.hello())) };
        messages.send(hello).await.unwrap();
        let mut answers = client.stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().and_then(|answer| answer.message);
        assert!(matches!(answer, Some(ToAgent::Resume(_))), "{answer:?}");
        Self { host, messages, answers, waits: Vec::new() }
    }

    async fn work(mut self, first: Duration, until: Instant) -> Self {
        tokio::time::sleep(first).await;
        while Instant::now() < until {
            let began = Instant::now();
            let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
            let records = (0..BATCH).map(|_| self.host.next(i64::try_from(at).unwrap())).collect();
            let batch = AgentMessage { message: Some(FromAgent::Batch(Batch { records })) };
            self.messages.send(batch).await.unwrap();
            match self.answers.message().await.unwrap().and_then(|answer| answer.message) {
                Some(ToAgent::Ack(ack)) => assert_eq!(ack.stored_sequence, self.host.told),
                other => panic!("{other:?} instead of an acknowledgement"),
            }
            self.waits.push(began.elapsed());
            tokio::time::sleep(EVERY.saturating_sub(began.elapsed())).await;
        }
        self
    }
}
