//! Sweden, Denmark, Norway, Iceland: a day of birth, a serial number, check digits.

use super::{Shown, checked, complement, has_day, has_day_first, has_full_day, only};
use crate::mask::detect::{
    checksum,
    figure::{
        Figure,
        separator::{DASH, PLUS, SPACE},
    },
};

/// Without separators.
pub fn is_plain(digits: &[u8]) -> bool {
    match digits.len() {
        10 => swedish(digits) || danish_checked(digits) || icelandic(digits),
        11 => norwegian(digits),
        12 => has_full_day(digits) && checksum::luhn(&digits[2..]),
        _ => false,
    }
}

/// In the groups in which they are written.
pub fn is_grouped(figure: &Figure<'_>, digits: &[u8]) -> Option<Shown> {
    if figure.is(&[6, 4]) {
        if only(figure, DASH | PLUS) && swedish(digits) {
            return Some(Shown::Checksum);
        }
        if only(figure, DASH) && icelandic(digits) {
            return Some(Shown::Checksum);
        }
        // Denmark has given out numbers without a valid check digit since 2007.
        return (only(figure, DASH) && has_day_first(digits)).then_some(Shown::Format);
    }
    if figure.is(&[8, 4]) && only(figure, DASH | PLUS) {
        return checked(has_full_day(digits) && checksum::luhn(&digits[2..]));
    }
    checked(figure.is(&[6, 5]) && only(figure, SPACE | DASH) && norwegian(digits))
}

/// Personnummer; a coordination number has 60 added to its day.
fn swedish(digits: &[u8]) -> bool {
    let mut day = [0; 6];
    day.copy_from_slice(&digits[..6]);
    if day[4] >= 6 {
        day[4] -= 6;
    }
    has_day(&day) && checksum::luhn(digits)
}

/// CPR with its old check.
fn danish_checked(digits: &[u8]) -> bool {
    has_day_first(digits) && checksum::weighted(digits, &[4, 3, 2, 7, 6, 5, 4, 3, 2, 1]).is_multiple_of(11)
}

/// Kennitala: the ninth digit checks, the tenth is the century.
fn icelandic(digits: &[u8]) -> bool {
    has_day_first(digits)
        && matches!(digits[9], 8 | 9 | 0)
        && complement(&digits[..9], &[3, 2, 7, 6, 5, 4, 3, 2], 11)
}

/// Fødselsnummer and D-number: two check digits.
fn norwegian(digits: &[u8]) -> bool {
    let mut day = [0; 6];
    day.copy_from_slice(&digits[..6]);
    if day[0] >= 4 {
        day[0] -= 4;
    }
    // Numbers of tests and of people without a day add 40 or 80 to the month.
    if day[2] >= 8 {
        day[2] -= 8;
    } else if day[2] >= 4 {
        day[2] -= 4;
    }
    has_day_first(&day)
        && complement(digits, &[3, 7, 6, 1, 8, 9, 4, 5, 2], 11)
        && complement(digits, &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2], 11)
}
