//! Telephone numbers: a figure enters, how sure it is that one can be called leaves.
//!
//! With a country's code by ITU-T E.164; without one only in a spelling that a country has for its own numbers, since
//! most things are numbered. Extensions belong to the number.

use super::figure::{
    Figure,
    separator::{CLOSE, DASH, DOT, OPEN, PLUS, SLASH, SPACE},
};
use crate::mask::bits::{Groups, lowest};

/// Country codes with one or two digits; those with three are what is left of 21x to 99x.
const SHORT: u128 = bits(&[
    1, 7, 20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57,
    58, 60, 61, 62, 63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95, 98,
]);
/// First two digits of the country codes with three.
const LONG: u128 =
    bits(&[21, 22, 23, 24, 25, 26, 29, 35, 37, 38, 42, 50, 59, 67, 68, 69, 80, 85, 87, 88, 96, 97, 99]);

/// One bit for each number below 128.
const fn bits(numbers: &[u16]) -> u128 {
    let (mut bits, mut at) = (0, 0);
    while at < numbers.len() {
        bits |= 1 << numbers[at];
        at += 1;
    }
    bits
}

/// How it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sure {
    /// A country's code and a plausible number.
    International,
    /// A national spelling.
    National,
}

/// Whether a figure without letters is a telephone number; `digits` are its digits.
pub fn is_phone(figure: &Figure<'_>, digits: &[u8]) -> Option<Sure> {
    if !(7..=17).contains(&digits.len()) || digits.iter().all(|&digit| digit == digits[0]) {
        return None;
    }
    let plus = figure.before() & PLUS != 0;
    if plus || (figure.groups.len() > 1 && figure.groups[0].len() > 1 && digits.starts_with(&[0, 0])) {
        let body = if plus { digits } else { &digits[2..] };
        // A sign and groups say it, whatever the country.
        let written =
            plus && figure.groups.len() > 1 && (9..=15).contains(&digits.len()) && figure.between & DOT == 0;
        let good = (is_international(body) || written && digits[0] != 0) && !is_odd(figure);
        return good.then_some(Sure::International);
    }
    if figure.between & PLUS != 0 || is_odd(figure) {
        return None;
    }
    is_national(figure, digits).then_some(Sure::National)
}

/// Whether a cell is nothing but a number with its country's code: `+49 30 901820`. What is not said here is said by
/// [`is_phone`]: `false` is no answer.
pub fn is_whole(cell: &[u8]) -> bool {
    let ([b'+', b'1'..=b'9', ..], Some(Groups { digits, between, second })) = (cell, Groups::of(cell)) else {
        return false;
    };
    let (all, count) = (lowest(cell.len()), digits.count_ones());
    // Nothing else behind the sign; with fewer than twelve digits no stretch of it is a card.
    if digits | between != all & !1 || !(9..=11).contains(&count) {
        return false;
    }
    // No two separators side by side, and two digits at least between two of them and behind the last.
    let last_two = all & !(all >> 2);
    let good = between & (between << 1 | between << 2 | last_two) == 0;
    // Two to eight groups, and not all of one digit.
    good && (1..8).contains(&between.count_ones()) && digits & !second != 0
}

/// A context or column speaks of telephones: anything that could be called.
pub fn is_plausible(figure: &Figure<'_>, digits: &[u8]) -> bool {
    (5..=17).contains(&digits.len()) && figure.groups.iter().all(|group| group.digits == group.len())
}

/// Country code and 6 to 13 further digits.
fn is_international(digits: &[u8]) -> bool {
    let [first, second, ..] = digits else { return false };
    let (one, two) = (u16::from(*first), u16::from(first * 10 + second));
    let code = match one {
        1 | 7 => 1,
        0 => return false,
        _ if SHORT >> two & 1 == 1 => 2,
        _ if LONG >> two & 1 == 1 => 3,
        _ => return false,
    };
    let body = digits.len() - code;
    match one {
        // With an extension dialled through; `001` before the country's own code.
        1 => body == 10,
        7 => body == 10,
        _ => (6..=13).contains(&body) && digits.len() <= 16,
    }
}

/// Single digits in the middle, separators that no spelling of telephone numbers has.
fn is_odd(figure: &Figure<'_>) -> bool {
    let tail = figure.groups.get(1..).unwrap_or_default();
    let alone = tail
        .iter()
        .enumerate()
        .filter(|(at, group)| {
            let trunk =
                group.before & OPEN != 0 && tail.get(at + 1).is_some_and(|next| next.before & CLOSE != 0);
            let last = at + 1 == tail.len() && group.before & DASH != 0;
            let after_trunk = group.before & CLOSE != 0 && *at > 0 && tail[at - 1].before & OPEN != 0;
            // `+33 6 12 ..`: France, Hungary, Japan and others have areas of one digit.
            let area = *at == 0 && (figure.before() & PLUS != 0 || figure.text.starts_with(b"00"));
            group.len() == 1 && !trunk && !last && !area && !after_trunk
        })
        .count();
    alone > 0 || figure.between & DOT != 0 && figure.between & SLASH != 0 || figure.groups.len() > 8
}

/// Mobile numbers of a country as digits alone: how many, how they begin, and what may come then.
pub struct Mobile {
    digits: std::ops::RangeInclusive<usize>,
    prefix: &'static [u8],
    next: &'static [u8],
}

const fn mobile(least: usize, most: usize, prefix: &'static str, next: &'static str) -> Mobile {
    Mobile { digits: least..=most, prefix: prefix.as_bytes(), next: next.as_bytes() }
}

/// With the country's code and without a sign, and some without it, where what begins so is little else. What a zero
/// begins is found by itself.
#[rustfmt::skip]
pub const MOBILES: &[Mobile] = &[
    mobile(11, 11, "1", "23456789"), mobile(11, 11, "79", "0123456789"), mobile(12, 12, "201", "0125"),
    mobile(11, 11, "27", "678"), mobile(12, 12, "306", "9"), mobile(11, 11, "316", "123456789"),
    mobile(11, 11, "324", "56789"), mobile(11, 11, "33", "67"), mobile(11, 11, "34", "67"), mobile(11, 12, "36", "237"),
    mobile(11, 12, "393", "23456789"), mobile(11, 11, "407", "23456789"), mobile(11, 11, "417", "56789"),
    mobile(11, 13, "436", "56789"), mobile(12, 12, "447", "12345789"), mobile(11, 11, "467", "02369"),
    mobile(11, 11, "48", "45678"), mobile(12, 13, "491", "567"), mobile(11, 11, "519", "0123456789"),
    mobile(12, 13, "52", "123456789"), mobile(12, 13, "549", "123"), mobile(13, 13, "55", "123456789"),
    mobile(11, 11, "569", "2345678"), mobile(12, 12, "573", "0125"), mobile(11, 12, "601", "0123456789"),
    mobile(11, 11, "614", "0123456789"), mobile(11, 13, "628", "123456789"), mobile(12, 12, "639", "0123456789"),
    mobile(11, 11, "66", "689"), mobile(12, 12, "81", "789"), mobile(12, 12, "821", "0"), mobile(11, 11, "84", "35789"),
    mobile(13, 13, "861", "3456789"), mobile(12, 12, "905", "0345"), mobile(12, 12, "91", "6789"),
    mobile(12, 12, "923", "01234"), mobile(12, 12, "989", "0123"), mobile(13, 13, "234", "789"),
    mobile(12, 12, "2547", "0123456789"), mobile(12, 12, "351", "9"), mobile(12, 12, "353", "8"), mobile(12, 12, "358", "45"),
    mobile(12, 12, "380", "3569"), mobile(12, 12, "420", "67"), mobile(13, 13, "8801", "3456789"), mobile(12, 12, "966", "5"),
    mobile(12, 12, "971", "5"), mobile(12, 12, "972", "5"),
    // India, Britain, Italy, Turkey, Russia, France and Spain without their codes; North America.
    mobile(10, 10, "", "6789"), mobile(10, 10, "7", "12345789"), mobile(10, 10, "3", "23456789"), mobile(10, 10, "5", "0345"),
    mobile(10, 10, "9", "012356789"), mobile(9, 9, "", "67"), mobile(10, 10, "", "23456789"),
];

impl Mobile {
    /// Whether `digits` is one.
    pub fn fits(&self, digits: &[u8]) -> bool {
        let len = self.prefix.len();
        let starts = |text: &[u8]| digits.iter().zip(text).all(|(&digit, &byte)| digit == byte - b'0');
        let good = self.digits.contains(&digits.len())
            && starts(self.prefix)
            && self.next.iter().any(|&byte| byte - b'0' == digits[len]);
        // North America: an area and an exchange, of which neither is a service.
        let american = self.next.len() == 8 && self.next[0] == b'2' && matches!(self.prefix, b"" | b"1");
        good && (!american
            || digits[len + 1] != 9
                && digits[len + 3] >= 2
                && digits[len + 1..len + 3] != [1, 1]
                && digits[len + 4..len + 6] != [1, 1])
    }

    /// Of how many numbers that are nobody's one looks like it, at most.
    pub fn chance(&self) -> f64 {
        let tenths = f64::from(u8::try_from(self.next.len()).unwrap_or(10)) / 10.0;
        tenths * 0.1_f64.powi(i32::try_from(self.prefix.len()).unwrap_or(0))
    }

    /// How many digits at its beginning all of them share.
    pub fn shared(&self) -> usize {
        self.prefix.len()
    }
}

/// A spelling that some country has for its own numbers.
fn is_national(figure: &Figure<'_>, digits: &[u8]) -> bool {
    let mut lengths = [0; 9];
    let lengths = figure.lengths(&mut lengths);
    let paren = figure.before() & OPEN != 0 && figure.separator(1) & CLOSE != 0;
    if figure.is_plain() {
        return is_plain_mobile(digits);
    }
    if is_date_like(figure, digits, lengths) || is_book(figure, digits, lengths) {
        return false;
    }
    let only = |bits: u8| figure.between & !bits == 0;
    let one_kind = only(SPACE) || only(DASH) || only(DOT) || only(SPACE | DASH);
    // North America: (212) 555-0123, 212-555-0123, 1-212-555-0123.
    match *lengths {
        [3, 3, 4] if paren || one_kind || only(SLASH | DASH) => return digits[0] != 0 || digits[1] != 0,
        [1, 3, 3, 4] if digits[0] == 1 && (one_kind || figure.between & OPEN != 0) => return true,
        [3, 7] if paren => return true,
        _ => {}
    }
    // An area in parentheses: (030) 123456, (11) 91234-5678, 8 (495) 123-45-67.
    if paren {
        return (8..=13).contains(&digits.len()) && lengths[0] >= 2;
    }
    if digits[0] == 8 && *lengths == [1, 3, 3, 2, 2] {
        return true;
    }
    if digits[0] == 0 {
        return is_trunk(figure, digits, lengths);
    }
    if figure.separator(1) == SLASH
        && figure.between & !(SLASH | DASH | SPACE) == 0
        && matches!(*lengths, [2, 3, 3 | 4] | [2, 3, 2, 2])
    {
        return true;
    }
    without_trunk(digits, lengths, only(SPACE), only(DASH), only(SPACE | DASH))
}

/// `0` and an area: 030/1234567, 01 23 45 67 89, 020 7946 0958, 06-12345678.
fn is_trunk(figure: &Figure<'_>, digits: &[u8], lengths: &[usize]) -> bool {
    let dotted = figure.between & !DOT == 0;
    let body = lengths.get(1..).unwrap_or_default();
    let even = body.iter().all(|&len| (2..=8).contains(&len));
    let toll_free = lengths == [4, 2, 2] && digits[..4] == [0, 8, 0, 0];
    if toll_free
        || lengths == [2, 1, 3, 4] && digits[1] == 6
        || lengths == [2, 2, 2, 2] && figure.between == SPACE
    {
        return digits[1] != 0;
    }
    ((2..=6).contains(&lengths[0]) || lengths == [1, 4, 4])
        && even
        && digits[1] != 0
        && ((9..=13).contains(&digits.len()) || digits.len() == 8 && figure.between == SPACE | DASH)
        // 0123.456 is an amount.
        && (!dotted || lengths.len() >= 3)
        && figure.between & !(SPACE | DASH | DOT | SLASH) == 0
}

/// Countries without a trunk digit, by their usual groups.
fn without_trunk(digits: &[u8], lengths: &[usize], spaces: bool, dashes: bool, mixed: bool) -> bool {
    let first = digits[0];
    match lengths {
        // Denmark, Norway; Belgium and Switzerland have a trunk digit.
        [2, 2, 2, 2] => spaces && first >= 2,
        // Greece.
        [4, 3, 3] | [4, 6] | [5, 2, 3] => spaces && matches!(first, 2 | 6),
        [4, 4] => spaces && first >= 2 && !is_year(digits),
        // Colombia, with and without its code; the towns of Ukraine.
        [3, 3, 2, 2] => mixed && first >= 2,
        [2, 3, 3, 2, 2] => spaces && digits[..2] == [5, 7],
        [3, 2, 2] => (spaces || dashes) && first >= 2,
        [3, 2, 3] => spaces && matches!(first, 4 | 8 | 9),
        // Spain, Poland, Portugal, Czechia.
        [3, 3, 3] => spaces && first >= 2,
        [3, 2, 2, 2] | [2, 3, 2, 2] => (spaces || dashes || mixed) && first >= 1,
        // Brazil, India, China, Mexico, Italy, Korea.
        [2, 5, 4] => mixed && first >= 1,
        [2, 4, 4] => mixed && first >= 1,
        [5, 5] => spaces && first >= 6,
        [3, 4, 4] => (spaces || dashes) && first == 1,
        [3, 7] | [3, 6] => spaces && first == 3,
        [3, 3, 1, 3] => mixed && first >= 2,
        _ => false,
    }
}

/// 19xx or 20xx.
fn is_year(digits: &[u8]) -> bool {
    matches!(digits, [1, 9, ..] | [2, 0, ..])
}

/// Digits alone are a telephone number in the ranges of mobiles that little else has, or behind a trunk digit: other
/// numbers are padded with more than one zero, or are ISBNs.
fn is_plain_mobile(digits: &[u8]) -> bool {
    match (digits.len(), digits) {
        (10, [0, 1..=9, ..]) => !is_isbn(digits),
        (11, [0, 1..=9, ..]) => true,
        (12, [0, 1, 5..=7, ..] | [0, 1, 8, 0, 0, ..]) => true,
        // Russia's prefix; China.
        (11, [8, 3 | 4 | 8 | 9, ..]) => true,
        (
            11,
            [1, 3 | 5 | 8, ..] | [1, 4, 5..=9, ..] | [1, 6, 2 | 5..=7, ..] | [1, 7, 0..=8, ..] | [1, 9, ..],
        ) => true,
        // `00` and a code: only those that cannot be another number.
        (12..=14, [0, 0, 1..=9, ..]) => is_international(&digits[2..]) && !super::checksum::ean13(digits),
        _ => false,
    }
}

/// An ISBN in its groups.
fn is_book(figure: &Figure<'_>, digits: &[u8], lengths: &[usize]) -> bool {
    let ten = digits.len() == 10 && matches!(lengths, [.., 1]) && lengths.len() == 4 && is_isbn(digits);
    ten || figure.text.starts_with(b"978") && digits.len() == 13
}

/// ISBN-10: weights from ten down.
fn is_isbn(digits: &[u8]) -> bool {
    super::checksum::weighted(digits, &[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]).is_multiple_of(11)
}

/// 2024-05-12, 12.05.2024, 05/12/2024 and what follows them.
fn is_date_like(figure: &Figure<'_>, digits: &[u8], lengths: &[usize]) -> bool {
    let two = |at: usize| digits.get(at).zip(digits.get(at + 1)).map_or(99, |(a, b)| a * 10 + b);
    let tight = |index| figure.separator(index) & SPACE == 0;
    match lengths {
        [4, 2, 2, ..] => (1..=12).contains(&two(4)) && (1..=31).contains(&two(6)),
        [2, 2, 4, ..] => {
            let (a, b) = (two(0), two(2));
            (1..=31).contains(&a)
                && (1..=31).contains(&b)
                && (a <= 12 || b <= 12)
                && matches!(two(4), 17..=21)
        }
        [2, 2, 2] if tight(1) && tight(2) => true,
        [8, ..] => matches!(two(0), 19 | 20) && (1..=12).contains(&two(4)) && (1..=31).contains(&two(6)),
        _ => false,
    }
}

/// Where the number starts with its sign or parenthesis: `+49 ..`, `(030) ..`.
pub fn sign(cell: &[u8], figure: &Figure<'_>) -> usize {
    let start = figure.start();
    let closed = figure.between & CLOSE != 0;
    let signs =
        cell[..start].iter().rev().take(2).take_while(|&&byte| byte == b'+' || byte == b'(' && closed);
    start - signs.count()
}

/// Where the extension behind a number ends: `x123`, ` ext. 12`, ` Durchwahl 3`.
pub fn extension(cell: &[u8], end: usize) -> usize {
    let rest = &cell[end..];
    if rest.is_empty() {
        return end;
    }
    let spaces = rest.iter().take(3).take_while(|&&byte| matches!(byte, b' ' | b',' | b';')).count();
    let words: &[&[u8]] = &[
        b"extension",
        b"ext.",
        b"ext=",
        b"ext:",
        b"ext",
        b"xtn",
        b"x.",
        b"x",
        b"#",
        b"durchwahl",
        b"dw",
        b"poste",
        b"int.",
    ];
    for word in words {
        let Some(behind) = rest.get(spaces + word.len()..) else { continue };
        if !rest[spaces..spaces + word.len()].eq_ignore_ascii_case(word) {
            continue;
        }
        let gap = behind.iter().take(2).take_while(|&&byte| matches!(byte, b' ' | b':')).count();
        let digits = behind[gap..].iter().take(8).take_while(|byte| byte.is_ascii_digit()).count();
        let ends = behind.get(gap + digits).is_none_or(|byte| !byte.is_ascii_alphanumeric());
        if (1..=7).contains(&digits) && ends {
            return end + spaces + word.len() + gap + digits;
        }
    }
    end
}
