//! Batches: in order, again, out of order, changed, with holes, from two streams.

use guard_common::audit::v1::decision::Verdict;
use guard_control::store::search::Search;

use super::{
    Control,
    agent::{Chain, Stream, gap, statement},
};

#[tokio::test]
async fn batches_are_stored_acknowledged_and_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::new();
    let control = Control::start(dir.path()).await;
    let (mut stream, stored) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    assert_eq!(stored, 0);
    assert_eq!(stream.store(chain.next(3)).await, 3);
    // Several in flight.
    for _ in 0..10 {
        stream.batch(chain.next(100)).await;
    }
    for n in 1..=10 {
        let answer = format!("{:?}", stream.answer().await.unwrap());
        assert!(answer.contains(&format!("stored_sequence: {}", 3 + n * 100)), "{answer}");
    }
    drop(stream);
    control.stop().await;

    let control = Control::start(dir.path()).await;
    let (mut stream, stored) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    assert_eq!(stored, 1003);
    assert_eq!(stream.store(chain.next(1)).await, 1004);
    // Another agent has a chain of its own.
    let mut other = Chain::new();
    let (mut second, stored) = Stream::open(control.address, &other.id, 1).await.unwrap();
    assert_eq!(stored, 0);
    assert_eq!(second.store(other.next(2)).await, 2);
    drop((stream, second));
    control.stop().await;
    assert_eq!(Search::open(dir.path()).unwrap().agents().unwrap().len(), 2);
}

#[tokio::test]
async fn what_comes_twice_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let mut chain = Chain::new();
    let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    let records = chain.next(10);
    assert_eq!(stream.store(records[..6].to_vec()).await, 6);
    assert_eq!(stream.store(records[..6].to_vec()).await, 6);
    assert_eq!(stream.store(records[2..10].to_vec()).await, 10);
    assert_eq!(stream.store(Vec::new()).await, 10);
    drop(stream);
    control.stop().await;
    let found = Search::open(dir.path()).unwrap().decisions(&Default::default()).unwrap().decisions;
    let mut sequences: Vec<_> = found.iter().map(|decision| decision.sequence).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_that_does_not_fit_is_rejected_whole_and_alarms_until_one_fits() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let mut chain = Chain::new();
    let good = chain.next(8);
    let open = || Stream::open(control.address, &chain.id, 1);
    let alarm = || Search::open(dir.path()).unwrap().agents().unwrap().remove(0).alarm;

    let (mut stream, _) = open().await.unwrap();
    stream.store(good[..2].to_vec()).await;
    let mut reordered = good[2..6].to_vec();
    reordered.swap(1, 2);
    assert_eq!(stream.reject(reordered).await.0, 5);
    assert!(alarm().contains("record 5 does not fit"), "{}", alarm());
    assert!(stream.answer().await.is_err(), "the stream ends after a rejection");

    let (mut stream, stored) = open().await.unwrap();
    assert_eq!(stored, 2, "nothing of a rejected batch is kept");
    assert_eq!(stream.reject(good[3..5].to_vec()).await.0, 4);

    let (mut stream, _) = open().await.unwrap();
    let mut changed = good[2..6].to_vec();
    let mut payload = changed[3].payload.to_vec();
    payload[5] ^= 1;
    changed[3].payload = payload.into();
    assert_eq!(stream.reject(changed).await.0, 6);

    // The same number, another content: also in what is stored already.
    let (mut stream, _) = open().await.unwrap();
    let mut forked = Chain { id: chain.id.clone(), head: Default::default() };
    let (sequence, reason) = stream.reject(vec![forked.seal(gap())]).await;
    assert!(sequence == 1 && reason.contains("forked"), "{reason}");

    let (mut stream, stored) = open().await.unwrap();
    assert_eq!(stored, 2);
    assert_eq!(stream.store(good[2..].to_vec()).await, 8);
    assert_eq!(alarm(), "");
    drop(stream);
    control.stop().await;
}

#[tokio::test]
async fn any_flipped_bit_of_a_record_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let mut chain = Chain::new();
    let record = chain.next(1).remove(0);
    for at in 0..record.payload.len() + 64 {
        let mut bad = record.clone();
        let mut bytes = [&record.payload[..], &record.hash[..], &record.previous[..]].concat();
        bytes[at] ^= 1 << (at % 8);
        let (payload, seal) = bytes.split_at(record.payload.len());
        bad.payload = payload.to_vec().into();
        bad.hash = seal[..32].to_vec().into();
        bad.previous = seal[32..].to_vec().into();
        let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
        assert_eq!(stream.reject(vec![bad]).await.0, 1, "byte {at}");
    }
    let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    assert_eq!(stream.store(vec![record]).await, 1);
    drop(stream);
    control.stop().await;
}

#[tokio::test]
async fn records_that_the_agent_had_to_delete_are_counted_and_the_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let mut chain = Chain::new();
    let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    stream.store(chain.next(2)).await;
    chain.next(5);
    let rest = chain.next(3);
    // Not announced: a hole like any other.
    assert_eq!(stream.reject(rest.clone()).await.0, 8);
    let (mut stream, stored) = Stream::open(control.address, &chain.id, 8).await.unwrap();
    assert_eq!(stored, 2);
    // Only the announced record may come behind the hole.
    assert_eq!(stream.reject(rest[1..].to_vec()).await.0, 9);
    let (mut stream, _) = Stream::open(control.address, &chain.id, 8).await.unwrap();
    assert_eq!(stream.store(rest.clone()).await, 10);
    assert_eq!(stream.store(vec![chain.seal(gap())]).await, 11);
    // After all, what was reported as deleted can't come any more.
    drop(stream);
    control.stop().await;
    let agent = Search::open(dir.path()).unwrap().agents().unwrap().remove(0);
    assert_eq!((agent.missing, agent.gaps, agent.stored_sequence), (5, 2, 11));
}

#[tokio::test]
async fn of_two_streams_with_one_id_the_newer_wins() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let mut chain = Chain::new();
    let (mut old, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    old.store(chain.next(2)).await;
    let upper = chain.id.to_uppercase();
    let (mut new, stored) = Stream::open(control.address, &upper, 1).await.unwrap();
    assert_eq!(stored, 2);
    assert_eq!(old.answer().await.unwrap_err().code(), tonic::Code::Aborted);
    assert_eq!(new.store(chain.next(2)).await, 4);
    drop((old, new));
    control.stop().await;
}

#[tokio::test]
async fn many_agents_at_once_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let address = control.address;
    let agents: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn(async move {
                let mut chain = Chain::new();
                let (mut stream, _) = Stream::open(address, &chain.id, 1).await.unwrap();
                for _ in 0..5 {
                    stream.store(chain.next(20)).await;
                }
                // One bad batch among the good ones of others.
                let mut bad = chain.seal(statement("x", Verdict::Refused));
                bad.sequence += 1;
                stream.reject(vec![bad]).await;
            })
        })
        .collect();
    for agent in agents {
        agent.await.unwrap();
    }
    control.stop().await;
    let agents = Search::open(dir.path()).unwrap().agents().unwrap();
    assert_eq!(agents.len(), 20);
    assert!(agents.iter().all(|agent| agent.stored_sequence == 100 && !agent.alarm.is_empty()));
}
