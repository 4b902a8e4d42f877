//! Every target on its seeds and on variations of them: what a fuzzer would find in its first seconds, on every test run.

use crate::{TARGETS, Target, dictionary};

/// Variations of each seed.
const VARIATIONS: usize = 12;

/// The same variations in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    /// One to four changes: a byte, a piece left out, a piece doubled, a piece of another seed.
    fn vary(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut input = input.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(input.len());
            let end = at + self.below(input.len() - at + 1).min(24);
            match self.below(4) {
                0 if at < input.len() => input[at] = u8::try_from(self.below(256)).unwrap(),
                1 => drop(input.drain(at..end)),
                2 => {
                    let piece = input[at..end].to_vec();
                    input.splice(at..at, piece);
                }
                _ => {
                    let from = self.below(other.len());
                    let to = from + self.below(other.len() - from + 1).min(48);
                    input.splice(at..at, other[from..to].iter().copied());
                }
            }
        }
        input
    }
}

fn holds_for_seeds_and_variations(name: &str) {
    let target = Target::named(name).unwrap();
    let seeds = (target.seeds)();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (at, seed) in seeds.iter().enumerate() {
        (target.run)(seed);
        for _ in 0..VARIATIONS {
            let input = random.vary(seed, &seeds[(at * 7 + 1) % seeds.len()]);
            let outcome = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(outcome.is_ok(), "{name} fails on {:?}", input.escape_ascii().to_string());
        }
    }
}

#[test]
fn startup_packets() {
    holds_for_seeds_and_variations("startup");
}

#[test]
fn messages_of_clients() {
    holds_for_seeds_and_variations("frontend");
}

#[test]
fn messages_of_servers() {
    holds_for_seeds_and_variations("backend");
}

#[test]
fn masked_rows_and_messages() {
    holds_for_seeds_and_variations("mask");
}

#[test]
fn guards_of_statements() {
    holds_for_seeds_and_variations("guards");
}

#[test]
fn readings_of_statements() {
    holds_for_seeds_and_variations("classify");
}

#[test]
fn whole_sessions() {
    holds_for_seeds_and_variations("session");
}

#[test]
fn splits_of_the_bytes() {
    holds_for_seeds_and_variations("split");
}

#[test]
fn nothing_breaks_on_nothing() {
    for target in TARGETS {
        (target.run)(b"");
        (target.run)(b"\0");
        assert!((target.seeds)().iter().all(|seed| seed.len() <= target.max_len), "{}", target.name);
    }
}

#[test]
fn the_dictionary_is_in_libfuzzers_form() {
    let dictionary = dictionary();
    assert!(dictionary.lines().count() > 200);
    assert!(dictionary.lines().all(|line| line.starts_with("\"\\x") && line.ends_with('"')));
}

/// Inputs that once failed, one folder per target: what was mended stays mended.
#[test]
fn what_once_failed_holds_now() {
    let crashes = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crashes");
    for target in TARGETS {
        for entry in std::fs::read_dir(crashes.join(target.name)).into_iter().flatten() {
            let path = entry.unwrap().path();
            let outcome = std::panic::catch_unwind(|| (target.run)(&std::fs::read(&path).unwrap()));
            assert!(outcome.is_ok(), "{} fails on {}", target.name, path.display());
        }
    }
}
