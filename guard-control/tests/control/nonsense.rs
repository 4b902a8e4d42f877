//! Peers that are broken, or mean it.

use std::time::Duration;

use guard_common::{
    api::control::{Hello, agent_message::Message as FromAgent, control_message::Message as ToAgent},
    audit::v1::SealedRecord,
};
use guard_control::{
    server::{Server, ServerError},
    store::{Store, StoreError, search::Search},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use super::{
    Control,
    agent::{Chain, Stream, hello},
};

#[tokio::test]
async fn the_first_message_must_be_a_sound_hello() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let id = Chain::new().id;
    let long = Hello { agent_id: id.clone(), host: "x".repeat(257), ..Hello::default() };
    let labels = (0..65).map(|n| (n.to_string(), String::new())).collect();
    let crowded = Hello { agent_id: id.clone(), labels, ..Hello::default() };
    for (message, code) in [
        (FromAgent::Batch(Default::default()), Code::FailedPrecondition),
        (hello("no uuid", 1), Code::InvalidArgument),
        (hello("", 1), Code::InvalidArgument),
        (hello("00000000-0000-0000-0000-000000000000", 1), Code::InvalidArgument),
        (FromAgent::Hello(long), Code::InvalidArgument),
        (FromAgent::Hello(crowded), Code::InvalidArgument),
    ] {
        let mut stream = Stream::raw(control.address).await.unwrap();
        stream.send(message.clone()).await;
        assert_eq!(stream.answer().await.unwrap_err().code(), code, "{message:?}");
    }
    let (mut stream, _) = Stream::open(control.address, &id, 1).await.unwrap();
    stream.send(hello(&id, 1)).await;
    assert_eq!(stream.answer().await.unwrap_err().code(), Code::FailedPrecondition);
    control.stop().await;
    assert_eq!(Search::open(dir.path()).unwrap().agents().unwrap().len(), 1);
}

#[tokio::test]
async fn records_that_are_none_are_kept_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let mut chain = Chain::new();
    let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    let opaque = chain.head.seal(vec![0xff; 100].into());
    let empty = chain.head.seal(Vec::new().into());
    assert_eq!(stream.store(vec![opaque, empty]).await, 2);
    assert_eq!(stream.store(chain.next(1)).await, 3);
    drop(stream);
    control.stop().await;
}

#[tokio::test]
async fn malformed_seals_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let mut chain = Chain::new();
    let good = chain.next(1).remove(0);
    let short = SealedRecord { hash: vec![1; 31].into(), ..good.clone() };
    let no_previous = SealedRecord { previous: Vec::new().into(), ..good.clone() };
    let zero = SealedRecord { sequence: 0, ..good.clone() };
    let last = SealedRecord { sequence: u64::MAX, ..good.clone() };
    for bad in [short, no_previous, zero, last.clone(), SealedRecord::default()] {
        let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
        stream.reject(vec![bad]).await;
    }
    // A hole up to the end of all numbers.
    let (mut stream, _) = Stream::open(control.address, &chain.id, u64::MAX).await.unwrap();
    stream.reject(vec![last]).await;
    let (mut stream, stored) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    assert_eq!(stored, 0);
    assert_eq!(stream.store(vec![good]).await, 1);
    drop(stream);
    control.stop().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_stream_only() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let mut chain = Chain::new();
    let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    let good = chain.next(1);
    stream.store(good).await;
    let large = SealedRecord { payload: vec![0; 7 * 1024 * 1024].into(), ..SealedRecord::default() };
    stream.batch(vec![large]).await;
    assert_eq!(stream.answer().await.unwrap_err().code(), Code::OutOfRange);
    let (mut stream, stored) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    assert_eq!(stored, 1);
    assert_eq!(stream.store(chain.next(1)).await, 2);
    drop(stream);
    control.stop().await;
}

#[tokio::test]
async fn bytes_that_are_no_http_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    for bytes in [&b"\0\0\0\x08\x04\xd2\x16\x2f"[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4096]] {
        let mut socket = tokio::net::TcpStream::connect(control.address).await.unwrap();
        let _ = socket.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = socket.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(5), read).await.expect("the connection is closed");
    }
    // And one that says nothing at all.
    let _silent = tokio::net::TcpStream::connect(control.address).await.unwrap();
    let mut chain = Chain::new();
    let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    assert_eq!(stream.store(chain.next(1)).await, 1);
    control.stop().await;
}

#[tokio::test]
async fn stopping_tells_the_agents() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let (mut stream, _) = Stream::open(control.address, &Chain::new().id, 1).await.unwrap();
    let stopping = tokio::spawn(control.stop());
    match stream.answer().await {
        Err(status) => assert_eq!(status.code(), Code::Unavailable),
        Ok(answer) => assert!(matches!(answer, ToAgent::Ack(_)), "{answer:?}"),
    }
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), stopping).await.expect("it stops at once").unwrap();
}

#[tokio::test]
async fn plaintext_does_not_leave_the_host_and_a_store_has_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = Store::open(dir.path()).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse(_))));
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7400"] {
        let result = Server::bind(open.parse().unwrap(), false, store.clone()).await;
        let Err(error @ ServerError::Plaintext(_)) = result else { panic!("{open} was taken") };
        assert!(error.to_string().contains("--insecure-plaintext"));
    }
    assert!(Server::bind("[::ffff:127.0.0.1]:0".parse().unwrap(), false, store.clone()).await.is_ok());
    assert!(Server::bind("0.0.0.0:0".parse().unwrap(), true, store).await.is_ok());
}
