//! A disk that is really full: a small tmpfs.

use std::{fs, time::Duration};

use guard_tests::tmpfs::Tmpfs;

use super::{assert_verifies, body, config, gaps, open, reasons, tombstones};
use crate::{
    audit::{AuditError, AuditLog},
    config::JournalConfig,
};

#[tokio::test]
async fn a_full_disk_refuses_commits_and_leaves_a_gap_record() {
    let Some(disk) = Tmpfs::mount(512).unwrap() else { return };
    let journal = disk.path().join("journal");
    let (log, handle) = open(&journal);
    log.commit(body("before")).await.unwrap();
    // All but a little: a write then succeeds in part.
    fs::write(disk.path().join("ballast"), vec![0; 380 * 1024]).unwrap();
    let answer = log.commit(body(&"x".repeat(200 * 1024))).await;
    assert!(matches!(answer, Err(AuditError::Write(_))), "{answer:?}");
    log.record(body(&"y".repeat(200 * 1024)));
    assert!(log.commit(body(&"z".repeat(200 * 1024))).await.is_err());
    assert!(!log.status().error.is_empty());
    assert_verifies(&journal);

    fs::remove_file(disk.path().join("ballast")).unwrap();
    log.commit(body("after")).await.unwrap();
    assert_eq!(log.status().error, "");
    assert_eq!(log.status().lost, 3);
    handle.close().await.unwrap();
    assert_eq!(reasons(&journal), ["before", "after"]);
    let gaps = gaps(&journal);
    assert_eq!(gaps.iter().map(|gap| gap.lost).sum::<u64>(), 3, "{gaps:?}");
    assert!(
        gaps.iter().all(|gap| gap.source == "journal-disk" && gap.since.is_some() && gap.until.is_some())
    );
    assert_verifies(&journal);
}

#[tokio::test]
async fn the_gap_record_does_not_wait_for_the_next_record() {
    let Some(disk) = Tmpfs::mount(256).unwrap() else { return };
    let journal = disk.path().join("journal");
    let (log, handle) = open(&journal);
    assert!(log.commit(body(&"x".repeat(400 * 1024))).await.is_err());
    let mut written = log.written();
    tokio::time::timeout(Duration::from_secs(10), written.wait_for(|last| *last == 1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(gaps(&journal)[0].lost, 1);
    handle.close().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_eased_by_what_the_control_plane_has() {
    let Some(disk) = Tmpfs::mount(5 * 1024).unwrap() else { return };
    let journal = disk.path().join("journal");
    let (log, handle) = AuditLog::open(&JournalConfig { segment_mib: 1, ..config() }, &journal).unwrap();
    log.set_acknowledged(0);
    let mut kept = 0;
    while log.commit(body(&"x".repeat(300 * 1024))).await.is_ok() {
        kept += 1;
        log.set_acknowledged(log.status().last_sequence - 1);
        assert!(kept < 200);
        if kept == 60 {
            break;
        }
    }
    assert_eq!(kept, 60, "acknowledged segments make room: {:?}", log.status());
    log.set_acknowledged(0);
    while log.commit(body(&"x".repeat(300 * 1024))).await.is_ok() {
        kept += 1;
        assert!(kept < 200, "nothing that the control plane lacks may go");
    }
    drop(handle);
    assert_verifies(&journal);
    assert!(tombstones(&journal).iter().any(|tombstone| tombstone.reason == "disk-full"));
}
