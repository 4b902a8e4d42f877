//! A real server, killed in mid-stream.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use guard_common::api::control::{DecisionsRequest, DecisionsResponse, control_message::Message as ToAgent};
use guard_control::store::{Store, search::Search};
use guard_tests::{Postgres, skip};

use super::agent::{Chain, Stream};

/// `guard-control serve` as a process; killed when dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    pub fn start(data: &Path) -> Self {
        Self::with(data, &[])
    }

    /// With more on its command line.
    pub fn with(data: &Path, more: &[&str]) -> Self {
        let console = if more.contains(&"--console") { &[][..] } else { &["--console", "none"] };
        let mut child = Command::new(env!("CARGO_BIN_EXE_guard-control"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(console)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_whitespace().nth(4).and_then(|word| word.trim_end_matches(',').parse().ok());
        Self { child, address: address.unwrap_or_else(|| panic!("no address in `{line}`")) }
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the exit must be clean.
    pub fn terminate(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill_and_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let sequences = kill_in_mid_stream(dir.path(), &[], async || {
        let search = Search::open(dir.path()).unwrap();
        all(async |request| search.decisions(&request).unwrap()).await
    });
    assert_eq!(sequences.await, (1..=10_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_does_with_postgresql() {
    if skip::without(&[skip::Need::Postgres]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start().unwrap();
    let url = format!("postgresql://postgres@{}/postgres", postgres.address());
    let place = ["--store", url.as_str()];
    let sequences = kill_in_mid_stream(dir.path(), &place, async || {
        let store = Store::postgres(&url.parse().unwrap(), None).await.unwrap();
        all(async |request| store.decisions(request).await.unwrap()).await
    });
    assert_eq!(sequences.await, (1..=10_000).collect::<Vec<_>>());
}

/// The numbers of all decisions that a store has.
async fn all(ask: impl AsyncFn(DecisionsRequest) -> DecisionsResponse) -> Vec<u64> {
    let mut request = DecisionsRequest { limit: 10_000, ..DecisionsRequest::default() };
    let mut sequences = Vec::new();
    loop {
        let answer = ask(request.clone()).await;
        sequences.extend(answer.decisions.iter().map(|decision| decision.sequence));
        if answer.next_page.is_empty() {
            break;
        }
        request.page = answer.next_page;
    }
    sequences.sort_unstable();
    sequences
}

/// An agent sends 10,000 records to a server that is killed five times; what `found` finds afterwards.
async fn kill_in_mid_stream(data: &Path, more: &[&str], found: impl AsyncFnOnce() -> Vec<u64>) -> Vec<u64> {
    let mut chain = Chain::new();
    let mut journal = Vec::new();
    let mut acknowledged = 0;
    for round in 0..5 {
        let server = Process::with(data, more);
        let (mut stream, stored) = Stream::open(server.address, &chain.id, 1).await.unwrap();
        assert!(
            stored >= acknowledged,
            "round {round}: {stored} are stored, {acknowledged} were acknowledged"
        );
        // An agent goes on behind what is stored; one that has lost its place sends some again.
        let from = usize::try_from(stored.saturating_sub(round)).unwrap();
        let mut batches = Vec::new();
        journal.extend(chain.next(2_000));
        for records in journal[from..].chunks(50) {
            batches.push(records.to_vec());
        }
        let messages = stream.messages.clone();
        let sending = tokio::spawn(async move {
            let stream = |records| guard_common::api::control::AgentMessage {
                message: Some(guard_common::api::control::agent_message::Message::Batch(
                    guard_common::api::control::Batch { records },
                )),
            };
            for records in batches {
                if messages.send(stream(records)).await.is_err() {
                    return;
                }
            }
        });
        let until = acknowledged + 300;
        while acknowledged < until {
            match stream.answer().await.unwrap() {
                ToAgent::Ack(ack) => acknowledged = ack.stored_sequence,
                other => panic!("{other:?} instead of Ack"),
            }
        }
        server.kill();
        while let Ok(ToAgent::Ack(ack)) = stream.answer().await {
            acknowledged = ack.stored_sequence;
        }
        sending.await.unwrap();
    }
    let server = Process::with(data, more);
    let (mut stream, stored) = Stream::open(server.address, &chain.id, 1).await.unwrap();
    assert!(stored >= acknowledged && acknowledged >= 1_500);
    let rest = journal[usize::try_from(stored).unwrap()..].to_vec();
    let mut last = stored;
    for records in rest.chunks(500) {
        last = stream.store(records.to_vec()).await;
    }
    assert_eq!(last, 10_000);
    drop(stream);
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.terminate();

    found().await
}
