//! Torn writes and flipped bytes.

use std::{fs, time::Duration};

use super::{assert_verifies, body, gaps, open, reasons};
use crate::audit::{
    Reader,
    segment::{HEADER_LEN, Segment},
    verify,
};

/// A journal with a few records: its bytes, and where each frame ends.
fn sample() -> (Vec<u8>, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let (log, handle) = open(dir.path());
    for n in 1..=5 {
        log.record(body(&format!("record {n}")));
    }
    drop((log, handle));
    let bytes = fs::read(&Segment::at(dir.path(), 1).path).unwrap();
    let mut ends = vec![HEADER_LEN];
    while ends[ends.len() - 1] < bytes.len() {
        let at = ends[ends.len() - 1];
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        ends.push(at + 8 + length);
    }
    (bytes, ends)
}

#[test]
fn cut_off_at_any_byte_every_whole_record_is_kept_and_the_chain_goes_on() {
    let (bytes, ends) = sample();
    for cut in 0..bytes.len() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(&Segment::at(dir.path(), 1).path, &bytes[..cut]).unwrap();
        let (log, handle) = open(dir.path());
        log.record(body("after"));
        drop((log, handle));
        let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
        let mut expected: Vec<_> = (1..=whole).map(|n| format!("record {n}")).collect();
        expected.push("after".to_owned());
        assert_eq!(reasons(dir.path()), expected, "cut at {cut}");
        assert_eq!(gaps(dir.path()), [], "an unfinished write is no damage (cut at {cut})");
        assert_verifies(dir.path());
    }
}

#[test]
fn an_unfinished_new_segment_gives_way_to_the_one_before() {
    let (bytes, _) = sample();
    for length in 0..HEADER_LEN {
        let dir = tempfile::tempdir().unwrap();
        fs::write(&Segment::at(dir.path(), 1).path, &bytes).unwrap();
        fs::write(&Segment::at(dir.path(), 6).path, &bytes[..length]).unwrap();
        let (log, handle) = open(dir.path());
        log.record(body("after"));
        drop((log, handle));
        assert_eq!(reasons(dir.path()).len(), 6);
        assert_verifies(dir.path());
    }
}

#[test]
fn room_that_was_never_filled_is_an_unfinished_write() {
    let (mut bytes, _) = sample();
    bytes.resize(bytes.len() + 4096, 0);
    let dir = tempfile::tempdir().unwrap();
    fs::write(&Segment::at(dir.path(), 1).path, &bytes).unwrap();
    drop(open(dir.path()));
    assert_eq!(reasons(dir.path()).len(), 5);
    assert_eq!(gaps(dir.path()), []);
    assert_verifies(dir.path());
}

#[test]
fn any_flipped_bit_is_found_and_its_record_named() {
    let (bytes, ends) = sample();
    let dir = tempfile::tempdir().unwrap();
    let segment = Segment::at(dir.path(), 1);
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&segment.path, &bad).unwrap();
        let wrong = verify(dir.path(), &[], Duration::ZERO).expect_err("damage");
        let record = ends.iter().filter(|end| **end <= bit / 8).count().max(1) as u64;
        assert_eq!(wrong.sequence, record, "bit {bit}: {wrong}");
    }
}

#[test]
fn an_agent_starts_on_any_flipped_bit_and_says_what_is_lost() {
    let (bytes, ends) = sample();
    for byte in 0..bytes.len() {
        let dir = tempfile::tempdir().unwrap();
        let mut bad = bytes.clone();
        bad[byte] ^= 0x41;
        fs::write(&Segment::at(dir.path(), 1).path, &bad).unwrap();
        let (log, handle) = open(dir.path());
        log.record(body("after"));
        drop((log, handle));
        assert_verifies(dir.path());
        let kept = reasons(dir.path());
        let whole = ends.iter().filter(|end| **end <= byte).count().saturating_sub(1);
        if byte < HEADER_LEN {
            assert_eq!(kept.len(), 6, "the header is made anew (byte {byte})");
        } else {
            assert_eq!(kept.len(), whole + 1, "byte {byte}");
            let lost: u64 = gaps(dir.path()).iter().map(|gap| gap.lost).sum();
            // In the last record a longer length can't be told from a write that was cut off.
            let last_length = whole == 4 && byte < ends[4] + 4;
            assert!(lost == 5 - whole as u64 || (last_length && lost == 0), "byte {byte}: {lost}");
        }
    }
}

#[test]
fn damage_in_an_older_segment_does_not_stop_the_agent_but_is_found() {
    let (bytes, ends) = sample();
    let dir = tempfile::tempdir().unwrap();
    fs::write(&Segment::at(dir.path(), 1).path, &bytes).unwrap();
    let (log, handle) = open(dir.path());
    // More than one segment takes.
    for _ in 0..40 {
        log.record(body(&"x".repeat(1024 * 1024)));
    }
    drop((log, handle));
    assert!(Segment::list(dir.path()).unwrap().len() > 1);
    assert_verifies(dir.path());
    let mut bad = fs::read(&Segment::at(dir.path(), 1).path).unwrap();
    bad[ends[2] + 20] ^= 1;
    fs::write(&Segment::at(dir.path(), 1).path, &bad).unwrap();
    assert_eq!(verify(dir.path(), &[], Duration::ZERO).expect_err("damage").sequence, 3);
    drop(open(dir.path()));
    let mut reader = Reader::open(dir.path(), 1).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().sequence, 1);
    assert_eq!(reader.next_record().unwrap().unwrap().sequence, 2);
    assert!(reader.next_record().is_err());
}

#[test]
fn records_that_the_control_plane_has_cannot_vanish_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, ends) = sample();
    fs::write(&Segment::at(dir.path(), 1).path, &bytes[..ends[3]]).unwrap();
    assert_verifies(dir.path());
    fs::write(dir.path().join("acknowledged"), "5\n").unwrap();
    assert_eq!(verify(dir.path(), &[], Duration::ZERO).expect_err("missing").sequence, 4);
}

#[test]
fn a_segment_that_is_gone_or_replaced_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (log, handle) =
        super::AuditLog::open(&super::JournalConfig { segment_mib: 1, ..super::config() }, dir.path())
            .unwrap();
    for _ in 0..6 {
        log.record(body(&"x".repeat(700 * 1024)));
    }
    drop((log, handle));
    let segments = Segment::list(dir.path()).unwrap();
    assert!(segments.len() >= 3);
    fs::remove_file(&segments[1].path).unwrap();
    assert_eq!(verify(dir.path(), &[], Duration::ZERO).expect_err("a hole").sequence, segments[1].first);
}
