//! National numbers with letters among their digits.

use super::{Shown, asia, checked, has_day, has_day_first, only, uniform, west};
use crate::mask::detect::{
    checksum,
    figure::{
        Figure,
        separator::{CLOSE, DASH, DOT, OPEN, PLUS},
    },
};

/// Letters of the check of Spain's numbers.
const SPANISH: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";
/// Letters of the check of Finland's and of others.
const FINNISH: &[u8; 31] = b"0123456789ABCDEFHJKLMNPRSTUVWXY";

/// Which of them a figure is.
pub fn is_national(figure: &Figure<'_>) -> Option<Shown> {
    let text = figure.text;
    let plain = figure.is_plain();
    match text.len() {
        8 | 9 if is(text, b"adddddda") || is(text, b"addddddd") => checked(hong_kong(figure)),
        9 => nine(figure),
        10 if is(text, b"aaaaadddda") => (plain && indian(text)).then_some(Shown::Format),
        10 if is(text, b"adddddddda") || is(text, b"addddddddd") => checked(plain && taiwanese(text)),
        10 | 11 => checked(finnish(figure)),
        12 if is(text, b"dddddddddddd") => None,
        12 if is(text, b"ddddddddaddd") => checked(german_pension(text)),
        13 if is(text, b"aaaaddddddxxx") => (plain && mexican(text)).then_some(Shown::Format),
        15 => checked(french_with_corsica(text)),
        16 => checked(italian(text)),
        18 if is(text, b"aaaaddddddaaaaaaxd") => {
            (plain && has_day(&values(&text[4..10])) && matches!(text[10], b'H' | b'M' | b'X'))
                .then_some(Shown::Format)
        }
        18 => checked(plain && chinese_with_x(text)),
        _ => None,
    }
}

/// Nine letters and digits: Spain, Singapore, Britain, Ireland, Chile.
fn nine(figure: &Figure<'_>) -> Option<Shown> {
    let text = figure.text;
    let plain = figure.is_plain() || only(figure, DASH);
    if is(text, b"dddddddda") {
        let digits = values(&text[..8]);
        let spanish = plain || only(figure, DOT | DASH) || figure.is(&[8, 1]);
        let chilean = text[8] == b'K' && figure.between & DASH != 0 && west::chilean_check(&digits) == 10;
        return checked(chilean || spanish && spanish_letter(checksum::number(&digits)) == text[8]);
    }
    if is(text, b"addddddda") {
        let digits = values(&text[1..8]);
        let foreigner = match text[0] {
            b'X' => Some(0),
            b'Y' => Some(10_000_000),
            b'Z' => Some(20_000_000),
            _ => None,
        };
        let spanish =
            foreigner.is_some_and(|base| spanish_letter(base + checksum::number(&digits)) == text[8]);
        return checked(plain && (spanish || singaporean(text[0], &digits, text[8])));
    }
    if is(text, b"aadddddda") {
        return british(figure).then_some(Shown::Format);
    }
    if is(text, b"dddddddaa") && plain {
        let sum = checksum::weighted(&values(&text[..7]), &[8, 7, 6, 5, 4, 3, 2])
            + 9 * u32::from(text[8] - b'A' + 1);
        return checked(matches!(text[8], b'A'..=b'I' | b'W') && irish_letter(sum) == text[7]);
    }
    None
}

/// Whether text has this form: `a` letter, `d` digit, `x` either.
fn is(text: &[u8], form: &[u8]) -> bool {
    text.len() == form.len()
        && text.iter().zip(form).all(|(byte, form)| match form {
            b'a' => byte.is_ascii_uppercase(),
            b'd' => byte.is_ascii_digit(),
            _ => true,
        })
}

/// The digits' values; letters count as 0.
fn values(text: &[u8]) -> smallvec::SmallVec<[u8; 20]> {
    text.iter().map(|byte| if byte.is_ascii_digit() { byte - b'0' } else { 0 }).collect()
}

fn spanish_letter(number: u64) -> u8 {
    SPANISH[usize::try_from(number % 23).unwrap_or(0)]
}

fn irish_letter(sum: u32) -> u8 {
    match sum % 23 {
        0 => b'W',
        rest => b'A' + u8::try_from(rest - 1).unwrap_or(0),
    }
}

/// NINO, also with the prefix that stands for no person; people write it in pairs.
fn british(figure: &Figure<'_>) -> bool {
    let text = figure.text;
    let pairs = figure.is(&[2, 2, 2, 2, 1]) || figure.is(&[2, 6, 1]);
    let letters = (text[0], text[1]);
    let issued = !matches!(text[0], b'D' | b'F' | b'I' | b'Q' | b'U' | b'V')
        && !matches!(text[1], b'D' | b'F' | b'I' | b'O' | b'Q' | b'U' | b'V')
        && !matches!(
            letters,
            (b'B', b'G') | (b'G', b'B') | (b'K', b'N') | (b'N', b'K') | (b'N', b'T') | (b'T', b'N')
        );
    let written = figure.is_plain() || (uniform(figure) && pairs);
    written
        && matches!(text[8], b'A'..=b'D' | b'F' | b'M' | b'P' | b'T')
        && (issued || letters == (b'Z', b'Z'))
}

/// NRIC and FIN.
fn singaporean(first: u8, digits: &[u8], check: u8) -> bool {
    let sum = checksum::weighted(digits, &[2, 7, 6, 5, 4, 3, 2]);
    let (sum, letters) = match first {
        b'S' => (sum, b"JZIHGFEDCBA"),
        b'T' => (sum + 4, b"JZIHGFEDCBA"),
        b'F' => (sum, b"XWUTRQPNMLK"),
        b'G' => (sum + 4, b"XWUTRQPNMLK"),
        b'M' => (sum + 3, b"KLJNPQRTUWX"),
        _ => return false,
    };
    let at = (sum % 11) as usize;
    letters[if first == b'M' { 10 - at } else { at }] == check
}

/// Identity card: the check digit in parentheses.
fn hong_kong(figure: &Figure<'_>) -> bool {
    let text = figure.text;
    let sum = 36 * 9
        + 8 * u32::from(text[0] - b'A' + 10)
        + checksum::weighted(&values(&text[1..7]), &[7, 6, 5, 4, 3, 2]);
    let check = match text[7] {
        b'A' => 10,
        digit @ b'0'..=b'9' => u32::from(digit - b'0'),
        _ => return false,
    };
    figure.is(&[7, 1]) && figure.between & (OPEN | CLOSE) != 0 && (sum + check).is_multiple_of(11)
}

/// PAN: the fourth letter says whose it is.
fn indian(text: &[u8]) -> bool {
    b"ABCFGHLJPTK".contains(&text[3])
}

/// Identity card: the letter is a place and counts as two digits.
fn taiwanese(text: &[u8]) -> bool {
    const PLACES: &[u8; 26] = b"ABCDEFGHJKLMNPQRSTUVXYWZIO";
    let Some(place) = PLACES.iter().position(|&letter| letter == text[0]) else { return false };
    let place = u32::try_from(place).unwrap_or(0) + 10;
    let sum =
        place / 10 + place % 10 * 9 + checksum::weighted(&values(&text[1..]), &[8, 7, 6, 5, 4, 3, 2, 1, 1]);
    matches!(text[1], b'1' | b'2' | b'8' | b'9') && text[9].is_ascii_digit() && sum.is_multiple_of(10)
}

/// Henkilötunnus: the sign of the century stands between day and number.
fn finnish(figure: &Figure<'_>) -> bool {
    let text = figure.text;
    let (day, number) = match text.len() {
        10 if figure.is(&[6, 4]) && only(figure, DASH | PLUS) => (&text[..6], &text[6..]),
        11 if figure.is_plain() && matches!(text[6], b'A'..=b'F' | b'U'..=b'Y') => (&text[..6], &text[7..]),
        _ => return false,
    };
    if !is(day, b"dddddd") || !is(&number[..3], b"ddd") {
        return false;
    }
    let (day, number, check) = (values(day), values(&number[..3]), number[3]);
    let value = checksum::number(&day) * 1000 + checksum::number(&number);
    has_day_first(&day) && FINNISH[usize::try_from(value % 31).unwrap_or(0)] == check
}

/// Rentenversicherungsnummer: area, day of birth, letter of the name, serial, check.
fn german_pension(text: &[u8]) -> bool {
    let letter = text[8] - b'A' + 1;
    let mut digits = values(&text[..8]);
    digits.extend([letter / 10, letter % 10]);
    digits.extend(values(&text[9..12]));
    let sum: u32 = digits
        .iter()
        .zip([2u32, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1])
        .map(|(&digit, weight)| u32::from(digit) * weight)
        .map(|product| product / 10 + product % 10)
        .sum();
    let day = checksum::number(&digits[2..4]);
    let day = if day > 31 { day.saturating_sub(50) } else { day };
    (1..=31).contains(&day)
        && (1..=12).contains(&checksum::number(&digits[4..6]))
        && sum % 10 == u32::from(digits[12])
}

/// RFC of a person.
fn mexican(text: &[u8]) -> bool {
    has_day(&values(&text[4..10]))
}

/// NIR of people born in Corsica: 2A and 2B stand for 19 and 18.
fn french_with_corsica(text: &[u8]) -> bool {
    let department = match text.get(5..7) {
        Some(b"2A") => [b'1', b'9'],
        Some(b"2B") => [b'1', b'8'],
        _ => return false,
    };
    let mut digits = [0; 15];
    digits.copy_from_slice(text);
    digits[5..7].copy_from_slice(&department);
    is(&digits, b"ddddddddddddddd") && {
        let digits = values(&digits);
        97 - checksum::number(&digits[..13]) % 97 == checksum::number(&digits[13..])
    }
}

/// Codice fiscale; letters stand for digits where two people would have the same.
fn italian(text: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    if text.len() != 16
        || !is(&text[..6], b"aaaaaa")
        || !b"ABCDEHLMPRST".contains(&text[8])
        || !text[15].is_ascii_uppercase()
    {
        return false;
    }
    let digit = |byte: u8| byte.is_ascii_digit() || b"LMNPQRSTUV".contains(&byte);
    if ![6, 7, 9, 10, 12, 13, 14].iter().all(|&at| digit(text[at])) {
        return false;
    }
    let value = |byte: u8| usize::from(if byte.is_ascii_digit() { byte - b'0' } else { byte - b'A' });
    let sum: u32 = text[..15]
        .iter()
        .enumerate()
        .map(
            |(at, &byte)| {
                if at % 2 == 0 { ODD[value(byte)] } else { u32::try_from(value(byte)).unwrap_or(0) }
            },
        )
        .sum();
    sum % 26 == u32::from(text[15] - b'A')
}

fn chinese_with_x(text: &[u8]) -> bool {
    text[17] == b'X'
        && is(&text[..17], b"ddddddddddddddddd")
        && asia::chinese_check(&values(&text[..17])) == Some(10)
}
