//! A small catalog for tests, put together from rows as a server sends them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use guard_policy::vocabulary::DataKind;

use super::{Catalogs, Database, Limits, Names, Pattern, Settings, TypeShape, rows};

/// Knows a few names.
#[derive(Debug)]
pub struct FewNames;

impl Names for FewNames {
    fn kind(&self, table: &str, column: &str, ty: &TypeShape<'_>) -> Option<DataKind> {
        let text = matches!(ty.category, 'S' | '?' | 'U');
        match column {
            "email" | "e_mail" if text => Some(DataKind::Email),
            "phone" if text => Some(DataKind::Phone),
            "ssn" => Some(DataKind::NationalId),
            "salary" => Some(DataKind::Income),
            "called" if table == "people" => Some(DataKind::PersonName),
            "religious" => Some(DataKind::Special),
            _ => None,
        }
    }
}

/// Relations: `oid schema.name kind: column type, ..`. Types: text, int4, bool, jsonb, _text.
pub const SHOP: &str = "
16400 public.customers r: id int4, name text, email text, phone text, ssn text, religious bool, note text, data jsonb
16401 public.orders r: id int4, customer int4, total int4, note text
16402 public.staff r: id int4, email text, salary int4, boss int4
16403 hr.people r: id int4, email text, ssn text
16404 public.plain r: id int4, a text, b text
16405 public.contacts v: id int4, contact text
16406 public.staff_copy r: id int4, note text
11000 pg_catalog.pg_class r: oid int4, relname text
11001 pg_catalog.pg_stats v: tablename text, attname text, most_common_vals text
11002 pg_catalog.pg_authid r: oid int4, rolname text, rolpassword text
";

const TYPES: [(u32, &str, char, u32); 5] = [
    (25, "text", 'S', 0),
    (23, "int4", 'N', 0),
    (16, "bool", 'B', 0),
    (3802, "jsonb", 'U', 0),
    (1009, "_text", 'A', 25),
];

/// The body of a DataRow.
pub fn row(fields: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
    for field in fields {
        body.extend_from_slice(&u32::try_from(field.len()).unwrap().to_be_bytes());
        body.extend_from_slice(field.as_bytes());
    }
    body
}

/// Rows that describe the relations of a text like [`SHOP`].
pub fn rows_of(text: &str) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = TYPES
        .iter()
        .map(|(oid, name, category, element)| {
            let (oid, category, element) = (oid.to_string(), category.to_string(), element.to_string());
            row(&["t", &oid, name, "b", &category, &element, "0", "0"])
        })
        .collect();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (head, columns) = line.split_once(':').unwrap();
        let [oid, name, kind] = head.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let (schema, name) = name.split_once('.').unwrap();
        all.push(row(&["r", oid, schema, name, kind]));
        for (index, column) in columns.split(',').enumerate() {
            let (name, ty) = column.trim().split_once(' ').unwrap();
            let (ty, generated) = ty.split_once(' ').map_or((ty, ""), |(ty, _)| (ty, "s"));
            let ty = TYPES.iter().find(|known| known.1 == ty).unwrap().0.to_string();
            all.push(row(&["a", oid, &(index + 1).to_string(), name, &ty, "-1", generated]));
        }
    }
    all
}

/// A database that was never read.
pub fn database(patterns: Vec<Pattern>) -> Arc<Database> {
    let settings =
        Settings { interval: Duration::from_secs(300), limits: Limits::default(), names: Arc::new(FewNames) };
    Catalogs::new(settings, HashMap::from([("s".to_owned(), patterns)])).database("s", "d")
}

/// Lets a database be read: the first answer, then that to the definitions of views where they are asked for.
pub fn read(database: &Arc<Database>, facts: &[Vec<u8>], definitions: &[Vec<u8>]) {
    use super::Progress;
    database.changed();
    let later = std::time::Instant::now() + Duration::from_secs(1000);
    let mut reader = database.begin(later).expect("due");
    assert_eq!(reader.request().first(), Some(&b'Q'));
    for row in facts {
        assert_eq!(reader.on_message(b'D', row), Progress::Wait);
    }
    if reader.on_message(b'Z', b"I") != Progress::Done {
        for row in definitions {
            assert_eq!(reader.on_message(b'D', row), Progress::Wait);
        }
        assert_eq!(reader.on_message(b'Z', b"I"), Progress::Done);
    }
}

/// The shop, with its view.
pub fn shop() -> Arc<Database> {
    let database = database(Vec::new());
    let view = row(&["v", "16405", " SELECT id, email AS contact FROM public.customers;"]);
    read(&database, &rows_of(SHOP), &[view]);
    database
}

#[test]
fn rows_are_read_as_they_are_written() {
    let body = row(&["r", "", "x"]);
    let mut fields = rows::Fields::of(&body).unwrap();
    let texts: Vec<_> = std::iter::from_fn(|| fields.text()).collect();
    assert_eq!(texts, ["r", "", "x"]);
}
