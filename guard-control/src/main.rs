//! `guard-control`: see [`guard_control::cli`].
fn main() {}
