//! How far an outlet is, on each store.

use guard_control::outlets::{
    config::Begin,
    cursors::{Cursors, Moved},
    state,
};
use guard_control::store::sql::Sql;

use super::{
    super::{agent::Chain, contract::each},
    statements, store,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_outlet_goes_on_where_it_was_and_nobody_else_does() {
    each(async |kept| {
        let (mut one, mut other) = (Chain::new(), Chain::new());
        let records = statements(&mut one, 700);
        store(kept, &one.id, &records).await;
        let cursors = Cursors::new(kept.clone(), ("siem", "syslog"), true);
        assert!(cursors.claim(Begin::Oldest).await.unwrap() && cursors.claim(Begin::Oldest).await.unwrap());
        let replica = Cursors::new(kept.clone(), ("siem", "syslog"), true);
        assert!(!replica.claim(Begin::Oldest).await.unwrap(), "one works for it at a time");
        store(kept, &other.id.clone(), &statements(&mut other, 3)).await;

        let behind = cursors.behind(0).await.unwrap();
        assert_eq!(behind.iter().map(|one| (one.given, one.stored)).collect::<Vec<_>>(), [(0, 700), (0, 3)]);
        assert_eq!(cursors.behind(behind[0].agent).await.unwrap(), behind[1..]);
        let portion = cursors.read(&behind[0], 500).await.unwrap();
        assert_eq!((portion.records.len(), portion.upto, portion.missed), (500, 500, 0));
        assert_eq!(portion.records[7].payload, records[7].payload);
        let moved = Moved { upto: vec![(behind[0].agent, 500)], sent: 500, ..Moved::default() };
        assert!(cursors.advance(&moved).await.unwrap());
        assert!(
            !replica.advance(&Moved { upto: vec![(behind[0].agent, 700)], ..moved.clone() }).await.unwrap()
        );
        // Never back.
        let back = Moved { upto: vec![(behind[0].agent, 7)], ..Moved::default() };
        assert!(cursors.advance(&back).await.unwrap());
        cursors.failed("it is \0 away").await.unwrap();

        cursors.release().await.unwrap();
        assert!(replica.claim(Begin::Oldest).await.unwrap() && !cursors.claim(Begin::Oldest).await.unwrap());
        let behind = replica.behind(0).await.unwrap();
        assert_eq!((behind[0].given, behind[0].stored), (500, 700));
        let portion = replica.read(&behind[0], 500).await.unwrap();
        assert_eq!((portion.records[0].sequence, portion.upto), (501, 700));

        let late = Cursors::new(kept.clone(), ("later", "nats"), true);
        assert!(late.claim(Begin::Now).await.unwrap());
        assert!(late.behind(0).await.unwrap().is_empty());
        let states = state::states(kept).await.unwrap();
        assert_eq!(states.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["later", "siem"]);
        assert_eq!(
            (states[0].waiting, states[1].waiting, states[1].sent, states[1].failures),
            (0, 203, 500, 1)
        );
        assert!(states[1].error.contains("away") && states[1].running);
        let text = state::metrics(&states);
        assert!(
            text.contains("guard_control_outlet_waiting{outlet=\"siem\",kind=\"syslog\"} 203\n"),
            "{text}"
        );
        assert!(!state::forget(kept, "siem").await.unwrap(), "a server works for it");
        replica.release().await.unwrap();
        assert!(state::forget(kept, "siem").await.unwrap() && !state::forget(kept, "siem").await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_before_it_could_leave_is_counted() {
    each(async |kept| {
        let mut chain = Chain::new();
        let records = statements(&mut chain, 30);
        store(kept, &chain.id, &records[..10]).await;
        // What was deleted before there was an outlet is no loss of it.
        kept.run(vec![Sql::new("DELETE FROM records WHERE id % 17592186044416 < 5", [])]).await.unwrap();
        let cursors = Cursors::new(kept.clone(), ("lake", "parquet"), false);
        assert!(cursors.claim(Begin::Oldest).await.unwrap());
        let behind = cursors.behind(0).await.unwrap().remove(0);
        assert_eq!((behind.given, behind.stored), (4, 10));
        let portion = cursors.read(&behind, 500).await.unwrap();
        assert_eq!((portion.records.len(), portion.missed), (6, 0));

        // After it: what is gone from the middle, and all of it.
        store(kept, &chain.id, &records[10..]).await;
        kept.run(vec![Sql::new("DELETE FROM records WHERE id % 17592186044416 BETWEEN 8 AND 20", [])])
            .await
            .unwrap();
        let behind = cursors.behind(0).await.unwrap().remove(0);
        let portion = cursors.read(&behind, 500).await.unwrap();
        assert_eq!((portion.records.len(), portion.upto, portion.missed), (13, 30, 13));
        kept.run(vec![Sql::new("DELETE FROM records", [])]).await.unwrap();
        let portion = cursors.read(&behind, 500).await.unwrap();
        assert_eq!((portion.records.len(), portion.upto, portion.missed), (0, 30, 26));
    })
    .await;
}
