//! What a column of numbers holds: its values enter one by one, a kind leaves once enough of them agree.
//!
//! One number with one check digit is no evidence; twenty of them are. Where most are written so that each is a telephone
//! number or a card by itself, those written otherwise are too. It remembers of each value a keyed hash and which forms it
//! has, never the value. What is nobody's number must stay nobody's: numbers that follow each other, times and numbers of
//! goods have forms of their own and are told apart.

use guard_policy::vocabulary::DataKind;
use smallvec::SmallVec;

use super::{Hint, Hits, checksum, dates, ids, phone, scan};

/// Different values that are looked at: what they do not show, more would not.
const MOST: usize = 64;

/// Different values that must agree, and more where their form is one that many numbers have.
const LEAST: usize = 20;

/// Which of the forms a value has: goods first, then numbers that single ones show, weak ones, telephones.
const GOODS: usize = 0;
const STRONG: usize = 1;
const DEVICE: usize = 2;
const WEAK: usize = 3;
const PHONES: usize = WEAK + ids::WEAK.len();
const FORMS: usize = PHONES + phone::MOBILES.len();

/// A telephone number by itself, and what may be one; the same of payment cards.
const WRITTEN_PHONE: usize = FORMS;
const LIKE_PHONE: usize = FORMS + 1;
const WRITTEN_CARD: usize = FORMS + 2;
const LIKE_CARD: usize = FORMS + 3;
const _: () = assert!(LIKE_CARD < 128, "one bit each");

/// What is written as itself, what may be that, and its kind.
const WRITTEN: [(usize, usize, DataKind); 2] =
    [(WRITTEN_PHONE, LIKE_PHONE, DataKind::Phone), (WRITTEN_CARD, LIKE_CARD, DataKind::PaymentCard)];

/// Longest value that may be a number written by people.
const LONGEST: usize = 32;

/// Shared beginnings of telephone numbers have at most four digits.
const HEADS: usize = 5;

/// What one value says.
#[derive(Clone, Copy, Debug)]
struct Witness {
    hash: u64,
    /// One bit for each form that it has.
    forms: u128,
    /// Of its first four to eight digits: whether beginnings differ.
    heads: [u16; HEADS],
}

/// What is known by the values up to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More values may tell.
    Open,
    /// Nothing that more values would change.
    Nothing,
    /// Its values are of this kind.
    Is(DataKind),
}

/// What different values of one column say.
#[derive(Clone, Debug, Default)]
pub struct Witnesses(Vec<Witness>);

/// The key of the hashes by which values are told apart: of this process alone.
#[derive(Clone, Debug, Default)]
pub struct Seed(ahash::RandomState);

impl Witnesses {
    /// Looks at a value, as text.
    pub fn add(&mut self, value: &[u8], seed: &Seed) {
        if self.0.len() >= MOST || value.is_empty() {
            return;
        }
        let hash = seed.0.hash_one(value);
        if self.0.iter().any(|known| known.hash == hash) {
            return;
        }
        let mut digits = SmallVec::<[u8; 18]>::new();
        if (9..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit) {
            digits.extend(value.iter().map(|byte| byte - b'0'));
        }
        let head = |at: usize| (seed.0.hash_one(digits.get(..4 + at)) & 0xFFFF) as u16;
        let forms = forms(&digits) | written(value);
        self.0.push(Witness { hash, forms, heads: std::array::from_fn(head) });
    }

    /// Adds what others have seen of the same column; both with the same seed.
    pub fn merge(&mut self, others: &Self) {
        for other in &others.0 {
            if self.0.len() < MOST && self.0.iter().all(|known| known.hash != other.hash) {
                self.0.push(*other);
            }
        }
    }

    /// How many different values there were.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True before the first.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether more values may make it a kind: some have a form, and not too many lack it.
    pub fn is_hopeful(&self) -> bool {
        let all = self.0.iter().fold(0, |forms, witness| forms | witness.forms);
        let seen = |form: usize| all >> form & 1 == 1;
        (STRONG..FORMS).any(|form| seen(form) && self.may_be(form))
            || WRITTEN.iter().any(|(itself, like, _)| seen(*itself) && self.may_be(*like))
    }

    /// How many have a form.
    fn had(&self, form: usize) -> usize {
        self.0.iter().filter(|witness| witness.forms >> form & 1 == 1).count()
    }

    /// Whether not too many lack a form: some may be mistyped, or of somebody from abroad.
    fn may_be(&self, form: usize) -> bool {
        let count = self.0.len();
        count - self.had(form) <= count / 10 + 2
    }

    /// What they say together.
    pub fn verdict(&self) -> Verdict {
        let count = self.0.len();
        let mut open = count < MOST;
        let agrees = |form: usize, least: usize| count >= least && self.had(form) * 10 >= count * 9;
        if agrees(GOODS, LEAST / 2) {
            return Verdict::Nothing;
        }
        let mut any = false;
        for (itself, like, kind) in WRITTEN {
            if agrees(like, LEAST) && self.had(itself) * 10 >= count * 6 {
                return Verdict::Is(kind);
            }
            any |= self.may_be(like) && (count < 8 || self.had(itself) * 2 >= count);
        }
        for form in STRONG..FORMS {
            if !self.may_be(form) {
                continue;
            }
            any = true;
            if agrees(form, self.least(form)) && self.differs(form, self.had(form)) {
                return Verdict::Is(kind(form));
            }
        }
        open &= any;
        if open { Verdict::Open } else { Verdict::Nothing }
    }

    /// How many have to agree: by chance it happens to less than one column in a hundred million.
    fn least(&self, form: usize) -> usize {
        match form.checked_sub(PHONES).and_then(|at| phone::MOBILES.get(at)) {
            None => LEAST,
            Some(mobile) if mobile.chance() <= 0.02 => LEAST + 4,
            Some(mobile) if mobile.chance() <= 0.1 => LEAST + 12,
            Some(_) => MOST - 16,
        }
    }

    /// Whether telephone numbers begin as differently as those of different people do: numbers that follow each other
    /// do not.
    fn differs(&self, form: usize, had: usize) -> bool {
        let Some(mobile) = form.checked_sub(PHONES).and_then(|at| phone::MOBILES.get(at)) else {
            return true;
        };
        let at = mobile.shared().min(HEADS - 1);
        let mut heads: SmallVec<[u16; MOST]> =
            self.0.iter().filter(|w| w.forms >> form & 1 == 1).map(|w| w.heads[at]).collect();
        heads.sort_unstable();
        heads.dedup();
        heads.len() * 2 >= had
    }
}

fn kind(form: usize) -> DataKind {
    match form {
        DEVICE => DataKind::Device,
        PHONES.. => DataKind::Phone,
        _ => DataKind::NationalId,
    }
}

/// The forms that digits alone have.
fn forms(digits: &[u8]) -> u128 {
    if digits.is_empty() || digits.iter().all(|digit| *digit == digits[0]) {
        return 0;
    }
    let bit = |has: bool, form: usize| u128::from(has) << form;
    let mut forms = bit(checksum::ean13(digits), GOODS)
        | bit(ids::is_plain(digits), STRONG)
        | bit(is_device(digits), DEVICE);
    for (at, is) in ids::WEAK.iter().enumerate() {
        forms |= bit(is(digits), WEAK + at);
    }
    if !is_time(digits) {
        for (at, mobile) in phone::MOBILES.iter().enumerate() {
            forms |= bit(mobile.fits(digits), PHONES + at);
        }
    }
    forms
}

/// The forms of a number as people write it, with signs between its digits or without.
fn written(value: &[u8]) -> u128 {
    let signs = |byte: &u8| byte.is_ascii_digit() || b" +-().x/".contains(byte);
    if value.len() > LONGEST || !value.iter().all(signs) {
        return 0;
    }
    let digits: SmallVec<[u8; LONGEST]> =
        value.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| byte - b'0').collect();
    if !(7..=20).contains(&digits.len()) {
        return 0;
    }
    let mut hits = Hits::new();
    scan(value, Hint::default(), &mut hits);
    let is = |kind: DataKind| hits.as_slice().first().is_some_and(|hit| hit.kind == kind);
    let bit = |has: bool, form: usize| u128::from(has) << form;
    bit(is(DataKind::Phone), WRITTEN_PHONE)
        | bit(hits.is_empty() || is(DataKind::Phone), LIKE_PHONE)
        | bit(is(DataKind::PaymentCard), WRITTEN_CARD)
        | bit((12..=19).contains(&digits.len()) && checksum::luhn(&digits), LIKE_CARD)
}

/// IMEI: who made it, and Luhn.
fn is_device(digits: &[u8]) -> bool {
    digits.len() == 15 && matches!(digits[..2], [0, 1] | [3, 5] | [8, 6] | [9, 9]) && checksum::luhn(digits)
}

/// `yyyymmdd` and what follows it.
fn is_time(digits: &[u8]) -> bool {
    let two = |at: usize| checksum::number(&digits[at..at + 2]);
    matches!(digits.len(), 10 | 12 | 14) && matches!(two(0), 19 | 20) && dates::is_day(two(4), two(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that repeat.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    fn judge(values: impl IntoIterator<Item = String>) -> (Verdict, usize) {
        let (mut witnesses, seed) = (Witnesses::default(), Seed::default());
        for value in values {
            witnesses.add(value.as_bytes(), &seed);
            if witnesses.verdict() != Verdict::Open {
                break;
            }
        }
        (witnesses.verdict(), witnesses.len())
    }

    fn with_digit(body: &str, is: impl Fn(&[u8]) -> bool) -> Option<String> {
        let all = (0..10).map(|digit| format!("{body}{digit}"));
        all.into_iter().find(|text| is(&text.bytes().map(|byte| byte - b'0').collect::<Vec<_>>()))
    }

    #[test]
    fn numbers_with_one_check_digit_are_known_by_many() {
        let state = &mut 42;
        for (at, len) in [(0, 9), (3, 9), (4, 9), (6, 11), (8, 12), (9, 12), (10, 13)] {
            let mut values = Vec::new();
            while values.len() < 40 {
                let body = format!(
                    "{}{:0w$}",
                    2 + random(state) % 2,
                    random(state) % 10_u64.pow(len - 2),
                    w = len as usize - 2
                );
                values.extend(with_digit(&body, ids::WEAK[at]));
            }
            let (verdict, seen) = judge(values);
            assert_eq!((verdict, seen), (Verdict::Is(DataKind::NationalId), LEAST), "form {at}");
        }
    }

    #[test]
    fn telephone_numbers_are_known_by_many() {
        let state = &mut 43;
        for (prefix, digits) in [("4917", 8), ("4477", 8), ("336", 8), ("9198", 8), ("5511", 9), ("79", 9)] {
            let value = |_| {
                let exchange = 2 + random(state) % 7;
                let rest = random(state) % 10_u64.pow(digits - 1);
                format!("{prefix}{exchange}{rest:0w$}", w = digits as usize - 1)
            };
            let (verdict, seen) = judge((0..64).map(value).collect::<Vec<_>>());
            assert_eq!(verdict, Verdict::Is(DataKind::Phone), "{prefix} after {seen}");
        }
    }

    #[test]
    fn harmless_numbers_are_nothing_and_soon_so() {
        let state = &mut 44;
        let mut next = |below: u64| random(state) % below;
        let mut columns: Vec<(&str, Vec<String>)> = Vec::new();
        for start in [
            1,
            1_000_000,
            214_748_000,
            2_145_550_000,
            6_045_551_000_u64,
            447_700_900_000,
            14_155_550_000,
            9_198_000_000,
        ] {
            columns.push(("follow each other", (0..200).map(|at| (start + at).to_string()).collect()));
            columns.push(("far apart", (0..200).map(|at| (start + at * 7).to_string()).collect()));
        }
        let times = [1_700_000_000_u64, 1_500_000_000, 1_609_459_200];
        for time in times {
            columns.push(("seconds", (0..200).map(|_| (time + next(80_000_000)).to_string()).collect()));
            columns.push((
                "milliseconds",
                (0..200).map(|_| ((time + next(80_000_000)) * 1000 + next(1000)).to_string()).collect(),
            ));
            columns.push((
                "microseconds",
                (0..200)
                    .map(|_| ((time + next(80_000_000)) * 1_000_000 + next(1_000_000)).to_string())
                    .collect(),
            ));
        }
        for digits in 5..19 {
            let (low, high) = (10_u64.pow(digits - 1), 9 * 10_u64.pow(digits - 1));
            for _ in 0..50 {
                columns.push(("random", (0..200).map(|_| (low + next(high)).to_string()).collect()));
            }
        }
        columns.push(("postal codes", (0..200).map(|_| format!("{:05}", next(100_000))).collect()));
        columns.push(("cents", (0..200).map(|_| next(5_000_000).to_string()).collect()));
        let day = |next: &mut dyn FnMut(u64) -> u64| {
            format!("20{:02}{:02}{:02}", next(26), 1 + next(12), 1 + next(28))
        };
        columns.push(("days", (0..200).map(|_| day(&mut next)).collect()));
        columns.push((
            "minutes",
            (0..200).map(|_| format!("{}{:02}{:02}", day(&mut next), next(24), next(60))).collect(),
        ));
        columns.push((
            "seconds of days",
            (0..200)
                .map(|_| format!("{}{:02}{:02}{:02}", day(&mut next), next(24), next(60), next(60)))
                .collect(),
        ));
        let goods = |next: &mut dyn FnMut(u64) -> u64| {
            with_digit(&format!("628{:09}", next(1_000_000_000)), checksum::ean13)
        };
        columns.push(("goods", (0..200).filter_map(|_| goods(&mut next)).collect()));
        columns.push(("padded", (0..200).map(|at| format!("{:012}", 5_000 + at)).collect()));
        let mut slow = 0;
        for (what, values) in &columns {
            let (verdict, seen) = judge(values.iter().cloned());
            assert_eq!(verdict, Verdict::Nothing, "{what}: {} ..", values[0]);
            slow += usize::from(seen > 12);
        }
        assert!(slow * 5 < columns.len(), "{slow} of {} took more than a few values", columns.len());
    }

    #[test]
    fn what_most_are_by_themselves_the_others_are_too() {
        let state = &mut 46;
        let phone = |at: usize, state: &mut u64| {
            let (area, exchange, rest) =
                (201 + random(state) % 700, 200 + random(state) % 700, random(state) % 10_000);
            match at % 4 {
                0 => format!("{area}{exchange}{rest:04}"),
                1 => format!("({area}) {exchange}-{rest:04}"),
                2 => format!("+1-{area}-{exchange}-{rest:04}"),
                _ => format!("001-{area}-{exchange}-{rest:04}x12"),
            }
        };
        let values: Vec<String> = (0..40).map(|at| phone(at, state)).collect();
        assert_eq!(judge(values), (Verdict::Is(DataKind::Phone), LEAST));
        let card = |at: usize, state: &mut u64| {
            let body =
                if at.is_multiple_of(8) { 400_000_000_000 + random(state) % 99_000_000_000 } else { 0 };
            let long = 400_000_000_000_000 + random(state) % 99_000_000_000_000;
            let body = if body > 0 { body.to_string() } else { long.to_string() };
            with_digit(&body, checksum::luhn)
        };
        let values: Vec<String> = (0..64).filter_map(|at| card(at, state)).collect();
        assert_eq!(judge(values).0, Verdict::Is(DataKind::PaymentCard));
        let few = (0..64).map(|at| if at % 3 == 0 { phone(1, state) } else { format!("part-{at:07}") });
        assert_eq!(judge(few.collect::<Vec<_>>()).0, Verdict::Nothing, "some of them");
    }

    #[test]
    fn what_many_have_seen_counts_together_and_once() {
        let (seed, mut all) = (Seed::default(), Witnesses::default());
        let state = &mut 45;
        for _ in 0..30 {
            let mut one = Witnesses::default();
            one.add(format!("4917{:08}", random(state) % 100_000_000).as_bytes(), &seed);
            all.merge(&one);
            all.merge(&one);
        }
        assert_eq!(all.verdict(), Verdict::Is(DataKind::Phone));
        assert_eq!(all.len(), 30);
        let mut same = Witnesses::default();
        (0..100).for_each(|_| same.add(b"491761234567", &seed));
        assert_eq!((same.len(), same.verdict(), same.is_hopeful()), (1, Verdict::Open, true));
        let mut words = Witnesses::default();
        ["open", "closed"].iter().for_each(|word| words.add(word.as_bytes(), &seed));
        assert_eq!((words.verdict(), words.is_hopeful()), (Verdict::Open, false), "nothing waits for them");
    }
}
