//! A disk that is really full: a small tmpfs.

use std::{fs, os::unix::fs::PermissionsExt};

use guard_common::{api::control::control_message::Message as ToAgent, audit::v1::decision::Verdict};
use guard_control::store::{Appended, Batch, StoreError, row::Row, search::Search};
use guard_tests::{Postgres, skip, tmpfs::Tmpfs};
use tonic::Code;

use super::{
    Control,
    agent::{Chain, Stream, statement},
    contract,
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

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_postgresql_stores_nothing_by_halves_and_goes_on_when_there_is_room() {
    if skip::without(&[skip::Need::Postgres]) {
        return;
    }
    let Some(disk) = Tmpfs::mount(24 * 1024).unwrap() else { return };
    let postgres = Postgres::start().unwrap();
    // Where the tables are; the server's own log of writes is elsewhere: without room for that it stops as a whole.
    let folder = disk.path().join("tables");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o711)).unwrap();
    postgres.account().own(&folder).unwrap();
    let psql = postgres.psql("postgres", "postgres");
    for sql in [
        &format!("CREATE TABLESPACE small LOCATION '{}'", folder.display()),
        "ALTER ROLE ALL SET default_tablespace = small",
    ] {
        assert!(psql.query(sql).unwrap().code == Some(0), "{sql}");
    }
    let store = contract::open(&postgres).await;
    let mut chain = Chain::new();
    contract::hello(&store, &chain.id).await;
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 4 * 1024 * 1024]).unwrap();

    let (mut journal, mut stored) = (Vec::new(), 0);
    let id = chain.id.clone();
    let batch = |rows: &[_]| Batch::new(id.clone(), 1, rows.iter().cloned().map(Row::new).collect());
    let error = loop {
        // What no compression makes smaller.
        let text = || (0..300).map(|_| uuid::Uuid::new_v4().to_string()).collect::<String>();
        let records: Vec<_> = (0..10).map(|_| chain.seal(statement(&text(), Verdict::Allowed))).collect();
        journal.extend(records.clone());
        match store.append(batch(&records)).await {
            Ok(Appended::Stored(upto)) => stored = upto,
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
        assert!(stored < 2_000, "the disk is never full");
    };
    assert!(stored > 0 && matches!(error, StoreError::Postgres(_)), "{error}");
    // What was there can be read, and what could not be stored is not half there.
    assert_eq!(contract::hello(&store, &id).await, stored);
    fs::remove_file(&ballast).unwrap();
    let rest = &journal[usize::try_from(stored).unwrap()..];
    assert_eq!(store.append(batch(rest)).await.unwrap(), Appended::Stored(journal.len() as u64));
    let agent = store.agents().await.unwrap().remove(0);
    assert_eq!((agent.stored_sequence, agent.alarm.as_str()), (journal.len() as u64, ""));
}
