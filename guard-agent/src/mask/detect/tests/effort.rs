//! Cells that somebody made to take long: the time per byte must not grow with their length.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::super::{Hint, Hits, scan};

/// Pieces of which nothing, or next to nothing, is a hit.
const PIECES: &[&str] = &[
    "1 ",
    "12 ",
    "1.",
    "12-",
    "123 ",
    "1234 5678 ",
    "+1 ",
    "(1) ",
    "0 0",
    "A1 ",
    "AB 12 ",
    "tel 1 ",
    "unknownword 12345 ",
    "@",
    "a@",
    "a.a.a@",
    "\"@",
    "%40",
    "a%40",
    ":",
    "a:",
    "pass=",
    "password=password:",
    "://",
    "a://b:c",
    "://:@",
    "-----BEGIN ",
    "---- BEGIN x",
    "-----BEGIN PRIVATE KEY",
    "---- BEGIN PRIVATE KEY ---- END ",
    "END -----BEGIN PRIVATE KEY",
    "eyJ",
    "eyJhbGciOiJ9.",
    "=eyJhbGciOiJ9",
    "eyJhYmMiOjF9.=",
    "ya29.",
    "/ya29.",
    "s.s.s.",
    "$1$",
    "{a}",
    "*A",
    "::",
    "a:b-",
    "00:",
    "{\"a\":",
    "[",
    "\"\" ",
    "\"a\"=>",
    "\\\"",
    "{\"ssn\":1,",
    "é1",
    "1\u{a0}",
    "a@a.",
    "1",
    "1-",
    "12.",
    "0",
    "+",
    "((((1",
    "=",
    "p=",
    "password=",
    "eyJ.",
    "$",
    "$2b$",
    "{",
    "{\"",
    "\"",
    "\\",
    "-----BEGIN RSA PRIVATE KEY-----",
    "a://b:c@",
    "AKIA",
    "sk-",
    "电",
    "1電",
    "born ",
    "4111 1111 1111 ",
    "2001:",
    "-",
    "\"a\"@",
    "a.",
    "t",
    "md5",
    "{ssha}",
];

fn spent() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap())
}

/// The time of this thread alone that a cell takes: others may have the processor.
fn time(cell: &[u8]) -> Duration {
    let (mut hits, before) = (Hits::new(), spent());
    scan(cell, Hint::default(), &mut hits);
    spent() - before
}

/// Compares a cell made of `piece` with one that is sixteen times as long.
fn compare(piece: &str, short: usize) {
    const TIMES: usize = 16;
    let cell = piece.repeat(short * TIMES / piece.len());
    let cut = (0..=short).rev().find(|at| cell.is_char_boundary(*at)).unwrap();
    let (short, long) = (time(&cell.as_bytes()[..cut]), time(cell.as_bytes()));
    // A quadratic one takes 256 times as long. What takes little time may vary.
    let most = (short * 3 * u32::try_from(TIMES).unwrap()).max(Duration::from_millis(750));
    assert!(long < most, "{piece:?}: {short:?} for {cut} bytes, {long:?} for {}", cell.len());
}

#[test]
fn time_grows_as_the_cell_does() {
    for piece in PIECES {
        compare(piece, 16 * 1024);
    }
    // Of a megabyte.
    for piece in ["1 ", "12 ", "---- BEGIN PRIVATE KEY ---- END ", "eyJhYmMiOjF9.="] {
        compare(piece, 64 * 1024);
    }
}
