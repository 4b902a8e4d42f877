//! Numbers by which states know people: a figure enters, what shows that it is one leaves.
//!
//! A number with one check digit in ten is no evidence where digits stand alone: it needs the groups in which people write
//! it, a day of birth inside, two check digits or letters. Weaker ones are found by a column's name or a word before.

mod asia;
mod europe;
mod letters;
mod nordic;
mod west;

use super::{
    checksum, dates,
    figure::{Figure, separator},
};

/// What shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Its check digits.
    Checksum,
    /// Its groups and ranges.
    Format,
}

/// Whether a figure is a national number; `digits` are its digits where it has no letters.
pub fn is_national(figure: &Figure<'_>, digits: Option<&[u8]>) -> Option<Shown> {
    let Some(digits) = digits else { return letters::is_national(figure) };
    if !matches!(digits.len(), 8..=15 | 18) || digits.iter().all(|&digit| digit == digits[0]) {
        return None;
    }
    if figure.is_plain() {
        return is_plain(digits).then_some(Shown::Checksum);
    }
    // 1716808.579681 is an amount or a time.
    if figure.groups.len() == 2 && figure.between == separator::DOT {
        return None;
    }
    west::is_grouped(figure, digits)
        .or_else(|| europe::is_grouped(figure, digits))
        .or_else(|| nordic::is_grouped(figure, digits))
        .or_else(|| asia::is_grouped(figure, digits))
}

/// Whether digits alone are one that so much in it shows that a single one tells.
pub fn is_plain(digits: &[u8]) -> bool {
    match digits.len() {
        9 | 10 => nordic::is_plain(digits) || europe::is_plain(digits),
        11..=15 => {
            europe::is_plain(digits)
                || nordic::is_plain(digits)
                || west::is_plain(digits)
                || asia::is_plain(digits)
        }
        18 => asia::is_plain(digits),
        _ => false,
    }
}

/// Whether digits alone have one check digit, which tells nothing of one number and much of many: by country.
pub const WEAK: &[fn(&[u8]) -> bool] = &[
    // The Netherlands.
    |digits| digits.len() == 9 && europe::dutch(digits),
    // Portugal, and taxpayers of Hungary.
    |digits| digits.len() == 9 && europe::portuguese(digits),
    |digits| digits.len() == 9 && europe::hungarian(digits),
    // Canada, Israel, and establishments in France.
    |digits| digits.len() == 9 && checksum::luhn(digits),
    // Australia.
    |digits| digits.len() == 9 && west::australian_tax(digits),
    // Health in England: numbers of books have the same check, and begin otherwise.
    |digits| digits.len() == 10 && matches!(digits[0], 4 | 6 | 7) && europe::british_health(digits),
    // Croatia; pensions in Russia.
    |digits| digits.len() == 11 && checksum::mod_11_10(digits),
    |digits| digits.len() == 11 && europe::russian_pension(digits),
    // India, Japan, Thailand.
    |digits| digits.len() == 12 && digits[0] >= 2 && checksum::verhoeff(digits),
    |digits| digits.len() == 12 && asia::japanese(digits),
    |digits| digits.len() == 13 && asia::thai(digits),
    // Indonesia: province, district, day of birth, where women have 40 added to the day.
    |digits| digits.len() == 16 && asia::indonesian(digits),
    // Egypt: century, day of birth, governorate.
    |digits| digits.len() == 14 && asia::egyptian(digits),
];

/// A column or a word before speaks of national numbers: everything of a plausible length.
pub fn is_plausible(figure: &Figure<'_>) -> bool {
    (6..=20).contains(&figure.text.len())
        && figure.groups.iter().map(|group| group.digits).sum::<usize>() >= 4
        && !figure.text.iter().all(|&byte| byte == figure.text[0])
}

/// `yymmdd` at the start of `digits`; days of people without a known century.
fn has_day(digits: &[u8]) -> bool {
    digits.len() >= 6 && dates::is_day(checksum::number(&digits[2..4]), checksum::number(&digits[4..6]))
}

/// `ddmmyy` at the start of `digits`.
fn has_day_first(digits: &[u8]) -> bool {
    digits.len() >= 6 && dates::is_day(checksum::number(&digits[2..4]), checksum::number(&digits[..2]))
}

/// `yyyymmdd` at the start of `digits`, of somebody who may be alive.
fn has_full_day(digits: &[u8]) -> bool {
    digits.len() >= 8 && matches!(checksum::number(&digits[..4]), 1900..=2039) && has_day(&digits[2..])
}

/// Only these separators stand between the groups.
fn only(figure: &Figure<'_>, bits: u8) -> bool {
    figure.between & !bits == 0
}

/// The same separator between all groups.
fn uniform(figure: &Figure<'_>) -> bool {
    figure.between.count_ones() == 1
        && figure.between & (separator::SPACE | separator::DASH | separator::DOT) != 0
}

fn checked(good: bool) -> Option<Shown> {
    good.then_some(Shown::Checksum)
}

/// A check digit from a weighted sum: `modulus - sum % modulus`, where `modulus` itself stands for 0 and ten for none.
fn complement(digits: &[u8], weights: &[u8], modulus: u32) -> bool {
    let Some(&check) = digits.get(weights.len()) else { return false };
    let rest = (modulus - checksum::weighted(digits, weights) % modulus) % modulus;
    rest == u32::from(check)
}

/// A check digit that is the weighted sum's rest itself; ten stands for 0.
fn remainder(digits: &[u8], weights: &[u8], modulus: u32) -> bool {
    let Some(&check) = digits.get(weights.len()) else { return false };
    checksum::weighted(digits, weights) % modulus % 10 == u32::from(check)
}

#[cfg(test)]
mod tests;
