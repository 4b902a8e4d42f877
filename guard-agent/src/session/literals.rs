//! What statements were sent with, where the record is to hold it: texts and values of the client's messages enter,
//! statements that carry them leave.

use std::sync::Arc;

use guard_policy::vocabulary::{Action, ObjectKind};

use super::relay::Relay;
use crate::{
    audit::SECRET_TAG,
    catalog::{Catalog, Relation},
    sql::{Statement, Touched},
};

/// Bytes of texts and values that the prepared statements and portals of one session may keep.
pub(super) const ROOM: usize = 16 * 1024 * 1024;

impl Relay<'_> {
    /// `statement` with the text that it was read from.
    pub(super) fn with_text(&self, statement: Arc<Statement>, text: &[u8]) -> Arc<Statement> {
        match &self.literals {
            Some(room) => statement.as_sent(text, &self.modes, self.touched(&statement), room),
            None => statement,
        }
    }

    /// What the catalog says of the columns that are written.
    fn touched(&self, statement: &Statement) -> Touched {
        let Some(masking) = self.masking.as_deref().filter(|masking| masking.knows_catalog()) else {
            return Touched::default();
        };
        let catalog = &masking.catalog;
        let path = self.session.path_within(statement);
        let mut touched = Touched { withheld: None, placed: true };
        for effect in &statement.effects {
            if !matches!(effect.object.kind, ObjectKind::Table | ObjectKind::View | ObjectKind::Unknown) {
                continue;
            }
            let schema = effect.object.schema.as_deref().unwrap_or_default();
            let found = catalog.find(schema, &effect.object.name, &path, &self.session.db_user);
            let writes = matches!(effect.action, Action::Insert | Action::Merge);
            touched.placed &= !writes || !found.relations.is_empty();
            for relation in found.relations {
                for column in secret_columns(catalog, relation) {
                    touched.placed &= !writes;
                    if names(&statement.text, column) {
                        touched.withheld = Some("it names a column that holds passwords, keys or tokens");
                    }
                }
            }
        }
        touched
    }
}

fn secret_columns<'a>(catalog: &'a Catalog, relation: &'a Relation) -> impl Iterator<Item = &'a str> {
    let all = catalog.sensitive_columns(relation);
    let secret = all.filter(|(_, sensitive)| sensitive.tags().any(|tag| tag == SECRET_TAG));
    secret.map(|(column, _)| &*column.name)
}

/// Whether `name` stands in `text`, in whatever case: as a word, or within quotes.
fn names(text: &str, name: &str) -> bool {
    let (text, name) = (text.to_lowercase(), name.to_lowercase());
    let part =
        |letter: Option<char>| letter.is_some_and(|one| one.is_alphanumeric() || one == '_' || one == '$');
    text.match_indices(&name)
        .any(|(at, _)| !part(text[..at].chars().next_back()) && !part(text[at + name.len()..].chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_named_as_a_word() {
        assert!(names("UPDATE t SET K = ?", "k") && names("UPDATE t SET \"a k\" = ?", "a k"));
        assert!(!names("UPDATE t SET kk = ?, k_ = ?, _k = ?", "k"));
        assert!(names("INSERT INTO t (a, k) VALUES (?, ?)", "k"));
    }
}
