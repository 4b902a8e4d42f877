//! How many records a control plane takes, and what holds it up: through the network into the store, into the store alone,
//! and decoding with the chain alone. `cargo xtask bench control` runs it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench ends where something fails")]

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use guard_common::{
    api::control::{
        AgentMessage, Batch as Message, Hello, agent_message::Message as FromAgent,
        control_message::Message as ToAgent, ingest_client::IngestClient,
    },
    audit::{
        chain::Head,
        v1::{Decision, Record, SealedRecord, Statement, decision::Verdict, record::Body},
    },
};
use guard_control::{
    server::Server,
    store::{Appended, Batch, Store, row::Row},
};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

/// As agents send them.
const BATCH: usize = 5_000;
const WINDOW: usize = 4;
const AGENTS: usize = 8;

struct Arguments {
    rounds: usize,
    records: usize,
}

impl Arguments {
    fn read() -> Self {
        let mut arguments = Self { rounds: 3, records: 400_000 };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--rounds" => arguments.rounds = words.next().unwrap().parse().unwrap(),
                "--records" => arguments.records = words.next().unwrap().parse().unwrap(),
                _ => {}
            }
        }
        arguments
    }
}

/// One agent's records, in batches.
struct Agent {
    id: String,
    batches: Vec<Vec<SealedRecord>>,
}

impl Agent {
    fn new(records: usize) -> Self {
        let mut head = Head::default();
        let sealed: Vec<_> = (0..records).map(|n| head.seal(record(n).encode_to_vec().into())).collect();
        let batches = sealed.chunks(BATCH).map(<[SealedRecord]>::to_vec).collect();
        Self { id: Uuid::new_v4().to_string(), batches }
    }

    fn hello(&self) -> Hello {
        Hello { agent_id: self.id.clone(), host: "db1".to_owned(), oldest_sequence: 1, ..Hello::default() }
    }
}

/// A statement as the proxy records it.
fn record(n: usize) -> Record {
    let decision = Decision {
        verdict: Verdict::Allowed.into(),
        policy: "reads-are-allowed".to_owned(),
        ..Decision::default()
    };
    Record::now(Body::Statement(Statement {
        connection_id: "0193f2d4-8c1e-7f55-9d0e-0123456789ab".to_owned(),
        ordinal: n as u64,
        text: format!("SELECT abalance FROM pgbench_accounts_{} WHERE aid = ?", n % 16),
        database: "bench".to_owned(),
        db_user: "app".to_owned(),
        workload: "web.service".to_owned(),
        decision: Some(decision),
        ..Statement::default()
    }))
}

fn main() {
    let arguments = Arguments::read();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for _ in 0..arguments.rounds {
        let mut figures = BTreeMap::new();
        let agents: Vec<_> = (0..AGENTS).map(|_| Agent::new(arguments.records / AGENTS)).collect();
        let total = agents.iter().flat_map(|agent| &agent.batches).map(Vec::len).sum::<usize>() as f64;
        figures.insert("verify_records_per_s", total / verify(&agents).as_secs_f64());
        figures.insert("store_records_per_s", total / runtime.block_on(store(&agents)).as_secs_f64());
        let (took, busy) = runtime.block_on(ingest(agents));
        figures.insert("ingest_records_per_s", total / took.as_secs_f64());
        figures.insert("ingest_busy_processors", busy / took.as_secs_f64());
        figures.insert("resident_mib", resident());
        println!("{}", serde_json::to_string(&figures).unwrap());
    }
}

/// Decoding and hashing on one thread.
fn verify(agents: &[Agent]) -> Duration {
    let began = Instant::now();
    for agent in agents {
        for batch in &agent.batches {
            std::hint::black_box(prepared(agent, batch));
        }
    }
    began.elapsed()
}

fn prepared(agent: &Agent, batch: &[SealedRecord]) -> Batch {
    Batch::new(agent.id.clone(), 1, batch.iter().cloned().map(Row::new).collect())
}

/// Into the store, without a network; batches are made beforehand.
async fn store(agents: &[Agent]) -> Duration {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (store, handle) = Store::open(dir.path()).unwrap();
    let mut batches = Vec::new();
    for agent in agents {
        store.hello(agent.hello()).await.unwrap();
        batches.push(agent.batches.iter().map(|batch| prepared(agent, batch)).collect::<Vec<_>>());
    }
    let began = Instant::now();
    let tasks: Vec<_> = batches
        .into_iter()
        .map(|batches| {
            let store = store.clone();
            tokio::spawn(async move {
                for batch in batches {
                    assert!(matches!(store.append(batch).await.unwrap(), Appended::Stored(_)));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let took = began.elapsed();
    drop(store);
    tokio::task::spawn_blocking(|| handle.close()).await.unwrap();
    took
}

/// Through the network, as agents do; and the seconds of processors that it took.
async fn ingest(agents: Vec<Agent>) -> (Duration, f64) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (store, handle) = Store::open(dir.path()).unwrap();
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), false, store).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async { _ = stopped.await }));
    let (began, worked) = (Instant::now(), processor_seconds());
    let tasks: Vec<_> = agents.into_iter().map(|agent| tokio::spawn(ship(address, agent))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (took, worked) = (began.elapsed(), processor_seconds() - worked);
    drop(stop);
    serving.await.unwrap().unwrap();
    tokio::task::spawn_blocking(|| handle.close()).await.unwrap();
    (took, worked)
}

/// Seconds that this process has had a processor.
fn processor_seconds() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

async fn ship(address: SocketAddr, agent: Agent) {
    let mut client = IngestClient::connect(format!("http://{address}")).await.unwrap();
    let (messages, receiver) = mpsc::channel(WINDOW);
    let send = async |message| messages.send(AgentMessage { message: Some(message) }).await.unwrap();
    send(FromAgent::Hello(agent.hello())).await;
    let mut answers = client.stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let mut left = agent.batches.len();
    let mut batches = agent.batches.into_iter();
    let mut on_the_way = 0;
    answers.message().await.unwrap();
    while left > 0 {
        while on_the_way < WINDOW
            && let Some(records) = batches.next()
        {
            send(FromAgent::Batch(Message { records })).await;
            on_the_way += 1;
        }
        match answers.message().await.unwrap().and_then(|answer| answer.message) {
            Some(ToAgent::Ack(_)) => (left, on_the_way) = (left - 1, on_the_way - 1),
            other => panic!("{other:?} instead of an acknowledgement"),
        }
    }
}

/// At most, of this process, in MiB.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
