//! DO enters: anonymous code is opaque, but what its text shows counts.

use guard_policy::vocabulary::{Action, Object, ObjectKind};

use super::cursor::Cursor;
use super::lexer::{Kind, Lexed, Rules, lex};
use super::normalise::simplify;
use super::statement::Reader;
use crate::sql::effects::Findings;

impl<'a> Reader<'a> {
    /// `DO [LANGUAGE name] 'code'`.
    pub fn do_block(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        cursor.take();
        self.findings.add(Action::Do, Object::any(ObjectKind::Unknown));
        if !self.trusted_language(*cursor) {
            self.findings.add_any(Action::Load, ObjectKind::Server);
        }
        let mut named = false;
        while let Some(token) = cursor.take() {
            if token.kind == Kind::Text && !named {
                self.code(self.lexed.value(token));
            }
            named = token.kind == Kind::Word && self.lexed.value(token) == "language";
        }
        Some(())
    }

    /// Adds what a text of code shows, literals within it included: it may run them.
    fn code(&mut self, text: &str) {
        const MAX_NESTING: usize = 8;
        // Each level read in two ways doubles the work.
        const MAX_AMBIGUOUS: usize = 4;
        if self.depth > MAX_NESTING {
            return self.unreadable();
        }
        let mut lexed = Lexed::default();
        for standard_strings in [true, false] {
            if lex(text, Rules { standard_strings, ..self.rules }, &mut lexed).is_ok() {
                self.lexed_code(&mut lexed);
            }
            if !lexed.ambiguous {
                break;
            }
            if self.depth > MAX_AMBIGUOUS {
                return self.unreadable();
            }
        }
    }

    fn lexed_code(&mut self, lexed: &mut Lexed) {
        // Every literal may be a statement that the code builds and runs.
        let literals: Vec<String> = lexed
            .tokens
            .iter()
            .filter(|token| token.kind == Kind::Text)
            .map(|&token| lexed.value(token).to_owned())
            .filter(|text| text.contains(char::is_whitespace))
            .collect();
        simplify(lexed);
        let mut inner = Reader {
            lexed,
            rules: self.rules,
            limits: self.limits,
            findings: Findings::default(),
            depth: self.depth + 1,
        };
        inner.scan_code(&lexed.tokens);
        for literal in &literals {
            inner.code(literal);
        }
        let mut found = inner.findings;
        // DO itself was read by the grammar; that its code is opaque is what the action says.
        found.parse = self.findings.parse;
        found.prepared.clear();
        found.changes.clear();
        found.code.clear();
        self.findings.merge(found);
    }
}
