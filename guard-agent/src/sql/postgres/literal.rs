//! Escapes inside literals and `U&` identifiers enter, what they stand for leaves.
//!
//! What the server would refuse is an error; never reads beyond the text that it was given.

use super::lexer::{Error, Kind, Lexed, cut_name, is_plain};

/// Notes that the next token to be pushed is a `U&` form.
pub fn mark(out: &mut Lexed) -> Result<(), Error> {
    out.unicode.push(u32::try_from(out.tokens.len()).map_err(|_| Error::Cap)?);
    Ok(())
}

/// Appends what the escape at the beginning of `text` stands for; returns its length in bytes.
pub fn unescape(text: &str, into: &mut String) -> Result<usize, Error> {
    let mut chars = text.chars();
    chars.next();
    let escaped = chars.next().ok_or(Error::Invalid)?;
    let rest = chars.as_str();
    let (character, length) = match escaped {
        'b' => ('\u{8}', 2),
        'f' => ('\u{c}', 2),
        'n' => ('\n', 2),
        'r' => ('\r', 2),
        't' => ('\t', 2),
        'v' => ('\u{b}', 2),
        '0'..='7' => {
            let (value, digits) = leading(text.get(1..).unwrap_or(""), 3, 8);
            (char::from(u8::try_from(value & 0xff).map_err(|_| Error::Invalid)?), 1 + digits)
        }
        'x' if rest.starts_with(|c: char| c.is_ascii_hexdigit()) => {
            let (value, digits) = leading(rest, 2, 16);
            (char::from_u32(value).ok_or(Error::Invalid)?, 2 + digits)
        }
        'u' | 'U' => {
            let wanted = if escaped == 'u' { 4 } else { 8 };
            let (value, digits) = leading(rest, wanted, 16);
            if digits != wanted {
                return Err(Error::Invalid);
            }
            // Half of a surrogate pair: its character is of no interest here.
            (char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER), 2 + digits)
        }
        other => (other, 1 + other.len_utf8()),
    };
    into.push(character);
    Ok(length)
}

/// The number that up to `most` leading digits make, and how many there were.
fn leading(text: &str, most: usize, radix: u32) -> (u32, usize) {
    let mut value = 0_u32;
    let mut count = 0;
    for digit in text.chars().take(most).map_while(|c| c.to_digit(radix)) {
        value = value.wrapping_mul(radix).wrapping_add(digit);
        count += 1;
    }
    (value, count)
}

/// Decodes every `U&` token and removes its `UESCAPE` clause.
pub fn resolve_unicode(out: &mut Lexed, ascii_names: bool) -> Result<(), Error> {
    let marked = std::mem::take(&mut out.unicode);
    for index in marked.into_iter().rev().map(|index| index as usize) {
        let Some(&token) = out.tokens.get(index) else { return Err(Error::Invalid) };
        let escape = match (out.tokens.get(index + 1), out.tokens.get(index + 2)) {
            (Some(&word), Some(&text))
                if word.kind == Kind::Word && out.value(word) == "uescape" && text.kind == Kind::Text =>
            {
                let escape = escape_character(out.value(text))?;
                out.tokens.drain(index + 1..index + 3);
                escape
            }
            _ => '\\',
        };
        let decoded = decode(out.value(token), escape)?;
        let start = out.values.len();
        out.values.push_str(&decoded);
        let mut kind = token.kind;
        if kind == Kind::Quoted {
            if ascii_names && !decoded.is_ascii() {
                return Err(Error::Invalid);
            }
            cut_name(&mut out.values, start);
            if out.values.get(start..).is_some_and(is_plain) {
                kind = Kind::Word;
            }
        }
        let replaced = token.with_value(kind, start, out.values.len())?;
        if let Some(slot) = out.tokens.get_mut(index) {
            *slot = replaced;
        }
    }
    Ok(())
}

fn escape_character(text: &str) -> Result<char, Error> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None)
            if !c.is_ascii_hexdigit() && !matches!(c, '+' | '\'' | '"') && !c.is_ascii_whitespace() =>
        {
            Ok(c)
        }
        _ => Err(Error::Invalid),
    }
}

fn decode(text: &str, escape: char) -> Result<String, Error> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    let mut high: Option<u32> = None;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or("");
        if c != escape {
            if high.is_some() {
                return Err(Error::Invalid);
            }
            decoded.push(c);
            continue;
        }
        if rest.starts_with(escape) && high.is_none() {
            decoded.push(escape);
            rest = rest.get(escape.len_utf8()..).unwrap_or("");
            continue;
        }
        let (skip, wanted) = if rest.starts_with('+') { (1, 6) } else { (0, 4) };
        let (value, digits) = leading(rest.get(skip..).unwrap_or(""), wanted, 16);
        if digits != wanted {
            return Err(Error::Invalid);
        }
        rest = rest.get(skip + wanted..).unwrap_or("");
        let value = match (high.take(), value) {
            (None, 0xd800..=0xdbff) => {
                high = Some(value);
                continue;
            }
            (Some(first), 0xdc00..=0xdfff) => 0x10000 + ((first - 0xd800) << 10) + (value - 0xdc00),
            (Some(_), _) => return Err(Error::Invalid),
            (None, value) => value,
        };
        // The server refuses a NUL character here as well.
        decoded.push(char::from_u32(value).filter(|&c| c != '\0').ok_or(Error::Invalid)?);
    }
    if high.is_some() { Err(Error::Invalid) } else { Ok(decoded) }
}
