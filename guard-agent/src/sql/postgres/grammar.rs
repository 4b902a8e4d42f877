//! Tokens of a query enter, the parser's tree leaves.
//!
//! The parser gets our tokens, never the text, and only PostgreSQL's own keywords as keywords: what it would read
//! differently from the server (`ONLY`, `SELECT INTO`, words that other dialects reserve) does not reach it.

use sqlparser::ast::Query;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token as Sql, Word};

use super::keywords::{self, Category};
use super::lexer::{Kind, Lexed, Token};

/// A query as the parser sees it.
#[derive(Debug)]
pub struct Parsed {
    /// The tree.
    pub query: Box<Query>,
    /// Tables that `SELECT .. INTO` makes: schema and name.
    pub creates: Vec<(Option<String>, String)>,
}

/// Parses one SELECT, VALUES, TABLE, WITH, INSERT, UPDATE, DELETE or MERGE; `None` where the parser can't.
pub fn parse(lexed: &Lexed, tokens: &[Token], max_depth: usize) -> Option<Parsed> {
    let mut translation = Translation {
        lexed,
        tokens,
        at: 0,
        out: Vec::with_capacity(tokens.len() + 8),
        creates: Vec::new(),
        open: Vec::new(),
        joins: 0,
    };
    translation.run()?;
    let Translation { out, creates, .. } = translation;
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect).with_recursion_limit(max_depth).with_tokens(out);
    let query = parser.parse_query().ok()?;
    (parser.peek_token_ref().token == Sql::EOF).then_some(Parsed { query, creates })
}

/// The parser recurses into `a JOIN b JOIN c ON .. ON ..` without a limit of its own.
const MAX_JOINS: usize = 128;

struct Translation<'a> {
    lexed: &'a Lexed,
    tokens: &'a [Token],
    at: usize,
    out: Vec<Sql>,
    creates: Vec<(Option<String>, String)>,
    /// For each open parenthesis, whether its closing one is dropped as well.
    open: Vec<bool>,
    /// JOINs so far.
    joins: usize,
}

impl<'a> Translation<'a> {
    fn run(&mut self) -> Option<()> {
        while let Some(token) = self.peek(0) {
            self.at += 1;
            match token.kind {
                Kind::Word => self.word(token)?,
                Kind::Quoted => self.out.push(name(self.lexed.value(token))),
                Kind::Text => {
                    let value = if token.keep { self.lexed.value(token) } else { "?" };
                    self.out.push(Sql::SingleQuotedString(value.to_owned()));
                }
                Kind::Number => self.out.push(Sql::Number("0".to_owned(), false)),
                Kind::Param => self.out.push(Sql::Placeholder(self.lexed.value(token).to_owned())),
                Kind::Open => self.open(false),
                Kind::Close => {
                    if !self.open.pop()? {
                        self.out.push(Sql::RParen);
                    }
                }
                Kind::Comma => self.out.push(Sql::Comma),
                Kind::Semicolon => return None,
                Kind::Dot => self.out.push(Sql::Period),
                Kind::Op => {
                    if !self.assigned_element(token) {
                        self.out.push(operator(self.lexed.value(token))?);
                    }
                }
            }
        }
        Some(())
    }

    fn peek(&self, ahead: usize) -> Option<Token> {
        self.tokens.get(self.at + ahead).copied()
    }

    fn is_word(&self, ahead: usize, word: &str) -> bool {
        self.peek(ahead).is_some_and(|token| token.kind == Kind::Word && self.lexed.value(token) == word)
    }

    fn is_kind(&self, ahead: usize, kind: Kind) -> bool {
        self.peek(ahead).is_some_and(|token| token.kind == kind)
    }

    /// `SET a[1] = ..`: which element is assigned says nothing about effects, and the parser can't read it. Leaves
    /// out subscripts of plain numbers.
    fn assigned_element(&mut self, bracket: Token) -> bool {
        let begins =
            self.out.len().checked_sub(2).and_then(|at| self.out.get(at)).is_some_and(
                |before| match before {
                    Sql::Comma => true,
                    Sql::Word(word) => word.keyword == Keyword::SET,
                    _ => false,
                },
            );
        if !begins || self.lexed.value(bracket) != "[" || !matches!(self.out.last(), Some(Sql::Word(_))) {
            return false;
        }
        let mut ahead = 0;
        let value = |ahead| self.peek(ahead).map_or("", |token| self.lexed.value(token));
        loop {
            while self.is_kind(ahead, Kind::Number) || self.is_kind(ahead, Kind::Param) || value(ahead) == ":"
            {
                ahead += 1;
            }
            if value(ahead) != "]" {
                return false;
            }
            ahead += 1;
            if value(ahead) != "[" {
                break;
            }
            ahead += 1;
        }
        let assigned = value(ahead) == "=";
        self.at += if assigned { ahead } else { 0 };
        assigned
    }

    fn open(&mut self, dropped: bool) {
        self.open.push(dropped);
        if !dropped {
            self.out.push(Sql::LParen);
        }
    }

    /// A word that has just been taken.
    fn word(&mut self, token: Token) -> Option<()> {
        let value = self.lexed.value(token);
        // After a dot every word is a name.
        if matches!(self.out.last(), Some(Sql::Period)) {
            self.out.push(name(value));
            return Some(());
        }
        let Some((category, keyword)) = keywords::keyword(value) else {
            // `date '2020-01-01'`: the type of a constant says nothing about effects.
            if !self.is_kind(0, Kind::Text) {
                self.out.push(name(value));
            }
            return Some(());
        };
        match value {
            "only" => {
                if self.is_kind(0, Kind::Open) {
                    self.at += 1;
                    self.open(true);
                }
            }
            // `TABLE t` is a query; everywhere else in a query the word is preceded by INTO.
            "table" => {
                self.out.extend([bare(Keyword::SELECT, "select"), Sql::Mul, bare(Keyword::FROM, "from")]);
            }
            "into" if !self.follows(&[Keyword::INSERT, Keyword::MERGE]) => self.select_into()?,
            "current" if self.is_word(0, "of") && self.follows(&[Keyword::WHERE]) => {
                // WHERE CURRENT OF cursor: one row, as if by its address.
                self.at += 2;
                self.out.extend([name("ctid"), Sql::Eq, Sql::Number("0".to_owned(), false)]);
            }
            // FOR NO KEY UPDATE, FOR KEY SHARE: weaker locks of the same kind.
            "no" if self.is_word(0, "key") && self.follows(&[Keyword::FOR]) => self.at += 1,
            "key" if self.is_word(0, "share") && self.follows(&[Keyword::FOR]) => {}
            "overriding" if self.is_word(1, "value") => self.at += 2,
            "join" => {
                self.joins += 1;
                if self.joins > MAX_JOINS {
                    return None;
                }
                self.out.push(bare(keyword, value));
            }
            "tablesample" => {
                self.out.push(bare(keyword, value));
                if let Some(method) = self.peek(0).filter(|token| token.kind == Kind::Word) {
                    self.at += 1;
                    self.out.push(Sql::make_word(self.lexed.value(method), None));
                }
            }
            // A name that sqlparser would take for an operator or a clause: a column called `offset` is reserved in
            // PostgreSQL as well, one called `value` or `share` is not.
            _ if category == Category::Unreserved && self.is_kind(0, Kind::Dot) => self.out.push(name(value)),
            _ => self.out.push(bare(keyword, value)),
        }
        Some(())
    }

    fn follows(&self, keywords: &[Keyword]) -> bool {
        matches!(self.out.last(), Some(Sql::Word(word)) if keywords.contains(&word.keyword))
    }

    /// `INTO [TEMP | UNLOGGED ..] [TABLE] name` of a SELECT: noted and left out.
    fn select_into(&mut self) -> Option<()> {
        while ["temporary", "temp", "local", "global", "unlogged", "table"]
            .iter()
            .any(|word| self.is_word(0, word))
        {
            // `INTO temp FROM ..`: a table of that name.
            if !matches!(self.peek(1)?.kind, Kind::Word | Kind::Quoted) || self.is_word(1, "from") {
                break;
            }
            self.at += 1;
        }
        let mut parts = Vec::new();
        loop {
            let token = self.peek(0).filter(|token| matches!(token.kind, Kind::Word | Kind::Quoted))?;
            parts.push(self.lexed.value(token).to_owned());
            self.at += 1;
            if !self.is_kind(0, Kind::Dot) {
                break;
            }
            self.at += 1;
        }
        let name = parts.pop()?;
        self.creates.push((parts.pop(), name));
        Some(())
    }
}

fn name(value: &str) -> Sql {
    Sql::Word(Word { value: value.to_owned(), quote_style: Some('"'), keyword: Keyword::NoKeyword })
}

fn bare(keyword: Keyword, value: &str) -> Sql {
    Sql::Word(Word { value: value.to_owned(), quote_style: None, keyword })
}

fn operator(spelling: &str) -> Option<Sql> {
    Some(match spelling {
        "=" => Sql::Eq,
        "<>" | "!=" => Sql::Neq,
        "<" => Sql::Lt,
        ">" => Sql::Gt,
        "<=" => Sql::LtEq,
        ">=" => Sql::GtEq,
        "+" => Sql::Plus,
        "-" => Sql::Minus,
        "*" => Sql::Mul,
        "/" => Sql::Div,
        "%" => Sql::Mod,
        "^" => Sql::Caret,
        "::" => Sql::DoubleColon,
        ":" => Sql::Colon,
        ":=" => Sql::Assignment,
        "=>" => Sql::RArrow,
        "[" => Sql::LBracket,
        "]" => Sql::RBracket,
        "||" => Sql::StringConcat,
        "|" => Sql::Pipe,
        "&" => Sql::Ampersand,
        "#" => Sql::Sharp,
        "~" => Sql::Tilde,
        "~*" => Sql::TildeAsterisk,
        "!~" => Sql::ExclamationMarkTilde,
        "!~*" => Sql::ExclamationMarkTildeAsterisk,
        "~~" => Sql::DoubleTilde,
        "~~*" => Sql::DoubleTildeAsterisk,
        "!~~" => Sql::ExclamationMarkDoubleTilde,
        "!~~*" => Sql::ExclamationMarkDoubleTildeAsterisk,
        "<<" => Sql::ShiftLeft,
        ">>" => Sql::ShiftRight,
        "&&" => Sql::Overlap,
        "!!" => Sql::DoubleExclamationMark,
        "@" => Sql::AtSign,
        "^@" => Sql::CaretAt,
        "|/" => Sql::PGSquareRoot,
        "||/" => Sql::PGCubeRoot,
        "->" => Sql::Arrow,
        "->>" => Sql::LongArrow,
        "#>" => Sql::HashArrow,
        "#>>" => Sql::HashLongArrow,
        "@>" => Sql::AtArrow,
        "<@" => Sql::ArrowAt,
        "#-" => Sql::HashMinus,
        "@?" => Sql::AtQuestion,
        "@@" => Sql::AtAt,
        "?" => Sql::Question,
        "?&" => Sql::QuestionAnd,
        "?|" => Sql::QuestionPipe,
        ".." => return None,
        other => Sql::CustomBinaryOperator(other.to_owned()),
    })
}
