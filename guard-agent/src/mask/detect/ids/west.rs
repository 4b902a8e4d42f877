//! The Americas, Turkey, South Africa, Australia: numbers of digits alone.

use super::{Shown, checked, complement, has_day, only, remainder, uniform};
use crate::mask::detect::{
    checksum,
    figure::{
        Figure,
        separator::{DASH, DOT, SLASH, SPACE},
    },
};

/// Without separators.
pub fn is_plain(digits: &[u8]) -> bool {
    match digits.len() {
        11 => brazilian(digits) || turkish(digits) || argentine(digits),
        12 => russian_tax(digits),
        13 => south_african(digits),
        14 => brazilian_company(digits) && !is_timestamp(digits),
        _ => false,
    }
}

/// In the groups in which they are written.
pub fn is_grouped(figure: &Figure<'_>, digits: &[u8]) -> Option<Shown> {
    if figure.is(&[3, 2, 4]) && (only(figure, DASH) || only(figure, SPACE)) {
        return american(digits).then_some(Shown::Format);
    }
    if figure.is(&[3, 3, 3]) && uniform(figure) && !only(figure, DOT) {
        // Several countries write telephone numbers in these groups, mobile ones from 6 or 8 on; elsewhere Luhn is stronger.
        let phone = |range: std::ops::RangeInclusive<u8>| only(figure, SPACE) && range.contains(&digits[0]);
        let canadian = !phone(6..=6) && !phone(8..=8) && checksum::luhn(digits);
        return checked(canadian || !phone(0..=0) && !phone(5..=9) && australian_tax(digits));
    }
    if figure.is(&[3, 3, 3, 2]) && only(figure, DOT | DASH) && figure.separator(1) == DOT
        || figure.is(&[9, 2]) && only(figure, DASH)
    {
        return checked(brazilian(digits));
    }
    if figure.is(&[2, 3, 3, 4, 2]) && only(figure, DOT | DASH | SLASH)
        || figure.is(&[8, 4, 2]) && only(figure, SLASH | DASH)
    {
        return checked(brazilian_company(digits));
    }
    if figure.is(&[2, 8, 1]) && uniform(figure) {
        return checked(argentine(digits));
    }
    if (figure.is(&[2, 3, 3, 1]) || figure.is(&[1, 3, 3, 1]))
        && only(figure, DOT | DASH)
        && figure.between & DASH != 0
        || (figure.is(&[8, 1]) || figure.is(&[7, 1])) && only(figure, DASH)
    {
        return checked(chilean(digits));
    }
    if figure.is(&[4, 5, 1]) && (only(figure, SPACE) || only(figure, DASH)) {
        return checked(australian_health(digits));
    }
    checked(figure.is(&[6, 4, 2, 1]) && only(figure, SPACE) && south_african(digits))
}

/// SSN; from 900 on ITIN and what test data have.
fn american(digits: &[u8]) -> bool {
    let (area, group, serial) =
        (checksum::number(&digits[..3]), checksum::number(&digits[3..5]), checksum::number(&digits[5..9]));
    area != 0 && area != 666 && (group != 0 || area < 900) && serial != 0
}

/// CPF: two check digits.
fn brazilian(digits: &[u8]) -> bool {
    let check = |len: usize| {
        let sum: u32 = digits[..len]
            .iter()
            .zip((2..=len as u32 + 1).rev())
            .map(|(&digit, weight)| u32::from(digit) * weight)
            .sum();
        sum * 10 % 11 % 10 == u32::from(digits[len])
    };
    check(9) && check(10)
}

/// CNPJ: a company, often of one person.
fn brazilian_company(digits: &[u8]) -> bool {
    let check = |weights: &[u8]| {
        let rest = checksum::weighted(digits, weights) % 11;
        (if rest < 2 { 0 } else { 11 - rest }) == u32::from(digits[weights.len()])
    };
    check(&[5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2]) && check(&[6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2])
}

/// `yyyymmddhhmmss` has fourteen digits too.
fn is_timestamp(digits: &[u8]) -> bool {
    matches!(checksum::number(&digits[..2]), 19 | 20)
        && has_day(&digits[2..])
        && checksum::number(&digits[8..10]) < 24
}

/// CUIT, CUIL.
fn argentine(digits: &[u8]) -> bool {
    matches!(checksum::number(&digits[..2]), 20 | 23 | 24 | 25 | 26 | 27 | 30 | 33 | 34)
        && complement(digits, &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2], 11)
}

/// RUT with a digit as its check; the one with a K has letters.
fn chilean(digits: &[u8]) -> bool {
    let Some((&check, body)) = digits.split_last() else { return false };
    chilean_check(body) == u32::from(check)
}

/// The check of a RUT; ten stands for K.
pub fn chilean_check(body: &[u8]) -> u32 {
    let sum: u32 = body
        .iter()
        .rev()
        .zip([2, 3, 4, 5, 6, 7].iter().cycle())
        .map(|(&digit, &weight)| u32::from(digit) * weight)
        .sum();
    (11 - sum % 11) % 11
}

/// T.C. kimlik no.
fn turkish(digits: &[u8]) -> bool {
    let sum = |from: usize| -> i32 { (from..9).step_by(2).map(|at| i32::from(digits[at])).sum() };
    let (odd, even) = (sum(0), sum(1));
    let first_ten: i32 = digits[..10].iter().map(|&digit| i32::from(digit)).sum();
    digits[0] != 0
        && (odd * 7 - even).rem_euclid(10) == i32::from(digits[9])
        && first_ten % 10 == i32::from(digits[10])
}

/// INN of a person: two check digits.
fn russian_tax(digits: &[u8]) -> bool {
    digits[..2] != [0, 0]
        && remainder(digits, &[7, 2, 4, 10, 3, 5, 9, 4, 6, 8], 11)
        && remainder(digits, &[3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8], 11)
}

/// Identity number: day of birth, citizenship, Luhn.
fn south_african(digits: &[u8]) -> bool {
    has_day(digits) && digits[10] <= 2 && matches!(digits[11], 7..=9) && checksum::luhn(digits)
}

/// TFN.
pub fn australian_tax(digits: &[u8]) -> bool {
    checksum::weighted(digits, &[1, 4, 3, 7, 5, 8, 6, 9, 10]).is_multiple_of(11)
}

/// Medicare: the ninth digit checks.
fn australian_health(digits: &[u8]) -> bool {
    (2..=6).contains(&digits[0]) && remainder(digits, &[1, 3, 7, 9, 1, 3, 7, 9], 10)
}
