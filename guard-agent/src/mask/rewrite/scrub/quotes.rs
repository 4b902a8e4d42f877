//! What a text quotes, in the quotes of any language that the server speaks.

use super::super::shape::FULL;

/// Marks that begin or end what is quoted. A value may hold some itself, and the server does not escape them.
const QUOTES: &[char] = &[
    '"', '\u{ab}', '\u{bb}', '\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}', '\u{2019}', '\u{201a}',
    '\u{300c}', '\u{300d}',
];

/// Shortest run of digits that may be a value. Shorter ones tell little, and are everywhere.
const MIN_DIGITS: usize = 3;

/// What may stay in quotes.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// Names of objects.
    pub(super) names: &'a [&'a [u8]],
    /// Texts of the client: a word of theirs is no news to it.
    pub(super) words: &'a [&'a [u8]],
}

impl Known<'_> {
    fn holds(&self, quoted: &[u8]) -> bool {
        self.names.contains(&quoted)
            || self.words.iter().any(|text| memchr::memmem::find(text, quoted).is_some())
    }
}

/// Takes out of each line what stands in quotes, and with `after_colon` all that follows the first colon with a blank
/// behind it, but for what is `known`.
pub(super) fn take_out(text: &mut Vec<u8>, known: Known<'_>, after_colon: bool) {
    let Ok(whole) = std::str::from_utf8(text) else {
        // In another encoding quotes are not told from letters.
        *text = FULL.to_vec();
        return;
    };
    let mut out = String::with_capacity(whole.len());
    for (number, line) in whole.split('\n').enumerate() {
        if number > 0 {
            out.push('\n');
        }
        let colon = if after_colon {
            line.find(": ").or_else(|| line.ends_with(':').then(|| line.len() - 1))
        } else {
            None
        };
        match colon {
            Some(colon) => {
                quoted(&line[..colon], known, &mut out);
                out.push_str(": ***");
            }
            None => quoted(line, known, &mut out),
        }
    }
    *text = out.into_bytes();
}

/// Writes `line` without what it quotes: all between the first mark and the last, but names before or behind.
fn quoted(line: &str, known: Known<'_>, out: &mut String) {
    let marks: Vec<(usize, usize)> = line
        .char_indices()
        .filter(|(at, mark)| is_mark(line, *at, *mark))
        .map(|(at, mark)| (at, at + mark.len_utf8()))
        .collect();
    let is_name = |(_, start): (usize, usize), (end, _): (usize, usize)| {
        let inner = line[start..end].trim_matches(|letter: char| letter.is_whitespace());
        !inner.is_empty() && known.holds(inner.as_bytes())
    };
    let (mut first, mut last) = (0, marks.len());
    while first + 1 < last && is_name(marks[first], marks[first + 1]) {
        first += 2;
    }
    while last >= first + 2 && is_name(marks[last - 2], marks[last - 1]) {
        last -= 2;
    }
    let (Some(begin), Some(end)) = (marks.get(first), last.checked_sub(1).and_then(|last| marks.get(last)))
    else {
        out.push_str(line);
        return;
    };
    if first >= last {
        out.push_str(line);
        return;
    }
    out.push_str(&line[..begin.1]);
    out.push_str("***");
    // A mark alone begins what has no end.
    if last - first > 1 {
        out.push_str(&line[end.0..]);
    }
}

/// Takes out runs of digits that the client has not sent itself.
pub(super) fn take_out_numbers(text: &mut Vec<u8>, sent: &[&[u8]]) {
    let mut at = 0;
    let mut out = Vec::new();
    let mut kept = 0;
    while at < text.len() {
        let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let run = &text[at..at + digits];
        if digits >= MIN_DIGITS && !sent.iter().any(|sent| memchr::memmem::find(sent, run).is_some()) {
            out.extend_from_slice(&text[kept..at]);
            out.extend_from_slice(FULL);
            kept = at + digits;
        }
        at += digits.max(1);
    }
    if kept > 0 {
        out.extend_from_slice(&text[kept..]);
        *text = out;
    }
}

/// True for a quotation mark. An apostrophe stands behind a letter and before one.
fn is_mark(line: &str, at: usize, mark: char) -> bool {
    let letter = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
    let between =
        || letter(line[..at].chars().next_back()) && letter(line[at + mark.len_utf8()..].chars().next());
    match mark {
        '\'' | '\u{2019}' => !between(),
        other => QUOTES.contains(&other),
    }
}
