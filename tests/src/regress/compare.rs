//! Two runs of one suite beside each other.
//!
//! Enters: how the suite went straight to the server, and through a proxy. Leaves: the tests whose outcome or whose output
//! differs. It never judges by PostgreSQL's expected output alone: some tests fail without any proxy.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};

use super::Outcome;

/// What differs between two runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Tests that failed in one run only, or ran in one only.
    pub outcomes: BTreeSet<String>,
    /// Files that are not the same, byte by byte.
    pub files: BTreeSet<String>,
}

impl Comparison {
    /// Compares two runs.
    pub fn of(direct: &Outcome, proxied: &Outcome) -> Result<Self> {
        let ran = direct.tests.symmetric_difference(&proxied.tests);
        let failed = direct.failed.symmetric_difference(&proxied.failed);
        let outcomes = ran.chain(failed).cloned().collect();
        Ok(Self { outcomes, files: differing(&direct.results, &proxied.results)? })
    }

    /// Whether nothing differs.
    pub fn is_clean(&self) -> bool {
        self.outcomes.is_empty() && self.files.is_empty()
    }

    /// What differs here and in `other`, too: what differs once differs by chance.
    pub fn both(&self, other: &Self) -> Self {
        let common =
            |one: &BTreeSet<String>, two: &BTreeSet<String>| one.intersection(two).cloned().collect();
        Self { outcomes: common(&self.outcomes, &other.outcomes), files: common(&self.files, &other.files) }
    }
}

/// The names of files that are not the same in both folders, or in one only.
pub fn differing(one: &Path, two: &Path) -> Result<BTreeSet<String>> {
    let (names, others) = (names(one)?, names(two)?);
    let mut differing = BTreeSet::new();
    for name in names.union(&others) {
        // A file that is not there is no file with nothing in it.
        if fs::read(one.join(name)).ok() != fs::read(two.join(name)).ok() {
            differing.insert(name.clone());
        }
    }
    Ok(differing)
}

fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Folder;

    #[test]
    fn files_that_differ_or_are_missing_are_named() {
        let (one, two) = (Folder::new("one").unwrap(), Folder::new("two").unwrap());
        for (folder, name, text) in
            [(&one, "same", "1"), (&two, "same", "1"), (&one, "other", "1"), (&two, "other", "2")]
        {
            folder.write(name, text).unwrap();
        }
        two.write("only", "").unwrap();
        let differing = differing(one.path(), two.path()).unwrap();
        assert_eq!(differing.iter().map(String::as_str).collect::<Vec<_>>(), ["only", "other"]);
    }

    #[test]
    fn what_differs_once_is_chance() {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let first = Comparison { outcomes: set(&["a", "b"]), files: set(&["x"]) };
        let second = Comparison { outcomes: set(&["b", "c"]), files: set(&["y"]) };
        assert_eq!(first.both(&second), Comparison { outcomes: set(&["b"]), files: set(&[]) });
        assert!(!first.is_clean() && Comparison::default().is_clean());
    }
}
