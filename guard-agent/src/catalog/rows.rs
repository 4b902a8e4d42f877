//! Bodies of DataRow messages enter, what they say of the database leaves. A row that is none is left out and counted.

use super::{Oid, build::Facts, build::Key};

/// The fields of a row in text format.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Of the body of a DataRow.
    pub fn of(body: &'a [u8]) -> Option<Self> {
        body.get(2..).map(|rest| Self { rest })
    }

    /// The next field as text; `None` where there is none or it is no text. NULL is empty.
    pub fn text(&mut self) -> Option<std::borrow::Cow<'a, str>> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => {
                let (field, rest) = rest.split_at_checked(length)?;
                self.rest = rest;
                Some(String::from_utf8_lossy(field))
            }
            Err(_) => {
                self.rest = rest;
                Some("".into())
            }
        }
    }

    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.text()?.parse().ok()
    }

    fn letter(&mut self) -> Option<char> {
        Some(self.text()?.chars().next().unwrap_or(' '))
    }

    fn name(&mut self) -> Option<std::sync::Arc<str>> {
        Some(self.text()?.into())
    }

    fn numbers(&mut self) -> Option<Vec<i16>> {
        self.text()?.split(',').map(|number| number.parse().ok()).collect()
    }
}

/// Takes one row in.
pub fn take(body: &[u8], facts: &mut Facts) {
    if facts.bytes.saturating_add(body.len()) > facts.limits.bytes {
        facts.complete = false;
        return;
    }
    facts.bytes += body.len();
    if read(body, facts).is_none() {
        facts.complete = false;
    }
}

fn read(body: &[u8], facts: &mut Facts) -> Option<()> {
    let mut row = Fields::of(body)?;
    match row.letter()? {
        'r' => {
            let (oid, schema, name) = (row.number()?, row.name()?, row.name()?);
            let schema = facts.share(schema);
            facts.relation(oid, schema, name, row.letter()?);
        }
        'a' => {
            let (relation, number, name) = (row.number::<Oid>()?, row.number()?, row.name()?);
            let (type_oid, typmod) = (row.number()?, row.number()?);
            let generated = row.letter()? != ' ';
            let name = facts.share(name);
            facts.column(
                relation,
                super::ColumnInfo { number, name, type_oid, typmod, generated, mark: super::Mark::None },
            );
        }
        't' => {
            let (oid, name) = (row.number()?, row.name()?);
            let (kind, category) = (row.letter()?, row.letter()?);
            let (element, base, relation) = (row.number()?, row.number()?, row.number()?);
            facts.types.push((oid, super::Type { name, kind, category, element, base, relation }));
        }
        'd' => {
            let (relation, number) = (row.number()?, row.number()?);
            facts.comments.push((relation, number, row.text()?.into_owned()));
        }
        'k' => {
            let (from, to) = (row.number()?, row.number()?);
            facts.keys.push(Key {
                from,
                to,
                columns: row.numbers()?.into_iter().zip(row.numbers()?).collect(),
            });
        }
        'i' => facts.parents.push((row.number()?, row.number()?)),
        'g' => {
            let (relation, number) = (row.number()?, row.number()?);
            facts.generated.push((relation, number, row.text()?.into_owned()));
        }
        'v' => facts.definitions.push((row.number()?, row.text()?.into_owned())),
        'f' => facts.functions.push((row.name()?, row.text()?.into_owned())),
        // Answers to the settings.
        _ => {}
    }
    Some(())
}
