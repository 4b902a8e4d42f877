//! Text enters, tokens leave: where words, literals and comments begin and end exactly as PostgreSQL's scan.l has it.
//!
//! Every token's value lies in one reusable buffer. Whatever the server itself would refuse, and whatever exceeds the
//! caps, is an error. Never recurses, never looks at what a statement means.

use super::{keywords, literal};
use strings::Escapes;

mod strings;

/// What kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Identifier or keyword, folded to lower case. Also a quoted identifier that means the same as a bare one.
    Word,
    /// Quoted identifier that is not a plain word.
    Quoted,
    /// Any kind of string or bit-string constant.
    Text,
    /// Numeric constant.
    Number,
    /// `$1`.
    Param,
    /// Operator or other punctuation.
    Op,
    /// `(`.
    Open,
    /// `)`.
    Close,
    /// `,`.
    Comma,
    /// `;`.
    Semicolon,
    /// `.`.
    Dot,
}

/// One token; its value is a range of [`Lexed::values`].
#[derive(Clone, Copy, Debug)]
pub struct Token {
    /// Its kind.
    pub kind: Kind,
    /// A literal whose content matters for what the statement does.
    pub keep: bool,
    start: u32,
    end: u32,
}

/// Tokens of one statement string.
#[derive(Debug, Default)]
pub struct Lexed {
    /// The values of all tokens, one after the other.
    pub values: String,
    /// The tokens in order, comments and white space gone.
    pub tokens: Vec<Token>,
    /// A plain literal holds `\'`: where it ends depends on `standard_conforming_strings`.
    pub ambiguous: bool,
    /// There are escapes, dollar quotes, continued literals, nested comments, unusual white space or names beyond
    /// ASCII: what disguises are made of.
    pub intricate: bool,
    /// Which tokens are `U&` forms that wait to be decoded.
    pub(super) unicode: Vec<u32>,
}

impl Lexed {
    /// The value of a token: folded word, decoded identifier, content of a literal, spelling of an operator.
    pub fn value(&self, token: Token) -> &str {
        self.values.get(token.start as usize..token.end as usize).unwrap_or("")
    }

    /// Forgets the text; keeps the buffers unless they have grown large.
    pub fn clear(&mut self) {
        const KEEP: usize = 256 * 1024;
        self.values.clear();
        self.tokens.clear();
        self.values.shrink_to(KEEP);
        self.tokens.shrink_to(KEEP / size_of::<Token>());
        self.ambiguous = false;
        self.intricate = false;
        self.unicode.clear();
    }
}

/// Why a text is not read at all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server would refuse it: unterminated literal, stray byte, bad escape.
    #[error("not lexically valid")]
    Invalid,
    /// More tokens, deeper nesting of comments or of parentheses than allowed.
    #[error("beyond the caps")]
    Cap,
}

impl Error {
    /// True for what the server refuses by itself.
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Invalid)
    }
}

/// How to read.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Backslashes are ordinary characters in plain literals.
    pub standard_strings: bool,
    /// Letters beyond ASCII may be anything (single-byte encodings): refuse them in identifiers.
    pub ascii_names: bool,
    /// Most tokens.
    pub max_tokens: usize,
    /// Deepest nesting of parentheses and of comments.
    pub max_depth: usize,
}

/// The server's NAMEDATALEN less one: longer names are cut.
const NAME_BYTES: usize = 63;

/// Reads `text` into `out`, which is cleared first.
///
/// # Errors
/// [`Error::Invalid`] where the server would report a syntax error, [`Error::Cap`] beyond the caps.
pub fn lex(text: &str, rules: Rules, out: &mut Lexed) -> Result<(), Error> {
    out.clear();
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, rules, out, depth: 0 };
    lexer.run()?;
    if lexer.depth != 0 {
        return Err(Error::Invalid);
    }
    if out.unicode.is_empty() { Ok(()) } else { literal::resolve_unicode(out, rules.ascii_names) }
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    rules: Rules,
    out: &'a mut Lexed,
    depth: usize,
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

const fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

const fn is_name_part(byte: u8) -> bool {
    is_name_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

const fn is_operator(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!'
            | b'@'
            | b'#'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'%'
            | b'<'
            | b'>'
            | b'='
    )
}

impl Lexer<'_> {
    fn run(&mut self) -> Result<(), Error> {
        while let Some(byte) = self.peek(0) {
            match byte {
                b' ' | b'\n' | b'\t' => self.at += 1,
                _ if is_space(byte) => {
                    self.out.intricate = true;
                    self.at += 1;
                }
                b'-' if self.peek(1) == Some(b'-') => self.line_comment(),
                b'/' if self.peek(1) == Some(b'*') => self.block_comment()?,
                b'\'' => self.string(1, Escapes::Plain)?,
                b'"' => self.quoted_name(1, false)?,
                b'e' | b'E' if self.peek(1) == Some(b'\'') => self.string(2, Escapes::Backslash)?,
                // Bit strings have no escapes at all; a national string is a plain one.
                b'b' | b'B' | b'x' | b'X' if self.peek(1) == Some(b'\'') => self.string(2, Escapes::None)?,
                b'n' | b'N' if self.peek(1) == Some(b'\'') => self.string(2, Escapes::Plain)?,
                b'u' | b'U' if self.peek(1) == Some(b'&') && self.peek(2) == Some(b'\'') => {
                    self.string(3, Escapes::Unicode)?;
                }
                b'u' | b'U' if self.peek(1) == Some(b'&') && self.peek(2) == Some(b'"') => {
                    self.quoted_name(3, true)?
                }
                _ if is_name_start(byte) => self.word()?,
                b'0'..=b'9' => self.number()?,
                b'.' if self.peek(1).is_some_and(|next| next.is_ascii_digit()) => self.number()?,
                b'$' => self.dollar()?,
                _ => self.punctuation(byte)?,
            }
        }
        Ok(())
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn slice(&self, from: usize, to: usize) -> &str {
        self.text.get(from..to).unwrap_or("")
    }

    /// Ends a token whose value is what was appended to the values since `start`.
    fn push(&mut self, kind: Kind, start: usize) -> Result<(), Error> {
        if self.out.tokens.len() >= self.rules.max_tokens {
            return Err(Error::Cap);
        }
        let to_u32 = |value: usize| u32::try_from(value).map_err(|_| Error::Cap);
        let (start, end) = (to_u32(start)?, to_u32(self.out.values.len())?);
        self.out.tokens.push(Token { kind, keep: false, start, end });
        Ok(())
    }

    fn push_slice(&mut self, kind: Kind, from: usize, to: usize) -> Result<(), Error> {
        let start = self.out.values.len();
        self.out.values.push_str(self.text.get(from..to).unwrap_or(""));
        self.push(kind, start)
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|byte| byte != b'\n' && byte != b'\r') {
            self.at += 1;
        }
    }

    fn block_comment(&mut self) -> Result<(), Error> {
        let mut depth = 0_usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.out.intricate |= depth > 1;
                    self.at += 2;
                    if depth > self.rules.max_depth {
                        return Err(Error::Cap);
                    }
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return Err(Error::Invalid),
            }
        }
    }

    fn word(&mut self) -> Result<(), Error> {
        let from = self.at;
        while self.peek(0).is_some_and(is_name_part) {
            self.at += 1;
        }
        let to = self.at;
        let start = self.out.values.len();
        let name = self.text.get(from..to).unwrap_or("");
        self.out.intricate |= !name.is_ascii();
        self.out.values.push_str(name);
        // Like the server with a multi-byte encoding: only ASCII letters are folded.
        if let Some(folded) = self.out.values.get_mut(start..) {
            folded.make_ascii_lowercase();
        }
        self.finish_name(Kind::Word, start)
    }

    /// `"..` from `skip` bytes on; doubled quotes stand for one.
    fn quoted_name(&mut self, skip: usize, unicode: bool) -> Result<(), Error> {
        self.at += skip;
        let start = self.out.values.len();
        loop {
            let from = self.at;
            while self.peek(0).is_some_and(|byte| byte != b'"') {
                self.at += 1;
            }
            let to = self.at;
            self.out.values.push_str(self.text.get(from..to).unwrap_or(""));
            match (self.peek(0), self.peek(1)) {
                (Some(_), Some(b'"')) => {
                    self.out.values.push('"');
                    self.at += 2;
                }
                (Some(_), _) => break,
                (None, _) => return Err(Error::Invalid),
            }
        }
        self.at += 1;
        if self.out.values.len() == start {
            return Err(Error::Invalid);
        }
        if unicode {
            self.out.intricate = true;
            literal::mark(self.out)?;
            return self.push(Kind::Quoted, start);
        }
        self.finish_name(Kind::Quoted, start)
    }

    fn finish_name(&mut self, kind: Kind, start: usize) -> Result<(), Error> {
        if self.rules.ascii_names && !self.slice_of_values(start).is_ascii() {
            return Err(Error::Invalid);
        }
        let length = self.out.values.len();
        cut_name(&mut self.out.values, start);
        self.out.intricate |= self.out.values.len() != length;
        let kind =
            if kind == Kind::Quoted && is_plain(self.slice_of_values(start)) { Kind::Word } else { kind };
        self.push(kind, start)
    }

    fn slice_of_values(&self, start: usize) -> &str {
        self.out.values.get(start..).unwrap_or("")
    }

    /// A number as PostgreSQL 16 reads it. What follows without a space is left for the next token, as 14 has it.
    fn number(&mut self) -> Result<(), Error> {
        let from = self.at;
        let radix = match (self.peek(0), self.peek(1)) {
            (Some(b'0'), Some(b'x' | b'X')) => Some(u8::is_ascii_hexdigit as fn(&u8) -> bool),
            (Some(b'0'), Some(b'o' | b'O' | b'b' | b'B')) => Some(u8::is_ascii_digit as fn(&u8) -> bool),
            _ => None,
        };
        match radix {
            Some(digit) if self.peek(2).is_some_and(|byte| digit(&byte) || byte == b'_') => {
                self.at += 2;
                self.digits(digit);
            }
            _ => self.decimal(),
        }
        self.push_slice(Kind::Number, from, self.at)
    }

    fn decimal(&mut self) {
        self.digits(u8::is_ascii_digit);
        // `1..2` is a range, not `1.` and `.2`.
        if self.peek(0) == Some(b'.') && self.peek(1) != Some(b'.') {
            self.at += 1;
            self.digits(u8::is_ascii_digit);
        }
        let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
        if matches!(self.peek(0), Some(b'e' | b'E'))
            && self.peek(1 + sign).is_some_and(|byte| byte.is_ascii_digit())
        {
            self.at += 1 + sign;
            self.digits(u8::is_ascii_digit);
        }
    }

    fn digits(&mut self, digit: fn(&u8) -> bool) {
        while let Some(byte) = self.peek(0) {
            let underscore = byte == b'_' && self.peek(1).is_some_and(|next| digit(&next));
            if !digit(&byte) && !underscore {
                return;
            }
            self.at += 1;
        }
    }

    /// `$1` or a dollar-quoted literal.
    fn dollar(&mut self) -> Result<(), Error> {
        let from = self.at;
        let mut to = from + 1;
        while self.bytes.get(to).is_some_and(u8::is_ascii_digit) {
            to += 1;
        }
        if to > from + 1 {
            self.at = to;
            return self.push_slice(Kind::Param, from, to);
        }
        while self.bytes.get(to).is_some_and(|&byte| is_name_part(byte) && byte != b'$') {
            to += 1;
        }
        if self.bytes.get(to) != Some(&b'$') {
            return Err(Error::Invalid);
        }
        self.out.intricate = true;
        let tag = self.slice(from, to + 1);
        let body = to + 1;
        let length = self.text.get(body..).and_then(|rest| rest.find(tag)).ok_or(Error::Invalid)?;
        self.at = body + length + (body - from);
        self.push_slice(Kind::Text, body, body + length)
    }

    fn punctuation(&mut self, byte: u8) -> Result<(), Error> {
        let kind = match byte {
            b'(' => {
                self.depth += 1;
                if self.depth > self.rules.max_depth {
                    return Err(Error::Cap);
                }
                Kind::Open
            }
            b')' => {
                self.depth = self.depth.checked_sub(1).ok_or(Error::Invalid)?;
                Kind::Close
            }
            b',' => Kind::Comma,
            b';' => Kind::Semicolon,
            b'.' if self.peek(1) != Some(b'.') => Kind::Dot,
            b'.' | b':' | b'[' | b']' => Kind::Op,
            _ if is_operator(byte) => return self.operator(),
            _ => return Err(Error::Invalid),
        };
        let two = matches!((byte, self.peek(1)), (b':', Some(b':' | b'=')) | (b'.', Some(b'.')));
        let from = self.at;
        self.at += 1 + usize::from(two);
        self.push_slice(kind, from, self.at)
    }

    /// The longest run of operator characters, cut before a comment, and before trailing signs unless a character
    /// that no SQL operator has makes it an operator of its own.
    fn operator(&mut self) -> Result<(), Error> {
        let from = self.at;
        let mut to = from;
        while let Some(&byte) = self.bytes.get(to).filter(|byte| is_operator(**byte)) {
            let next = self.bytes.get(to + 1);
            if to > from && matches!((byte, next), (b'/', Some(b'*')) | (b'-', Some(b'-'))) {
                break;
            }
            to += 1;
        }
        let run = self.bytes.get(from..to).unwrap_or(&[]);
        let signs_stay = |run: &[u8]| {
            run.iter().any(|byte| {
                matches!(byte, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%')
            })
        };
        if matches!(run.last(), Some(b'+' | b'-')) {
            while to > from + 1
                && matches!(self.bytes.get(to - 1), Some(b'+' | b'-'))
                && !signs_stay(self.bytes.get(from..to - 1).unwrap_or(&[]))
            {
                to -= 1;
            }
        }
        self.at = to;
        self.push_slice(Kind::Op, from, to)
    }
}

/// Cuts the name that begins at `start` as the server does: at 63 bytes, never inside a character.
pub fn cut_name(values: &mut String, start: usize) {
    let mut end = (start + NAME_BYTES).min(values.len());
    while !values.is_char_boundary(end) {
        end -= 1;
    }
    values.truncate(end);
}

/// A quoted name that needs no quotes: the same as a bare word to the server.
pub fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_')
        && bytes
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'$')
        && keywords::category(name).is_none()
}

impl Token {
    /// The same token, its content marked as one that matters.
    pub fn kept(self) -> Self {
        Self { keep: true, ..self }
    }

    /// A token over another range of the values.
    pub fn with_value(self, kind: Kind, start: usize, end: usize) -> Result<Self, Error> {
        let to_u32 = |value: usize| u32::try_from(value).map_err(|_| Error::Cap);
        Ok(Self { kind, keep: self.keep, start: to_u32(start)?, end: to_u32(end)? })
    }
}

#[cfg(test)]
mod tests;
