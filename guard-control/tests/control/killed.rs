//! A real server, killed in mid-stream.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use guard_common::api::control::control_message::Message as ToAgent;
use guard_control::store::search::Search;

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
    let mut chain = Chain::new();
    let mut journal = Vec::new();
    let mut acknowledged = 0;
    for round in 0..5 {
        let server = Process::start(dir.path());
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
    let server = Process::start(dir.path());
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

    let search = Search::open(dir.path()).unwrap();
    let mut request = guard_common::api::control::DecisionsRequest { limit: 10_000, ..Default::default() };
    let mut sequences = Vec::new();
    loop {
        let answer = search.decisions(&request).unwrap();
        sequences.extend(answer.decisions.iter().map(|decision| decision.sequence));
        if answer.next_page.is_empty() {
            break;
        }
        request.page = answer.next_page;
    }
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=10_000).collect::<Vec<_>>());
}
