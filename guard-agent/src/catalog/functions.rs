//! Which functions of a database may read what is sensitive: their code enters, a word on each leaves.
//!
//! Code is not followed: a function that names a relation with sensitive columns, runs text that it puts together, or names
//! such a function, may show any of it. By name alone: of several functions of one name the worst counts.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Base, Mark};

/// Functions by name: true where one may show something sensitive.
pub(super) type Functions = HashMap<Arc<str>, bool, ahash::RandomState>;

/// Rounds in which what functions know of each other is passed on.
const ROUNDS: usize = 8;

/// Words of code that runs text put together elsewhere.
const DYNAMIC: [&str; 4] = ["execute", "spi_exec_query", "spi_query", "query_to_xml"];

/// What is known of the functions whose names and code these are.
pub(super) fn known(base: &Base, code: Vec<(Arc<str>, String)>) -> Functions {
    let sensitive: HashSet<String> = base
        .relations
        .values()
        .filter(|relation| !relation.is_system())
        .filter(|relation| relation.columns.iter().any(|column| matches!(column.mark, Mark::Sensitive(_))))
        .map(|relation| relation.name.to_lowercase())
        .collect();
    let mut functions = Functions::default();
    let code: Vec<(Arc<str>, String)> =
        code.into_iter().map(|(name, text)| (name, text.to_lowercase())).collect();
    for (name, text) in &code {
        let reads = words(text).any(|word| sensitive.contains(word) || DYNAMIC.contains(&word));
        *functions.entry(Arc::clone(name)).or_default() |= reads;
    }
    for _ in 0..ROUNDS {
        let mut changed = false;
        for (name, text) in &code {
            if functions.get(name) == Some(&false)
                && words(text).any(|word| functions.get(word) == Some(&true))
            {
                functions.insert(Arc::clone(name), true);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    functions
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == '$'))
        .filter(|word| !word.is_empty())
}
