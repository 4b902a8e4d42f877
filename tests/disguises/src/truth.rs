//! What a statement truly does enters as text, whether a reading admits it leaves.
//!
//! A truth is written as `guard-agent policy explain` writes effects: `drop table:customers`, `delete table:orders all`.

use std::{fmt, str::FromStr};

use anyhow::{Context, Error};
use guard_agent::sql::Statement;
use guard_policy::vocabulary::{Action, Effect, Object, ObjectKind};
use serde::Deserialize;

/// One thing that a statement truly does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Truth(Effect);

impl TryFrom<String> for Truth {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl FromStr for Truth {
    type Err = Error;

    /// `action kind:name`, then `all` or `where` for updates and deletes.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (action, rest) = text.split_once(' ').with_context(|| format!("`{text}` names no object"))?;
        let (has_where, rest) = match (rest.strip_suffix(" all"), rest.strip_suffix(" where")) {
            (Some(rest), _) => (Some(false), rest),
            (_, Some(rest)) => (Some(true), rest),
            _ => (None, rest),
        };
        let (kind, name) = rest.split_once(':').with_context(|| format!("`{rest}` has no kind"))?;
        let known = |word: &str| format!("`{word}` in `{text}` is no word of the vocabulary");
        let action = Action::ALL.iter().find(|one| one.as_str() == action).with_context(|| known(action))?;
        let kind = ObjectKind::ALL.iter().find(|one| one.as_str() == kind).with_context(|| known(kind))?;
        Ok(Self(Effect { action: *action, object: Object::named(*kind, None, name), has_where }))
    }
}

impl fmt::Display for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

/// An effect as truths are written.
pub fn shown(effect: &Effect) -> String {
    let filter = match effect.has_where {
        None => "",
        Some(true) => " where",
        Some(false) => " all",
    };
    format!("{} {}:{}{filter}", effect.action, effect.object.kind, effect.object)
}

/// A reading in one line.
pub fn reading(statement: &Statement) -> String {
    let effects: Vec<String> = statement.effects.iter().map(shown).collect();
    format!("{}: {}", statement.parse.as_str(), effects.join(", "))
}

/// How a reading admits a truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admits {
    /// It says so.
    Named,
    /// It says that it could not be read, and shipped policies refuse that.
    Unreadable,
    /// It says that code runs of which it knows no more: DO, CALL, EXECUTE, a function.
    Opaque,
    /// It does not say so.
    Missed,
}

impl Truth {
    /// Whether shipped policies refuse this in production, whoever does it.
    pub fn is_destructive(&self) -> bool {
        let Effect { action, object, has_where } = &self.0;
        match action {
            Action::Drop => matches!(
                object.kind,
                ObjectKind::Table
                    | ObjectKind::MaterializedView
                    | ObjectKind::Column
                    | ObjectKind::Schema
                    | ObjectKind::Database
                    | ObjectKind::Tablespace
            ),
            Action::Truncate | Action::Unreadable => true,
            Action::Delete | Action::Update => *has_where == Some(false),
            _ => false,
        }
    }

    /// How far `statement`, as it was read, admits this.
    pub fn admitted_by(&self, statement: &Statement) -> Admits {
        let effects = &statement.effects;
        if effects.iter().any(|effect| self.is_named_by(effect)) {
            Admits::Named
        } else if effects.iter().any(|effect| effect.action == Action::Unreadable) {
            Admits::Unreadable
        } else if effects.iter().any(is_opaque) {
            Admits::Opaque
        } else {
            Admits::Missed
        }
    }

    fn is_named_by(&self, effect: &Effect) -> bool {
        let Effect { action, object, has_where } = &self.0;
        let kind = effect.object.kind == object.kind
            || effect.object.kind == ObjectKind::Unknown
            || object.kind == ObjectKind::Unknown;
        let name = object.name == "*"
            || effect.object.name == "*"
            || effect.object.name == object.name
            || effect.object.to_string() == object.name
            || object.name.strip_prefix("public.") == Some(effect.object.name.as_str());
        let filter = *has_where != Some(false) || effect.has_where == Some(false);
        effect.action == *action && kind && name && filter
    }
}

/// Code runs of which the reading knows no more.
pub fn is_opaque(effect: &Effect) -> bool {
    matches!(effect.action, Action::Function | Action::Do | Action::Call | Action::Execute)
}

/// Whether a reading says that nothing but reading happens: what must then run in a READ ONLY transaction.
pub fn only_reads(statement: &Statement) -> bool {
    statement.effects.iter().all(|effect| {
        matches!(
            effect.action,
            Action::Select | Action::Explain | Action::Show | Action::CopyOut | Action::Sleep
        )
    })
}
