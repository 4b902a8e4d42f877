//! Counts and health for monitoring systems, without a console: on the embedded store and on PostgreSQL.

use guard_tests::{Postgres, skip};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    agent::{Chain, Stream},
    killed::Process,
};

/// Asks for `path`: the whole answer.
async fn get(address: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

fn free() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A server with these arguments, and no console, tells what it has.
async fn tells(more: &[&str]) {
    let (dir, metrics) = (tempfile::tempdir().unwrap(), free());
    let server = Process::with(dir.path(), &[&["--metrics", &metrics], more].concat());
    let mut chain = Chain::new();
    let (mut stream, _) = Stream::open(server.address, &chain.id, 1).await.unwrap();
    stream.store(chain.next(7)).await;
    let text = get(&metrics, "/metrics").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for line in [
        "guard_control_agents 1\n",
        "guard_control_agents_connected 1\n",
        "guard_control_records_stored_total 7\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("db1") && !text.contains(&chain.id), "no host is named: {text}");
    assert!(get(&metrics, "/healthz").await.ends_with("ok\n"));
    assert!(get(&metrics, "/readyz").await.ends_with("ready\n"));
    for other in ["/", "/api/v1/agents", "/sign-in"] {
        assert!(get(&metrics, other).await.starts_with("HTTP/1.1 404"), "{other}");
    }
    drop(stream);
    server.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_and_health_are_told_without_a_console() {
    tells(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_they_are_on_postgresql_which_may_go_and_come_back() {
    if skip::without(&[skip::Need::Postgres]) {
        return;
    }
    let mut postgres = Postgres::start().unwrap();
    let url = format!("postgresql://postgres@{}/postgres", postgres.address());
    tells(&["--store", &url]).await;
    let (dir, metrics) = (tempfile::tempdir().unwrap(), free());
    let server = Process::with(dir.path(), &["--metrics", &metrics, "--store", &url]);
    let mut chain = Chain::new();
    let (mut stream, _) = Stream::open(server.address, &chain.id, 1).await.unwrap();
    stream.store(chain.next(5)).await;
    postgres.stop().unwrap();
    assert!(get(&metrics, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(get(&metrics, "/metrics").await.starts_with("HTTP/1.1 503"));
    // The agent is told that it was not stored, and comes again.
    let more = chain.next(5);
    stream.batch(more.clone()).await;
    let refused = stream.answer().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(get(&metrics, "/healthz").await.ends_with("ok\n"), "the program itself is well");
    postgres.restart().unwrap();
    let mut back = None;
    for _ in 0..50 {
        if let Ok((stream, stored)) = Stream::open(server.address, &chain.id, 1).await {
            back = Some((stream, stored));
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let (mut stream, stored) = back.expect("it takes agents again");
    assert_eq!(stored, 5, "half a batch is not there");
    assert_eq!(stream.store(more).await, 10);
    for _ in 0..50 {
        if get(&metrics, "/readyz").await.ends_with("ready\n") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(get(&metrics, "/metrics").await.contains("guard_control_records_stored_total 17\n"));
    drop(stream);
    server.terminate();
}
