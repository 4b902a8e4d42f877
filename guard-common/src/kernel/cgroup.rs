//! New cgroups, so that the names of short-lived ones are known after they are gone.

use super::EventHeader;

/// Bytes of a cgroup's path that are kept.
pub const CGROUP_PATH_LEN: usize = 512;

/// A cgroup was made in the v2 hierarchy.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CgroupEvent {
    /// Kind [`super::EventKind::Cgroup`].
    pub header: EventHeader,
    /// Its id.
    pub id: u64,
    /// Bytes of [`CgroupEvent::path`] that are filled, without a final zero byte.
    pub path_kept: u32,
    /// Zero.
    pub reserved: u32,
    /// Path from the root of the hierarchy.
    pub path: [u8; CGROUP_PATH_LEN],
}
