//! Documents: JSON, hstore and what looks like them. Keys are names of columns; their values become hits as a whole, or
//! are read with what the key says.
//!
//! It is no parser: it steps from string to string, so that broken, truncated and nested documents are read alike, in one
//! pass without recursion.

use guard_policy::vocabulary::DataKind;

use super::{Evidence, Hint, email, hits::Hits, number};
use crate::mask::columns::{self, Named};

/// Nested objects whose keys are remembered; deeper ones are read without.
const DEPTH: usize = 16;

/// Values of one object that wait for a key that says whose they are.
const PENDING: usize = 4;

/// Whether a cell looks like a document.
pub fn is_document(cell: &[u8]) -> bool {
    let first = cell.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    // jsonb has a version number first in its binary format.
    matches!(first, Some(b'{' | b'[' | b'"' | 1))
}

/// An object or array that is open.
#[derive(Clone, Copy, Default)]
struct Open {
    /// Its own key says that it is about people.
    people: bool,
    /// The key before it makes everything in it sensitive.
    inherited: Option<DataKind>,
    array: bool,
    /// Another key of its own says that it is about a person; what is nested in it need not be.
    personal: bool,
    /// Values that are somebody's if another key of the object says that it is about a person: where, and what.
    pending: [Option<(usize, usize, DataKind)>; PENDING],
}

/// Keys by which an object is known to be about a person; companies have mail and telephone, too.
fn is_personal(kind: DataKind) -> bool {
    use DataKind as K;
    matches!(
        kind,
        K::NationalId
            | K::BirthDate
            | K::PersonName
            | K::Special
            | K::Document
            | K::PasswordHash
            | K::Password
    )
}

/// Finds what keys say.
pub fn scan(cell: &[u8], hint: Hint, hits: &mut Hits) {
    let mut walk = Walk { cell, open: [Open::default(); DEPTH], root: Open::default(), depth: 0, key: None };
    walk.root.people = hint.people;
    let mut at = 0;
    while at < cell.len() {
        at = walk.step(at, hits);
    }
}

struct Walk<'a> {
    cell: &'a [u8],
    open: [Open; DEPTH],
    /// What is outside of all objects: hstore has no braces.
    root: Open,
    depth: usize,
    /// The key whose value comes next.
    key: Option<(usize, usize)>,
}

impl Walk<'_> {
    /// Handles what starts at `at`; returns where to go on, always further.
    fn step(&mut self, at: usize, hits: &mut Hits) -> usize {
        match self.cell[at] {
            b'"' => self.string(at, hits),
            b'{' | b'[' => {
                self.enter(self.cell[at] == b'[', hits);
                at + 1
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.key = None;
                at + 1
            }
            b'0'..=b'9' | b'-' => self.number(at, hits),
            b',' => {
                if !self.top().array {
                    self.key = None;
                }
                at + 1
            }
            _ => at + 1,
        }
    }

    fn top(&mut self) -> &mut Open {
        match self.depth {
            0 => &mut self.root,
            depth => &mut self.open[(depth - 1).min(DEPTH - 1)],
        }
    }

    /// A key said that the object is about a person: what waited for that is this person's.
    fn settle(&mut self, hits: &mut Hits) {
        let open = self.top();
        open.personal = true;
        for (start, end, kind) in open.pending.iter_mut().filter_map(Option::take) {
            hits.push(kind, start..end, Evidence::Key);
        }
    }

    /// Remembers a value that is sensitive if the object is about a person.
    fn wait(&mut self, key: (usize, usize), number: bool, value: (usize, usize), hits: &mut Hits) {
        if let Named::Sensitive(kind) = hits.keys.named(&self.cell[key.0..key.1], number, true)
            && let Some(free) = self.top().pending.iter_mut().find(|waiting| waiting.is_none())
        {
            *free = Some((value.0, value.1, kind));
        }
    }

    fn enter(&mut self, array: bool, hits: &mut Hits) {
        let (people, inherited) = (self.top().people, self.top().inherited);
        let mut open = Open { people, inherited, array, ..Open::default() };
        if let Some((start, end)) = self.key {
            let key = &self.cell[start..end];
            open.people |= std::str::from_utf8(key).is_ok_and(columns::is_about_people);
            if let Named::Sensitive(kind) = hits.keys.named(key, false, people) {
                open.inherited = Some(kind);
            }
        }
        if self.depth < DEPTH {
            self.open[self.depth] = open;
        }
        self.depth += 1;
        if !array {
            self.key = None;
        }
    }

    fn string(&mut self, at: usize, hits: &mut Hits) -> usize {
        let start = at + 1;
        let mut end = start;
        loop {
            match memchr::memchr2(b'"', b'\\', &self.cell[end..]) {
                Some(found) if self.cell[end + found] == b'\\' => {
                    end = (end + found + 2).min(self.cell.len())
                }
                Some(found) => {
                    end += found;
                    break;
                }
                None => {
                    end = self.cell.len();
                    break;
                }
            }
            if end >= self.cell.len() {
                break;
            }
        }
        let next = (end + 1).min(self.cell.len());
        if is_key(&self.cell[next..]) {
            self.key = Some((start, end));
        } else {
            self.value(start, end, false, hits);
        }
        next
    }

    fn number(&mut self, at: usize, hits: &mut Hits) -> usize {
        let len = self.cell[at..]
            .iter()
            .take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .count();
        self.value(at, at + len, true, hits);
        at + len.max(1)
    }

    fn value(&mut self, start: usize, end: usize, number: bool, hits: &mut Hits) {
        let Open { people, personal, inherited, array, .. } = *self.top();
        let people = people || personal;
        let key = self.key;
        let named = match key {
            Some((from, to)) => hits.keys.named(&self.cell[from..to], number, people),
            None => Named::Plain,
        };
        if !array {
            self.key = None;
        }
        match (named, inherited) {
            (Named::Sensitive(kind), _) | (Named::Plain | Named::Hint(_), Some(kind)) if end > start => {
                hits.push(kind, start..end, Evidence::Key);
                if !people && is_personal(kind) {
                    self.settle(hits);
                }
            }
            (Named::Hint(hint), _) => read(&self.cell[..end], start, hint, hits),
            (Named::Plain, None) if !people && end > start => {
                if let Some(key) = key {
                    self.wait(key, number, (start, end), hits);
                }
            }
            _ => {}
        }
    }
}

/// Whether `:` or `=>` follows.
fn is_key(rest: &[u8]) -> bool {
    let rest = rest.trim_ascii_start();
    rest.starts_with(b":") || rest.starts_with(b"=>")
}

/// Reads one value with what its key says: as a cell of its own.
fn read(cell: &[u8], start: usize, hint: Hint, hits: &mut Hits) {
    let mut found = Hits::new();
    let value = &cell[start..];
    if hint.kind == Some(DataKind::Email) {
        email::scan(value, &mut found);
    } else if hint.kind.is_some() {
        number::scan(value, hint, &mut found);
    }
    for hit in &found {
        hits.push(hit.kind, start + hit.start..start + hit.end, hit.evidence);
    }
}
