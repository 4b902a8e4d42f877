//! Payment cards: digits enter, whether they are a card's number leaves.
//!
//! Issuer ranges and lengths of ISO/IEC 7812 as the schemes publish them, and Luhn. Test numbers are numbers.

use super::{
    checksum,
    figure::{Figure, separator},
};

/// Shortest and longest number of a card.
pub const LENGTHS: std::ops::RangeInclusive<usize> = 12..=19;

/// Ranges of the first six digits, and the lengths that they have, as bits.
const ISSUERS: &[(u32, u32, u32)] = &[
    // Visa.
    (400_000, 499_999, 1 << 13 | 1 << 16 | 1 << 19),
    // Mastercard.
    (510_000, 559_999, 1 << 16),
    (222_100, 272_099, 1 << 16),
    // American Express.
    (340_000, 349_999, 1 << 15),
    (370_000, 379_999, 1 << 15),
    // Diners Club.
    (300_000, 305_999, 1 << 14 | 1 << 16),
    (309_500, 309_599, 1 << 14 | 1 << 16),
    (360_000, 369_999, 1 << 14),
    (380_000, 399_999, 1 << 14 | 1 << 16),
    // Discover, RuPay.
    (601_100, 601_199, 1 << 16 | 1 << 19),
    (644_000, 659_999, 1 << 16 | 1 << 19),
    (600_000, 600_999, 1 << 16),
    (606_900, 608_999, 1 << 16),
    (652_100, 653_199, 1 << 16),
    (817_200, 820_199, 1 << 16),
    (508_500, 508_999, 1 << 16),
    // JCB.
    (350_000, 359_999, 1 << 16 | 1 << 19),
    (213_100, 213_199, 1 << 15),
    (180_000, 180_099, 1 << 15),
    // UnionPay.
    (620_000, 629_999, 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19),
    (810_000, 817_199, 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19),
    // Mir, Troy, Verve, Elo, Hipercard, Dankort, UATP, Uzcard, Humo.
    (220_000, 220_499, 1 << 16 | 1 << 19),
    (979_200, 979_289, 1 << 16),
    (506_099, 506_198, 1 << 16 | 1 << 18 | 1 << 19),
    (650_002, 650_027, 1 << 16 | 1 << 18 | 1 << 19),
    (636_297, 636_368, 1 << 16),
    (506_699, 506_778, 1 << 16),
    (509_000, 509_999, 1 << 16),
    (637_095, 637_612, 1 << 16),
    (501_900, 501_999, 1 << 16),
    (457_100, 457_199, 1 << 16),
    (100_000, 199_999, 1 << 15),
    (860_000, 860_099, 1 << 16),
    (986_000, 986_099, 1 << 16),
    // Maestro.
    (501_800, 501_899, MAESTRO),
    (502_000, 502_099, MAESTRO),
    (503_800, 503_899, MAESTRO),
    (560_000, 589_999, MAESTRO),
    (589_300, 589_399, MAESTRO),
    (630_400, 630_499, MAESTRO),
    (639_000, 639_099, MAESTRO),
    (670_000, 679_999, MAESTRO),
    (60_400, 60_499, MAESTRO),
    (500_000, 509_999, 1 << 16 | 1 << 18 | 1 << 19),
    (590_000, 599_999, 1 << 16),
    (600_000, 699_999, 1 << 16 | 1 << 18 | 1 << 19),
];
const MAESTRO: u32 = 1 << 12 | 1 << 13 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19;
/// UATP: its range is a tenth of all numbers, so that it counts only where the column speaks of cards.
const UATP: u32 = 100_000;

/// Whether digits are a card's: issuer, length, Luhn. `named`: the column or a word before speaks of cards.
pub fn is_card(digits: &[u8], named: bool) -> bool {
    let len = digits.len();
    if !LENGTHS.contains(&len) || !checksum::luhn(digits) || digits.iter().all(|&digit| digit == digits[0]) {
        return false;
    }
    if named {
        return true;
    }
    let first = u32::try_from(checksum::number(&digits[..6])).unwrap_or(0);
    let issued = |&&(from, to, lengths): &&(u32, u32, u32)| {
        (from..=to).contains(&first) && lengths >> len & 1 == 1 && from != UATP
    };
    // Thirteen digits are also how goods are numbered.
    ISSUERS.iter().find(issued).is_some() && !(len == 13 && checksum::ean13(digits))
}

/// Whether a cell that is nothing but four times four digits is a card, where nothing says what it is. `None`: it is written
/// in another way, or a part of it may be one.
pub fn is_whole(cell: &[u8]) -> Option<bool> {
    let cell: &[u8; 19] = cell.try_into().ok()?;
    let separator = cell[4];
    let (mut digits, mut good) = ([0; 16], matches!(separator, b' ' | b'-'));
    for (group, four) in digits.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let at = 5 * group;
        for (digit, &byte) in four.iter_mut().zip(&cell[at..at + 4]) {
            *digit = byte.wrapping_sub(b'0');
            good &= *digit < 10;
        }
        good &= group == 3 || cell[at + 4] == separator;
    }
    if !good {
        return None;
    }
    if is_card(&digits, false) {
        return Some(true);
    }
    // A call abroad begins with zeros.
    if digits[0] == 0 {
        return None;
    }
    // Twelve digits are the shortest that may be one.
    let part = is_card(&digits[..12], false) || is_card(&digits[4..], false);
    (!part).then_some(false)
}

/// Whether the groups of a figure are those of a card: 4-4-4-4, 4-6-5, 4-6-4, or none at all.
pub fn is_grouped(figure: &Figure<'_>) -> bool {
    let mut lengths = [0; 6];
    let lengths = figure.lengths(&mut lengths);
    if figure.groups.len() > lengths.len() {
        return false;
    }
    let separators = separator::SPACE | separator::DASH | separator::DOT;
    let same = figure.between & !separators == 0 && figure.between.count_ones() <= 1;
    same && match *lengths {
        [_] => true,
        [4, 6, 5 | 4] | [6, 6..=13] | [8, 5] => true,
        [4, 4, 4, ref rest @ ..] => matches!(rest, [] | [1..=4] | [4, 1..=3]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(text: &str) -> Vec<u8> {
        text.bytes().filter(u8::is_ascii_digit).map(|byte| byte - b'0').collect()
    }

    #[test]
    fn the_test_numbers_of_processors_are_cards() {
        for number in [
            "4111111111111111",
            "4242424242424242",
            "4012888888881881",
            "4222222222222",
            "5555555555554444",
            "5105105105105100",
            "2223003122003222",
            "378282246310005",
            "371449635398431",
            "30569309025904",
            "38520000023237",
            "36227206271667",
            "6011111111111117",
            "6011000990139424",
            "3530111333300000",
            "3566002020360505",
            "6205500000000000004",
            "6304000000000000",
            "6759649826438453",
            "2200000000000004",
        ] {
            assert!(is_card(&digits(number), false), "{number}");
        }
    }

    #[test]
    fn other_numbers_are_not() {
        for number in [
            "4111111111111112",
            "1234567812345670",
            "4006381333931",
            "0000000000000000",
            "9999999999999995",
            "411111111111",
            "1700000000000",
        ] {
            assert!(!is_card(&digits(number), false), "{number}");
        }
        assert!(is_card(&digits("1234567812345670"), true), "a column of cards says the rest");
    }
}
