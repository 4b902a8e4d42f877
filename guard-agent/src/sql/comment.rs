//! What a `COMMENT ON` says and of which relation or column: a statement enters; its comments leave.
//!
//! Never guesses: a text that cannot be read again makes the answer unknown.

use guard_policy::vocabulary::Action;

use super::{Statement, postgres::reference};

/// PostgreSQL's number for columns among the kinds of objects, as its parser numbers them from 1 on.
const OBJECT_COLUMN: u64 = 7;

/// A comment on something that may be a relation, or on one of its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// Schema; empty where none is named.
    pub schema: String,
    /// Relation.
    pub relation: String,
    /// The column; `None`: the relation itself.
    pub column: Option<String>,
    /// What it says; empty where the comment is taken away.
    pub text: String,
}

/// The comments that `statement` makes on relations and columns; `None` where it may make some that cannot be read.
pub fn read(statement: &Statement) -> Option<Vec<Comment>> {
    if !statement.effects.iter().any(|effect| effect.action == Action::Comment) {
        return Some(Vec::new());
    }
    let (text, standard) = statement.origin.text()?;
    let tree = reference::tree(text, standard)?;
    let mut comments = Vec::new();
    let mut others = false;
    for statement in tree.root().list("stmts").filter_map(|raw| raw.get("stmt")) {
        others |= matches!(statement.name(), "DoStmt" | "CreateFunctionStmt");
        if statement.name() != "CommentStmt" {
            continue;
        }
        let column = statement.number("objtype") == OBJECT_COLUMN;
        // Names of relations are lists of names; objects of other kinds are written otherwise.
        let Some(object) = statement.get("object").filter(|object| object.name() == "List") else { continue };
        let mut names: Vec<String> = object.names("items").into_iter().map(str::to_owned).collect();
        let column = if column { names.pop() } else { None };
        let Some(relation) = names.pop() else { continue };
        let schema = names.pop().unwrap_or_default();
        comments.push(Comment { schema, relation, column, text: statement.text("comment").to_owned() });
    }
    // Code is not followed.
    if others { None } else { Some(comments) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Classifier, Limits, Modes};

    fn of(text: &str) -> Option<Vec<Comment>> {
        read(&Classifier::new(Limits::default()).classify(text.as_bytes(), &Modes::default()))
    }

    fn comment(names: [&str; 3], text: &str) -> Comment {
        let [schema, relation, column] = names.map(str::to_owned);
        let column = Some(column).filter(|column| !column.is_empty());
        Comment { schema, relation, column, text: text.to_owned() }
    }

    #[test]
    fn names_and_texts_are_those_that_the_server_reads() {
        assert_eq!(of("SELECT 'COMMENT ON TABLE t IS 1'"), Some(vec![]));
        assert_eq!(
            of("COMMENT ON COLUMN s.\"T\".c IS E'gu\\x61rd: none'").unwrap(),
            [comment(["s", "T", "c"], "guard: none")]
        );
        assert_eq!(
            of("comment on column t.c is 'gua' -- x\n'rd: none'").unwrap(),
            [comment(["", "t", "c"], "guard: none")]
        );
        assert_eq!(
            of("COMMENT ON TABLE t IS U&'\\0067uard: pii'").unwrap(),
            [comment(["", "t", ""], "guard: pii")]
        );
        assert_eq!(of("COMMENT ON VIEW s.v IS NULL; SELECT 1").unwrap(), [comment(["s", "v", ""], "")]);
        assert_eq!(of("COMMENT ON COLUMN db.s.t.c IS 'x'").unwrap(), [comment(["s", "t", "c"], "x")]);
        assert_eq!(of("COMMENT ON FUNCTION f(int) IS 'guard: none'"), Some(vec![]));
    }

    #[test]
    fn texts_that_differ_in_literals_alone_are_told_apart() {
        let mut classifier = Classifier::new(Limits::default());
        for said in ["guard: none", "guard: email", "a note"] {
            let text = format!("COMMENT ON COLUMN t.c IS '{said}'");
            let statement = classifier.classify(text.as_bytes(), &Modes::default());
            assert_eq!(read(&statement).unwrap(), [comment(["", "t", "c"], said)]);
        }
    }

    #[test]
    fn code_is_not_followed() {
        assert_eq!(of("DO $$ BEGIN COMMENT ON TABLE t IS 'guard: none'; END $$"), None);
    }
}
