//! Result rows enter, the same rows leave with what is sensitive in them rewritten.
//!
//! Which column carries what is settled once per result; values are rewritten in place of their own type, so that
//! clients see valid rows. Knows nothing of sockets. Never lets a value out that it could not read: what cannot be
//! rewritten becomes NULL.

mod bits;
pub mod columns;
pub mod copy;
pub mod detect;
pub mod detector;
pub mod plan;
pub mod rewrite;
