//! A disk that is really full: a small tmpfs.

use std::fs;

use guard_common::{api::control::control_message::Message as ToAgent, audit::v1::decision::Verdict};
use guard_control::store::search::Search;
use guard_tests::tmpfs::Tmpfs;
use tonic::Code;

use super::{
    Control,
    agent::{Chain, Stream, statement},
};

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_goes_on_when_there_is_room() {
    let Some(disk) = Tmpfs::mount(4 * 1024).unwrap() else { return };
    let control = Control::start(disk.path()).await;
    let mut chain = Chain::new();
    let mut journal = Vec::new();
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 1024 * 1024]).unwrap();
    let mut acknowledged = 0;
    let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    let status = loop {
        let batch: Vec<_> =
            (0..10).map(|_| chain.seal(statement(&"x".repeat(10_000), Verdict::Allowed))).collect();
        journal.extend(batch.clone());
        stream.batch(batch).await;
        match stream.answer().await {
            Ok(ToAgent::Ack(ack)) => acknowledged = ack.stored_sequence,
            Ok(other) => panic!("{other:?}"),
            Err(status) => break status,
        }
        assert!(acknowledged < 1_000, "the disk is never full");
    };
    assert_eq!(status.code(), Code::Unavailable);
    assert!(acknowledged > 0);
    fs::remove_file(&ballast).unwrap();
    let (mut stream, stored) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    assert_eq!(stored, acknowledged, "what could not be stored is not half there");
    let rest = journal[usize::try_from(stored).unwrap()..].to_vec();
    assert_eq!(stream.store(rest).await, journal.len() as u64);
    drop(stream);
    control.stop().await;
    let agent = Search::open(disk.path()).unwrap().agents().unwrap().remove(0);
    assert_eq!((agent.stored_sequence, agent.alarm.as_str()), (journal.len() as u64, ""));
}
