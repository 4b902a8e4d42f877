//! The journal as a whole: crashes, damage, full disks, crowds.

mod crash;
mod damage;
mod full_disk;
mod limits;
mod signing;
mod tombstones;

use std::{path::Path, time::Duration};

use guard_common::audit::v1::{AgentStopped, Gap, Record, Tombstone, record::Body};
use prost::Message;

use super::{AuditLog, JournalHandle, Reader, verify};
use crate::config::{JournalConfig, Sync};

/// Fast: tests of crashes kill processes, not hosts. Nothing is signed, so that records can be counted.
fn config() -> JournalConfig {
    JournalConfig { sync: Sync::Os, sign_seconds: 0, ..JournalConfig::default() }
}

fn open(dir: &Path) -> (AuditLog, JournalHandle) {
    AuditLog::open(&config(), dir).expect("the journal opens")
}

fn body(text: &str) -> Body {
    Body::AgentStopped(AgentStopped { reason: text.to_owned() })
}

/// What the journal holds, in order.
fn bodies(dir: &Path) -> Vec<Body> {
    let mut reader = Reader::open(dir, 1).expect("the journal can be read");
    std::iter::from_fn(|| reader.next_record().expect("every record can be read"))
        .map(|sealed| Record::decode(sealed.payload).expect("a record").body.expect("a body"))
        .collect()
}

fn reasons(dir: &Path) -> Vec<String> {
    let reason = |body| match body {
        Body::AgentStopped(stopped) => Some(stopped.reason),
        _ => None,
    };
    bodies(dir).into_iter().filter_map(reason).collect()
}

fn gaps(dir: &Path) -> Vec<Gap> {
    let gap = |body| match body {
        Body::Gap(gap) => Some(gap),
        _ => None,
    };
    bodies(dir).into_iter().filter_map(gap).collect()
}

fn tombstones(dir: &Path) -> Vec<Tombstone> {
    let tombstone = |body| match body {
        Body::Tombstone(tombstone) => Some(tombstone),
        _ => None,
    };
    bodies(dir).into_iter().filter_map(tombstone).collect()
}

fn assert_verifies(dir: &Path) {
    if let Err(wrong) = verify(dir, &[], Duration::ZERO) {
        panic!("{wrong}");
    }
}

#[tokio::test]
async fn what_is_recorded_is_there_after_reopening_and_the_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    for round in 0..3 {
        let (log, handle) = open(&path);
        log.record(body(&format!("{round} a")));
        log.record_with(move || body(&format!("{round} b")));
        log.commit(body(&format!("{round} c"))).await.unwrap();
        assert_eq!(log.status().last_sequence, (round + 1) * 3);
        handle.close().await.unwrap();
        assert_eq!(log.commit(body("late")).await, Err(super::AuditError::Closed));
    }
    assert_eq!(reasons(&path), ["0 a", "0 b", "0 c", "1 a", "1 b", "1 c", "2 a", "2 b", "2 c"]);
    assert_verifies(&path);
}

#[tokio::test]
async fn an_agent_keeps_its_id_with_its_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (log, handle) = open(dir.path());
    let id = log.agent_id();
    handle.close().await.unwrap();
    let (log, handle) = open(dir.path());
    assert_eq!(log.agent_id(), id);
    handle.close().await.unwrap();
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert_ne!(open(dir.path()).0.agent_id(), id);
}

#[test]
fn a_second_agent_is_refused_and_told_who_was_first() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, _handle) = open(dir.path());
    let error = AuditLog::open(&config(), dir.path()).expect_err("a refusal").to_string();
    assert!(error.contains(&format!("the agent with pid {}", std::process::id())), "{error}");
    assert!(error.contains("paths.state"), "{error}");
}

#[test]
fn only_the_owner_may_read_the_journal() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/journal");
    let (log, handle) = open(&path);
    log.record(body("private"));
    drop(handle);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    for file in std::fs::read_dir(&path).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
}

#[tokio::test]
async fn a_reader_follows_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (log, handle) = open(dir.path());
    let mut reader = Reader::open(dir.path(), 2).unwrap();
    assert!(reader.next_record().unwrap().is_none());
    log.commit(body("1")).await.unwrap();
    assert!(reader.next_record().unwrap().is_none());
    log.commit(body("2")).await.unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().sequence, 2);
    assert!(reader.next_record().unwrap().is_none());
    handle.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_from_many_tasks_are_all_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (log, handle) =
        AuditLog::open(&JournalConfig { queue: 4, sign_seconds: 0, ..JournalConfig::default() }, dir.path())
            .unwrap();
    let tasks: Vec<_> = (0..32)
        .map(|task| {
            let log = log.clone();
            tokio::spawn(async move {
                for n in 0..4 {
                    log.commit(body(&format!("{task} {n}"))).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*log.durable().borrow(), 128);
    handle.close().await.unwrap();
    assert_eq!(reasons(dir.path()).len(), 128);
    assert_verifies(dir.path());
}
