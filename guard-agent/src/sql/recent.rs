//! Raw texts enter with what was read from them; the same bytes under the same modes get the same reading again.
//!
//! Stands before any lexing: a look-up hashes and compares the bytes and allocates nothing. A fixed number of places,
//! two for each hash; the one that was not used last makes room.

use std::sync::Arc;

use super::{Modes, Statement};

/// Sets of two places.
const SETS: usize = 1024;

/// Longer texts are read again.
const MAX_TEXT: usize = 4 * 1024;

/// Statements by their raw text.
#[derive(Debug)]
pub struct Recent {
    sets: Vec<Set>,
    hasher: ahash::RandomState,
    /// Bytes of all texts.
    bytes: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Set {
    places: [Place; 2],
    /// Which of them was used last.
    last: usize,
}

#[derive(Debug, Default)]
struct Place {
    hash: u64,
    modes: Modes,
    text: Vec<u8>,
    statement: Option<Arc<Statement>>,
}

impl Recent {
    /// At most about `max_bytes` of text; none at all for 0.
    pub fn new(max_bytes: usize) -> Self {
        Self { sets: Vec::new(), hasher: ahash::RandomState::new(), bytes: 0, max_bytes }
    }

    fn hash(&self, text: &[u8]) -> u64 {
        self.hasher.hash_one(text)
    }

    /// What was read from these bytes under these modes.
    pub fn get(&mut self, text: &[u8], modes: &Modes) -> Option<Arc<Statement>> {
        if text.len() > MAX_TEXT || self.sets.is_empty() {
            return None;
        }
        let hash = self.hash(text);
        let set = self.sets.get_mut(slot(hash))?;
        let found = set
            .places
            .iter()
            .position(|place| place.hash == hash && place.modes == *modes && place.text == text)?;
        set.last = found;
        set.places.get(found)?.statement.clone()
    }

    /// Remembers a reading.
    pub fn put(&mut self, text: &[u8], modes: &Modes, statement: &Arc<Statement>) {
        if text.len() > MAX_TEXT || self.max_bytes == 0 {
            return;
        }
        if self.sets.is_empty() {
            self.sets.resize_with(SETS, Set::default);
        }
        let hash = self.hash(text);
        let Some(set) = self.sets.get_mut(slot(hash)) else { return };
        let at = 1 - set.last.min(1);
        let Some(place) = set.places.get_mut(at) else { return };
        let before = place.text.capacity();
        place.text.clear();
        if before > 4 * text.len().max(64) {
            place.text.shrink_to(text.len());
        }
        place.text.extend_from_slice(text);
        (place.hash, place.modes, place.statement) = (hash, *modes, Some(Arc::clone(statement)));
        set.last = at;
        self.bytes = self.bytes.saturating_sub(before) + place.text.capacity();
        if self.bytes > self.max_bytes {
            self.sets.clear();
            self.bytes = 0;
        }
    }
}

fn slot(hash: u64) -> usize {
    usize::try_from(hash % SETS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use guard_policy::vocabulary::Parse;

    use super::*;

    fn some() -> Arc<Statement> {
        Arc::new(Statement {
            text: String::new(),
            fingerprint: String::new(),
            parse: Parse::Full,
            parts: 1,
            effects: Vec::new(),
            prepared: Vec::new(),
            changes: Vec::new(),
            origin: Default::default(),
            sent: None,
        })
    }

    #[test]
    fn the_same_bytes_under_the_same_modes_alone_are_known() {
        let mut recent = Recent::new(1 << 20);
        let (modes, statement) = (Modes::default(), some());
        recent.put(b"select 1", &modes, &statement);
        assert!(Arc::ptr_eq(&recent.get(b"select 1", &modes).unwrap(), &statement));
        assert!(recent.get(b"select 2", &modes).is_none());
        let other = Modes { standard_conforming_strings: false, ..modes };
        assert!(recent.get(b"select 1", &other).is_none());
    }

    #[test]
    fn stays_within_its_bytes() {
        let mut recent = Recent::new(64 * 1024);
        for number in 0..10_000 {
            recent.put(
                format!("{number}{}", "x".repeat(number % 3000)).as_bytes(),
                &Modes::default(),
                &some(),
            );
            assert!(recent.bytes <= 64 * 1024);
        }
        let held: usize =
            recent.sets.iter().flat_map(|set| &set.places).map(|place| place.text.capacity()).sum();
        assert_eq!(held, recent.bytes);
        recent.put(&[b'x'; MAX_TEXT + 1], &Modes::default(), &some());
        assert!(recent.get(&[b'x'; MAX_TEXT + 1], &Modes::default()).is_none());
    }
}
