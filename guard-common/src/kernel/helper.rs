//! What a kernel lets the programs call, found by probing: bits that the agent hands them before loading.

/// sock_ops can ask for the cookie of a socket's network namespace.
pub const NETNS_COOKIE: u32 = 1;
/// sock_ops can read kernel memory.
pub const SOCKET_READS: u32 = 2;
/// Programs on cgroups can read the current task.
pub const CGROUP_READS: u32 = 4;
