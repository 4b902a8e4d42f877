//! What names mean at one place of a query: tables and columns of its FROM, of the queries around it, and of its WITH.

use std::cell::RefCell;

use super::value::Value;
use crate::sql::postgres::reference::At;

/// A column of something in a FROM, or of a result.
#[derive(Clone, Debug, Default)]
pub struct Field<'w> {
    /// Its name.
    pub name: &'w str,
    /// What it shows.
    pub value: Value,
}

/// The columns of a query, a table, or a function.
#[derive(Clone, Debug, Default)]
pub struct Rows<'w> {
    /// Those that are known, in order.
    pub fields: Vec<Field<'w>>,
    /// There are others, or in another order.
    pub open: Option<Open<'w>>,
}

/// Columns that are not known.
#[derive(Clone, Debug)]
pub enum Open<'w> {
    /// Of a relation that the catalog lacks.
    Relation(&'w str),
    /// Each of them shows this.
    Showing(Value),
}

impl<'w> Rows<'w> {
    /// What cannot be followed.
    pub fn lost() -> Self {
        Self { fields: Vec::new(), open: Some(Open::Showing(Value::lost())) }
    }

    /// Nothing but columns that all show the same.
    pub fn showing(value: Value) -> Self {
        Self { fields: Vec::new(), open: Some(Open::Showing(value)) }
    }

    /// All of it as one value, as a whole-row reference shows it.
    pub fn whole(&self) -> Value {
        let mut whole = Value { changed: true, ..Value::default() };
        for field in &self.fields {
            whole.add(&field.value);
        }
        match &self.open {
            Some(Open::Showing(value)) => whole.add(value),
            Some(Open::Relation(_)) => {
                whole.lost = true;
                whole.opaque = true;
            }
            None => {}
        }
        whole
    }

    /// Gives the first columns other names.
    pub fn rename(&mut self, names: impl Iterator<Item = &'w str>) {
        for (index, name) in names.enumerate() {
            match self.fields.get_mut(index) {
                Some(field) => field.name = name,
                None => {
                    // Which of the columns it is is not known: any. (Lists of literals may have been shortened.)
                    let value = self.whole();
                    self.fields.push(Field { name, value });
                }
            }
        }
    }
}

/// Something in a FROM that has a name.
#[derive(Clone, Debug)]
pub struct Table<'w> {
    /// Schema; empty where it cannot be written before the name.
    pub schema: &'w str,
    /// The name by which the query knows it.
    pub name: &'w str,
    /// Its columns.
    pub rows: Rows<'w>,
}

/// A FROM, or a part of it.
#[derive(Clone, Debug, Default)]
pub struct From<'w> {
    /// What names before a dot may mean.
    pub tables: Vec<Table<'w>>,
    /// What names alone may mean, and `*`.
    pub columns: Vec<Field<'w>>,
    /// Columns that are not known are among them, of each of these.
    pub open: Vec<Open<'w>>,
}

impl<'w> From<'w> {
    /// One table.
    pub fn table(schema: &'w str, name: &'w str, rows: Rows<'w>) -> Self {
        Self {
            columns: rows.fields.clone(),
            open: rows.open.iter().cloned().collect(),
            tables: vec![Table { schema, name, rows }],
        }
    }

    /// What cannot be followed.
    pub fn lost() -> Self {
        Self { open: vec![Open::Showing(Value::lost())], ..Self::default() }
    }

    /// One after the other.
    pub fn append(&mut self, other: Self) {
        self.tables.extend(other.tables);
        self.columns.extend(other.columns);
        self.open.extend(other.open);
    }

    /// All of its columns as `*` lists them.
    pub fn rows(&self) -> Rows<'w> {
        Rows { fields: self.columns.clone(), open: self.open.first().cloned().map(|_| self.unknown()) }
    }

    /// What any column shows that is not known.
    fn unknown(&self) -> Open<'w> {
        match self.open.as_slice() {
            [only] => only.clone(),
            several => {
                let mut value = Value::default();
                for open in several {
                    value.add(&Rows { fields: Vec::new(), open: Some(open.clone()) }.whole());
                }
                Open::Showing(value)
            }
        }
    }
}

/// What names mean at one place.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'s, 'w> {
    /// The FROM.
    pub from: Option<&'s From<'w>>,
    /// The WITH, and how many of its queries can be seen.
    pub with: Option<(&'s With<'w>, usize)>,
    /// The place around it.
    pub outer: Option<&'s Scope<'s, 'w>>,
}

impl<'s, 'w> Scope<'s, 'w> {
    /// Where nothing has a name.
    pub const EMPTY: Self = Scope { from: None, with: None, outer: None };

    /// From the innermost outwards.
    pub fn around(&'s self) -> impl Iterator<Item = &'s Scope<'s, 'w>> + Clone {
        std::iter::successors(Some(self), |scope| scope.outer)
    }
}

/// The queries of a WITH.
#[derive(Debug)]
pub struct With<'w> {
    /// Each with its name.
    pub queries: Vec<At<'w>>,
    /// What is known of each so far.
    pub known: RefCell<Vec<Known<'w>>>,
    /// All of them see all of them.
    pub recursive: bool,
}

/// What is known of a query of a WITH.
#[derive(Clone, Debug)]
pub enum Known<'w> {
    /// Nothing yet.
    Nothing,
    /// So much, while it is being read.
    SoFar(Rows<'w>),
    /// All.
    All(Rows<'w>),
}
