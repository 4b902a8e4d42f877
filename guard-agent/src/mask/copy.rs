//! What a `COPY .. TO STDOUT` writes: the statement and the catalog enter; its columns with their types, and how they are
//! written, leave.

use crate::{
    catalog::Catalog,
    decide::Session,
    mask::rewrite::{CopyFormat, CopyOptions, Settings},
    sql::{
        Statement,
        copy::{self, CopyOut, TextForm},
    },
    wire::postgres::FieldDescription,
};

/// What the server says of the data.
#[derive(Clone, Copy, Debug)]
pub struct CopyForm {
    /// In the binary format.
    pub binary: bool,
    /// Number of columns.
    pub columns: usize,
}

/// A COPY to the client.
#[derive(Debug)]
pub struct Copy {
    options: CopyOptions,
    columns: Vec<Described>,
    encoding: Option<String>,
}

#[derive(Debug)]
struct Described {
    name: Box<str>,
    relation: u32,
    attribute: i16,
    type_oid: u32,
    modifier: i32,
}

/// The OID of `text`: what stands for a type that nobody knows, in data that is text anyway.
const TEXT: u32 = 25;

/// Reads the statement at `part` of `statement`; `None` where it is no COPY that can be followed.
pub fn read(statement: &Statement, part: usize, catalog: &Catalog, session: &Session) -> Option<Copy> {
    let CopyOut { form, relation, columns } = copy::read(statement, part)?;
    let format = match (form.binary, form.csv) {
        (true, _) => CopyFormat::Binary,
        (false, true) => CopyFormat::Csv,
        (false, false) => CopyFormat::Text,
    };
    let TextForm { delimiter, null, quote, escape, header, encoding, .. } = form;
    let options = CopyOptions { format, delimiter, null, quote, escape, header };
    let columns = match relation {
        None => Vec::new(),
        Some((schema, name)) => {
            let path = session.path_within(statement);
            let found = catalog.find(&schema, &name, &path, &session.db_user);
            match found.relations.as_slice() {
                [relation] => {
                    let wanted =
                        |name: &str| columns.is_empty() || columns.iter().any(|column| **column == *name);
                    let mut own: Vec<_> = relation
                        .columns
                        .iter()
                        .filter(|column| column.number > 0 && wanted(&column.name))
                        .filter(|column| !column.generated || !columns.is_empty())
                        .collect();
                    own.sort_by_key(|own| {
                        (columns.iter().position(|column| **column == *own.name), own.number)
                    });
                    own.into_iter()
                        .map(|column| Described {
                            name: (&*column.name).into(),
                            relation: relation.oid,
                            attribute: column.number,
                            type_oid: column.type_oid,
                            modifier: column.typmod,
                        })
                        .collect()
                }
                _ => Vec::new(),
            }
        }
    };
    Some(Copy { options, columns, encoding })
}

impl Copy {
    /// The columns of the data; where they are not known, texts without a name.
    pub fn describe(&self, form: CopyForm) -> Vec<FieldDescription<'_>> {
        let known = self.columns.len() == form.columns;
        let format = i16::from(form.binary);
        (0..form.columns)
            .map(|at| match self.columns.get(at).filter(|_| known) {
                Some(column) => FieldDescription {
                    name: column.name.as_bytes(),
                    table: column.relation,
                    column: column.attribute,
                    type_oid: column.type_oid,
                    type_size: -1,
                    type_modifier: column.modifier,
                    format,
                },
                None => FieldDescription {
                    name: b"?column?",
                    table: 0,
                    column: 0,
                    // In binary data nothing can stand for it but NULL.
                    type_oid: if form.binary { 0 } else { TEXT },
                    type_size: -1,
                    type_modifier: -1,
                    format,
                },
            })
            .collect()
    }

    /// What the form of its values depends on, in a session with these settings.
    pub fn settings(&self, session: Settings) -> Settings {
        self.encoding.as_deref().map_or(session, |encoding| session.in_encoding(encoding))
    }

    /// How the data is written. The server's word on whether it is binary counts.
    pub fn options(&self, form: CopyForm) -> CopyOptions {
        if form.binary { CopyOptions::of(CopyFormat::Binary) } else { self.options.clone() }
    }
}
