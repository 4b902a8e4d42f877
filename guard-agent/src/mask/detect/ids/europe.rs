//! Europe but for the north: numbers of digits alone.

use super::{Shown, checked, complement, has_day, has_day_first, only, remainder, uniform};
use crate::mask::detect::{
    checksum, dates,
    figure::{
        Figure,
        separator::{DASH, DOT, SLASH, SPACE},
    },
};

/// Without separators.
pub fn is_plain(digits: &[u8]) -> bool {
    match digits.len() {
        10 => austrian(digits) || czech(digits) || bulgarian(digits),
        11 => {
            polish(digits)
                || german_tax(digits)
                || belgian(digits)
                || baltic(digits)
                || greek(digits)
                || magyar(digits)
        }
        13 => romanian(digits) || yugoslav(digits) || swiss(digits),
        15 => french(digits),
        _ => false,
    }
}

/// In the groups in which they are written.
pub fn is_grouped(figure: &Figure<'_>, digits: &[u8]) -> Option<Shown> {
    let spaced = only(figure, SPACE);
    match digits.len() {
        9 if figure.is(&[6, 3]) && only(figure, SLASH) => {
            let (month, day) = birth_in_czech(digits);
            dates::is_day(month, day).then_some(Shown::Format)
        }
        9 if figure.is(&[4, 2, 3]) && uniform(figure) => checked(dutch(digits)),
        9 if figure.is(&[3, 3, 3]) && uniform(figure) => {
            // Spain, Poland and others write telephone numbers like this.
            let phone = spaced && !(1..=4).contains(&digits[0]);
            let dutch = only(figure, DOT) && dutch(digits);
            checked(!phone && (dutch || portuguese(digits) || hungarian(digits)))
        }
        10 if figure.is(&[4, 6]) && (spaced || only(figure, DASH)) => checked(austrian(digits)),
        10 if figure.is(&[6, 4]) && only(figure, SLASH) => checked(czech(digits)),
        // The tax number of Czechia's neighbours has the same form.
        10 if figure.is(&[3, 3, 4]) && spaced => checked(digits[0] != 0 && british_health(digits)),
        11 if figure.is(&[2, 3, 3, 3]) && spaced => checked(german_tax(digits)),
        11 if figure.is(&[2, 2, 2, 3, 2]) => checked(belgian(digits)),
        11 if figure.is(&[6, 3, 2]) || figure.is(&[6, 5]) => {
            let latvian = figure.is(&[6, 5])
                && only(figure, DASH)
                && (has_day_first(digits) || digits.starts_with(&[3, 2]));
            if belgian(digits) { Some(Shown::Checksum) } else { latvian.then_some(Shown::Format) }
        }
        11 if figure.is(&[3, 3, 3, 2]) && only(figure, SPACE | DASH) => checked(russian_pension(digits)),
        13 if figure.is(&[3, 4, 4, 2]) && (only(figure, DOT) || spaced) => checked(swiss(digits)),
        15 if figure.groups.len() <= 7 && uniform(figure) => checked(french(digits)),
        13 if figure.is(&[1, 2, 2, 2, 3, 3]) && spaced => french_without_key(digits).then_some(Shown::Format),
        _ => None,
    }
}

/// PESEL: the century is added to the month.
fn polish(digits: &[u8]) -> bool {
    let month = checksum::number(&digits[2..4]) % 20;
    dates::is_day(month, checksum::number(&digits[4..6]))
        && complement(digits, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3], 10)
}

/// Steueridentifikationsnummer: of the first ten digits one or two appear twice or thrice, one or two never.
fn german_tax(digits: &[u8]) -> bool {
    let mut counts = [0u8; 10];
    for &digit in &digits[..10] {
        counts[usize::from(digit % 10)] += 1;
    }
    let often = counts.iter().filter(|&&count| count > 1).count();
    let most = counts.iter().max().copied().unwrap_or(0);
    digits[0] != 0 && often == 1 && most <= 3 && checksum::mod_11_10(digits)
}

/// Rijksregisternummer: 97 minus the rest; from 2000 on, a 2 stands before.
fn belgian(digits: &[u8]) -> bool {
    let month = checksum::number(&digits[2..4]);
    // Numbers for people who are not registered add 20 or 40 to the month.
    let day = dates::is_day(month % 20, checksum::number(&digits[4..6]).max(1)) && month <= 52;
    let (body, check) = (checksum::number(&digits[..9]), checksum::number(&digits[9..11]));
    day && check > 0 && (97 - body % 97 == check || 97 - (2_000_000_000 + body) % 97 == check)
}

/// Isikukood, asmens kodas: sex and century, day of birth, a check in two steps.
fn baltic(digits: &[u8]) -> bool {
    let sum = checksum::weighted(digits, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 1]) % 11;
    let sum = if sum == 10 { checksum::weighted(digits, &[3, 4, 5, 6, 7, 8, 9, 1, 2, 3]) % 11 } else { sum };
    (1..=6).contains(&digits[0]) && has_day(&digits[1..]) && sum % 10 == u32::from(digits[10])
}

/// AMKA.
fn greek(digits: &[u8]) -> bool {
    has_day_first(digits) && checksum::luhn(digits)
}

/// Sozialversicherungsnummer: the fourth digit checks, a day of birth follows.
fn austrian(digits: &[u8]) -> bool {
    let sum = checksum::weighted(digits, &[3, 7, 9, 0, 5, 8, 4, 2, 1, 6]) % 11;
    digits[0] != 0 && has_day_first(&digits[4..]) && sum == u32::from(digits[3])
}

/// Month and day of a rodné číslo: women have 50 added to the month, 20 where numbers ran out.
fn birth_in_czech(digits: &[u8]) -> (u64, u64) {
    let month = checksum::number(&digits[2..4]) % 50;
    (if month > 20 { month - 20 } else { month }, checksum::number(&digits[4..6]))
}

fn czech(digits: &[u8]) -> bool {
    let (month, day) = birth_in_czech(digits);
    let number = checksum::number(digits);
    let old = checksum::number(&digits[..9]) % 11 == 10 && digits[9] == 0;
    dates::is_day(month, day) && (number.is_multiple_of(11) || old)
}

/// EGN: 20 or 40 added to the month.
fn bulgarian(digits: &[u8]) -> bool {
    let month = checksum::number(&digits[2..4]);
    let day = month <= 52 && dates::is_day(month % 20, checksum::number(&digits[4..6]));
    day && remainder(digits, &[2, 4, 8, 5, 10, 9, 7, 3, 6], 11)
}

/// CNP.
fn romanian(digits: &[u8]) -> bool {
    let sum = checksum::weighted(digits, &[2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9]) % 11;
    let check = if sum == 10 { 1 } else { sum };
    digits[0] != 0 && has_day(&digits[1..]) && check == u32::from(digits[12])
}

/// JMBG: Slovenia, Serbia, Bosnia and others.
fn yugoslav(digits: &[u8]) -> bool {
    let year = checksum::number(&digits[4..7]);
    dates::is_day(checksum::number(&digits[2..4]), checksum::number(&digits[..2]))
        && (year >= 900 || year <= 30)
        && complement(digits, &[7, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2], 11)
}

/// AHV/AVS: an EAN of country 756.
fn swiss(digits: &[u8]) -> bool {
    digits.starts_with(&[7, 5, 6]) && checksum::ean13(digits)
}

fn french_without_key(digits: &[u8]) -> bool {
    let month = checksum::number(&digits[3..5]);
    matches!(digits[0], 1..=4 | 7 | 8) && (matches!(month, 1..=12 | 20 | 30..=42 | 50..=99))
}

/// NIR with its key.
fn french(digits: &[u8]) -> bool {
    let (body, key) = (checksum::number(&digits[..13]), checksum::number(&digits[13..15]));
    french_without_key(digits) && key > 0 && 97 - body % 97 == key
}

/// BSN: eleven-test with a negative last weight.
pub fn dutch(digits: &[u8]) -> bool {
    let sum = checksum::weighted(digits, &[9, 8, 7, 6, 5, 4, 3, 2]);
    digits.len() == 9 && sum >= u32::from(digits[8]) && (sum - u32::from(digits[8])).is_multiple_of(11)
}

/// NIF of a person.
pub fn portuguese(digits: &[u8]) -> bool {
    let rest = 11 - checksum::weighted(digits, &[9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    matches!(digits[0], 1..=3) && (if rest >= 10 { 0 } else { rest }) == u32::from(digits[8])
}

/// Személyi azonosító: sex and century, day of birth, a check whose weights were turned round in 1997.
fn magyar(digits: &[u8]) -> bool {
    let sums = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]]
        .map(|weights| checksum::weighted(digits, &weights) % 11);
    (1..=8).contains(&digits[0]) && has_day(&digits[1..]) && sums.contains(&u32::from(digits[10]))
}

/// TAJ.
pub fn hungarian(digits: &[u8]) -> bool {
    remainder(digits, &[3, 7, 3, 7, 3, 7, 3, 7], 10)
}

/// NHS number of England, Wales and the Isle of Man.
pub fn british_health(digits: &[u8]) -> bool {
    complement(digits, &[10, 9, 8, 7, 6, 5, 4, 3, 2], 11)
}

/// SNILS.
pub fn russian_pension(digits: &[u8]) -> bool {
    let sum = checksum::weighted(digits, &[9, 8, 7, 6, 5, 4, 3, 2, 1]) % 101 % 100;
    u64::from(sum) == checksum::number(&digits[9..11])
}
