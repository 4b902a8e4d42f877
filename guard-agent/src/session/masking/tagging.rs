//! Comments that say what columns hold (`guard: email`, `guard: none`): a statement enters, the columns leave of which it
//! would take protection away, or put another in its place.
//!
//! Only a relation's owner can comment on it, but an owner need not be somebody who may see what is in it: what tags take
//! away is decided like any other use of a column that is not seen in clear. What adds protection is nobody's concern.

use guard_policy::{Use, vocabulary::DataKind};

use super::Masking;
use crate::{
    catalog::{Catalog, Evidence, Relation, Sensitive, said_in},
    decide::Session,
    sql::{
        Statement,
        comment::{self, Comment},
        lineage::Column,
    },
};

/// How policies call it.
const WORD: &str = "tag";

/// The columns whose protection `statement` would change.
pub(super) fn tagged(statement: &Statement, masking: &Masking, session: &Session) -> Vec<(Column, Use)> {
    let columns = match comment::read(statement) {
        Some(comments) => {
            let path = session.path_within(statement);
            let found = |comment: &Comment| {
                let catalog = &masking.catalog;
                let relations = catalog.find(&comment.schema, &comment.relation, &path, &session.db_user);
                of_comment(comment, catalog, &relations.relations)
            };
            comments.iter().flat_map(found).collect()
        }
        // Code that comments: on anything.
        None if masking.sensitive => vec![Column::any()],
        None => Vec::new(),
    };
    columns.into_iter().map(|column| (column, Use { words: vec![WORD], equality: false })).collect()
}

fn of_comment(comment: &Comment, catalog: &Catalog, relations: &[&Relation]) -> Vec<Column> {
    let mut columns = Vec::new();
    for relation in relations {
        for column in &relation.columns {
            if comment.column.as_ref().is_some_and(|named| **named != *column.name) {
                continue;
            }
            let now = catalog.sensitive(relation.oid, column.number);
            if changes(&comment.text, now, catalog.is_cleared(relation.oid, column.number)) {
                columns.push(Column {
                    id: Some((relation.oid, column.number)),
                    schema: relation.schema.clone(),
                    table: relation.name.clone(),
                    column: column.name.clone(),
                    kind: now.map_or(DataKind::Tagged, |now| now.kind),
                });
            }
        }
    }
    // Made since the catalog was read.
    if relations.is_empty() {
        let name = comment.column.as_deref().unwrap_or("*");
        let now = catalog.sensitive_by_name(&comment.relation, name);
        if changes(&comment.text, now.as_ref(), false) {
            columns.push(Column {
                id: None,
                schema: comment.schema.as_str().into(),
                table: comment.relation.as_str().into(),
                column: name.into(),
                kind: now.map_or(DataKind::Tagged, |now| now.kind),
            });
        }
    }
    columns
}

/// Whether a comment takes protection away from a column that is `now` sensitive, or not, or said to be nothing.
fn changes(text: &str, now: Option<&Sensitive>, cleared: bool) -> bool {
    match (said_in(text), now) {
        // Without a tag it takes away the one before.
        (None, now) => now.is_some_and(|now| now.evidence == Evidence::Comment),
        // Of what is not known to be sensitive values are looked at, up to now.
        (Some(None), _) => !cleared,
        (Some(Some(said)), Some(now)) => {
            said.kind != Some(now.kind) || said.tags.iter().any(|tag| !now.tags.contains(tag))
        }
        (Some(Some(_)), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_adds_protection_is_nobodys_concern() {
        let named = Sensitive::new(DataKind::Email, Evidence::Name);
        let commented = Sensitive::new(DataKind::Health, Evidence::Comment);
        for (text, now, cleared, expected) in [
            ("a note", None, false, false),
            ("a note", Some(&named), false, false),
            ("a note", Some(&commented), false, true),
            ("", Some(&commented), false, true),
            ("guard: none", Some(&named), false, true),
            ("guard: none", None, false, true),
            ("guard: none", None, true, false),
            ("a note", None, true, false),
            ("guard: email", None, false, false),
            ("guard: email", None, true, false),
            ("guard: email", Some(&named), false, false),
            ("guard: email, marketing", Some(&named), false, true),
            ("guard: phone", Some(&named), false, true),
            ("guard: pii", Some(&commented), false, true),
        ] {
            assert_eq!(changes(text, now, cleared), expected, "{text} {now:?} {cleared}");
        }
    }
}
