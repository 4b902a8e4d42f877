//! Crowds and the journal's size.

use std::{sync::mpsc, time::Duration};

use super::{assert_verifies, bodies, body, config, gaps, reasons};
use crate::{
    audit::{AuditError, AuditLog, Reader, segment::Segment},
    config::JournalConfig,
};

#[test]
fn a_full_queue_counts_and_a_gap_record_follows() {
    let dir = tempfile::tempdir().unwrap();
    let (log, handle) = AuditLog::open(&JournalConfig { queue: 8, ..config() }, dir.path()).unwrap();
    // The writer is busy until told otherwise.
    let (go_on, wait) = mpsc::channel::<()>();
    let (busy, is_busy) = mpsc::channel::<()>();
    log.record_with(move || {
        let _ = busy.send(());
        let _ = wait.recv_timeout(Duration::from_secs(10));
        body("slow")
    });
    is_busy.recv().unwrap();
    for n in 0..20 {
        log.record(body(&n.to_string()));
    }
    go_on.send(()).unwrap();
    drop(handle);
    let gaps = gaps(dir.path());
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!((gaps[0].source.as_str(), gaps[0].lost), ("audit-queue", 12));
    assert_eq!(reasons(dir.path()).len(), 9);
    assert_eq!(log.status().lost, 12);
    assert_verifies(dir.path());
}

#[tokio::test]
async fn a_record_that_is_too_large_is_refused_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (log, handle) = AuditLog::open(&config(), dir.path()).unwrap();
    let answer = log.commit(body(&"x".repeat(5 * 1024 * 1024))).await;
    assert!(matches!(answer, Err(AuditError::Write(_))), "{answer:?}");
    log.commit(body("after")).await.unwrap();
    handle.close().await.unwrap();
    assert_eq!(reasons(dir.path()), ["after"]);
    assert_eq!(gaps(dir.path())[0].lost, 1);
}

fn fill(dir: &std::path::Path, acknowledged: Option<u64>) -> AuditLog {
    let config = JournalConfig { max_mib: 4, segment_mib: 1, ..config() };
    let (log, handle) = AuditLog::open(&config, dir).unwrap();
    if let Some(sequence) = acknowledged {
        log.set_acknowledged(sequence);
    }
    for _ in 0..100 {
        log.record(body(&"x".repeat(100 * 1024)));
    }
    drop(handle);
    log
}

#[test]
fn the_oldest_segments_go_when_the_journal_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let log = fill(dir.path(), None);
    let size: u64 = Segment::list(dir.path()).unwrap().iter().map(|s| s.path.metadata().unwrap().len()).sum();
    assert!(size <= 4 * 1024 * 1024, "{size}");
    assert_eq!(log.status().bytes, size);
    assert!(log.oldest() > 1);
    assert_verifies(dir.path());
    assert_eq!(gaps(dir.path()), [], "without a control plane the limit is how long records are kept");
    assert_eq!(Reader::open(dir.path(), 1).unwrap().position(), log.oldest());
}

#[test]
fn records_that_go_before_they_were_acknowledged_are_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let log = fill(dir.path(), Some(15));
    assert_verifies(dir.path());
    let oldest = log.oldest();
    let gaps: Vec<_> = gaps(dir.path()).into_iter().filter(|gap| gap.source == "uplink").collect();
    assert!(
        !gaps.is_empty() && gaps.iter().all(|gap| gap.since.is_some() && gap.until.is_some()),
        "{gaps:?}"
    );
    // Gap records that were themselves deleted are not here any more.
    assert!(gaps.iter().map(|gap| gap.lost).sum::<u64>() < oldest);
    assert!(bodies(dir.path()).len() > 10);
}

#[test]
fn acknowledged_records_go_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), Some(1_000_000));
    assert_eq!(gaps(dir.path()), []);
}
