//! PostgreSQL's own grammar as a second reader: text enters, what its tree says leaves.
//!
//! It checks the first reader, and reads what that one could not. Its answer counts only in one direction: an effect
//! that either of the two sees is an effect. Never runs without the caps on size, tokens and nesting; never panics.

mod definition;
mod messages;
mod native;
mod predicate;
mod query;
mod tree;
mod utility;

use crate::sql::effects::Findings;
pub use tree::{At, Tree};

/// What the server's grammar makes of a text.
#[derive(Debug)]
pub enum Reading {
    /// It parses: so many statements with these effects, and whether they are all of them.
    Read {
        /// What was found.
        findings: Findings,
        /// Number of statements.
        parts: u32,
        /// Nothing about the statements is left to guess.
        exact: bool,
    },
    /// A syntax error: a server of the grammar's version refuses it, whatever else is in the text.
    Refused,
    /// No answer: nested too deeply for the stack at hand, or not a text for the grammar.
    Silent,
}

/// The tree of `text`, where it has one.
pub fn tree(text: &str, standard_strings: bool) -> Option<Tree> {
    match native::parse(text, standard_strings) {
        native::Parsed::Tree(bytes) => Tree::read(bytes),
        native::Parsed::SyntaxError | native::Parsed::Silent => None,
    }
}

/// The bytes of the tree of `text`, for breaking them.
#[cfg(test)]
pub fn serialised(text: &str) -> Option<Vec<u8>> {
    match native::parse(text, true) {
        native::Parsed::Tree(bytes) => Some(bytes),
        native::Parsed::SyntaxError | native::Parsed::Silent => None,
    }
}

/// Reads `text` as a server would whose `standard_conforming_strings` is as given.
pub fn read(text: &str, standard_strings: bool) -> Reading {
    let tree = match native::parse(text, standard_strings) {
        native::Parsed::Tree(bytes) => match Tree::read(bytes) {
            Some(tree) => tree,
            None => return Reading::Silent,
        },
        native::Parsed::SyntaxError => return Reading::Refused,
        native::Parsed::Silent => return Reading::Silent,
    };
    let mut findings = Findings::default();
    let (mut parts, mut exact) = (0, true);
    for statement in tree.root().list("stmts").filter_map(|raw| raw.get("stmt")) {
        parts += 1;
        exact &= utility::statement(statement, &mut findings, 0);
    }
    Reading::Read { findings, parts, exact }
}

#[cfg(test)]
mod tests;
