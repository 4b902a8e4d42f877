//! Who connects, where, and what of it is in the record: on this machine's own kernel, with hostile input and many
//! clients. Needs root; without it, every test counts as skipped.
//!
//! Each test watches ports, sockets and namespaces of its own alone.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod hostile;
mod identity;
mod many;
mod places;
mod sensor;
