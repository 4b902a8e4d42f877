//! Canonical statement texts enter with what was read from them; the same text gets the same reading again.
//!
//! Bounded by entries and bytes, in two generations: when the young one is full it becomes the old one. A look-up
//! compares the whole text and allocates nothing.

use std::collections::HashMap;
use std::sync::Arc;

use super::Statement;

type Generation = HashMap<Box<str>, Arc<Statement>, ahash::RandomState>;

/// Statements by canonical text.
#[derive(Debug)]
pub struct Cache {
    young: Generation,
    young_bytes: usize,
    old: Generation,
    /// Per generation.
    max_entries: usize,
    /// Per generation.
    max_bytes: usize,
}

impl Cache {
    /// At most `entries` statements and about `bytes` bytes in all.
    pub fn new(entries: usize, bytes: usize) -> Self {
        Self {
            young: Generation::default(),
            young_bytes: 0,
            old: Generation::default(),
            max_entries: entries / 2,
            max_bytes: bytes / 2,
        }
    }

    /// What was read from this text before.
    pub fn get(&mut self, key: &str) -> Option<Arc<Statement>> {
        if let Some(known) = self.young.get(key) {
            return Some(Arc::clone(known));
        }
        let (key, statement) = self.old.remove_entry(key)?;
        self.put(key, Arc::clone(&statement));
        Some(statement)
    }

    /// Remembers a reading; large ones are not kept.
    pub fn insert(&mut self, key: &str, statement: &Arc<Statement>) {
        if weight(key, statement) <= self.max_bytes / 8 {
            self.put(key.into(), Arc::clone(statement));
        }
    }

    fn put(&mut self, key: Box<str>, statement: Arc<Statement>) {
        let weight = weight(&key, &statement);
        if self.young.len() >= self.max_entries || self.young_bytes + weight > self.max_bytes {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.max_entries > 0 {
            self.young_bytes += weight;
            self.young.insert(key, statement);
        }
    }
}

/// Bytes that an entry takes, roughly.
fn weight(key: &str, statement: &Statement) -> usize {
    const FIXED: usize = 256;
    const EFFECT: usize = 96;
    FIXED + key.len() + statement.text.len() + statement.origin.weight() + statement.effects.len() * EFFECT
}

#[cfg(test)]
mod tests {
    use guard_policy::vocabulary::Parse;

    use super::*;

    fn some(text: &str) -> Arc<Statement> {
        Arc::new(Statement {
            text: text.to_owned(),
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
    fn stays_within_its_entries_and_keeps_what_is_used() {
        let mut cache = Cache::new(8, 1 << 20);
        cache.insert("hot", &some("hot"));
        for number in 0..100 {
            cache.insert(&format!("cold {number}"), &some("cold"));
            assert!(cache.get("hot").is_some(), "after {number}");
            assert!(cache.young.len() + cache.old.len() <= 8);
        }
        assert!(cache.get("cold 0").is_none());
    }

    #[test]
    fn stays_within_its_bytes() {
        let mut cache = Cache::new(1000, 64 * 1024);
        cache.insert("huge", &some(&"x".repeat(32 * 1024)));
        assert!(cache.get("huge").is_none());
        for number in 0..1000 {
            cache.insert(&number.to_string(), &some(&"x".repeat(2000)));
        }
        let bytes: usize = cache.young.iter().chain(&cache.old).map(|(key, value)| weight(key, value)).sum();
        assert!(bytes <= 64 * 1024, "{bytes}");
    }

    #[test]
    fn no_entries_means_no_cache() {
        let mut cache = Cache::new(0, 0);
        cache.insert("a", &some("a"));
        assert!(cache.get("a").is_none());
    }
}
