//! What people say of columns: in the agent's configuration, and in comments of the database.

use guard_policy::vocabulary::DataKind;
use serde::{Deserialize, Serialize};

/// `[[servers.columns]]`: what columns of a server hold.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnTag {
    /// `schema.table.column`; `*` stands for any text within one of the three.
    pub column: String,
    /// Only of this database.
    #[serde(default)]
    pub database: Option<String>,
    /// What it holds: `email`, `phone`, ..
    #[serde(default)]
    pub kind: Option<String>,
    /// Tags for policies beside those of the kind.
    #[serde(default)]
    pub tags: Vec<String>,
    /// `false`: it is not sensitive, whatever its name says.
    #[serde(default = "yes")]
    pub sensitive: bool,
}

fn yes() -> bool {
    true
}

/// What is wrong with a [`ColumnTag`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// Not three names.
    #[error("`{0}` is not of the form `schema.table.column`; `*` stands for any")]
    Form(String),
    /// No such kind.
    #[error("`{0}` is no kind of data; there are: {kinds}", kinds = kinds())]
    Kind(String),
    /// It says nothing.
    #[error("`{0}` needs a `kind`, `tags`, or `sensitive = false`")]
    Empty(String),
}

fn kinds() -> String {
    DataKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ")
}

/// A [`ColumnTag`] that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    database: Option<String>,
    names: [String; 3],
    /// What it says; `None`: that they are not sensitive.
    pub(super) says: Option<Said>,
}

/// What somebody said of a column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// What it holds, where that was said.
    pub kind: Option<DataKind>,
    /// Tags.
    pub tags: Vec<Box<str>>,
}

impl TryFrom<&ColumnTag> for Pattern {
    type Error = TagError;

    fn try_from(tag: &ColumnTag) -> Result<Self, TagError> {
        let names: Vec<String> = tag.column.split('.').map(str::to_owned).collect();
        let names: [String; 3] = names.try_into().map_err(|_| TagError::Form(tag.column.clone()))?;
        if names.iter().any(String::is_empty) {
            return Err(TagError::Form(tag.column.clone()));
        }
        let kind = match &tag.kind {
            None => None,
            Some(word) => Some(kind_of(word).ok_or_else(|| TagError::Kind(word.clone()))?),
        };
        if tag.sensitive && kind.is_none() && tag.tags.is_empty() {
            return Err(TagError::Empty(tag.column.clone()));
        }
        let tags = tag.tags.iter().map(|tag| tag.as_str().into()).collect();
        let says = tag.sensitive.then_some(Said { kind, tags });
        Ok(Self { database: tag.database.clone(), names, says })
    }
}

impl Pattern {
    /// Whether it is about this database.
    pub fn is_of(&self, database: &str) -> bool {
        self.database.as_deref().is_none_or(|own| own == database)
    }

    /// Whether it is about this column.
    pub fn fits(&self, schema: &str, table: &str, column: &str) -> bool {
        self.names.iter().zip([schema, table, column]).all(|(pattern, name)| matches(pattern, name))
    }
}

/// `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(before) = last.replace(part)
            && let Some(at) = rest.find(before)
        {
            rest = rest.get(at + before.len()..).unwrap_or("");
        } else if last.is_some() && !part.is_empty() && !rest.contains(part) {
            return false;
        }
    }
    match last {
        None => rest.is_empty(),
        Some(last) => rest.ends_with(last),
    }
}

/// The kind that a word names.
pub fn kind_of(word: &str) -> Option<DataKind> {
    DataKind::ALL.iter().copied().find(|kind| kind.as_str() == word)
}

/// What a comment says: `guard: email`, `guard: pii, contact`, `guard: none`; `None` where it says nothing.
#[expect(clippy::option_option, reason = "nothing said, said to be nothing, said to be something")]
pub fn said_in(comment: &str) -> Option<Option<Said>> {
    let lower = comment.to_ascii_lowercase();
    let starts = lower.match_indices("guard").find_map(|(at, word)| {
        let before = lower.get(..at)?.chars().next_back();
        let rest = lower.get(at + word.len()..)?.trim_start_matches(' ').strip_prefix(':')?;
        (!before.is_some_and(|c| c.is_alphanumeric() || c == '_')).then_some(rest)
    })?;
    let mut said = Said::default();
    let mut rest = starts.trim_start_matches(' ');
    loop {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        match (word, kind_of(word)) {
            ("", _) => break,
            ("none", _) => return Some(None),
            (_, Some(kind)) => said.kind = said.kind.or(Some(kind)),
            (word, None) => said.tags.push(word.into()),
        }
        match tail.trim_start_matches(' ').strip_prefix(',') {
            Some(more) => rest = more.trim_start_matches(' '),
            None => break,
        }
    }
    (said != Said::default()).then_some(Some(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, name, fits) in [
            ("*", "anything", true),
            ("", "", true),
            ("email", "email", true),
            ("email", "emails", false),
            ("*mail", "e_mail", true),
            ("mail*", "mail_2", true),
            ("*mail*", "email2", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("a*a", "a", false),
            ("*a*a*", "banana", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn comments_say_what_a_column_holds() {
        let said = |kind, tags: &[&str]| {
            Some(Some(Said { kind, tags: tags.iter().map(|tag| (*tag).into()).collect() }))
        };
        assert_eq!(said_in("guard: email"), said(Some(DataKind::Email), &[]));
        assert_eq!(
            said_in("Where we write to. Guard:email, marketing."),
            said(Some(DataKind::Email), &["marketing"])
        );
        assert_eq!(said_in("guard : pii,contact"), said(None, &["pii", "contact"]));
        assert_eq!(said_in("guard: none"), Some(None));
        assert_eq!(said_in("guard: none (public)"), Some(None));
        assert_eq!(said_in("safeguard: email"), None);
        assert_eq!(said_in("guard:"), None);
        assert_eq!(said_in("the guard: phone of the gate"), said(Some(DataKind::Phone), &[]));
        assert_eq!(said_in(""), None);
    }

    #[test]
    fn tags_of_the_configuration_are_checked() {
        let tag = |column: &str, kind: Option<&str>| ColumnTag {
            column: column.to_owned(),
            database: None,
            kind: kind.map(str::to_owned),
            tags: Vec::new(),
            sensitive: true,
        };
        let pattern = Pattern::try_from(&tag("hr.*.e*", Some("email"))).unwrap();
        assert!(pattern.fits("hr", "people", "email") && !pattern.fits("public", "people", "email"));
        assert!(matches!(Pattern::try_from(&tag("people.email", Some("email"))), Err(TagError::Form(_))));
        assert!(matches!(Pattern::try_from(&tag("a.b.c", Some("mail"))), Err(TagError::Kind(_))));
        assert!(matches!(Pattern::try_from(&tag("a.b.c", None)), Err(TagError::Empty(_))));
    }
}
