//! What a held text does: text, and where it was held, enter; a statement leaves.
//!
//! What runs inside of functions is not always a statement as a client would send it: expressions and assignments of
//! PL/pgSQL have a plan as well, whose text is theirs. Whatever is in doubt is read towards the dangerous side.

use std::sync::Arc;

use guard_common::kernel::hold::level;
use guard_policy::vocabulary::{Action, Effect, Object, ObjectKind, Parse};

use super::{backend::Settings, process::Memory, target::Target};
use crate::{
    session::{Worker, function_call},
    sql::{Encoding, Modes, Statement},
};

/// Kinds of plans, as in PostgreSQL's `CmdType`; the others run no plan.
pub const SELECT: u32 = 1;
const UPDATE: u32 = 2;
const INSERT: u32 = 3;
const DELETE: u32 = 4;
const MERGE: u32 = 5;

/// What was to run.
#[derive(Debug)]
pub struct Held {
    /// One of [`level`].
    pub level: u32,
    /// The kind of plan.
    pub operation: u32,
    /// The text; nothing where it is too long, or cannot be read.
    pub text: Option<Vec<u8>>,
}

impl Held {
    /// Reads what `level` (with the kind of plan in the byte above) held at `address`.
    pub fn read(memory: &Memory, level: u32, address: u64, limit: usize) -> Self {
        let (level, operation) = (level & 0xff, level >> 8);
        let text = match level {
            level::CALL => function(memory, address).map(|oid| function_call(oid).into_bytes()),
            _ => memory.text(address, limit),
        };
        Self { level, operation, text }
    }

    /// The statement, how its text was read, and whether it is all of what was sent and nothing else.
    pub async fn statement(
        &self,
        worker: &Worker,
        settings: &Settings,
        target: &Target,
    ) -> (Arc<Statement>, Modes, bool) {
        let text = self.text.as_deref().unwrap_or_default();
        let modes = self.modes(text, settings, target);
        if self.text.is_none() {
            return (worker.oversized(), modes, false);
        }
        match self.level {
            level::RUN => {
                let (statement, whole) = self.plan(worker, text, modes).await;
                (statement, modes, whole)
            }
            level => (worker.read(text, modes).await, modes, level != level::CALL),
        }
    }

    fn modes(&self, text: &[u8], settings: &Settings, target: &Target) -> Modes {
        // What the server has is in its own encoding, in none of which a byte of ASCII is part of a letter.
        let utf8 = std::str::from_utf8(text).is_ok();
        Modes {
            standard_conforming_strings: settings.plain_strings,
            client_encoding: if utf8 { Encoding::Utf8 } else { Encoding::AsciiSafe },
            server_utf8: utf8,
            // Only what a client sends is read by the grammar of statements.
            grammar_known: self.level == level::PARSE && target.grammar_known,
        }
    }

    /// A plan: its text may be an expression, or missing, and rules of the server may have made another kind of it.
    async fn plan(&self, worker: &Worker, text: &[u8], modes: Modes) -> (Arc<Statement>, bool) {
        let mut whole = !text.is_empty();
        let mut statement = worker.read(text, modes).await;
        if self.operation == SELECT && statement.parse != Parse::Full {
            for expression in expressions(text) {
                let read = worker.read(&expression, modes).await;
                if read.parse == Parse::Full && read.parts == 1 {
                    (statement, whole) = (read, false);
                    break;
                }
            }
        }
        let Some(action) = self.action() else { return (statement, whole) };
        let is_told = |effect: &Effect| {
            effect.action == action || matches!(effect.action, Action::Unreadable | Action::Merge)
        };
        if statement.effects.iter().any(is_told) {
            return (statement, whole);
        }
        let mut more = (*statement).clone();
        if text.is_empty() {
            more.text = "-- the body of a function that is kept as plans: its text is not known".to_owned();
            more.parse = Parse::Tokens;
            more.parts = 1;
        }
        more.effects.push(Effect::new(action, Object::any(ObjectKind::Table)));
        (Arc::new(more), whole)
    }

    /// What a plan of this kind does, whatever its text says.
    fn action(&self) -> Option<Action> {
        match (self.level, self.operation) {
            (level::RUN, UPDATE) => Some(Action::Update),
            (level::RUN, INSERT) => Some(Action::Insert),
            (level::RUN, DELETE) => Some(Action::Delete),
            (level::RUN, MERGE) => Some(Action::Merge),
            (level::RUN, SELECT) if self.text.as_ref().is_some_and(Vec::is_empty) => Some(Action::Select),
            _ => None,
        }
    }
}

/// Kinds of plans that a statement, read in full, may be run as: what is known of it then.
pub fn operations(statement: &Statement) -> impl Iterator<Item = u32> {
    let does = |action| statement.effects.iter().any(|effect| effect.action == action);
    let merges = does(Action::Merge);
    let changes = [
        (UPDATE, merges || does(Action::Update)),
        (INSERT, merges || does(Action::Insert)),
        (DELETE, merges || does(Action::Delete)),
        (MERGE, merges),
    ];
    let changes = changes.into_iter().filter_map(|(operation, does)| does.then_some(operation));
    std::iter::once(SELECT).chain(changes)
}

/// The number of the function in a call's message, a `StringInfo`: it stands first in its data.
fn function(memory: &Memory, message: u64) -> Option<u32> {
    memory.bytes(memory.word(message)?).map(u32::from_be_bytes)
}

/// Statements that an expression, or an assignment, of PL/pgSQL may stand for.
fn expressions(text: &[u8]) -> Vec<Vec<u8>> {
    let select = |expression: &[u8]| [b"SELECT ", expression].concat();
    let mut found = vec![select(text)];
    // `target := expression`, where `target = expression` is a comparison as well and was read as such.
    for sign in [&b":="[..], b"="] {
        if let Some(at) = memchr::memmem::find(text, sign) {
            found.push(select(&text[at + sign.len()..]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, decide::Decider};

    fn worker() -> Worker {
        let config = Config::default();
        let policies = guard_policy::PolicySet::built_in().unwrap();
        Worker::new(&config.proxy, Arc::new(Decider::new(policies, &config)))
    }

    async fn effects(operation: u32, text: &str) -> (Vec<String>, Parse) {
        let held = Held { level: level::RUN, operation, text: Some(text.as_bytes().to_vec()) };
        let modes = Modes { grammar_known: false, ..Modes::default() };
        let (statement, _) = held.plan(&worker(), text.as_bytes(), modes).await;
        let effects = statement.effects.iter().map(|effect| format!("{} {}", effect.action, effect.object));
        (effects.collect(), statement.parse)
    }

    #[tokio::test]
    async fn expressions_of_functions_are_read_as_what_they_do() {
        let (found, parse) = effects(SELECT, "(SELECT count(*) FROM t) > 3").await;
        assert!(found.contains(&"select t".to_owned()) && parse == Parse::Full, "{found:?}");
        let (found, parse) = effects(SELECT, "n := (SELECT max(id) FROM t)").await;
        assert!(found.contains(&"select t".to_owned()) && parse == Parse::Full, "{found:?}");
        let (found, _) = effects(SELECT, "n := lo_unlink(4711)").await;
        assert!(found.iter().any(|effect| !effect.starts_with("select")), "{found:?}");
    }

    #[tokio::test]
    async fn a_plan_does_what_it_is_whatever_its_text_says() {
        let (found, _) = effects(DELETE, "INSERT INTO v VALUES (1)").await;
        assert!(
            found.contains(&"insert v".to_owned()) && found.contains(&"delete *".to_owned()),
            "{found:?}"
        );
        let (found, _) = effects(UPDATE, "").await;
        assert!(found.contains(&"update *".to_owned()), "{found:?}");
        let (found, _) = effects(DELETE, "DELETE FROM t WHERE id = 1").await;
        assert!(!found.contains(&"delete *".to_owned()), "{found:?}");
    }
}
