//! What a database's own catalogue says enters through a session's connection; which columns are sensitive, and where
//! names lead, leaves.
//!
//! Read by any role, shared between the sessions of one database, never waited for: a session without a catalog, or with
//! one that lacks a relation, is told so and takes care. Keeps names and definitions, never a row's values.

mod build;
mod builtin;
mod code;
mod database;
mod derive;
mod queries;
mod reader;
mod rows;
mod tags;

#[cfg(test)]
pub mod sample;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
};

use guard_policy::vocabulary::DataKind;

pub use build::{Facts, Limits};
pub use database::{Catalogs, Database, Health, Settings};
pub use reader::{Progress, Reader};
pub(crate) use tags::said_in;
pub use tags::{ColumnTag, Pattern, TagError};

use crate::sql::SearchPath;

/// An object's identifier in the database.
pub type Oid = u32;

/// One reading of a database's catalogue, with what has been learned since. Immutable, cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog {
    base: Arc<Base>,
    learned: Arc<Learned>,
    names: Arc<dyn Names>,
    version: u64,
}

/// What names of columns say.
pub trait Names: Send + Sync + std::fmt::Debug {
    /// What a column of this name holds, where its name tells.
    fn kind(&self, table: &str, column: &str, ty: &TypeShape<'_>) -> Option<DataKind>;
}

/// A column's type, as far as names are judged by it.
#[derive(Clone, Copy, Debug, Default)]
pub struct TypeShape<'a> {
    /// OID; of domains that of what they are made of, of arrays that of their elements; 0 where it is not known.
    pub oid: Oid,
    /// Its name, such as `hstore` or `citext`.
    pub name: &'a str,
    /// `typcategory`: `S` strings, `N` numbers, `D` dates, `B` booleans, ..; `?` where it is not known.
    pub category: char,
}

/// What has been read at once.
#[derive(Debug, Default)]
struct Base {
    relations: HashMap<Oid, Relation, ahash::RandomState>,
    by_name: HashMap<Arc<str>, Vec<Oid>, ahash::RandomState>,
    types: HashMap<Oid, Type, ahash::RandomState>,
    /// Relations that users' functions of a name have in their code.
    functions: HashMap<Arc<str>, Vec<Oid>, ahash::RandomState>,
    /// Every name that a column has, and those of schemas.
    columns: HashSet<Arc<str>, ahash::RandomState>,
    /// Nothing was left out, and there was a reading at all.
    complete: bool,
}

/// What statements were seen to write where, and what was sensitive before it was renamed.
#[derive(Clone, Debug, Default)]
struct Learned {
    by_id: HashMap<(Oid, i16), Sensitive, ahash::RandomState>,
    /// Of relations that the catalog does not know yet: by relation, by column.
    by_name: HashMap<Box<str>, HashMap<Box<str>, Sensitive>, ahash::RandomState>,
}

/// A table, a view, or anything else with columns.
#[derive(Debug)]
pub struct Relation {
    /// Identifier.
    pub oid: Oid,
    /// Schema.
    pub schema: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// `relkind`: `r` table, `p` partitioned table, `v` view, `m` materialised view, `f` foreign table, `c` type.
    pub kind: char,
    /// Columns that are there, by their numbers.
    pub columns: Vec<ColumnInfo>,
}

/// A column of a relation.
#[derive(Debug)]
pub struct ColumnInfo {
    /// `attnum`.
    pub number: i16,
    /// Name.
    pub name: Arc<str>,
    /// Type.
    pub type_oid: Oid,
    /// The type's modifier; -1 without one.
    pub typmod: i32,
    /// Computed from other columns.
    pub generated: bool,
    mark: Mark,
}

/// What is known of a column's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Mark {
    /// Nothing.
    #[default]
    None,
    /// Somebody said that it is not sensitive.
    Cleared,
    /// It is sensitive.
    Sensitive(Box<Sensitive>),
}

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    /// Name.
    pub name: Arc<str>,
    /// `typtype`: `b` base, `c` composite, `d` domain, `e` enum, `r` range, `m` multirange, `p` pseudo.
    pub kind: char,
    /// `typcategory`.
    pub category: char,
    /// Of arrays: the elements' type; 0 for others.
    pub element: Oid,
    /// Of domains: what they are made of; 0 for others.
    pub base: Oid,
    /// Of composites: the relation that has the fields; 0 for others.
    pub relation: Oid,
}

/// Why a column counts as sensitive, best evidence first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Evidence {
    /// The agent's configuration says so.
    Configured,
    /// A comment in the database says so: `guard: email`.
    Comment,
    /// Known of PostgreSQL's own catalogue.
    BuiltIn,
    /// A statement wrote a sensitive column's values into it, or it was renamed.
    Learned,
    /// It is a column of a view, or generated, and shows a sensitive column.
    Derived,
    /// It refers to a sensitive column, or its table inherits from one that has it.
    Related,
    /// Its name says so.
    Name,
    /// Many of its values, seen in results, agree.
    Values,
}

impl Evidence {
    /// Its word in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Comment => "comment",
            Self::BuiltIn => "built-in",
            Self::Learned => "learned",
            Self::Derived => "derived",
            Self::Related => "related",
            Self::Name => "column name",
            Self::Values => "values",
        }
    }
}

/// What makes a column sensitive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensitive {
    /// What it holds.
    pub kind: DataKind,
    /// Tags beside those of the kind.
    pub tags: Vec<Box<str>>,
    /// How that is known.
    pub evidence: Evidence,
}

impl Sensitive {
    /// Of this kind, by this evidence.
    pub fn new(kind: DataKind, evidence: Evidence) -> Self {
        Self { kind, tags: Vec::new(), evidence }
    }

    /// All tags: those of the kind, and those that a tag of the column names.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.kind.tags().iter().copied().chain(self.tags.iter().map(AsRef::as_ref))
    }
}

/// Where a name leads.
#[derive(Clone, Debug, Default)]
pub struct Found<'a> {
    /// Relations that it may mean; more than one where the search path is not known for certain.
    pub relations: Vec<&'a Relation>,
}

/// Recognises a catalog.
#[derive(Clone, Debug)]
pub struct CatalogMark {
    // It keeps the address, not what is there: no other catalog can ever have it.
    base: Weak<Base>,
    version: u64,
}

impl CatalogMark {
    /// Whether it was made of this catalog, or one that says the same.
    pub fn is_of(&self, catalog: &Catalog) -> bool {
        self.version == catalog.version && std::ptr::eq(self.base.as_ptr(), Arc::as_ptr(&catalog.base))
    }
}

impl Catalog {
    /// Of a database that has not been read yet.
    pub fn empty(names: Arc<dyn Names>) -> Self {
        Self { base: Arc::default(), learned: Arc::default(), names, version: 0 }
    }

    /// Differs between catalogs of one database that say different things.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// For recognising it later, without keeping it.
    pub fn mark(&self) -> CatalogMark {
        CatalogMark { base: Arc::downgrade(&self.base), version: self.version }
    }

    /// Whether everything of the database was read: a relation that is lacking was made since.
    pub fn is_complete(&self) -> bool {
        self.base.complete
    }

    /// What makes the column sensitive; `None` where nothing does, or it is not known.
    pub fn sensitive(&self, relation: Oid, number: i16) -> Option<&Sensitive> {
        let learned = || self.learned.by_id.get(&(relation, number));
        match self.column(relation, number).map(|column| &column.mark) {
            Some(Mark::Sensitive(sensitive)) => Some(sensitive),
            Some(Mark::Cleared) => None,
            Some(Mark::None) | None => learned(),
        }
    }

    /// Somebody said that the column is not sensitive: its values need no second look.
    pub fn is_cleared(&self, relation: Oid, number: i16) -> bool {
        self.column(relation, number).is_some_and(|column| column.mark == Mark::Cleared)
    }

    /// What makes a column of a relation sensitive that the catalog does not know.
    pub fn sensitive_by_name(&self, table: &str, column: &str) -> Option<Sensitive> {
        let learned = self.learned.by_name.get(table);
        let learned = learned.and_then(|columns| columns.get(column).or_else(|| columns.get("*")));
        let built_in = || builtin::kind(table, column).map(|kind| Sensitive::new(kind, Evidence::BuiltIn));
        learned.cloned().or_else(built_in).or_else(|| {
            let shape = TypeShape { category: '?', ..TypeShape::default() };
            self.names.kind(table, column, &shape).map(|kind| Sensitive::new(kind, Evidence::Name))
        })
    }

    /// What was learned of the columns of a relation that the catalog does not know.
    pub fn learned_of(&self, table: &str) -> impl Iterator<Item = (&str, &Sensitive)> {
        let columns = self.learned.by_name.get(table).into_iter().flatten();
        columns.map(|(column, sensitive)| (column.as_ref(), sensitive))
    }

    /// A relation by its identifier.
    pub fn relation(&self, oid: Oid) -> Option<&Relation> {
        self.base.relations.get(&oid)
    }

    /// A column by its relation and number.
    pub fn column(&self, relation: Oid, number: i16) -> Option<&ColumnInfo> {
        self.relation(relation)?.by_number(number)
    }

    /// A type by its identifier; built-in ones too, once the catalog has been read.
    pub fn type_of(&self, oid: Oid) -> Option<&Type> {
        self.base.types.get(&oid)
    }

    /// Relations that a name may mean.
    pub fn find(&self, schema: &str, name: &str, path: &SearchPath, user: &str) -> Found<'_> {
        let all = self.base.by_name.get(name).map_or(&[][..], Vec::as_slice);
        let all = all.iter().filter_map(|oid| self.relation(*oid)).filter(|relation| relation.kind != 'c');
        if !schema.is_empty() {
            let temporary = schema == "pg_temp";
            let fits =
                |relation: &&Relation| *relation.schema == *schema || (temporary && relation.is_temporary());
            return Found { relations: all.filter(fits).collect() };
        }
        let mut relations: Vec<&Relation> = all.collect();
        if relations.len() > 1 {
            let known = |schema: &str| schema == "pg_catalog" || schema.starts_with("pg_temp");
            match path {
                SearchPath::Initial => {
                    keep(&mut relations, |schema| known(schema) || schema == user || schema == "public");
                }
                SearchPath::Schemas(path) => {
                    keep(&mut relations, |schema| known(schema) || path.iter().any(|one| one == schema));
                }
                SearchPath::Unknown => {}
            }
        }
        Found { relations }
    }

    /// Relations that users' functions of this name have in their code.
    pub fn read_by_function(&self, name: &str) -> impl Iterator<Item = &Relation> {
        let relations = self.base.functions.get(name).into_iter().flatten();
        relations.filter_map(|oid| self.relation(*oid))
    }

    /// Whether any relation or composite type may have a column of this name.
    pub fn has_column_named(&self, name: &str) -> bool {
        self.base.columns.contains(name)
    }

    /// Relations, in no order.
    pub fn relations(&self) -> impl Iterator<Item = &Relation> {
        self.base.relations.values()
    }

    /// Sensitive columns of a relation.
    pub fn sensitive_columns<'a>(
        &'a self,
        relation: &'a Relation,
    ) -> impl Iterator<Item = (&'a ColumnInfo, &'a Sensitive)> {
        relation.columns.iter().filter_map(|column| {
            self.sensitive(relation.oid, column.number).map(|sensitive| (column, sensitive))
        })
    }
}

/// Leaves those of the path, all of them where it has none: the server looks somewhere else than is known here.
fn keep(relations: &mut Vec<&Relation>, on_path: impl Fn(&str) -> bool) {
    if relations.iter().any(|relation| on_path(&relation.schema)) {
        relations.retain(|relation| on_path(&relation.schema));
    }
}

impl Relation {
    /// A column by its number.
    pub fn by_number(&self, number: i16) -> Option<&ColumnInfo> {
        let index = self.columns.binary_search_by_key(&number, |column| column.number).ok()?;
        self.columns.get(index)
    }

    /// A column by its name.
    pub fn by_name(&self, name: &str) -> Option<&ColumnInfo> {
        self.columns.iter().find(|column| *column.name == *name)
    }

    /// Whether it belongs to the server rather than to its users.
    pub fn is_system(&self) -> bool {
        matches!(&*self.schema, "pg_catalog" | "information_schema")
    }

    fn is_temporary(&self) -> bool {
        self.schema.starts_with("pg_temp")
    }
}

impl ColumnInfo {
    /// What makes it sensitive, what was learned since the reading aside.
    pub fn sensitive(&self) -> Option<&Sensitive> {
        match &self.mark {
            Mark::Sensitive(sensitive) => Some(sensitive),
            Mark::None | Mark::Cleared => None,
        }
    }
}
