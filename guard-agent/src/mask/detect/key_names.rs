//! What keys of documents say, remembered: documents of one column have the same keys in every row.

use std::collections::HashMap;

use crate::mask::columns::{ColumnType, Named, by_name};

/// Keys that are remembered; when there are more, it starts anew.
const KEPT: usize = 512;
/// Longer keys are values that somebody uses as keys.
const LONGEST: usize = 64;

/// Names of keys and what they say.
#[derive(Debug, Default)]
pub struct KeyNames {
    known: HashMap<Box<str>, [Option<Named>; 4], ahash::RandomState>,
}

impl KeyNames {
    /// What the key says of a value that is text or a number, in a document that is about people or not.
    pub fn named(&mut self, key: &[u8], number: bool, people: bool) -> Named {
        let Some(key) = std::str::from_utf8(key).ok().filter(|key| key.len() <= LONGEST) else {
            return Named::Plain;
        };
        let at = usize::from(number) * 2 + usize::from(people);
        if let Some(Some(named)) = self.known.get(key).map(|names| names[at]) {
            return named;
        }
        let table = if people { "people" } else { "" };
        let ty = if number { ColumnType::Integer } else { ColumnType::Text };
        let named = by_name(table, key, ty);
        if self.known.len() >= KEPT {
            self.known.clear();
        }
        self.known.entry(key.into()).or_default()[at] = Some(named);
        named
    }
}
