//! What keys of documents say, remembered: documents of one column have the same keys in every row.

use std::collections::HashMap;

use guard_policy::vocabulary::DataKind;

use crate::mask::columns::{
    ColumnType, Named, by_name,
    lexicon::{self, set},
};

/// Keys that are remembered; when there are more, it starts anew.
const KEPT: usize = 512;
/// Longer keys are values that somebody uses as keys.
const LONGEST: usize = 64;

/// By key, what it says of each sort of value.
type Known = HashMap<Box<str>, [Option<Named>; 5], ahash::RandomState>;

/// Names of keys and what they say.
#[derive(Debug, Default)]
pub struct KeyNames {
    /// Made when the first is remembered: most cells have no keys, and hashing needs a seed.
    known: Option<Box<Known>>,
}

impl KeyNames {
    /// What the key says of a value that is text or a number, in a document that is about people or not.
    pub fn named(&mut self, key: &[u8], number: bool, people: bool) -> Named {
        let Some(key) = std::str::from_utf8(key).ok().filter(|key| key.len() <= LONGEST) else {
            return Named::Plain;
        };
        let table = if people { "people" } else { "" };
        let ty = if number { ColumnType::Integer } else { ColumnType::Text };
        self.remembered(key, usize::from(number) * 2 + usize::from(people), || by_name(table, key, ty))
    }

    /// What the name before a sign says of the value behind it, in a text: `pass=..`, `AccountKey=..`.
    pub fn assigned(&mut self, name: &str) -> Named {
        self.remembered(name, 4, || {
            let found = by_name("", name, ColumnType::Text);
            let word = name.to_ascii_lowercase();
            match found {
                Named::Plain if matches!(word.as_str(), "accountkey" | "sharedaccesskey") => {
                    Named::Sensitive(DataKind::CloudKey)
                }
                Named::Plain if lexicon::exactly(&word) & set!(PasswordMaybe) != 0 => {
                    Named::Sensitive(DataKind::Password)
                }
                found => found,
            }
        })
    }

    fn remembered(&mut self, key: &str, at: usize, find: impl FnOnce() -> Named) -> Named {
        let known = self.known.get_or_insert_default();
        if let Some(Some(named)) = known.get(key).map(|names| names[at]) {
            return named;
        }
        let named = find();
        if known.len() >= KEPT {
            known.clear();
        }
        known.entry(key.into()).or_default()[at] = Some(named);
        named
    }
}
