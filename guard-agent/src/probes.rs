//! Which database server programs run on this host, and where in them guard's probes go.
//!
//! Processes and their program files enter; build ids, versions and offsets of functions leave. Program files belong
//! to others, in containers even to people who may write them: they are read with bounds and are never run.

mod binary;

pub use binary::{Binary, BinaryError, FileId};
