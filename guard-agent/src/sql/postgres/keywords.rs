//! A word enters, what PostgreSQL's grammar reserves it for leaves.

use std::collections::HashMap;
use std::sync::LazyLock;

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

/// How far a keyword is reserved; see `pg_get_keywords()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Never an identifier.
    Reserved,
    /// An identifier only as a function or type.
    FunctionOrType,
    /// An identifier but for functions and types: those have syntax of their own, as `coalesce`.
    Column,
    /// Only its place makes it a keyword.
    Unreserved,
}

static WORDS: LazyLock<HashMap<&'static str, (Category, Keyword), ahash::RandomState>> =
    LazyLock::new(|| {
        include_str!("keywords.txt")
            .lines()
            .filter_map(|line| {
                let (letter, word) = line.split_once(' ')?;
                let category = match letter {
                    "R" => Category::Reserved,
                    "T" => Category::FunctionOrType,
                    "C" => Category::Column,
                    "U" => Category::Unreserved,
                    _ => return None,
                };
                let Token::Word(parsed) = Token::make_word(word, None) else { return None };
                Some((word, (category, parsed.keyword)))
            })
            .collect()
    });

/// The category of a lower-case word; `None` where it is no keyword.
pub fn category(word: &str) -> Option<Category> {
    WORDS.get(word).map(|&(category, _)| category)
}

/// Category and the parser's own keyword.
pub fn keyword(word: &str) -> Option<(Category, Keyword)> {
    WORDS.get(word).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_the_servers_categories() {
        assert_eq!(category("only"), Some(Category::Reserved));
        assert_eq!(category("left"), Some(Category::FunctionOrType));
        assert_eq!(category("coalesce"), Some(Category::Column));
        assert_eq!(category("drop"), Some(Category::Unreserved));
        assert_eq!(category("top"), None);
        assert!(WORDS.len() > 480);
    }
}
