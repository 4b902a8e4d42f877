//! What every store keeps to: the same tests on the embedded one and on a real PostgreSQL.

use std::time::Duration;

use guard_common::{
    api::control::{DecisionsRequest, Hello},
    audit::{
        chain::Head,
        proof::TreeHead,
        v1::{ControlEvent, SealedRecord, connection_opened::Access, decision::Verdict},
    },
};
use guard_control::{
    enrol,
    keys::SigningKey,
    proof,
    store::{
        Appended, Batch, Store, StoreError,
        row::Row,
        sql::{Sql, Value},
    },
};
use guard_tests::{Postgres, skip};
use uuid::Uuid;

use super::agent::{Chain, connection, gap, statement};

/// Runs `test` on each store.
pub async fn each(test: impl AsyncFn(&Store)) {
    let dir = tempfile::tempdir().unwrap();
    let (store, handle) = Store::open(dir.path()).unwrap();
    test(&store).await;
    drop(store);
    tokio::task::spawn_blocking(|| handle.close()).await.unwrap();
    if skip::without(&[skip::Need::Postgres]) {
        return;
    }
    let postgres = Postgres::start().unwrap();
    test(&open(&postgres).await).await;
}

pub async fn open(postgres: &Postgres) -> Store {
    let url = format!("postgresql://postgres@{}/postgres", postgres.address());
    Store::postgres(&url.parse().unwrap(), None).await.unwrap()
}

pub async fn hello(store: &Store, agent: &str) -> u64 {
    let hello = Hello { agent_id: agent.to_owned(), host: "db1".to_owned(), ..Hello::default() };
    store.hello(hello).await.unwrap()
}

async fn append(store: &Store, agent: &str, oldest: u64, records: &[SealedRecord]) -> Appended {
    let rows = records.iter().cloned().map(Row::new).collect();
    store.append(Batch::new(agent.to_owned(), oldest, rows)).await.unwrap()
}

fn rejected(appended: Appended) -> u64 {
    match appended {
        Appended::Rejected { sequence, .. } => sequence,
        Appended::Stored(upto) => panic!("stored up to {upto}"),
    }
}

async fn sequences(store: &Store, request: DecisionsRequest) -> Vec<u64> {
    let found = store.decisions(request).await.unwrap().decisions;
    found.iter().map(|decision| decision.sequence).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_ask_and_change_nothing() {
    each(async |store| {
        let mut chain = Chain::new();
        hello(store, &chain.id).await;
        let records = chain.next(5);
        append(store, &chain.id, 1, &records).await;
        let mention =
            "SELECT count(*), sum(instr(payload, $1)) > 0 FROM records WHERE instr(payload, $1) > 0";
        let questions = vec![
            Sql::new("SELECT id FROM agents WHERE agent_id = $1", [chain.id.as_str().into()]),
            Sql::new(mention, [b"web.service"[..].into()]),
            Sql::new(mention, [b"nowhere"[..].into()]),
        ];
        let answers = store.look(questions).await.unwrap();
        assert_eq!(answers[0].len(), 1);
        assert_eq!((answers[1][0].int(0), answers[1][0].int(1), answers[2][0].int(0)), (5, 1, 0));
        for change in ["DELETE FROM records", "UPDATE agents SET host = 'x'"] {
            assert!(store.look(vec![Sql::new(change, [])]).await.is_err(), "{change}");
        }
        assert_eq!(sequences(store, DecisionsRequest::default()).await.len(), 5);
        assert!(store.look(Vec::new()).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_stored_once_and_only_as_it_follows() {
    each(async |store| {
        let mut chain = Chain::new();
        assert_eq!(hello(store, &chain.id).await, 0);
        let records = chain.next(10);
        assert_eq!(append(store, &chain.id, 1, &records[..6]).await, Appended::Stored(6));
        assert_eq!(append(store, &chain.id, 1, &records[2..8]).await, Appended::Stored(8));
        assert_eq!(append(store, &chain.id, 1, &[]).await, Appended::Stored(8));
        assert_eq!(rejected(append(store, &chain.id, 1, &records[9..]).await), 10);
        let mut changed = records[8..].to_vec();
        changed[1].payload = b"other".to_vec().into();
        assert_eq!(rejected(append(store, &chain.id, 1, &changed).await), 10);
        let mut forked = Chain { id: chain.id.clone(), head: Head::default() };
        assert_eq!(rejected(append(store, &chain.id, 1, &[forked.seal(gap())]).await), 1);
        let agent = store.agents().await.unwrap().remove(0);
        assert!(agent.alarm.contains("forked") && agent.stored_sequence == 8, "{agent:?}");
        assert_eq!(append(store, &chain.id, 1, &records[8..]).await, Appended::Stored(10));
        assert_eq!(store.agents().await.unwrap().remove(0).alarm, "");
        assert_eq!(hello(store, &chain.id).await, 10);
        // Whoever has not said hello is not known.
        let stranger = store.append(Batch::new(Uuid::new_v4().to_string(), 1, Vec::new())).await;
        assert!(matches!(stranger, Err(StoreError::Request(_))));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_are_counted_and_what_is_no_record_is_kept() {
    each(async |store| {
        let mut chain = Chain::new();
        hello(store, &chain.id).await;
        let records = chain.next(20);
        append(store, &chain.id, 1, &records[..2]).await;
        assert_eq!(rejected(append(store, &chain.id, 11, &records[11..]).await), 12);
        assert_eq!(append(store, &chain.id, 11, &records[10..]).await, Appended::Stored(20));
        let opaque =
            [chain.head.seal(vec![0xff; 100].into()), chain.head.seal(Vec::new().into()), chain.seal(gap())];
        assert_eq!(append(store, &chain.id, 11, &opaque).await, Appended::Stored(23));
        let agent = store.agents().await.unwrap().remove(0);
        assert_eq!((agent.missing, agent.gaps, agent.stored_sequence), (8, 2, 23));
        assert_eq!(store.hashes(&chain.id, 1, 30).await.unwrap().len(), 15);
        let behind = store.record(&chain.id, 11).await.unwrap().unwrap();
        assert_eq!(behind, records[10], "its predecessor's hash is known though it never came");
        assert_eq!(store.record(&chain.id, 5).await.unwrap(), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_searched_alike() {
    each(async |store| {
        let mut chain = Chain::new();
        let mut other = Chain::new();
        hello(store, &chain.id).await;
        hello(store, &other.id).await;
        let records = [
            chain.seal(statement("select 100% from a_b\\c where x = 'ÄÖ\0'", Verdict::Allowed)),
            chain.seal(statement("drop table customers", Verdict::Refused)),
            chain.seal(connection("/usr/bin/psql", Access::NonProxied)),
            chain.seal(gap()),
        ];
        append(store, &chain.id, 1, &records).await;
        let records = other.next(3);
        append(store, &other.id, 1, &records).await;
        let request = |change: &dyn Fn(&mut DecisionsRequest)| {
            let mut request = DecisionsRequest { agent_id: chain.id.clone(), ..DecisionsRequest::default() };
            change(&mut request);
            request
        };
        assert_eq!(sequences(store, DecisionsRequest::default()).await.len(), 6);
        assert_eq!(sequences(store, request(&|_| {})).await, [3, 2, 1]);
        assert_eq!(sequences(store, request(&|r| r.verdict = "refused".to_owned())).await, [2]);
        assert_eq!(sequences(store, request(&|r| r.kind = "connection".to_owned())).await, [3]);
        assert_eq!(sequences(store, request(&|r| r.non_proxied = true)).await, [3]);
        for (part, found) in [
            ("CUSTOMERS", &[2][..]),
            ("100%", &[1]),
            ("b\\c", &[1]),
            ("a%c", &[]),
            ("_", &[1]),
            ("psql", &[3]),
            ("'; --", &[]),
        ] {
            assert_eq!(sequences(store, request(&|r| r.contains = part.to_owned())).await, found, "{part}");
        }
        let nobody = DecisionsRequest { agent_id: "nobody".to_owned(), ..DecisionsRequest::default() };
        assert!(sequences(store, nobody).await.is_empty());
        let moment = |text: &str| Some(guard_control::moment::read(text, &jiff::tz::TimeZone::UTC).unwrap());
        assert_eq!(sequences(store, request(&|r| r.since = moment("1h"))).await, [3, 2, 1]);
        assert!(sequences(store, request(&|r| r.until = moment("1h"))).await.is_empty());
        // Page by page.
        let mut page = request(&|r| r.limit = 2);
        let answer = store.decisions(page.clone()).await.unwrap();
        assert_eq!(answer.decisions.len(), 2);
        page.page = answer.next_page;
        assert_eq!(sequences(store, page).await, [1]);
        let wrong =
            store.decisions(DecisionsRequest { verdict: "maybe".to_owned(), ..DecisionsRequest::default() });
        assert!(matches!(wrong.await, Err(StoreError::Request(_))));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_in_every_field_is_text() {
    each(async |store| {
        let evil = "'); DROP TABLE records; DELETE FROM agents; -- $1 ?1 \" \\' %_";
        let mut chain = Chain::new();
        let labels = [(evil.to_owned(), evil.to_owned())].into();
        let hello = Hello {
            agent_id: chain.id.clone(),
            host: evil.to_owned(),
            agent_version: evil.to_owned(),
            mode: evil.to_owned(),
            labels,
            ..Hello::default()
        };
        store.hello(hello.clone()).await.unwrap();
        let records = [
            chain.seal(statement(evil, Verdict::Refused)),
            chain.seal(connection(evil, Access::NonProxied)),
            chain.seal(statement("select 1", Verdict::Allowed)),
        ];
        assert_eq!(append(store, &chain.id, 1, &records).await, Appended::Stored(3));
        let event = ControlEvent {
            event: evil.to_owned(),
            agent_id: evil.to_owned(),
            host: evil.to_owned(),
            detail: evil.to_owned(),
            ..ControlEvent::default()
        };
        store.note_event(event).await.unwrap();
        let agent = store.agents().await.unwrap().remove(0);
        assert_eq!((agent.host.as_str(), agent.mode.as_str(), agent.stored_sequence), (evil, evil, 3));
        let containing =
            |contains: &str| DecisionsRequest { contains: contains.to_owned(), ..Default::default() };
        assert_eq!(sequences(store, containing(evil)).await, [2, 1]);
        assert_eq!(sequences(store, containing("' OR 1=1 --")).await, Vec::<u64>::new());
        assert_eq!(sequences(store, containing("%_")).await, [2, 1]);
        for request in [
            DecisionsRequest { agent_id: evil.to_owned(), ..Default::default() },
            DecisionsRequest { agent_id: "' OR ''='".to_owned(), ..Default::default() },
        ] {
            assert_eq!(sequences(store, request).await, Vec::<u64>::new());
        }
        for request in [
            DecisionsRequest { verdict: evil.to_owned(), ..Default::default() },
            DecisionsRequest { kind: evil.to_owned(), ..Default::default() },
            DecisionsRequest { page: format!("1.2{evil}"), ..Default::default() },
        ] {
            assert!(matches!(store.decisions(request).await, Err(StoreError::Request(_))));
        }
        enrol::create_token(store, evil, Duration::from_secs(60)).await.unwrap();
        assert_eq!(enrol::tokens(store).await.unwrap()[0].name, evil);
        assert_eq!(store.hello(hello).await.unwrap(), 3, "everything is where it was");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_planes_own_chain_is_a_chain() {
    each(async |store| {
        for n in 0..5 {
            let event = ControlEvent { event: "test".to_owned(), sequence: n, ..ControlEvent::default() };
            store.note_event(event).await.unwrap();
        }
        assert!(store.agents().await.unwrap().is_empty(), "it is no agent");
        let own = store.query(Sql::new("SELECT agent_id FROM agents", [])).await.unwrap();
        let mut head = Head::default();
        for sequence in 1..=5 {
            let record = store.record(own[0].text(0), sequence).await.unwrap().unwrap();
            head.accept(&record).unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_one_run_stand_or_fall_together() {
    each(async |store| {
        let insert = |hash: &str| {
            let values = [hash.as_bytes().into(), "name".into(), 1.into(), 2.into()];
            Sql::new("INSERT INTO tokens (hash, name, created, expires) VALUES ($1, $2, $3, $4)", values)
        };
        store.run(vec![insert("a"), insert("b")]).await.unwrap();
        assert!(store.run(vec![insert("c"), insert("a")]).await.is_err());
        let lines = store
            .query(Sql::new("SELECT hash, used, name, expires FROM tokens ORDER BY hash", []))
            .await
            .unwrap();
        assert_eq!(lines.len(), 2, "{lines:?}");
        let expected =
            [Value::Bytes(b"a".to_vec()), Value::Null, Value::Text("name".to_owned()), Value::Int(2)];
        assert_eq!(lines[0].0, expected);
        // And it goes on afterwards.
        store.run(vec![insert("d")]).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_proved_and_the_tree_only_grows() {
    each(async |store| {
        let keys = tempfile::tempdir().unwrap();
        let key = SigningKey::open(keys.path()).unwrap();
        let public = key.public();
        assert_eq!(proof::gather(store, &key).await.unwrap(), 0, "there is nothing");
        let mut chains: Vec<Chain> = (0..3).map(|_| Chain::new()).collect();
        let mut heads: Vec<TreeHead> = Vec::new();
        for round in 1..=5 {
            for (n, chain) in chains.iter_mut().enumerate() {
                hello(store, &chain.id).await;
                let records = chain.next(round * 3 + n);
                append(store, &chain.id, 1, &records).await;
            }
            assert_eq!(proof::gather(store, &key).await.unwrap(), 3);
            assert_eq!(proof::gather(store, &key).await.unwrap(), 0, "once");
            heads.push(proof::tree_head(store).await.unwrap());
        }
        for chain in &chains {
            for sequence in 1..=chain.head.sequence {
                proof::inclusion(store, &chain.id, sequence).await.unwrap().verify(&public).unwrap();
            }
            assert!(proof::inclusion(store, &chain.id, chain.head.sequence + 1).await.is_err());
        }
        for head in &heads {
            proof::consistency(store, head.clone()).await.unwrap().verify(&public).unwrap();
        }
        // What somebody changes afterwards is not proved any more.
        let mut forged = proof::inclusion(store, &chains[0].id, 7).await.unwrap();
        forged.record.payload = "Zm9yZ2Vk".to_owned();
        forged.verify(&public).unwrap_err();
        let change =
            Sql::new("UPDATE nodes SET hash = $1 WHERE level = 0 AND number = 1", [vec![7; 32].into()]);
        store.run(vec![change]).await.unwrap();
        let first = heads[0].clone();
        proof::consistency(store, TreeHead { size: 2, ..first }).await.unwrap().verify(&public).unwrap_err();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_goes_and_chains_go_on() {
    each(async |store| {
        let mut chain = Chain::new();
        hello(store, &chain.id).await;
        let records = chain.next(100);
        append(store, &chain.id, 1, &records).await;
        assert_eq!(store.forget(0).await.unwrap(), 0);
        // Everything that there is: but the day that still goes on, or the chain's end, stays.
        store.forget(i64::MAX / 2).await.unwrap();
        let records = chain.next(5);
        assert_eq!(append(store, &chain.id, 1, &records).await, Appended::Stored(105));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_known_to_every_store() {
    each(async |store| {
        let dir = tempfile::tempdir().unwrap();
        let authority = guard_control::ca::Authority::open(dir.path()).unwrap();
        let registrar = enrol::Registrar::new(authority, Duration::from_secs(60));
        let agent_id = Uuid::new_v4();
        let applicant = enrol::Applicant { agent_id, host: "db1".to_owned(), signing_key: None };
        let request = super::tls_client::request(&rcgen::KeyPair::generate().unwrap());
        let token = enrol::create_token(store, "x", Duration::from_secs(60)).await.unwrap();
        let issued = registrar.enrol(store, &token, &applicant, &request).await.unwrap();
        enrol::check(store, agent_id, &issued.serial).await.unwrap();
        assert!(enrol::check(store, Uuid::new_v4(), &issued.serial).await.is_err());
        assert!(matches!(
            registrar.enrol(store, &token, &applicant, &request).await,
            Err(enrol::EnrolError::Token)
        ));
        let another = enrol::create_token(store, "y", Duration::from_secs(60)).await.unwrap();
        assert!(matches!(
            registrar.enrol(store, &another, &applicant, &request).await,
            Err(enrol::EnrolError::Taken(_))
        ));
        let next = registrar.renew(store, agent_id, &issued.serial, &request).await.unwrap();
        assert_eq!(enrol::revoke(store, agent_id, "test").await.unwrap(), 2);
        assert_eq!(enrol::revoked(store).await.unwrap().len(), 2);
        assert!(registrar.renew(store, agent_id, &next.serial, &request).await.is_err());
        assert_eq!(enrol::tokens(store).await.unwrap().len(), 2);
        // The token that met a taken id was not used up.
        registrar.enrol(store, &another, &applicant, &request).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_keep_one_chain_between_them() {
    if skip::without(&[skip::Need::Postgres]) {
        return;
    }
    let postgres = Postgres::start().unwrap();
    let stores = [open(&postgres).await, open(&postgres).await];
    let mut chain = Chain::new();
    hello(&stores[0], &chain.id).await;
    let records = chain.next(400);
    // Both get everything, at the same time, in batches of their own.
    let mut tasks = Vec::new();
    for (store, size) in stores.iter().cloned().zip([7, 11]) {
        let (id, records) = (chain.id.clone(), records.clone());
        tasks.push(tokio::spawn(async move {
            let mut stored = 0;
            while stored < 400 {
                let batch = &records[stored..records.len().min(stored + size)];
                match append(&store, &id, 1, batch).await {
                    Appended::Stored(upto) => stored = usize::try_from(upto).unwrap(),
                    Appended::Rejected { sequence, reason } => panic!("{sequence}: {reason}"),
                }
            }
        }));
    }
    for note in 0..20 {
        let event = ControlEvent { sequence: note, ..ControlEvent::default() };
        let (one, two) = (stores[0].note_event(event.clone()), stores[1].note_event(event));
        let (one, two) = tokio::join!(one, two);
        one.and(two).unwrap();
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(stores[0].hashes(&chain.id, 1, 400).await.unwrap().len(), 400);
    let own = stores[0]
        .query(Sql::new("SELECT head_sequence FROM agents WHERE mode = 'control'", []))
        .await
        .unwrap();
    assert_eq!((own.len(), own[0].int(0)), (1, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_goes_away_is_used_again_when_it_is_back() {
    if skip::without(&[skip::Need::Postgres]) {
        return;
    }
    let mut postgres = Postgres::start().unwrap();
    let store = open(&postgres).await;
    let mut chain = Chain::new();
    hello(&store, &chain.id).await;
    let records = chain.next(5);
    assert_eq!(append(&store, &chain.id, 1, &records).await, Appended::Stored(5));
    postgres.stop().unwrap();
    let records = chain.next(5);
    let rows = records.iter().cloned().map(Row::new).collect();
    let error = store.append(Batch::new(chain.id.clone(), 1, rows)).await.unwrap_err();
    assert!(error.to_string().contains("PostgreSQL"), "{error}");
    store.agents().await.unwrap_err();
    postgres.restart().unwrap();
    // The connections from before are of no use: each is thrown away once.
    let mut stored = None;
    for _ in 0..20 {
        let rows = records.iter().cloned().map(Row::new).collect();
        if let Ok(appended) = store.append(Batch::new(chain.id.clone(), 1, rows)).await {
            stored = Some(appended);
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(stored, Some(Appended::Stored(10)));
    assert_eq!(store.hashes(&chain.id, 1, 10).await.unwrap().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_finds_decisions_by_its_indexes() {
    if skip::without(&[skip::Need::Postgres]) {
        return;
    }
    let postgres = Postgres::start().unwrap();
    let store = open(&postgres).await;
    let mut agents = Vec::new();
    for host in 0..10 {
        let mut chain = Chain::new();
        hello(&store, &chain.id).await;
        let records: Vec<_> = (0..3_000)
            .map(|n| match n {
                _ if n % 500 == host => chain.seal(statement("drop table t", Verdict::Refused)),
                _ if n % 300 == 0 => chain.seal(connection("/usr/bin/psql", Access::NonProxied)),
                _ => chain.seal(statement("select a from b where c = ?", Verdict::Allowed)),
            })
            .collect();
        assert_eq!(append(&store, &chain.id, 1, &records).await, Appended::Stored(3_000));
        agents.push(chain.id);
    }
    store.query(Sql::new("ANALYZE records", [])).await.unwrap();
    let page = DecisionsRequest { limit: 50, ..DecisionsRequest::default() };
    let since = |ago: i64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Some(pbjson_types::Timestamp { seconds: i64::try_from(now.as_secs()).unwrap() - ago, nanos: 0 })
    };
    for request in [
        page.clone(),
        DecisionsRequest { verdict: "refused".to_owned(), ..page.clone() },
        DecisionsRequest { non_proxied: true, ..page.clone() },
        DecisionsRequest { agent_id: agents[3].clone(), ..page.clone() },
        DecisionsRequest { since: since(600), until: since(-600), ..page.clone() },
        DecisionsRequest { contains: "select".to_owned(), ..page },
    ] {
        let found = store.decisions(request.clone()).await.unwrap();
        assert!(found.decisions.len() >= 50, "{request:?}: {}", found.decisions.len());
    }
    // A session tells what it has counted when it ends; before that, only now and then.
    drop(store);
    let psql = postgres.psql("postgres", "postgres");
    let others = "SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let mut tries = 0..100;
    while psql.query(others).unwrap().stdout.trim() != "0" {
        assert!(tries.next().is_some(), "the store's sessions have not ended");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Rows, not scans: the partition of tomorrow is gone through, and is empty.
    let read = "SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname LIKE 'records%'";
    assert_eq!(psql.query(read).unwrap().stdout.trim(), "0", "something went through all records");
}
