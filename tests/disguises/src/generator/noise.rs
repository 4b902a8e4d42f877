//! The same statement, spelled otherwise: white space, comments, case, quoting, escapes.
//!
//! The text is cut into pieces as PostgreSQL would; only pieces whose meaning is known to stay are written otherwise.

use crate::random::Random;

/// What PostgreSQL 15 takes for white space, and comments in its place.
const GAPS: &[&str] = &[
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "\u{c}",
    "/**/",
    "/* ; */",
    " -- '\n",
    "/*/**/*/",
    "\n--/*\n",
    " /* $$ \" ' */ ",
    "--\r",
    "\n\n\t ",
];
/// Names of the scratch database that are written in lower case and may be quoted.
const NAMES: &[&str] = &[
    "orders",
    "customers",
    "log",
    "archive",
    "lo_unlink",
    "wipe",
    "setval",
    "scripts",
    "pg_catalog",
    "public",
    "boss",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gap,
    Word,
    Literal,
    Other,
}

/// Spells `text` otherwise; sometimes not at all.
pub fn spell(text: &str, random: &mut Random) -> String {
    if random.once_in(8) {
        return text.to_owned();
    }
    let mut spelled = String::with_capacity(text.len() * 2);
    for (kind, piece) in pieces(text) {
        match kind {
            Kind::Gap if random.once_in(3) => spelled.push_str(random.pick::<&str>(GAPS)),
            Kind::Word => spelled.push_str(&word(piece, random)),
            Kind::Literal if random.once_in(4) => spelled.push_str(&literal(piece, random)),
            Kind::Gap | Kind::Literal | Kind::Other => spelled.push_str(piece),
        }
    }
    spelled
}

fn word(word: &str, random: &mut Random) -> String {
    if NAMES.contains(&word) && random.once_in(3) {
        let first = word.chars().next().map_or(0, u32::from);
        return match random.below(4) {
            0 => format!("\"{word}\""),
            1 => format!("U&\"\\{first:04x}{}\"", &word[1..]),
            2 => format!("U&\"\\+{first:06X}{}\"", &word[1..]),
            _ => word.to_uppercase(),
        };
    }
    match random.below(4) {
        0 => word.to_lowercase(),
        1 => word.to_uppercase(),
        2 => word
            .chars()
            .map(|c| if random.once_in(2) { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
            .collect(),
        _ => word.to_owned(),
    }
}

/// A plain `'..'` literal in another form that holds the same text.
fn literal(literal: &str, random: &mut Random) -> String {
    let inside = &literal[1..literal.len() - 1];
    if inside.contains(['\'', '\\', '$']) || inside.is_empty() {
        return literal.to_owned();
    }
    let cut = (1..=inside.len()).find(|at| inside.is_char_boundary(*at)).unwrap_or(0);
    let (start, rest) = inside.split_at(cut);
    let code = start.chars().next().map_or(0, u32::from);
    match random.below(5) {
        0 => format!("'{start}'\n'{rest}'"),
        1 => format!("'{start}' -- '\n  '{rest}'"),
        2 => format!("E'\\x{code:02x}{rest}'"),
        3 => format!("$q${inside}$q$"),
        _ => format!("E'{start}'\n'{rest}'"),
    }
}

/// Cuts a text into white space, words, plain literals and the rest: quoted names, dollar quotes, E'' and U&''
/// literals, comments, signs.
fn pieces(text: &str) -> Vec<(Kind, &str)> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let span = |wanted: fn(char) -> bool| rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        let (kind, length) = match first {
            _ if rest.starts_with("--") => (Kind::Other, rest.find('\n').map_or(rest.len(), |at| at + 1)),
            _ if rest.starts_with("/*") => (Kind::Other, comment(rest)),
            _ if first.is_ascii_whitespace() => (Kind::Gap, span(|c| c.is_ascii_whitespace())),
            '\'' => (Kind::Literal, closing(&rest[1..], '\'', false) + 1),
            '"' => (Kind::Other, closing(&rest[1..], '"', false) + 1),
            'e' | 'E' if rest[1..].starts_with('\'') => (Kind::Other, closing(&rest[2..], '\'', true) + 2),
            '$' => (Kind::Other, dollar(rest)),
            _ if is_word(first) => (Kind::Word, span(|c| c.is_alphanumeric() || c == '_' || c == '$')),
            _ => (Kind::Other, first.len_utf8()),
        };
        let (piece, after) = rest.split_at(length.clamp(first.len_utf8(), rest.len()));
        pieces.push((kind, piece));
        rest = after;
    }
    pieces
}

/// Up to and with the closing quote; doubled quotes stand for themselves.
fn closing(inside: &str, quote: char, backslashes: bool) -> usize {
    let mut characters = inside.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        if backslashes && c == '\\' {
            characters.next();
        } else if c == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return at + c.len_utf8();
        }
    }
    inside.len()
}

fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn dollar(text: &str) -> usize {
    let Some(tag) = text[1..].find('$').map(|at| &text[..at + 2]) else { return 1 };
    if !tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_') {
        return 1;
    }
    text[tag.len()..].find(tag).map_or(text.len(), |at| at + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_where_the_server_cuts_them() {
        let text = "SELECT 'a''b', E'\\'' , \"c\"\"d\" /* /* */ */ $x$ ' $x$ -- e\nf";
        let cut = pieces(text);
        assert_eq!(cut.iter().map(|(_, piece)| *piece).collect::<String>(), text);
        let of = |wanted| {
            cut.iter().filter(|(kind, _)| *kind == wanted).map(|(_, piece)| *piece).collect::<Vec<_>>()
        };
        assert_eq!(of(Kind::Word), ["SELECT", "f"]);
        assert_eq!(of(Kind::Literal), ["'a''b'"]);
    }
}
