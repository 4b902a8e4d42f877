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
}

/// Finds what keys say.
pub fn scan(cell: &[u8], hint: Hint, hits: &mut Hits) {
    let mut walk = Walk { cell, hint, open: [Open::default(); DEPTH], depth: 0, key: None };
    let mut at = 0;
    while at < cell.len() {
        at = walk.step(at, hits);
    }
}

struct Walk<'a> {
    cell: &'a [u8],
    hint: Hint,
    open: [Open; DEPTH],
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

    fn top(&self) -> Open {
        match self.depth {
            0 => Open { people: self.hint.people, inherited: None, array: false },
            depth => self.open[(depth - 1).min(DEPTH - 1)],
        }
    }

    fn enter(&mut self, array: bool, hits: &mut Hits) {
        let outer = self.top();
        let mut open = Open { people: outer.people, inherited: outer.inherited, array };
        if let Some((start, end)) = self.key {
            let key = &self.cell[start..end];
            open.people |= std::str::from_utf8(key).is_ok_and(columns::is_about_people);
            if let Named::Sensitive(kind) = hits.keys.named(key, false, outer.people) {
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
        let open = self.top();
        let named = match self.key {
            Some((from, to)) => hits.keys.named(&self.cell[from..to], number, open.people),
            None => Named::Plain,
        };
        if !open.array {
            self.key = None;
        }
        match (named, open.inherited) {
            (Named::Sensitive(kind), _) | (Named::Plain | Named::Hint(_), Some(kind)) if end > start => {
                hits.push(kind, start..end, Evidence::Key);
            }
            (Named::Hint(hint), _) => read(&self.cell[..end], start, hint, hits),
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
