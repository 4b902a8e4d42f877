//! PostgreSQL's dialect: text enters, findings and spellings leave.
//!
//! lexer -> normalise -> (cache) -> statement -> grammar and query, or tokens; beside it reference, the server's own
//! grammar.
//!
//! What no text can tell, and what is therefore not reported: code behind triggers, rules and views; functions behind
//! user-defined operators, casts and `row.function`; a user's function that shadows a built-in one by argument types.

mod administer;
mod calls;
mod code;
mod cursor;
mod define;
pub(in crate::sql) mod functions;
mod grammar;
mod keywords;
mod lexer;
mod literal;
mod normalise;
mod predicate;
mod query;
pub mod reference;
mod statement;
mod tokens;

use super::effects::Findings;
use super::{Limits, Modes};
use lexer::{Lexed, Rules};

pub use lexer::Error;
pub(super) use normalise::MAX_RECORD_TEXT;
pub use reference::{Reading, read as read_by_grammar};

/// Whether a function by this name is one of the server's own that only compute.
pub fn is_harmless(schema: Option<&str>, name: &str) -> bool {
    functions::call(schema, name) == functions::Call::Harmless
}

/// Whether an operator by these names is one that only computes.
pub fn is_known_operator(names: &[&str]) -> bool {
    match names {
        [.., schema, name] => functions::is_known_operator(Some(schema), name),
        [name] => functions::is_known_operator(None, name),
        [] => false,
    }
}

/// Whether comments nest no deeper than is worth reading: the server's scanner is slow on deep ones.
pub fn is_shallow(text: &str) -> bool {
    const MOST: usize = 64;
    text.matches("/*").count() <= MOST
}

/// Buffers for reading one text after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    lexed: Lexed,
    ascii_names: bool,
    standard_strings: bool,
    raw_tokens: usize,
}

impl Scratch {
    /// Reads the tokens of `text` and leaves out what does not matter.
    ///
    /// # Errors
    /// Where the server would refuse the text, or the caps are exceeded.
    pub fn lex(&mut self, text: &str, modes: &Modes, limits: &Limits) -> Result<(), Error> {
        self.ascii_names = !(modes.server_utf8 && modes.client_encoding.names_are_certain());
        self.standard_strings = modes.standard_conforming_strings;
        let rules = self.rules(limits);
        lexer::lex(text, rules, &mut self.lexed)?;
        self.raw_tokens = self.lexed.tokens.len();
        normalise::simplify(&mut self.lexed);
        Ok(())
    }

    /// A literal's end depends on `standard_conforming_strings`.
    pub fn is_ambiguous(&self) -> bool {
        self.lexed.ambiguous
    }

    /// Nothing in the text is of the kind that two lexers could read in two ways.
    pub fn is_plain(&self) -> bool {
        !self.lexed.intricate
    }

    /// Tokens of the text as it came, lists of literals whole.
    pub fn raw_tokens(&self) -> usize {
        self.raw_tokens
    }

    /// Tokens with the lists of literals shortened.
    pub fn tokens(&self) -> usize {
        self.lexed.tokens.len()
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
