//! Asia: numbers of digits alone.

use super::{Shown, checked, has_day, has_full_day, only, uniform};
use crate::mask::detect::{
    checksum, dates,
    figure::{
        Figure,
        separator::{DASH, SPACE},
    },
};

/// Without separators.
pub fn is_plain(digits: &[u8]) -> bool {
    match digits.len() {
        12 => kazakh(digits),
        13 => korean_checked(digits),
        18 => chinese(digits),
        _ => false,
    }
}

/// In the groups in which they are written.
pub fn is_grouped(figure: &Figure<'_>, digits: &[u8]) -> Option<Shown> {
    if figure.is(&[6, 7]) && only(figure, DASH) {
        return korean(digits).then_some(Shown::Format);
    }
    if figure.is(&[4, 4, 4]) && uniform(figure) {
        return checked((digits[0] >= 2 && checksum::verhoeff(digits)) || japanese(digits));
    }
    // MyKad: day, state.
    if figure.is(&[6, 2, 4]) && only(figure, DASH) {
        return has_day(digits).then_some(Shown::Format);
    }
    if figure.is(&[1, 4, 5, 2, 1]) && (only(figure, DASH) || only(figure, SPACE)) {
        return checked(thai(digits));
    }
    checked(figure.is(&[6, 8, 4]) && uniform(figure) && chinese(digits))
}

/// Resident identity number: region, day of birth, MOD 11-2; the one that ends with X has a letter.
fn chinese(digits: &[u8]) -> bool {
    chinese_check(digits) == Some(u32::from(digits[17]))
}

/// The check of seventeen digits with a day of birth in them; ten stands for X.
pub fn chinese_check(digits: &[u8]) -> Option<u32> {
    let sum = checksum::weighted(digits, &[7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]);
    let check = (12 - sum % 11) % 11;
    (digits.len() >= 17 && (1..=9).contains(&digits[0]) && has_full_day(&digits[6..])).then_some(check)
}

/// Resident registration number: day of birth, sex and century. Since 2020 there is no check digit.
fn korean(digits: &[u8]) -> bool {
    (1..=12).contains(&checksum::number(&digits[2..4])) && (1..=8).contains(&digits[6])
}

fn korean_checked(digits: &[u8]) -> bool {
    let sum = checksum::weighted(digits, &[2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]);
    korean(digits) && has_day(digits) && (11 - sum % 11) % 10 == u32::from(digits[12])
}

/// My Number.
pub fn japanese(digits: &[u8]) -> bool {
    let sum = checksum::weighted(digits, &[6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11;
    (if sum <= 1 { 0 } else { 11 - sum }) == u32::from(digits[11])
}

/// IIN: day of birth, sex and century, a check in two steps.
fn kazakh(digits: &[u8]) -> bool {
    let sum = checksum::weighted(digits, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]) % 11;
    let sum =
        if sum == 10 { checksum::weighted(digits, &[3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 2]) % 11 } else { sum };
    has_day(digits) && (1..=6).contains(&digits[6]) && sum == u32::from(digits[11])
}

/// National number.
pub fn thai(digits: &[u8]) -> bool {
    let sum = checksum::weighted(digits, &[13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
    digits[0] != 0 && (11 - sum % 11) % 10 == u32::from(digits[12])
}

/// NIK.
pub fn indonesian(digits: &[u8]) -> bool {
    let province = checksum::number(&digits[..2]);
    let day = checksum::number(&digits[6..8]);
    let issued = matches!(province, 11..=19 | 21 | 31..=36 | 51..=53 | 61..=65 | 71..=76 | 81 | 82 | 91..=97);
    issued && dates::is_day(checksum::number(&digits[8..10]), if day > 40 { day - 40 } else { day })
}

/// National number of Egypt.
pub fn egyptian(digits: &[u8]) -> bool {
    matches!(digits[0], 2 | 3)
        && has_day(&digits[1..])
        && matches!(checksum::number(&digits[7..9]), 1..=35 | 88)
}
