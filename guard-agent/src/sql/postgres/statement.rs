//! One statement's tokens enter, its effects leave.
//!
//! The first word decides. Queries go through the parser, everything else is read here by PostgreSQL's grammar: names
//! and clauses that have effects. What cannot be read that way is scanned token by token, towards the dangerous side.

use guard_policy::vocabulary::{Action, Object, ObjectKind, Parse};

use super::cursor::Cursor;
use super::lexer::{Kind, Lexed, Rules, Token};
use super::{calls, functions, grammar, query};
use crate::sql::effects::Findings;
use crate::sql::{Limits, Prepared};

/// Reads statements of one text into findings.
pub struct Reader<'a> {
    /// The text's tokens and their values.
    pub lexed: &'a Lexed,
    /// How literals that hold code are to be read.
    pub rules: Rules,
    /// Caps.
    pub limits: &'a Limits,
    /// What has been found.
    pub findings: Findings,
    /// Statements within statements: EXPLAIN, PREPARE, code in literals.
    pub depth: usize,
}

/// More statements within statements than this are not followed.
const MAX_NESTING: usize = 8;

impl<'a> Reader<'a> {
    /// Reads all statements between semicolons; returns how many there are.
    pub fn text(&mut self, tokens: &'a [Token]) -> u32 {
        let mut parts = 0;
        for part in statements(tokens) {
            parts += 1;
            self.statement(part);
        }
        parts
    }

    /// Reads one statement.
    pub fn statement(&mut self, tokens: &'a [Token]) {
        if self.depth >= MAX_NESTING {
            return self.unreadable();
        }
        self.depth += 1;
        let before = self.findings.added();
        self.texts_to_run(tokens);
        let mut cursor = Cursor::new(self.lexed, tokens);
        if self.dispatch(&mut cursor, tokens).is_none() {
            self.scan(tokens);
        }
        if self.findings.added() == before {
            self.unreadable();
        }
        self.depth -= 1;
    }

    /// Nothing is known of what it does.
    pub fn unreadable(&mut self) {
        self.findings.add_any(Action::Unreadable, ObjectKind::Unknown);
        self.findings.at_best(Parse::Tokens);
    }

    /// `None`: not as the grammar has it; nothing is concluded from what was added so far.
    fn dispatch(&mut self, cursor: &mut Cursor<'a>, tokens: &'a [Token]) -> Option<()> {
        match cursor.word() {
            "" if cursor.is_kind(Kind::Open) => self.query(tokens),
            "select" | "with" | "values" | "table" | "insert" | "update" | "delete" | "merge" => {
                self.query(tokens)
            }
            "explain" => self.explain(cursor),
            "prepare" => self.prepare(cursor),
            "execute" => self.execute(cursor),
            "deallocate" => self.deallocate(cursor),
            "declare" => self.declare(cursor),
            "copy" => self.copy(cursor),
            "create" => self.create(cursor),
            "alter" => self.alter(cursor),
            "drop" => self.drop(cursor),
            "do" => self.do_block(cursor),
            "call" => self.call(cursor),
            "return" => self.function_return(cursor),
            _ => self.administer(cursor),
        }
    }

    /// SELECT, VALUES, TABLE, WITH, INSERT, UPDATE, DELETE, MERGE.
    pub fn query(&mut self, tokens: &'a [Token]) -> Option<()> {
        if tokens.len() > self.limits.max_parse_tokens {
            return None;
        }
        let parsed = grammar::parse(self.lexed, tokens, self.limits.max_depth)?;
        query::read(&parsed, &mut self.findings).ok()?;
        self.scan_operators(tokens);
        Some(())
    }

    fn explain(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        cursor.take();
        let mut runs = false;
        let mut ahead = *cursor;
        if let Some(options) = ahead.parenthesis()
            && !starts_query(&Cursor::new(self.lexed, options))
        {
            *cursor = ahead;
            for mut option in Cursor::new(self.lexed, options).items() {
                // In quotes it is the same option.
                let name = option.take().map(|token| self.lexed.value(token));
                if matches!(name, Some("analyze" | "analyse")) {
                    runs |= !(option.accept_any(&["off", "false"]) && option.is_done());
                }
            }
        } else {
            runs = cursor.accept_any(&["analyze", "analyse"]);
            cursor.accept("verbose");
        }
        if runs {
            self.findings.add_any(Action::Explain, ObjectKind::Session);
            self.statement(cursor.rest());
            return Some(());
        }
        let outer = std::mem::take(&mut self.findings);
        self.statement(cursor.rest());
        let inner = std::mem::replace(&mut self.findings, outer);
        self.findings.at_best(inner.parse);
        for effect in inner.effects() {
            // Functions that claim to be immutable run while the plan is made.
            let action = if effect.action == Action::Function { Action::Function } else { Action::Explain };
            self.findings.add(action, effect.object.clone());
        }
        Some(())
    }

    fn prepare(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        cursor.take();
        if cursor.word() == "transaction" && cursor.peek(1).is_some_and(|token| token.kind == Kind::Text) {
            self.findings.add_any(Action::Transaction, ObjectKind::Session);
            return Some(());
        }
        let name = cursor.identifier()?;
        cursor.parenthesis();
        if !cursor.accept("as") {
            return None;
        }
        self.findings.add_any(Action::Session, ObjectKind::Session);
        self.findings.prepared.push(Prepared::Prepare(name.to_owned()));
        self.statement(cursor.rest());
        Some(())
    }

    /// EXECUTE of a prepared statement.
    pub fn execute(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        cursor.take();
        let name = cursor.identifier()?;
        self.findings.prepared.push(Prepared::Execute(name.to_owned()));
        self.findings.add(Action::Execute, Object::named(ObjectKind::Other, None, name));
        self.scan_calls(cursor.rest());
        Some(())
    }

    fn deallocate(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        cursor.take();
        if cursor.peek(1).is_some() {
            cursor.accept("prepare");
        }
        self.findings.add_any(Action::Session, ObjectKind::Session);
        self.findings.prepared.push(if cursor.accept("all") {
            Prepared::DeallocateAll
        } else {
            Prepared::Deallocate(cursor.identifier()?.to_owned())
        });
        Some(())
    }

    fn declare(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        cursor.take();
        cursor.identifier()?;
        cursor.skip_behind(&["cursor"])?;
        cursor.skip_behind(&["for"])?;
        self.findings.add_any(Action::Session, ObjectKind::Session);
        self.statement(cursor.rest());
        Some(())
    }

    fn copy(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        cursor.take();
        let inner = cursor.parenthesis();
        let mut objects = Vec::new();
        if let Some(inner) = inner {
            let outer = std::mem::take(&mut self.findings);
            self.statement(inner);
            let read = std::mem::replace(&mut self.findings, outer);
            objects.extend(
                read.effects()
                    .iter()
                    .filter(|effect| effect.action == Action::Select)
                    .map(|effect| effect.object.clone()),
            );
            self.findings.merge(read);
        } else {
            if cursor.peek(1).is_some_and(|token| matches!(token.kind, Kind::Word | Kind::Quoted))
                && !matches!(cursor.word_at(1), "from" | "to")
            {
                cursor.accept("binary");
            }
            objects.push(cursor.name()?.object(ObjectKind::Table));
            cursor.parenthesis();
        }
        let out = match cursor.take().map(|token| self.lexed.value(token)) {
            Some("to") => true,
            Some("from") => false,
            _ => return None,
        };
        self.copy_other_end(cursor, out, objects)
    }

    fn copy_other_end(&mut self, cursor: &mut Cursor<'a>, out: bool, objects: Vec<Object>) -> Option<()> {
        let program = cursor.accept("program");
        let to_client = !program && cursor.accept_any(&["stdin", "stdout"]);
        if !to_client && !cursor.accept_kind(Kind::Text) {
            return None;
        }
        if program {
            self.findings.add_any(Action::Program, ObjectKind::Server);
        } else if !to_client {
            self.findings.add_any(Action::File, ObjectKind::File);
        }
        let action = if out { Action::CopyOut } else { Action::CopyIn };
        for object in objects {
            if out {
                self.findings.add(Action::Select, object.clone());
            }
            self.findings.add(action, object);
        }
        self.scan_calls(cursor.rest());
        Some(())
    }

    fn call(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        cursor.take();
        let name = cursor.name()?;
        self.findings.add(Action::Call, name.object(ObjectKind::Function));
        self.scan_calls(cursor.rest());
        Some(())
    }

    /// `RETURN expression` behind a semicolon in a body of `BEGIN ATOMIC`; the server takes it nowhere else.
    fn function_return(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        cursor.take();
        if cursor.is_done() || cursor.contains("select") {
            return None;
        }
        self.findings.add_any(Action::Select, ObjectKind::Session);
        self.scan_calls(cursor.rest());
        Some(())
    }

    /// An operator that is neither PostgreSQL's nor a well-known extension's calls a function that nobody knows.
    pub fn scan_operators(&mut self, tokens: &'a [Token]) {
        for (index, token) in tokens.iter().enumerate().filter(|(_, token)| token.kind == Kind::Op) {
            let back = |by: usize| index.checked_sub(by).and_then(|at| tokens.get(at));
            let qualified = back(1).is_some_and(|token| token.kind == Kind::Dot)
                && back(2).is_some_and(|token| matches!(token.kind, Kind::Word | Kind::Quoted));
            let schema = back(2).filter(|_| qualified).map(|token| self.lexed.value(*token));
            // `t.*`: no operator at all.
            let name = self.lexed.value(*token);
            if !(qualified && name == "*") {
                calls::operator(&mut self.findings, schema, name);
            }
        }
    }

    /// Notes the literals among the arguments of functions that run what they are given as text.
    fn texts_to_run(&mut self, tokens: &'a [Token]) {
        for (index, token) in tokens.iter().enumerate() {
            let name = matches!(token.kind, Kind::Word | Kind::Quoted);
            if !name || !functions::runs_text(self.lexed.value(*token)) {
                continue;
            }
            let mut cursor = Cursor::new(self.lexed, tokens.get(index + 1..).unwrap_or(&[]));
            let arguments = cursor.parenthesis().unwrap_or(&[]);
            let texts = arguments.iter().filter(|token| token.kind == Kind::Text && token.keep);
            self.findings.code.extend(texts.map(|text| self.lexed.value(*text).to_owned()));
        }
    }

    /// Adds the effects of every call among the tokens of an expression.
    pub fn scan_calls(&mut self, tokens: &'a [Token]) {
        for (schema, name, first) in super::tokens::find_calls(self.lexed, tokens) {
            calls::add(&mut self.findings, schema, name, first);
        }
        self.scan_operators(tokens);
    }
}

/// Whether a query begins here, in parentheses or not.
pub fn starts_query(cursor: &Cursor<'_>) -> bool {
    cursor.is_kind(Kind::Open) || matches!(cursor.word(), "select" | "with" | "values" | "table")
}

/// Splits at semicolons outside of parentheses; none of the parts is empty.
pub fn statements(tokens: &[Token]) -> Vec<&[Token]> {
    let mut parts = Vec::new();
    let mut depth = 0_usize;
    let mut from = 0;
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            Kind::Semicolon if depth == 0 => {
                parts.push(tokens.get(from..index).unwrap_or(&[]));
                from = index + 1;
            }
            _ => {}
        }
    }
    parts.push(tokens.get(from..).unwrap_or(&[]));
    parts.retain(|part| !part.is_empty());
    parts
}
