//! The code of users' functions enters; which relations each may read leaves.
//!
//! Whatever the language: a relation's name among the words of the code is taken for reading it, and so is the name of
//! another function that does. Code that puts names together at run time is not seen through.

use std::{collections::HashMap, sync::Arc};

use super::{Base, Oid};

/// Relations by the names of functions.
pub type Functions = HashMap<Arc<str>, Vec<Oid>, ahash::RandomState>;

/// Functions that call functions that call functions.
const MAX_ROUNDS: usize = 8;

/// Most relations of one function: one that names more reads everything, as far as anybody can tell.
const MAX_RELATIONS: usize = 256;

/// What functions read, by the texts of their code.
pub fn read(base: &Base, texts: Vec<(Arc<str>, String)>) -> Functions {
    let mut functions = Functions::default();
    let names: std::collections::HashSet<Arc<str>> = texts.iter().map(|(name, _)| Arc::clone(name)).collect();
    let mut calls: HashMap<Arc<str>, Vec<Arc<str>>> = HashMap::new();
    for (name, text) in &texts {
        let relations = functions.entry(Arc::clone(name)).or_default();
        for word in words(text) {
            let own = base.by_name.get(word.as_str()).into_iter().flatten();
            relations.extend(own.filter(|oid| {
                base.relations.get(oid).is_some_and(|relation| relation.kind != 'c' && !relation.is_system())
            }));
            if let Some(called) = names.get(word.as_str()).filter(|called| *called != name) {
                calls.entry(Arc::clone(name)).or_default().push(Arc::clone(called));
            }
        }
        tidy(relations);
    }
    for _ in 0..MAX_ROUNDS {
        let mut grown = false;
        for (name, called) in &calls {
            let theirs: Vec<Oid> =
                called.iter().filter_map(|called| functions.get(called)).flatten().copied().collect();
            let Some(relations) = functions.get_mut(name) else { continue };
            let before = relations.len();
            relations.extend(theirs);
            tidy(relations);
            grown |= relations.len() > before;
        }
        if !grown {
            break;
        }
    }
    functions.retain(|_, relations| !relations.is_empty());
    functions
}

fn tidy(relations: &mut Vec<Oid>) {
    relations.sort_unstable();
    relations.dedup();
    relations.truncate(MAX_RELATIONS);
}

/// Words as they are, and as the server folds them.
fn words(text: &str) -> impl Iterator<Item = String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let plain = text.split(move |c| !is_part(c)).filter(|word| !word.is_empty());
    let quoted = text.split('"').skip(1).step_by(2).filter(|word| !word.is_empty());
    plain.map(str::to_lowercase).chain(quoted.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::sample;

    #[test]
    fn functions_read_what_their_code_names() {
        let rows = sample::rows_of("1 public.customers r: email text\n2 public.Odd r: x text\n");
        let database = sample::database(Vec::new());
        sample::read(&database, &rows, &[]);
        let texts = [
            ("direct", "SELECT email FROM Customers"),
            ("indirect", "BEGIN RETURN direct(); END"),
            ("twice", "return indirect() || indirect()"),
            ("quoted", "select * from \"Odd\""),
            ("self", "select self()"),
            ("none", "select 1 from customers_2"),
        ];
        let texts = texts.map(|(name, text)| (Arc::from(name), text.to_owned())).to_vec();
        let found = read(&database.catalog().base, texts);
        let of = |name: &str| found.get(name).cloned().unwrap_or_default();
        assert_eq!((of("direct"), of("indirect"), of("twice")), (vec![1], vec![1], vec![1]));
        assert_eq!((of("quoted"), of("self"), of("none")), (vec![2], vec![], vec![]));
    }
}
