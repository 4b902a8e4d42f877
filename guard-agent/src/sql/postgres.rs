//! PostgreSQL's dialect: text enters, findings and spellings leave.
//!
//! lexer -> normalise -> (cache) -> statement -> grammar and query, or tokens.
//!
//! What no text can tell, and what is therefore not reported: code behind triggers, rules and views; functions behind
//! user-defined operators, casts and `row.function`; a user's function that shadows a built-in one by argument types.

mod administer;
mod calls;
mod code;
mod cursor;
mod define;
mod functions;
mod grammar;
mod keywords;
mod lexer;
mod literal;
mod normalise;
mod predicate;
mod query;
mod statement;
mod tokens;

use std::borrow::Cow;

use super::effects::Findings;
use super::{Encoding, Limits, Modes};
use lexer::{Error, Lexed, Rules};

/// The text as characters; `None` where its bytes are not what the session's encoding allows, or not safe to read.
pub fn decode<'a>(text: &'a [u8], modes: &Modes) -> Option<Cow<'a, str>> {
    if text.contains(&0) {
        return None;
    }
    match modes.client_encoding {
        Encoding::Utf8 => std::str::from_utf8(text).ok().map(Cow::Borrowed),
        Encoding::SingleByteAsciiSafe if text.is_ascii() => std::str::from_utf8(text).ok().map(Cow::Borrowed),
        Encoding::SingleByteAsciiSafe => Some(Cow::Owned(text.iter().copied().map(char::from).collect())),
        Encoding::Other => {
            text.is_ascii().then(|| std::str::from_utf8(text).ok().map(Cow::Borrowed)).flatten()
        }
    }
}

/// Buffers for reading one text after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    lexed: Lexed,
    ascii_names: bool,
    standard_strings: bool,
}

impl Scratch {
    /// Reads the tokens of `text` and leaves out what does not matter.
    ///
    /// # Errors
    /// Where the server would refuse the text, or the caps are exceeded.
    pub fn lex(&mut self, text: &str, modes: &Modes, limits: &Limits) -> Result<(), Error> {
        self.ascii_names = modes.client_encoding == Encoding::SingleByteAsciiSafe;
        self.standard_strings = modes.standard_conforming_strings;
        let rules = self.rules(limits);
        lexer::lex(text, rules, &mut self.lexed)?;
        normalise::simplify(&mut self.lexed);
        Ok(())
    }

    /// A literal's end depends on `standard_conforming_strings`.
    pub fn is_ambiguous(&self) -> bool {
        self.lexed.ambiguous
    }

    /// The canonical spelling: what [`Self::read`] finds depends on nothing else.
    pub fn spell(&self, into: &mut String) {
        normalise::spell(&self.lexed, into);
    }

    /// The text for records.
    pub fn record_text(&self, limits: &Limits) -> String {
        normalise::record_text(&self.lexed, self.rules(limits))
    }

    /// What the statements do, and how many they are.
    pub fn read(&self, limits: &Limits) -> (Findings, u32) {
        let mut reader = statement::Reader {
            lexed: &self.lexed,
            rules: self.rules(limits),
            limits,
            findings: Findings::default(),
            depth: 0,
        };
        let parts = reader.text(&self.lexed.tokens);
        (reader.findings, parts)
    }

    fn rules(&self, limits: &Limits) -> Rules {
        Rules {
            standard_strings: self.standard_strings,
            ascii_names: self.ascii_names,
            max_tokens: limits.max_tokens,
            max_depth: limits.max_depth,
        }
    }
}
