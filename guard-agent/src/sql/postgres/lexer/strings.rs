//! Quoted literals: where they end, and what they hold.

use super::super::literal;
use super::{Error, Kind, Lexer, is_space};

/// How a literal spells what it cannot hold plainly.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    /// `''` alone, or backslashes too where `standard_conforming_strings` is off.
    Plain,
    Backslash,
    Unicode,
    None,
}

impl Lexer<'_> {
    /// A quoted literal from `skip` bytes on, with its continuations across line ends.
    pub(super) fn string(&mut self, skip: usize, escapes: Escapes) -> Result<(), Error> {
        let backslash = match escapes {
            Escapes::Plain => !self.rules.standard_strings,
            Escapes::Backslash => true,
            Escapes::Unicode | Escapes::None => false,
        };
        if escapes == Escapes::Unicode && !self.rules.standard_strings {
            return Err(Error::Invalid);
        }
        self.out.intricate |= skip > 1;
        self.at += skip;
        let start = self.out.values.len();
        loop {
            self.string_segment(backslash, escapes == Escapes::Plain)?;
            match self.continuation() {
                Some(next) => {
                    self.out.intricate = true;
                    self.at = next;
                }
                None => break,
            }
        }
        if escapes == Escapes::Unicode {
            literal::mark(self.out)?;
        }
        self.push(Kind::Text, start)
    }

    /// Up to and with the closing quote.
    fn string_segment(&mut self, backslash: bool, plain: bool) -> Result<(), Error> {
        loop {
            let from = self.at;
            while self.peek(0).is_some_and(|byte| byte != b'\'' && byte != b'\\') {
                self.at += 1;
            }
            let to = self.at;
            self.out.values.push_str(self.text.get(from..to).unwrap_or(""));
            match (self.peek(0), self.peek(1)) {
                (Some(b'\\'), next) => {
                    self.out.intricate = true;
                    self.out.ambiguous |= plain && next == Some(b'\'');
                    if backslash {
                        self.at +=
                            literal::unescape(self.text.get(self.at..).unwrap_or(""), &mut self.out.values)?;
                    } else {
                        self.out.values.push('\\');
                        self.at += 1;
                    }
                }
                (Some(_), Some(b'\'')) => {
                    self.out.values.push('\'');
                    self.at += 2;
                }
                (Some(_), _) => {
                    self.at += 1;
                    return Ok(());
                }
                (None, _) => return Err(Error::Invalid),
            }
        }
    }

    /// Where the next segment's content begins: only white space with a line end, and `--` comments, lie between.
    fn continuation(&self) -> Option<usize> {
        let mut at = self.at;
        let mut newline = false;
        loop {
            match self.bytes.get(at)? {
                b'\n' | b'\r' => {
                    newline = true;
                    at += 1;
                }
                byte if is_space(*byte) => at += 1,
                b'-' if self.bytes.get(at + 1) == Some(&b'-') => {
                    while self.bytes.get(at).is_some_and(|byte| !matches!(byte, b'\n' | b'\r')) {
                        at += 1;
                    }
                }
                b'\'' if newline => return Some(at + 1),
                _ => return None,
            }
        }
    }
}
