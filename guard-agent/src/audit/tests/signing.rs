//! Who signs, when, and what holds over restarts, new keys and lost keys.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use guard_common::audit::{
    checkpoint::PublicKey,
    v1::{Checkpoint, KeyChange, record::Body},
    verifier::Verdict,
};

use super::{AuditLog, bodies, body, verify};
use crate::{
    audit::{ask_for_new_key, public_key},
    config::{JournalConfig, Sync},
};

const KEY: &str = "signing-key";

fn config() -> JournalConfig {
    JournalConfig { sync: Sync::Os, sign_seconds: 3_600, ..JournalConfig::default() }
}

/// One life of an agent that records `count` things.
async fn live(dir: &Path, config: &JournalConfig, count: usize) {
    let (log, handle) = AuditLog::open(config, dir).unwrap();
    for number in 0..count {
        log.record(body(&format!("thing {number}")));
    }
    handle.close().await.unwrap();
}

fn verdict(dir: &Path, keys: &[PublicKey]) -> Verdict {
    verify(dir, keys, Duration::ZERO).unwrap_or_else(|wrong| panic!("{wrong}")).verdict
}

fn changes(dir: &Path) -> Vec<KeyChange> {
    let change = |body| match body {
        Body::KeyChange(change) => Some(change),
        _ => None,
    };
    bodies(dir).into_iter().filter_map(change).collect()
}

fn checkpoints(dir: &Path) -> Vec<Checkpoint> {
    let checkpoint = |body| match body {
        Body::Checkpoint(checkpoint) => Some(checkpoint),
        _ => None,
    };
    bodies(dir).into_iter().filter_map(checkpoint).collect()
}

#[tokio::test]
async fn an_agent_that_ends_signs_everything() {
    let dir = tempfile::tempdir().unwrap();
    for life in 1..=3_u64 {
        live(dir.path(), &config(), 3).await;
        // Three things, the key's announcement, the checkpoint.
        let verdict = verdict(dir.path(), &[public_key(dir.path()).unwrap()]);
        assert_eq!(verdict.head.sequence, 5 * life);
        assert_eq!(verdict.signed.map(|signed| signed.sequence), Some(5 * life - 1));
        assert_eq!(verdict.checkpoints, life);
    }
    let reasons: Vec<_> = changes(dir.path()).into_iter().map(|change| change.reason).collect();
    assert_eq!(reasons, ["new", "restart", "restart"]);
}

#[tokio::test]
async fn a_quiet_journal_is_signed_in_time_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { sign_seconds: 1, ..config() };
    let (log, handle) = AuditLog::open(&config, dir.path()).unwrap();
    log.commit(body("thing")).await.unwrap();
    let mut written = log.written();
    tokio::time::timeout(Duration::from_secs(10), written.wait_for(|last| *last == 3))
        .await
        .unwrap()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(checkpoints(dir.path()).len(), 1, "nothing new, nothing to sign");
    handle.close().await.unwrap();
    assert_eq!(checkpoints(dir.path()).len(), 1);
}

#[tokio::test]
async fn much_does_not_wait_for_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let (log, handle) = AuditLog::open(&config(), dir.path()).unwrap();
    for number in 0..12_000 {
        log.record(body(&number.to_string()));
    }
    log.commit(body("last")).await.unwrap();
    // The answer to the last one may come before the checkpoint behind it.
    let mut written = log.written();
    tokio::time::timeout(Duration::from_secs(10), written.wait_for(|last| *last > 12_001))
        .await
        .unwrap()
        .unwrap();
    assert!(checkpoints(dir.path())[0].sequence >= 10_000);
    handle.close().await.unwrap();
}

#[tokio::test]
async fn a_new_key_is_handed_over_to() {
    let dir = tempfile::tempdir().unwrap();
    live(dir.path(), &config(), 1).await;
    let first = public_key(dir.path()).unwrap();
    ask_for_new_key(dir.path()).unwrap();
    live(dir.path(), &config(), 1).await;
    let second = public_key(dir.path()).unwrap();
    assert_ne!(first, second);
    let verdict = verdict(dir.path(), &[first]);
    assert_eq!(verdict.signed.unwrap().key, second);
    assert!(!dir.path().join("signing-key.rotate").exists());
}

#[tokio::test]
async fn an_interrupted_handover_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    live(dir.path(), &config(), 1).await;
    let first = public_key(dir.path()).unwrap();
    let old = fs::read(dir.path().join(KEY)).unwrap();
    ask_for_new_key(dir.path()).unwrap();
    live(dir.path(), &config(), 1).await;
    let second = public_key(dir.path()).unwrap();
    // As if the power had gone after the record of the change, and before the files were changed.
    fs::rename(dir.path().join(KEY), dir.path().join("signing-key.next")).unwrap();
    fs::write(dir.path().join(KEY), old).unwrap();
    live(dir.path(), &config(), 1).await;
    assert_eq!(public_key(dir.path()).unwrap(), second);
    assert_eq!(verdict(dir.path(), &[first]).signed.unwrap().key, second);
}

#[tokio::test]
async fn a_lost_key_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    live(dir.path(), &config(), 1).await;
    let first = public_key(dir.path()).unwrap();
    fs::remove_file(dir.path().join(KEY)).unwrap();
    live(dir.path(), &config(), 1).await;
    let second = public_key(dir.path()).unwrap();
    let wrong = verify(dir.path(), &[first], Duration::ZERO).unwrap_err().to_string();
    assert!(wrong.contains("has not handed over"), "{wrong}");
    assert!(verify(dir.path(), &[first, second], Duration::ZERO).is_ok());
}

#[tokio::test]
async fn keys_grow_old() {
    let dir = tempfile::tempdir().unwrap();
    live(dir.path(), &config(), 1).await;
    let first = public_key(dir.path()).unwrap();
    let old = std::time::SystemTime::now() - Duration::from_secs(91 * 86_400);
    fs::File::open(dir.path().join(KEY)).unwrap().set_modified(old).unwrap();
    let never = JournalConfig { key_days: 0, ..config() };
    live(dir.path(), &never, 1).await;
    live(dir.path(), &never, 1).await;
    assert_eq!(public_key(dir.path()).unwrap(), first);
    live(dir.path(), &config(), 1).await;
    assert_ne!(public_key(dir.path()).unwrap(), first);
    assert!(changes(dir.path()).iter().any(|change| change.reason == "age"));
}

#[tokio::test]
async fn only_its_owner_reads_the_key_and_nobody_a_broken_one() {
    let dir = tempfile::tempdir().unwrap();
    live(dir.path(), &config(), 1).await;
    let path = dir.path().join(KEY);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(&path, b"nonsense").unwrap();
    let error = AuditLog::open(&config(), dir.path()).expect_err("no key").to_string();
    assert!(error.contains("signing-key") && error.contains("put it back"), "{error}");
}
