//! A pid, an address or a socket's peer enters; a [`Workload`] leaves, with how it is known.

pub use guard_common::audit::v1::Workload;
