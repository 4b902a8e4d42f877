//! The list of targets.

use crate::{backend, classify, frontend, guards, mask, session, split, startup};

/// One thing to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line, and of its corpus.
    pub name: &'static str,
    /// Puts one input through it; panics where something does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Longest input that is worth trying.
    pub max_len: usize,
    /// Its inputs are SQL: the dictionary helps.
    pub sql: bool,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "startup", run: startup::run, seeds: startup::seeds, max_len: 512, sql: false },
    Target { name: "frontend", run: frontend::run, seeds: frontend::seeds, max_len: 2_048, sql: false },
    Target { name: "backend", run: backend::run, seeds: backend::seeds, max_len: 2_048, sql: false },
    Target { name: "mask", run: mask::run, seeds: mask::seeds, max_len: 1_024, sql: false },
    Target { name: "guards", run: guards::run, seeds: guards::seeds, max_len: 1_024, sql: true },
    Target { name: "classify", run: classify::run, seeds: classify::seeds, max_len: 2_048, sql: true },
    Target { name: "session", run: session::run, seeds: session::seeds, max_len: 4_096, sql: true },
    Target { name: "split", run: split::run, seeds: split::seeds, max_len: 1_024, sql: true },
];

impl Target {
    /// The target called `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }
}
