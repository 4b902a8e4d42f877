//! What the journal deletes is accounted for: by size, by age, over crashes, and by nobody but the agent.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use guard_common::audit::{checkpoint::PublicKey, v1::Tombstone, verifier::Before};

use super::{AuditLog, assert_verifies, body, config, gaps, open, reasons, tombstones, verify};
use crate::{
    audit::{Fault, Reader, Wrong, grave, grave::Grave, journal::Limits, public_key, segment::Segment},
    config::JournalConfig,
};

const MIB: u64 = 1024 * 1024;

fn signed() -> JournalConfig {
    JournalConfig { sign_seconds: 1, ..config() }
}

fn kept_for(keep: Duration) -> Limits {
    Limits { total: 64 * MIB, segment: MIB, keep: Some(keep) }
}

/// An agent's life with more than its journal takes.
async fn overfill(dir: &Path) {
    let config = JournalConfig { max_mib: 4, segment_mib: 1, ..signed() };
    let (log, handle) = AuditLog::open(&config, dir).unwrap();
    for _ in 0..60 {
        log.record(body(&"x".repeat(100 * 1024)));
    }
    handle.close().await.unwrap();
}

fn fault(dir: &Path, keys: &[PublicKey]) -> Fault {
    verify(dir, keys, Duration::ZERO).expect_err("a fault").fault
}

/// What follows the oldest segment: the end of what it holds.
fn second(dir: &Path) -> guard_common::audit::chain::Head {
    let segment = Segment::list(dir).unwrap().remove(1);
    let file = fs::File::open(&segment.path).unwrap();
    crate::audit::segment::read_header(&segment, &file).unwrap().unwrap()
}

fn of_oldest(dir: &Path) -> Tombstone {
    let before = second(dir);
    Tombstone {
        first: Segment::list(dir).unwrap()[0].first,
        last: before.sequence,
        hash: before.hash.to_vec(),
        reason: "size".to_owned(),
        agent_id: crate::audit::agent_id(dir).unwrap().unwrap().to_string(),
        ..Tombstone::default()
    }
}

#[tokio::test]
async fn what_goes_for_the_journals_size_has_a_signed_tombstone() {
    let dir = tempfile::tempdir().unwrap();
    overfill(dir.path()).await;
    let key = public_key(dir.path()).unwrap();
    let verified = verify(dir.path(), &[key], Duration::ZERO).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(verified.first > 1);
    let Before::Deleted(tombstone) = &verified.verdict.before else { panic!("{:?}", verified.verdict) };
    assert_eq!((tombstone.last, tombstone.reason.as_str()), (verified.first - 1, "size"));
    assert!(key.buried(tombstone) && tombstone.since.is_some() && tombstone.until.is_some());
    // One after the other, without holes.
    let all = tombstones(dir.path());
    assert!(
        all.windows(2).all(|two| two[1].first <= two[0].last + 1 && two[1].last > two[0].last),
        "{all:?}"
    );
    let told = verified.verdict.before_first().unwrap();
    assert!(told.contains(&format!("records 1 to {} were deleted", verified.first - 1)), "{told}");
}

#[tokio::test]
async fn what_somebody_else_deletes_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    overfill(dir.path()).await;
    let last = second(dir.path()).sequence;
    fs::remove_file(&Segment::list(dir.path()).unwrap()[0].path).unwrap();
    for keys in [vec![], vec![public_key(dir.path()).unwrap()]] {
        let wrong = verify(dir.path(), &keys, Duration::ZERO).expect_err("a fault");
        assert!(
            matches!(wrong, Wrong { sequence: 1, fault: Fault::Beheaded(gone), .. } if gone == last),
            "{wrong}"
        );
        assert!(wrong.to_string().contains("no tombstone"), "{wrong}");
    }
}

#[tokio::test]
async fn a_tombstone_of_somebody_else_convinces_nobody() {
    let dir = tempfile::tempdir().unwrap();
    overfill(dir.path()).await;
    let forged = Tombstone { key_id: public_key(dir.path()).unwrap().id(), ..of_oldest(dir.path()) };
    Grave::open(dir.path()).dig(forged).unwrap();
    fs::remove_file(&Segment::list(dir.path()).unwrap()[0].path).unwrap();
    let keys = [public_key(dir.path()).unwrap()];
    assert!(matches!(
        fault(dir.path(), &keys),
        Fault::Chain(guard_common::audit::verifier::Fault::Tombstone(_))
    ));
}

#[tokio::test]
async fn a_tombstone_that_is_half_written_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path()).unwrap();
    let of = |last| Tombstone { first: 1, last, reason: "size".to_owned(), ..Tombstone::default() };
    let file = dir.path().join("tombstone");
    let mut grave = Grave::open(dir.path());
    for last in 1..6 {
        grave.dig(of(last)).unwrap();
        let whole = fs::read(&file).unwrap();
        assert_eq!(grave::pending(dir.path()), Some(of(last)));
        // The next one, cut off after any number of bytes.
        grave.dig(of(last + 1)).unwrap();
        let next = fs::read(&file).unwrap();
        for end in 0..whole.len() {
            fs::write(&file, [&next[..end], &whole[end..]].concat()).unwrap();
            let found = grave::pending(dir.path());
            assert!(found == Some(of(last)) || found == Some(of(last + 1)), "{end}: {found:?}");
        }
        fs::write(&file, &whole).unwrap();
        grave = Grave::open(dir.path());
        assert_eq!(grave.pending(), Some(&of(last)), "and it is found again");
    }
    grave.told();
    grave.durable();
    assert_eq!(grave::pending(dir.path()), None);
}

#[tokio::test]
async fn a_crash_between_tombstone_and_deletion_loses_neither() {
    for (name, deletes) in [("before", false), ("after", true)] {
        let dir = tempfile::tempdir().unwrap();
        overfill(dir.path()).await;
        // As the agent does it, up to here.
        let tombstone = of_oldest(dir.path());
        Grave::open(dir.path()).dig(tombstone.clone()).unwrap();
        if deletes {
            fs::remove_file(&Segment::list(dir.path()).unwrap()[0].path).unwrap();
        }
        assert_verifies(dir.path());
        assert_eq!(grave::pending(dir.path()).as_ref(), Some(&tombstone), "{name}");
        drop(open(dir.path()));
        assert_eq!(tombstones(dir.path()).last(), Some(&tombstone), "{name}");
        assert_eq!(grave::pending(dir.path()), None, "{name}");
        assert_verifies(dir.path());
    }
}

#[test]
fn what_cannot_be_written_down_is_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    // A folder where the file should be.
    fs::remove_file(dir.path().join("tombstone")).unwrap();
    fs::create_dir(dir.path().join("tombstone")).unwrap();
    let config = JournalConfig { max_mib: 4, segment_mib: 1, ..config() };
    let (log, handle) = AuditLog::open(&config, dir.path()).unwrap();
    for _ in 0..60 {
        log.record(body(&"x".repeat(100 * 1024)));
    }
    drop(handle);
    assert_eq!((log.oldest(), reasons(dir.path()).len()), (1, 60));
}

#[tokio::test]
async fn records_go_when_they_are_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let (log, handle) =
        AuditLog::open_within(kept_for(Duration::from_secs(2)), &signed(), dir.path()).unwrap();
    log.commit(body("old")).await.unwrap();
    let started = Instant::now();
    // Nothing happens meanwhile: a quiet host forgets too.
    while log.oldest() == 1 && started.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(started.elapsed() > Duration::from_millis(1_900), "{:?}", started.elapsed());
    log.commit(body("young")).await.unwrap();
    handle.close().await.unwrap();
    assert_eq!(reasons(dir.path()), ["young"]);
    assert_eq!(gaps(dir.path()), []);
    let key = public_key(dir.path()).unwrap();
    let verified = verify(dir.path(), &[key], Duration::ZERO).unwrap_or_else(|wrong| panic!("{wrong}"));
    let Before::Deleted(tombstone) = verified.verdict.before else { panic!() };
    assert!(tombstone.reason == "age" && key.buried(&tombstone));
    assert!(Reader::open(dir.path(), 1).unwrap().position() > 1);
}

#[tokio::test]
async fn what_the_control_plane_never_had_goes_too_and_leaves_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let (log, handle) =
        AuditLog::open_within(kept_for(Duration::from_millis(800)), &config(), dir.path()).unwrap();
    log.set_acknowledged(0);
    log.commit(body("old")).await.unwrap();
    let started = Instant::now();
    while log.oldest() == 1 && started.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    handle.close().await.unwrap();
    let gap = gaps(dir.path()).into_iter().find(|gap| gap.source == "uplink").expect("a gap");
    assert!(gap.lost >= 1 && gap.detail.contains("journal.keep_days"), "{gap:?}");
}
