//! Text from records for a terminal. Clients choose their argv and statements: what they put there must not move the
//! cursor, rename the window or show another text than the one that ran.

use std::{borrow::Cow, fmt::Write};

/// `text` with everything that a terminal would act on, or not show, written as an escape.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            letter if is_hidden(letter) => _ = write!(safe, "\\u{{{:x}}}", u32::from(letter)),
            letter => safe.push(letter),
        }
    }
    Cow::Owned(safe)
}

/// [`visible`], and at most `limit` letters long.
pub fn short(text: &str, limit: usize) -> String {
    let safe = visible(text);
    match safe.char_indices().nth(limit) {
        None => safe.into_owned(),
        Some(_) => {
            let end = safe.char_indices().nth(limit.saturating_sub(1)).map_or(0, |(end, _)| end);
            format!("{}…", &safe[..end])
        }
    }
}

/// Control characters, and those that reorder or hide what is around them.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_letters() {
        assert_eq!(visible("select 'ä'"), "select 'ä'");
        assert_eq!(visible("a\x1b]0;owned\x07b\r\n"), "a\\u{1b}]0;owned\\u{7}b\\r\\n");
        assert_eq!(visible("x\u{9b}2J"), "x\\u{9b}2J");
        assert_eq!(visible("\u{202e}elbat pord"), "\\u{202e}elbat pord");
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(short("äöü", 3), "äöü");
        assert_eq!(short("äöüß", 3), "äö…");
        assert_eq!(short("abc", 0), "…");
    }
}
