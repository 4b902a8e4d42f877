//! What decisions are about, as far as people search for it: kept once for all that are alike.
//!
//! Rows of a batch enter, the distinct matters among them leave. An application asks the same few hundred things over and over:
//! looking through the matters is quick where looking through the records is not.

use std::{collections::HashMap, hash::Hasher};

use guard_common::audit::chain::Hash;
use sha2::{Digest, Sha256};

use super::row::{Columns, Row, kind};

/// Between the words of a matter: a search does not reach over it by chance.
const BETWEEN: char = '\u{1f}';

/// What one or many decisions are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matter {
    /// Of everything below: what has the same is the same.
    pub digest: Hash,
    /// See [`super::row::kind`].
    pub kind: i64,
    /// As in `Decision.verdict`; 0 for what is no decision.
    pub verdict: i32,
    /// As in `ConnectionOpened.access`.
    pub access: Option<i32>,
    /// The policy that decided.
    pub policy: String,
    /// Statement, executable, user, policy and workload.
    pub words: String,
}

impl Matter {
    /// What a record is about; nothing where nobody looks for it by words.
    pub fn of(columns: &Columns) -> Option<Self> {
        if !is_looked_for(columns) {
            return None;
        }
        let verdict = columns.verdict.unwrap_or_default();
        let texts = texts(columns).map(|text| text.map_or("", String::as_str));
        let mut hasher = Sha256::new();
        for number in [columns.kind, verdict.into(), columns.access.map_or(-1, i64::from)] {
            hasher.update(number.to_be_bytes());
        }
        for text in texts {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text);
        }
        Some(Self {
            digest: hasher.finalize().into(),
            kind: columns.kind,
            verdict,
            access: columns.access,
            policy: columns.policy.clone().unwrap_or_default(),
            words: texts.join(BETWEEN.encode_utf8(&mut [0; 4])),
        })
    }
}

/// Decisions, and what agents report of clients: connections are found by it.
fn is_looked_for(columns: &Columns) -> bool {
    columns.verdict.is_some() || columns.kind == kind::CLIENT_CONNECTED
}

fn texts(columns: &Columns) -> [Option<&String>; 5] {
    let Columns { text, executable, db_user, policy, workload, .. } = columns;
    [text, executable, db_user, policy, workload].map(Option::as_ref)
}

/// Columns that are compared by their matter alone.
struct Alike<'a>(&'a Columns);

impl Alike<'_> {
    fn parts(&self) -> (i64, Option<i32>, Option<i32>, [Option<&String>; 5]) {
        (self.0.kind, self.0.verdict, self.0.access, texts(self.0))
    }
}

impl PartialEq for Alike<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Alike<'_> {}

impl std::hash::Hash for Alike<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

/// The matters of a batch.
#[derive(Debug, Default)]
pub struct Matters {
    /// Each once.
    pub all: Vec<Matter>,
    /// For each row the place of its matter among them.
    pub of: Vec<Option<usize>>,
}

impl Matters {
    /// Of these rows.
    pub fn among(rows: &[Row]) -> Self {
        let mut matters = Self { all: Vec::new(), of: Vec::with_capacity(rows.len()) };
        let mut places = HashMap::new();
        for row in rows {
            let place = is_looked_for(&row.columns).then(|| {
                *places.entry(Alike(&row.columns)).or_insert_with(|| {
                    matters.all.extend(Matter::of(&row.columns));
                    matters.all.len() - 1
                })
            });
            matters.of.push(place);
        }
        matters
    }
}

/// A text that is looked for among the words of matters, whatever the case of its Latin letters.
#[derive(Debug)]
pub struct Part(Vec<u8>);

impl Part {
    /// Nothing: everything has it.
    pub fn new(text: &str) -> Self {
        Self(text.to_ascii_lowercase().into_bytes())
    }

    /// Whether it is there.
    pub fn is_in(&self, words: &[u8]) -> bool {
        let Some(&first) = self.0.first() else { return true };
        let Some(room) = words.len().checked_sub(self.0.len()) else { return false };
        memchr::memchr2_iter(first, first.to_ascii_uppercase(), &words[..=room])
            .any(|at| words[at..at + self.0.len()].eq_ignore_ascii_case(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use guard_common::audit::v1::SealedRecord;

    use super::*;

    fn row(text: &str, verdict: Option<i32>) -> Row {
        let columns = Columns { text: Some(text.to_owned()), verdict, ..Columns::default() };
        Row { sealed: SealedRecord::default(), columns, mark: None }
    }

    #[test]
    fn what_is_alike_is_one_matter_and_what_is_no_decision_is_none() {
        let rows =
            [row("a", Some(1)), row("b", Some(1)), row("a", Some(1)), row("a", None), row("a", Some(2))];
        let matters = Matters::among(&rows);
        assert_eq!(matters.of, [Some(0), Some(1), Some(0), None, Some(2)]);
        let digests: std::collections::HashSet<_> = matters.all.iter().map(|matter| matter.digest).collect();
        assert_eq!(digests.len(), 3);
    }

    #[test]
    fn texts_that_only_look_alike_side_by_side_are_two_matters() {
        let of = |text: &str, executable: &str| {
            let some = |text: &str| Some(text.to_owned());
            let (text, executable) = (some(text), some(executable));
            Matter::of(&Columns { text, executable, verdict: Some(1), ..Columns::default() }).unwrap().digest
        };
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_ne!(of("a\u{1f}", "b"), of("a", "\u{1f}b"));
    }

    #[test]
    fn a_part_is_found_wherever_it_stands() {
        let part = |text: &str, words: &str| Part::new(text).is_in(words.as_bytes());
        assert!(
            part("DROP", "x; drop table") && part("table", "drop TABLE") && part("", "") && part("ä", "ÄÖä")
        );
        assert!(!part("drop table x", "drop table") && !part("a", "") && !part("aab", "aaaa"));
        assert!(part("aab", "aaab") && part("\0", "a\0b"));
    }
}
