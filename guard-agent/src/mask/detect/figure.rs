//! Runs of digit groups: a cell enters, [`Figure`]s leave, each a stretch of groups that may be one number.
//!
//! `+49 (0)30 901820-0`, `DE89 3704 0044 ..` and `010190-123A` are groups joined by short separators. A run is bounded in
//! groups and in characters, so that the work per byte is bounded too. It decides nothing about what a number is.

use smallvec::SmallVec;

/// Groups of one run that are looked at together.
pub const GROUPS: usize = 24;
/// A figure that matters starts in this many first groups of a full run; the rest is read again as a run of its own.
const STEP: usize = 12;
/// Letters and digits of one figure: an IBAN has up to 34.
pub const LONGEST: usize = 34;

/// What stands between two groups, as bits.
pub mod separator {
    /// A space, also a narrow or unbreakable one.
    pub const SPACE: u8 = 1;
    /// A hyphen or dash.
    pub const DASH: u8 = 2;
    /// A full stop.
    pub const DOT: u8 = 4;
    /// A slash.
    pub const SLASH: u8 = 8;
    /// An opening parenthesis.
    pub const OPEN: u8 = 16;
    /// A closing parenthesis.
    pub const CLOSE: u8 = 32;
    /// A plus sign.
    pub const PLUS: u8 = 64;
}
use separator::{CLOSE, DASH, DOT, OPEN, PLUS, SLASH, SPACE};

/// Letters and digits without anything between them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Group {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
    /// How many digits.
    pub digits: usize,
    /// What stands before it, since the group before; for the first group, what belongs to a number.
    pub before: u8,
}

impl Group {
    /// How many letters and digits.
    pub fn len(&self) -> usize {
        self.end - self.start
    }
}

/// Neighbouring groups.
#[derive(Debug, Default)]
pub struct Run {
    /// The groups, at most [`GROUPS`].
    pub groups: SmallVec<[Group; GROUPS]>,
    /// Where the next run may start.
    pub next: usize,
    /// How many of the groups a figure may start with.
    pub starts: usize,
    /// It is part of a word that goes on before it: `abc-123-45-6789`, `x_123`.
    pub glued_before: bool,
    /// It is part of a word that goes on behind it.
    pub glued_behind: bool,
}

impl Run {
    /// The run around the digit at `at`; `from` is where the one before ended.
    pub fn around(cell: &[u8], at: usize, from: usize) -> Self {
        let mut start = at;
        while start > from && cell[start - 1].is_ascii_alphanumeric() {
            start -= 1;
        }
        let mut run = Self::default();
        let mut first = group(cell, start);
        first.before = prefix(cell, start, from);
        if let Some(letters) = leading_letters(cell, &first, from) {
            first.before =
                if letters.end + 1 == first.start && cell[letters.end] == b'-' { DASH } else { SPACE };
            run.groups.push(letters);
        }
        run.groups.push(first);
        run.glued_before = run.groups.first().is_some_and(|group| is_glued_before(cell, group.start));
        let bank = first.len() == 4 && cell[first.start..].iter().take(2).all(u8::is_ascii_alphabetic);
        let mut end = first.end;
        while run.groups.len() < GROUPS {
            let Some((before, start)) = separated(cell, end) else { break };
            let mut next = group(cell, start);
            // Banks have four letters in IBANs.
            if next.digits == 0 && next.len() > if bank { 4 } else { 3 } {
                break;
            }
            next.before = before;
            end = next.end;
            run.groups.push(next);
        }
        run.glued_behind = is_glued_behind(cell, end);
        let full = run.groups.len() == GROUPS;
        run.starts = if full { STEP } else { run.groups.len() };
        run.next = if full { run.groups[STEP].start } else { end };
        run
    }
}

/// One group from `start`.
fn group(cell: &[u8], start: usize) -> Group {
    let bytes = cell[start..].iter().take_while(|byte| byte.is_ascii_alphanumeric());
    let (mut len, mut digits) = (0, 0);
    for byte in bytes {
        len += 1;
        digits += usize::from(byte.is_ascii_digit());
    }
    let group = Group { start, end: start + len, digits, before: 0 };
    without_extension(cell, group)
}

/// `0123x456` is a number and its extension.
fn without_extension(cell: &[u8], group: Group) -> Group {
    if group.digits + 1 != group.len() || group.digits < 4 {
        return group;
    }
    let letter = cell[group.start..group.end].iter().position(|byte| matches!(byte, b'x' | b'X'));
    match letter {
        Some(at) if at >= 3 && at + 1 < group.len() => Group { end: group.start + at, digits: at, ..group },
        _ => group,
    }
}

/// What stands directly before a number and belongs to it: `+`, `(`, `(+`, `+(`.
fn prefix(cell: &[u8], start: usize, from: usize) -> u8 {
    let mut bits = 0;
    for &byte in cell[from..start].iter().rev().take(2) {
        bits |= match byte {
            b'+' => PLUS,
            b'(' => OPEN,
            _ => break,
        };
    }
    bits
}

/// Up to three letters in front, as in `AB 12 34 56 C`.
fn leading_letters(cell: &[u8], first: &Group, from: usize) -> Option<Group> {
    let end = first.start.checked_sub(1)?;
    if first.before != 0 || end <= from || !matches!(cell[end], b' ' | b'-') {
        return None;
    }
    let letters = cell[from..end].iter().rev().take_while(|byte| byte.is_ascii_uppercase()).take(4).count();
    let start = end - letters;
    let open = start == 0 || !cell[start - 1].is_ascii_alphanumeric();
    (open && (1..=3).contains(&letters)).then_some(Group { start, end, digits: 0, before: 0 })
}

/// The separators behind a group and where the next one starts. Line breaks and commas end a run.
fn separated(cell: &[u8], end: usize) -> Option<(u8, usize)> {
    let mut bits = 0;
    let mut at = end;
    for _ in 0..3 {
        let (bit, len) = match cell.get(at..)? {
            [b' ', ..] => (SPACE, 1),
            [b'-', ..] => (DASH, 1),
            [b'.', ..] => (DOT, 1),
            [b'/', ..] => (SLASH, 1),
            [b'(', ..] => (OPEN, 1),
            [b')', ..] => (CLOSE, 1),
            // Only Finnish and Swedish numbers of people over a hundred: the plus is in the place of a hyphen.
            [b'+', ..] if at == end => (PLUS, 1),
            [0xC2, 0xA0, ..] => (SPACE, 2),
            [0xE2, 0x80, 0xAF | 0x87 | 0x89, ..] => (SPACE, 3),
            [0xE2, 0x80, 0x90..=0x93, ..] => (DASH, 3),
            [byte, ..] if byte.is_ascii_alphanumeric() => break,
            _ => return None,
        };
        // `..` and `--` separate numbers, they do not join them.
        if bits & bit & (DASH | DOT | SLASH | PLUS) != 0 {
            return None;
        }
        bits |= bit;
        at += len;
    }
    (bits != 0 && cell.get(at)?.is_ascii_alphanumeric()).then_some((bits, at))
}

/// Letters of two bytes (Latin, Greek, Cyrillic, ..) make one word with what follows; CJK text has no spaces.
fn is_glued_before(cell: &[u8], start: usize) -> bool {
    match cell[..start] {
        [.., b'_' | b'@'] | [.., 0xC3..=0xDF, 0x80..=0xBF] => true,
        [.., before, b'-' | b'.' | b'~'] => before.is_ascii_alphanumeric() || matches!(before, b'_' | b'-'),
        _ => false,
    }
}

fn is_glued_behind(cell: &[u8], end: usize) -> bool {
    match cell[end..] {
        [b'_' | b'@' | b'%', ..] => true,
        [b'-' | b'.' | b'~', behind, ..] => behind.is_ascii_alphanumeric(),
        _ => false,
    }
}

/// Some groups of a run, read as one number.
#[derive(Debug)]
pub struct Figure<'a> {
    /// The cell.
    pub cell: &'a [u8],
    /// Its groups.
    pub groups: &'a [Group],
    /// Letters, in upper case, and digits.
    pub text: &'a [u8],
    /// All separators between its groups.
    pub between: u8,
    /// The lengths of its groups, four bits each from the lowest on.
    pub form: u64,
}

/// What a group of this length is in a form: 15 stands for all that are longer.
pub const fn form_of(len: usize) -> u64 {
    if len < 15 { len as u64 } else { 15 }
}

impl Figure<'_> {
    /// Where it starts, without the sign before it.
    pub fn start(&self) -> usize {
        self.groups.first().map_or(0, |group| group.start)
    }

    /// Where it ends.
    pub fn end(&self) -> usize {
        self.groups.last().map_or(0, |group| group.end)
    }

    /// What stands before it.
    pub fn before(&self) -> u8 {
        self.groups.first().map_or(0, |group| group.before)
    }

    /// Whether its groups have these lengths.
    #[inline]
    pub fn is(&self, lengths: &[usize]) -> bool {
        self.form == lengths.iter().rev().fold(0, |form, &len| form << 4 | form_of(len))
    }

    /// The lengths of its groups, in `buffer`: at most as many as that holds.
    pub fn lengths<'b, const N: usize>(&self, buffer: &'b mut [usize; N]) -> &'b [usize] {
        let count = self.groups.len().min(N);
        for (length, group) in buffer.iter_mut().zip(self.groups) {
            *length = group.len();
        }
        &buffer[..count]
    }

    /// One group: no separators.
    pub fn is_plain(&self) -> bool {
        self.groups.len() == 1
    }

    /// The separator before the group at `index`.
    pub fn separator(&self, index: usize) -> u8 {
        self.groups.get(index).map_or(0, |group| group.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(text: &str) -> Vec<&str> {
        let at = text.bytes().position(|byte| byte.is_ascii_digit()).unwrap();
        let run = Run::around(text.as_bytes(), at, 0);
        run.groups.iter().map(|group| &text[group.start..group.end]).collect()
    }

    #[test]
    fn numbers_fall_into_groups() {
        assert_eq!(groups("call +49 (0)30 901820-0, now"), ["49", "0", "30", "901820", "0"]);
        assert_eq!(groups("NINO AB 12 34 56 C."), ["AB", "12", "34", "56", "C"]);
        assert_eq!(groups("010190-123A"), ["010190", "123A"]);
        assert_eq!(groups("1,000"), ["1"]);
        assert_eq!(groups("12--13"), ["12"]);
        assert_eq!(groups("12\u{a0}34\u{202f}56"), ["12", "34", "56"]);
    }

    #[test]
    fn a_long_run_is_read_in_steps() {
        let text = "12 ".repeat(100);
        let run = Run::around(text.as_bytes(), 0, 0);
        assert_eq!((run.groups.len(), run.starts, run.next), (GROUPS, STEP, STEP * 3));
    }
}
