//! Agents that are slow, or stop in the middle: others go on, and what they hold here is bounded.

use std::time::{Duration, Instant};

use guard_common::api::control::control_message::Message as ToAgent;

use super::{
    Control,
    agent::{Chain, Stream},
};

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_no_answers_holds_up_nobody_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let mut slow = Chain::new();
    let (mut lazy, _) = Stream::open(control.address, &slow.id, 1).await.unwrap();
    // It sends far more than may be unread, and reads nothing of what it is told.
    let batches: Vec<_> = (0..400).map(|_| slow.next(20)).collect();
    let messages = lazy.messages.clone();
    let sending = tokio::spawn(async move {
        for records in batches {
            let batch = guard_common::api::control::Batch { records };
            let message = guard_common::api::control::agent_message::Message::Batch(batch);
            let message = guard_common::api::control::AgentMessage { message: Some(message) };
            if messages.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut quick = Chain::new();
    let (mut stream, _) = Stream::open(control.address, &quick.id, 1).await.unwrap();
    let mut longest = Duration::ZERO;
    for turn in 1..=50 {
        let began = Instant::now();
        assert_eq!(stream.store(quick.next(10)).await, turn * 10);
        longest = longest.max(began.elapsed());
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    // At last it reads: everything is acknowledged, in order.
    let mut acknowledged = 0;
    while acknowledged < 8_000 {
        match lazy.answer().await.unwrap() {
            ToAgent::Ack(ack) => {
                assert!(ack.stored_sequence > acknowledged);
                acknowledged = ack.stored_sequence;
            }
            other => panic!("{other:?}"),
        }
    }
    sending.await.unwrap();
    drop((lazy, stream));
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_within_a_message_holds_up_nobody() {
    use tokio::io::AsyncWriteExt;
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    // HTTP/2's preface and the beginning of a frame that never ends, many times.
    let mut stuck = Vec::new();
    for _ in 0..200 {
        let mut socket = tokio::net::TcpStream::connect(control.address).await.unwrap();
        socket
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\x40\0\0\0\0\0")
            .await
            .unwrap();
        stuck.push(socket);
    }
    let mut chain = Chain::new();
    let began = Instant::now();
    let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    assert_eq!(stream.store(chain.next(100)).await, 100);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop((stuck, stream));
    control.stop().await;
}
