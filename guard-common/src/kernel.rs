//! Structures that the eBPF programs and the agent share: `repr(C)`, no std, no pointers.

/// Longest path of a unix socket that the kernel takes (`sun_path`), in bytes.
pub const UNIX_PATH_LEN: usize = 108;
