//! Time that goes wrong or went by: agents that were away for a day, clocks that are off, and what charts make of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guard_common::{
    api::control::{DecisionsRequest, control_message::Message as ToAgent},
    audit::v1::{Record, SealedRecord, decision::Verdict},
};
use guard_control::{
    reading::Readings,
    store::{Appended, Batch, Store, row::Row},
};
use pbjson_types::Timestamp;
use prost::Message;

use super::{
    Control,
    agent::{Chain, Stream, statement},
    contract,
};

const DAY: i64 = 86_400;

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// A statement that ran at this second.
fn at(chain: &mut Chain, seconds: i64, text: &str, verdict: Verdict) -> SealedRecord {
    let at = Some(Timestamp { seconds, nanos: 5 });
    chain.head.seal(Record { at, ..Record::now(statement(text, verdict)) }.encode_to_vec().into())
}

fn within(since: i64, until: i64) -> DecisionsRequest {
    let moment = |seconds| Some(Timestamp { seconds, nanos: 0 });
    DecisionsRequest {
        since: moment(since),
        until: moment(until),
        limit: 10_000,
        ..DecisionsRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_without_the_control_plane_arrives_once_and_stands_at_its_own_time() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chain, begin) = (Chain::new(), now() - DAY);
    let control = Control::start(dir.path()).await;
    let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    let mut journal = vec![at(&mut chain, begin - 1, "before", Verdict::Allowed)];
    stream.store(journal.clone()).await;
    drop(stream);
    control.stop().await;
    // One statement a second for a day; one an hour is refused.
    for second in 0..DAY {
        let verdict = if second % 3_600 == 0 { Verdict::Refused } else { Verdict::Allowed };
        journal.push(at(&mut chain, begin + second, "select at_night", verdict));
    }
    // It is back, goes away again in the middle, and comes back for good.
    let mut acknowledged = 1;
    for end in [journal.len() / 3, journal.len()] {
        let control = Control::start(dir.path()).await;
        let (mut stream, stored) = Stream::open(control.address, &chain.id, 1).await.unwrap();
        assert_eq!(stored, acknowledged);
        let from = usize::try_from(stored).unwrap();
        for batch in journal[from..end].chunks(5_000) {
            stream.batch(batch.to_vec()).await;
            match stream.answer().await.unwrap() {
                ToAgent::Ack(ack) => acknowledged = ack.stored_sequence,
                other => panic!("{other:?}"),
            }
        }
        drop(stream);
        control.stop().await;
    }
    assert_eq!(acknowledged, journal.len() as u64);
    let (store, handle) = Store::open(dir.path()).unwrap();
    assert_eq!(store.hashes(&chain.id, 1, u64::from(u32::MAX)).await.unwrap().len(), journal.len());
    let hour = within(begin + 7 * 3_600, begin + 8 * 3_600);
    let found = store.decisions(hour.clone()).await.unwrap().decisions;
    assert_eq!(found.len(), 3_600);
    assert_eq!(found[0].at.unwrap().seconds, begin + 8 * 3_600 - 1, "the newest first");
    let refused = DecisionsRequest { verdict: "refused".to_owned(), ..hour };
    assert_eq!(store.decisions(refused).await.unwrap().decisions.len(), 1);
    let history = Readings::new(store.clone()).history(Duration::from_secs(2 * 86_400)).await.unwrap();
    let total = history.total();
    assert_eq!((total.allowed, total.refused), (86_400 - 24 + 1, 24), "each is counted once");
    let busy = history.buckets.iter().filter(|bucket| bucket.total() > 0).count();
    assert!((24..=26).contains(&busy), "over a day, not where they arrived: {busy}");
    drop(store);
    tokio::task::spawn_blocking(|| handle.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_off_lose_nothing_and_confuse_nobody() {
    contract::each(async |store| {
        let (mut chain, now) = (Chain::new(), now());
        contract::hello(store, &chain.id).await;
        // Set back by a year, forward by a day, before there were computers, beyond any calendar, and none at all.
        let moments = [now, now - 365 * DAY, now + DAY, -5, i64::MAX / 2, i64::MIN / 2, now + 1];
        let mut records: Vec<_> =
            moments.iter().map(|moment| at(&mut chain, *moment, "select skewed", Verdict::Allowed)).collect();
        let timeless = Record { at: None, ..Record::now(statement("select skewed", Verdict::Refused)) };
        records.push(chain.head.seal(timeless.encode_to_vec().into()));
        let rows = records.iter().cloned().map(Row::new).collect();
        let appended = store.append(Batch::new(chain.id.clone(), 1, rows)).await.unwrap();
        assert_eq!(appended, Appended::Stored(8));
        let all =
            |request: DecisionsRequest| async move { store.decisions(request).await.unwrap().decisions };
        assert_eq!(all(DecisionsRequest::default()).await.len(), 8);
        let skewed =
            DecisionsRequest { contains: "SKEWED".to_owned(), limit: 3, ..DecisionsRequest::default() };
        let (mut request, mut paged) = (skewed, 0);
        loop {
            let answer = store.decisions(request.clone()).await.unwrap();
            paged += answer.decisions.len();
            if answer.next_page.is_empty() {
                break;
            }
            request.page = answer.next_page;
        }
        assert_eq!(paged, 8, "each once over all pages");
        assert_eq!(all(within(now - 60, now + 60)).await.len(), 2);
        let own = DecisionsRequest { agent_id: chain.id.clone(), ..within(now + DAY - 5, now + DAY + 5) };
        assert_eq!(all(own).await[0].sequence, 3);
        let history = Readings::new(store.clone()).history(Duration::from_secs(3_600)).await.unwrap();
        assert_eq!(history.total().total(), 2);
        // What is older than its time goes by the clock that the store has for it, and the chain goes on.
        let next = at(&mut chain, now, "select after", Verdict::Allowed);
        let appended = store.append(Batch::new(chain.id.clone(), 1, vec![Row::new(next)])).await.unwrap();
        assert_eq!(appended, Appended::Stored(9));
    })
    .await;
}
