//! Names without a schema enter with the session's search path, the objects that they may mean leave.
//!
//! A name may mean an object of each schema on the path: every one of them counts. Where the path is not known, the
//! name may mean any object.

use std::borrow::Cow;

use guard_policy::vocabulary::{Effect, Object};

use super::Statement;

/// What a statement changes of the session that later statements are read by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `SET search_path`, `SET SCHEMA`, RESET, DISCARD ALL.
    Path {
        /// The path from now on.
        to: SearchPath,
        /// Until the transaction ends.
        local: bool,
    },
    /// `SET ROLE`; `None`: NONE, or RESET.
    Role {
        /// The role from now on; `*` where it is not known.
        to: Option<String>,
        /// Until the transaction ends.
        local: bool,
    },
    /// `SET SESSION AUTHORIZATION`; `None`: DEFAULT, or RESET, or DISCARD ALL.
    Authorization {
        /// The role from now on; `*` where it is not known.
        to: Option<String>,
        /// Until the transaction ends.
        local: bool,
    },
    /// ROLLBACK, to a savepoint or of everything: what was set since may be as before.
    Rollback,
}

impl Change {
    /// The path is again what it was when the session began.
    pub fn path_reset() -> Self {
        Self::Path { to: SearchPath::Initial, local: false }
    }
}

/// Where the server looks for names without a schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SearchPath {
    /// What the server began the session with: names without a schema are left to the policy's default schema.
    #[default]
    Initial,
    /// One of these schemas.
    Schemas(Vec<String>),
    /// Any schema.
    Unknown,
}

/// Paths of more schemas count as unknown.
const MAX_SCHEMAS: usize = 16;

impl SearchPath {
    /// The path of these schemas, in the server's order.
    ///
    /// A schema before `pg_catalog` may hold functions that take the place of built-in ones: such a path is unknown.
    pub fn of(mut schemas: Vec<String>) -> Self {
        let default = ["$user", "public"];
        if schemas.iter().map(String::as_str).eq(default) {
            return Self::Initial;
        }
        // `SET search_path = 'a, b'` names one schema of that spelling; `set_config` and reports name two.
        let shadows = schemas.iter().skip(1).any(|schema| schema == "pg_catalog");
        if shadows || schemas.len() > MAX_SCHEMAS || schemas.iter().any(|schema| schema == "$user") {
            return Self::Unknown;
        }
        schemas.retain(|schema| schema != "pg_temp");
        schemas.dedup();
        Self::Schemas(schemas)
    }

    /// The path as the server spells it: `"$user", public`.
    pub fn parse(text: &str) -> Self {
        let mut schemas = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (name, tail) = match rest.strip_prefix('"') {
                Some(quoted) => match quoted.split_once('"') {
                    // A quote within a name is rare enough not to be read.
                    Some((name, tail)) if !tail.starts_with('"') => (name.to_owned(), tail),
                    _ => return Self::Unknown,
                },
                None => {
                    let end = rest.find(',').unwrap_or(rest.len());
                    let (name, tail) = rest.split_at(end);
                    if name.is_empty() {
                        return Self::Unknown;
                    }
                    (name.trim().to_ascii_lowercase(), tail)
                }
            };
            let tail = tail.trim_start();
            rest = match tail.strip_prefix(',') {
                Some(more) if !more.trim().is_empty() => more.trim_start(),
                None if tail.is_empty() => tail,
                _ => return Self::Unknown,
            };
            schemas.push(name);
        }
        Self::of(schemas)
    }

    /// The path that may be either of two.
    pub fn or(self, other: &Self) -> Self {
        match (self, other) {
            (one, other) if one == *other => one,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (one, other) => {
                let mut schemas = one.candidates();
                for schema in other.candidates() {
                    if !schemas.contains(&schema) {
                        schemas.push(schema);
                    }
                }
                if schemas.len() > MAX_SCHEMAS { Self::Unknown } else { Self::Schemas(schemas) }
            }
        }
    }

    fn candidates(&self) -> Vec<String> {
        match self {
            // As policies read a name without a schema.
            Self::Initial => vec![guard_policy::ground::DEFAULT_SCHEMA.to_owned()],
            Self::Schemas(schemas) => schemas.clone(),
            Self::Unknown => Vec::new(),
        }
    }

    /// A key that no other path has.
    pub fn as_key(&self) -> String {
        match self {
            Self::Initial => "i".to_owned(),
            Self::Unknown => "u".to_owned(),
            Self::Schemas(schemas) => schemas
                .iter()
                .fold("s".to_owned(), |key, schema| key + &schema.len().to_string() + ":" + schema),
        }
    }

    /// The path that names of `statement` may be looked for on: its own changes count as well, for all of it.
    pub fn within(&self, statement: &Statement) -> Cow<'_, Self> {
        let mut path = Cow::Borrowed(self);
        for change in &statement.changes {
            if let Change::Path { to, .. } = change {
                // A later statement of the same text may see it.
                path = Cow::Owned(path.into_owned().or(to));
            }
        }
        path
    }

    /// The effects of `statement` with its names resolved.
    pub fn resolve<'s>(&self, statement: &'s Statement) -> Cow<'s, [Effect]> {
        let path = self.within(statement);
        if *path == Self::Initial {
            return Cow::Borrowed(&statement.effects);
        }
        let mut resolved = Vec::with_capacity(statement.effects.len());
        for effect in &statement.effects {
            if effect.object.schema.is_some() || effect.object.name == "*" || !effect.object.kind.in_schema()
            {
                resolved.push(effect.clone());
                continue;
            }
            let with = |object| Effect { object, ..effect.clone() };
            match path.as_ref() {
                Self::Schemas(schemas) if !schemas.is_empty() => {
                    resolved.extend(schemas.iter().map(|schema| {
                        with(Object { schema: Some(schema.clone()), ..effect.object.clone() })
                    }));
                }
                // Nothing on the path: only the catalogue is seen.
                Self::Schemas(_) => resolved
                    .push(with(Object { schema: Some("pg_catalog".to_owned()), ..effect.object.clone() })),
                _ => resolved.push(with(Object::any(effect.object.kind))),
            }
        }
        Cow::Owned(resolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Classifier, Limits, Modes};

    fn resolved(path: &SearchPath, text: &str) -> Vec<String> {
        let statement = Classifier::new(Limits::default()).classify(text.as_bytes(), &Modes::default());
        path.resolve(&statement).iter().map(|effect| format!("{} {}", effect.action, effect.object)).collect()
    }

    #[test]
    fn a_name_means_an_object_of_each_schema_on_the_path() {
        let path = SearchPath::parse("hr, \"Sales\"");
        assert_eq!(
            resolved(&path, "select * from t, public.u"),
            ["select hr.t", "select Sales.t", "select public.u"]
        );
        assert_eq!(resolved(&SearchPath::default(), "select * from t"), ["select t"]);
        assert_eq!(resolved(&SearchPath::Unknown, "select * from t, s.u"), ["select *", "select s.u"]);
        assert_eq!(
            resolved(&SearchPath::parse(""), "select * from pg_class"),
            ["select pg_catalog.pg_class"]
        );
    }

    #[test]
    fn a_path_set_in_the_same_text_counts_for_all_of_it() {
        let effects = resolved(&SearchPath::default(), "set search_path to hr; select * from salaries");
        assert!(effects.contains(&"select hr.salaries".to_owned()), "{effects:?}");
        let effects = resolved(&SearchPath::default(), "set schema 'hr'; select * from salaries");
        assert!(effects.contains(&"select hr.salaries".to_owned()), "{effects:?}");
    }

    #[test]
    fn paths_are_read_as_the_server_spells_them() {
        assert_eq!(SearchPath::parse("\"$user\", public"), SearchPath::Initial);
        assert_eq!(SearchPath::parse("Hr , x"), SearchPath::Schemas(vec!["hr".into(), "x".into()]));
        assert_eq!(
            SearchPath::parse("hr, pg_catalog"),
            SearchPath::Unknown,
            "it may shadow built-in functions"
        );
        assert_eq!(SearchPath::parse("\"$user\", hr"), SearchPath::Unknown);
        for broken in ["a,,b", "a,", "\"a", "\"a\"b", "\"a\"\"b\""] {
            assert_eq!(SearchPath::parse(broken), SearchPath::Unknown, "{broken}");
        }
    }

    #[test]
    fn keys_tell_paths_apart() {
        let paths = ["", "a", "b", "a, b", "ab", "\"1:a\"", "i", "u"].map(SearchPath::parse);
        for (index, one) in paths.iter().enumerate() {
            assert!(paths.iter().skip(index + 1).all(|other| one.as_key() != other.as_key()), "{one:?}");
        }
    }
}
