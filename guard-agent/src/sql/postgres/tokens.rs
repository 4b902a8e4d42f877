//! Tokens that no grammar could read enter, what they could do leaves.
//!
//! Any dangerous word outside of literals counts, wherever it stands; objects are named only where the next tokens
//! plainly are the name.

use guard_policy::vocabulary::{Action, Object, ObjectKind, Parse};

use super::calls;
use super::cursor::Cursor;
use super::keywords::{self, Category};
use super::lexer::{Kind, Lexed, Token};
use super::statement::Reader;

impl<'a> Reader<'a> {
    /// Adds what a statement could do that could not be read.
    pub fn scan(&mut self, tokens: &'a [Token]) {
        self.findings.at_best(Parse::Tokens);
        let cursor = Cursor::new(self.lexed, tokens);
        match cursor.word() {
            "select" | "with" | "values" | "table" => {
                self.findings.add_any(Action::Select, ObjectKind::Table)
            }
            "" if cursor.is_kind(Kind::Open) => self.findings.add_any(Action::Select, ObjectKind::Table),
            verb @ ("insert" | "update" | "delete" | "merge") => {
                let reads =
                    ["select", "using", "table", "with", "join"].iter().any(|word| cursor.contains(word));
                if reads || (verb == "update" && cursor.contains("from")) {
                    self.findings.add_any(Action::Select, ObjectKind::Table);
                }
            }
            verb => self.unread_verb(verb),
        }
        for index in 0..tokens.len() {
            self.scan_at(tokens, index);
        }
        self.scan_calls(tokens);
    }

    /// A first word whose statement has another form than expected: all that it could mean.
    fn unread_verb(&mut self, verb: &str) {
        let (action, kind) = match verb {
            "create" => (Action::Create, ObjectKind::Unknown),
            "alter" => (Action::Alter, ObjectKind::Unknown),
            "drop" => (Action::Drop, ObjectKind::Unknown),
            "truncate" => (Action::Truncate, ObjectKind::Table),
            "grant" => (Action::Grant, ObjectKind::Unknown),
            "revoke" => (Action::Revoke, ObjectKind::Unknown),
            "lock" => (Action::Lock, ObjectKind::Table),
            "vacuum" | "analyze" | "analyse" | "cluster" | "reindex" | "refresh" => {
                (Action::Maintain, ObjectKind::Unknown)
            }
            "comment" | "security" => (Action::Comment, ObjectKind::Unknown),
            "call" => (Action::Call, ObjectKind::Function),
            "show" => (Action::Show, ObjectKind::Setting),
            _ => (Action::Unreadable, ObjectKind::Unknown),
        };
        self.findings.add_any(action, kind);
    }

    /// A data-changing word at `index`, in whatever position.
    fn scan_at(&mut self, tokens: &'a [Token], index: usize) {
        let word_back = |back: usize| {
            index
                .checked_sub(back)
                .and_then(|at| tokens.get(at))
                .filter(|token| token.kind == Kind::Word)
                .map_or("", |&token| self.lexed.value(token))
        };
        let mut cursor = Cursor::new(self.lexed, tokens.get(index..).unwrap_or(&[]));
        let verb = cursor.word();
        if !matches!(
            verb,
            "insert" | "update" | "delete" | "merge" | "into" | "truncate" | "copy" | "drop" | "execute"
        ) {
            return;
        }
        cursor.take();
        let before = word_back(1);
        let has_where = Some(false);
        let (action, table, has_where) = match verb {
            "insert" if cursor.accept("into") => (Action::Insert, cursor.name(), None),
            "insert" => (Action::Insert, None, None),
            "merge" => {
                cursor.accept("into");
                (Action::Merge, cursor.table(), None)
            }
            // `FOR UPDATE`, `FOR NO KEY UPDATE`.
            "update" if matches!(before, "for" | "key") => (Action::Lock, None, None),
            "update" if matches!(before, "do" | "then") => (Action::Update, None, has_where),
            "update" => (Action::Update, cursor.table(), has_where),
            "delete" if cursor.accept("from") => (Action::Delete, cursor.table(), has_where),
            "delete" => (Action::Delete, None, has_where),
            "into" if !matches!(before, "insert" | "merge") => {
                cursor.accept_any(&["temporary", "temp", "unlogged"]);
                cursor.accept("table");
                (Action::Create, cursor.name(), None)
            }
            "truncate" => {
                cursor.accept("table");
                (Action::Truncate, cursor.table(), None)
            }
            "drop" if index > 0 => (Action::Drop, None, None),
            _ => return,
        };
        let kind = if verb == "drop" { ObjectKind::Unknown } else { ObjectKind::Table };
        let object = table.map_or_else(|| Object::any(kind), |table| table.object(kind));
        if action == Action::Update {
            calls::through_view(&mut self.findings, &object);
        }
        match has_where {
            Some(has_where) => self.findings.add_filtered(action, object, has_where),
            None => self.findings.add(action, object),
        }
    }

    /// Code of a procedural language: every word that begins a statement that changes something counts.
    pub fn scan_code(&mut self, tokens: &'a [Token]) {
        /// Times that a token of code may be read as part of a statement, on average.
        const MAX_OVERLAP: usize = 8;
        /// Tokens that are read of code that is short.
        const MIN_BUDGET: usize = 4096;
        const VERBS: [&str; 13] = [
            "drop", "alter", "create", "truncate", "grant", "revoke", "copy", "call", "vacuum", "reindex",
            "refresh", "reassign", "load",
        ];
        // Words that begin statements, without a semicolon between them: each would be read to the end of all.
        let mut budget = MAX_OVERLAP * tokens.len() + MIN_BUDGET;
        for index in 0..tokens.len() {
            let rest = tokens.get(index..).unwrap_or(&[]);
            let word = Cursor::new(self.lexed, rest).word();
            // These have other meanings in the midst of a statement.
            let begins = || {
                let before = index.checked_sub(1).and_then(|at| tokens.get(at));
                before.is_none_or(|token| {
                    token.kind == Kind::Semicolon
                        || matches!(self.lexed.value(*token), "begin" | "then" | "else" | "loop")
                })
            };
            let rarer =
                matches!(word, "set" | "reset" | "lock" | "comment" | "discard" | "security" | "cluster");
            if VERBS.contains(&word) || (rarer && begins()) {
                let end = rest.iter().position(|token| token.kind == Kind::Semicolon).unwrap_or(rest.len());
                let Some(left) = budget.checked_sub(end) else {
                    self.unreadable();
                    break;
                };
                budget = left;
                self.statement(rest.get(..end).unwrap_or(&[]));
            } else {
                self.scan_at(tokens, index);
            }
        }
        self.scan_calls(tokens);
    }
}

/// Every call among the tokens of an expression: schema, name, and the first argument where it is a kept literal.
pub fn find_calls<'a>(
    lexed: &'a Lexed,
    tokens: &[Token],
) -> Vec<(Option<&'a str>, &'a str, Option<&'a str>)> {
    let is_name = |token: &Token| matches!(token.kind, Kind::Word | Kind::Quoted);
    let mut found = Vec::new();
    for (index, pair) in tokens.windows(2).enumerate() {
        let [token, open] = pair else { continue };
        if !is_name(token) || open.kind != Kind::Open {
            continue;
        }
        let back = |distance: usize| index.checked_sub(distance).and_then(|at| tokens.get(at)).copied();
        let qualified = back(1).is_some_and(|token| token.kind == Kind::Dot);
        let name = lexed.value(*token);
        if token.kind == Kind::Word && !qualified && is_syntax(name) {
            continue;
        }
        let schema = back(2).filter(|token| qualified && is_name(token)).map(|token| lexed.value(token));
        let before = if qualified { back(3) } else { back(1) };
        if before.is_some_and(|token| introduces_no_call(lexed, token)) {
            continue;
        }
        let first = tokens
            .get(index + 2)
            .filter(|token| token.kind == Kind::Text && token.keep)
            .map(|&token| lexed.value(token));
        found.push((schema, name, first));
    }
    found
}

/// Keywords before a parenthesis that are not the names of functions.
fn is_syntax(word: &str) -> bool {
    match keywords::category(word) {
        Some(Category::Reserved | Category::Column) => true,
        Some(Category::Unreserved) => matches!(
            word,
            "by" | "over"
                | "filter"
                | "set"
                | "sets"
                | "cube"
                | "rollup"
                | "partition"
                | "key"
                | "include"
                | "columns"
                | "options"
                | "materialized"
                | "conflict"
                | "within"
                | "ordinality"
                | "storage"
                | "exclude"
                | "insert"
                | "recursive"
                | "range"
                | "rows"
                | "groups"
                | "repeatable"
                | "no"
                | "do"
                | "force"
                | "of"
        ),
        Some(Category::FunctionOrType) => matches!(word, "ilike" | "like" | "join" | "inner" | "similar"),
        None => false,
    }
}

/// Behind these stands a table or type with a list in parentheses, not a call.
fn introduces_no_call(lexed: &Lexed, token: Token) -> bool {
    match token.kind {
        Kind::Word => matches!(
            lexed.value(token),
            "into" | "references" | "as" | "with" | "recursive" | "table" | "view"
        ),
        Kind::Op => lexed.value(token) == "::",
        _ => false,
    }
}
