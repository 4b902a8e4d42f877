//! Fuzz targets: any bytes enter, nothing leaves; what must hold for every input is asserted on the way.
//!
//! A target is a function on bytes. `cargo xtask fuzz` drives it by coverage, and the tests of this package put its seeds
//! and a few thousand variations of them through it on every test run. Targets use what guard-agent offers to everybody:
//! they must never need a door of their own.

mod backend;
mod classify;
mod frontend;
mod guards;
mod input;
mod mask;
mod session;
mod split;
mod startup;
mod target;
mod words;

pub use target::{TARGETS, Target};
pub use words::dictionary;

#[cfg(test)]
mod tests;
