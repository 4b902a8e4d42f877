//! Tokens of one statement enter, the words, names and lists that utility statements are made of leave.
//!
//! Never moves past the statement's end; whatever is not there is simply not accepted.

use guard_policy::vocabulary::{Object, ObjectKind};

use super::keywords::{self, Category};
use super::lexer::{Kind, Lexed, Token};

/// A place in a statement.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    lexed: &'a Lexed,
    tokens: &'a [Token],
    at: usize,
}

/// A possibly qualified name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// The part before the last.
    pub schema: Option<&'a str>,
    /// The last part.
    pub name: &'a str,
}

impl Name<'_> {
    /// As an object of `kind`.
    pub fn object(self, kind: ObjectKind) -> Object {
        Object::named(kind, self.schema, self.name)
    }
}

impl<'a> Cursor<'a> {
    /// At the beginning of a statement.
    pub fn new(lexed: &'a Lexed, tokens: &'a [Token]) -> Self {
        Self { lexed, tokens, at: 0 }
    }

    /// The tokens from here on.
    pub fn rest(&self) -> &'a [Token] {
        self.tokens.get(self.at..).unwrap_or(&[])
    }

    /// Nothing is left.
    pub fn is_done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// The token `ahead` of here.
    pub fn peek(&self, ahead: usize) -> Option<Token> {
        self.tokens.get(self.at + ahead).copied()
    }

    /// The bare word `ahead` of here, or an empty text.
    pub fn word_at(&self, ahead: usize) -> &'a str {
        self.peek(ahead).filter(|token| token.kind == Kind::Word).map_or("", |token| self.lexed.value(token))
    }

    /// The bare word here, or an empty text.
    pub fn word(&self) -> &'a str {
        self.word_at(0)
    }

    /// Whether a token of `kind` is here.
    pub fn is_kind(&self, kind: Kind) -> bool {
        self.peek(0).is_some_and(|token| token.kind == kind)
    }

    /// Moves on by one token and returns it.
    pub fn take(&mut self) -> Option<Token> {
        let token = self.peek(0);
        self.at += usize::from(token.is_some());
        token
    }

    /// Moves over `word` if it is here.
    pub fn accept(&mut self, word: &str) -> bool {
        let here = self.word() == word;
        self.at += usize::from(here);
        here
    }

    /// Moves over any one of `words`.
    pub fn accept_any(&mut self, words: &[&str]) -> bool {
        let here = words.contains(&self.word());
        self.at += usize::from(here);
        here
    }

    /// Moves over all of `words` in order, or over none.
    pub fn accept_all(&mut self, words: &[&str]) -> bool {
        let here = words.iter().enumerate().all(|(ahead, word)| self.word_at(ahead) == *word);
        if here {
            self.at += words.len();
        }
        here
    }

    /// Moves over a token of `kind`.
    pub fn accept_kind(&mut self, kind: Kind) -> bool {
        let here = self.is_kind(kind);
        self.at += usize::from(here);
        here
    }

    /// Moves over an operator.
    pub fn accept_op(&mut self, spelling: &str) -> bool {
        let here =
            self.peek(0).is_some_and(|token| token.kind == Kind::Op && self.lexed.value(token) == spelling);
        self.at += usize::from(here);
        here
    }

    /// `IF EXISTS`, `IF NOT EXISTS`.
    pub fn accept_if_exists(&mut self) -> bool {
        self.accept_all(&["if", "exists"]) || self.accept_all(&["if", "not", "exists"])
    }

    /// One identifier: no reserved word.
    pub fn identifier(&mut self) -> Option<&'a str> {
        let token = self.peek(0)?;
        let name = self.lexed.value(token);
        let reserved = token.kind == Kind::Word && keywords::category(name) == Some(Category::Reserved);
        if reserved { None } else { self.role() }
    }

    /// A role, or one of the words that stand for one (`CURRENT_USER`); in general any word.
    pub fn role(&mut self) -> Option<&'a str> {
        let token = self.peek(0).filter(|token| matches!(token.kind, Kind::Word | Kind::Quoted))?;
        self.at += 1;
        Some(self.lexed.value(token))
    }

    /// Takes `words` off the end, if they are what the statement ends with.
    pub fn drop_ending(&mut self, words: &[&str]) -> bool {
        let Some(start) = self.tokens.len().checked_sub(words.len()).filter(|&start| start >= self.at) else {
            return false;
        };
        let ending = Cursor { at: start, ..*self };
        let ends = words.iter().enumerate().all(|(ahead, word)| ending.word_at(ahead) == *word);
        if ends {
            self.tokens = self.tokens.get(..start).unwrap_or(&[]);
        }
        ends
    }

    /// The content of a literal that was kept.
    pub fn literal(&mut self) -> Option<&'a str> {
        let token = self.peek(0).filter(|token| token.kind == Kind::Text && token.keep)?;
        self.at += 1;
        Some(self.lexed.value(token))
    }

    /// `name`, `schema.name` or `database.schema.name`. After a dot any word is a name.
    pub fn name(&mut self) -> Option<Name<'a>> {
        let mut schema = None;
        let mut name = self.identifier()?;
        while self.accept_kind(Kind::Dot) {
            schema = Some(name);
            name = self.role()?;
        }
        Some(Name { schema, name })
    }

    /// A table where a statement may say `ONLY t`, `ONLY (t)` or `t *`.
    pub fn table(&mut self) -> Option<Name<'a>> {
        let only = self.accept("only");
        let opened = only && self.accept_kind(Kind::Open);
        let name = self.name();
        if opened {
            self.accept_kind(Kind::Close);
        }
        self.accept_op("*");
        name
    }

    /// Moves over a parenthesis and all within, if one opens here; returns what is within.
    pub fn parenthesis(&mut self) -> Option<&'a [Token]> {
        if !self.is_kind(Kind::Open) {
            return None;
        }
        let from = self.at + 1;
        let mut depth = 0_usize;
        while let Some(token) = self.take() {
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return self.tokens.get(from..self.at - 1);
            }
        }
        None
    }

    /// Moves behind the next of `words` outside of parentheses; to the end, and `None`, where there is none.
    pub fn skip_behind(&mut self, words: &[&str]) -> Option<&'a str> {
        while !self.is_done() {
            if self.parenthesis().is_some() {
                continue;
            }
            let word = self.word();
            self.at += 1;
            if words.contains(&word) {
                return Some(word);
            }
        }
        None
    }

    /// What lies between commas outside of parentheses, from here to the end.
    pub fn items(&self) -> Vec<Cursor<'a>> {
        let mut items = Vec::new();
        let mut depth = 0_usize;
        let mut from = 0;
        let rest = self.rest();
        for (index, token) in rest.iter().enumerate() {
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close => depth = depth.saturating_sub(1),
                Kind::Comma if depth == 0 => {
                    items.push(Cursor::new(self.lexed, rest.get(from..index).unwrap_or(&[])));
                    from = index + 1;
                }
                _ => {}
            }
        }
        items.push(Cursor::new(self.lexed, rest.get(from..).unwrap_or(&[])));
        items
    }

    /// Whether `word` is anywhere from here on, parentheses included.
    pub fn contains(&self, word: &str) -> bool {
        self.rest().iter().any(|&token| token.kind == Kind::Word && self.lexed.value(token) == word)
    }
}
