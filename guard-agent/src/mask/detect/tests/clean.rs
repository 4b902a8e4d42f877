//! A clean cell is one in which the detectors find nothing: whatever they find, the sieve does not hide.

use super::{
    super::{scan_closely, scan_parts, sieve::Seen},
    *,
};
use crate::mask::detect::token;

/// Numbers that repeat.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn of(&mut self, letters: &[u8]) -> u8 {
        letters[self.below(letters.len())]
    }
}

/// What the detectors find without the sieve.
fn closely(cell: &[u8], hint: Hint) -> Vec<Hit> {
    let mut hits = Hits::new();
    if cell.len() >= 5 {
        scan_closely(cell, hint, Seen::in_cell(cell, 0), &mut hits);
    }
    hits.as_slice().to_vec()
}

fn hints() -> Vec<Hint> {
    let kinds = DataKind::ALL.iter().copied().map(Some).chain([None]);
    let all = kinds.flat_map(|kind| {
        [(false, false), (true, false), (false, true)].map(|(numbers, people)| Hint { kind, numbers, people })
    });
    all.collect()
}

/// Fails where something is found in a cell that counts as clean. Tells whether it does.
fn assert_hides_nothing(cell: &[u8], hints: &[Hint]) -> bool {
    if !is_clean(cell, 0) {
        return false;
    }
    for &hint in hints {
        assert_eq!(closely(cell, hint), [], "{:?} {hint:?}", String::from_utf8_lossy(cell));
    }
    true
}

#[test]
fn nothing_that_detectors_find_is_clean() {
    let (hints, mut random, mut clean) = (hints(), Random(7), 0);
    let fillings = ["word ", "lorem ipsum ", "Xy", "abcdefghijklmnop", "a1", "-", " ", "é", "MixedCaseWord"];
    for _ in 0..60_000 {
        let mut text = String::new();
        for _ in 0..random.below(8) {
            let pieces = if random.below(4) == 0 { PIECES } else { &fillings };
            text.push_str(pieces[random.below(pieces.len())]);
        }
        let mut bytes = text.into_bytes();
        for _ in 0..random.below(3) {
            if !bytes.is_empty() {
                let at = random.below(bytes.len());
                bytes[at] = u8::try_from(random.below(256)).unwrap();
            }
        }
        let hint = hints[random.below(hints.len())];
        clean += usize::from(assert_hides_nothing(&bytes, &[hint, Hint::default()]));
    }
    assert!(clean > 5_000, "it tells something: {clean}");
}

/// Printable bytes at random, from alphabets that tokens, hashes and words are made of.
#[test]
fn no_word_of_any_alphabet_hides_a_token() {
    let (hints, mut random, mut clean) = ([Hint::default()], Random(11), 0);
    let alphabets = [
        &b"abcdefghijklmnopqrstuvwxyz"[..],
        b"abcdef0123456789",
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        b"aZ_.-/+",
        b"ab$*{}",
        b"ey JA.",
    ];
    let starts = [
        "",
        "eyJ",
        "$2b$12$",
        "{ssha}",
        "{crypt}",
        "*",
        "md5",
        "SCRAM-SHA-256$",
        "sha256$",
        "bcrypt$",
        "bearer ",
    ];
    for _ in 0..40_000 {
        let alphabet = alphabets[random.below(alphabets.len())];
        let start = starts[random.below(starts.len())].as_bytes();
        let length = random.below(70);
        let body = (0..length).map(|_| random.of(alphabet));
        let cell: Vec<u8> = start.iter().copied().chain(body).collect();
        clean += usize::from(assert_hides_nothing(&cell, &hints));
    }
    assert!(clean > 2_000, "it tells something: {clean}");
}

#[test]
fn tokens_of_every_form_are_found_as_without_the_sieve() {
    let mut random = Random(3);
    let mut found = 0;
    for _ in 0..50 {
        for token in token::examples(|letters| random.of(letters)) {
            for cell in [token.clone(), [b"see ", &token[..], b" there"].concat()] {
                let (mut hits, closely) = (Hits::new(), closely(&cell, Hint::default()));
                scan(&cell, Hint::default(), &mut hits);
                assert_eq!(hits.as_slice(), closely, "{:?}", String::from_utf8_lossy(&cell));
                found += closely.len();
            }
        }
    }
    assert!(found > 5_000, "{found}");
}

#[test]
fn cells_that_are_read_whole_are_read_as_their_parts_are() {
    let (mut random, mut cards) = (Random(5), 0);
    let starts = ["4111", "5105", "6304", "0604", "1000", "2223", "9792", "0049", "2024"];
    for _ in 0..60_000 {
        let separator = [" ", "-"][random.below(2)];
        let start = starts.get(random.below(2 * starts.len())).map(|start| (*start).to_owned());
        let mut groups: Vec<String> = start.into_iter().collect();
        groups.extend((groups.len()..4).map(|_| format!("{:04}", random.below(10_000))));
        let cell = groups.join(separator).into_bytes();
        let (mut hits, seen) = (Hits::new(), Seen::in_cell(&cell, 0));
        scan_parts(&cell, Hint::default(), seen, &mut hits);
        let parts = hits.as_slice().to_vec();
        assert_eq!(closely(&cell, Hint::default()), parts, "{:?}", String::from_utf8_lossy(&cell));
        cards += parts.len();
    }
    assert!(cards > 2_000, "{cards}");
}
