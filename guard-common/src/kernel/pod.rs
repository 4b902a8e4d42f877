//! Which structures userspace may copy to and from maps byte by byte.

use super::{
    hold::{HeldBackend, HeldServer, Known, Stop, StopKey},
    layout::Layout,
    process::TaskInfo,
    socket::FlowKey,
    statement::{Backend, Target},
    unix::UnixPath,
};

// SAFETY: `repr(C)`, every bit pattern is valid, and there is no padding: the tests compare the sizes.
unsafe impl aya::Pod for TaskInfo {}
// SAFETY: as above.
unsafe impl aya::Pod for FlowKey {}
// SAFETY: as above.
unsafe impl aya::Pod for UnixPath {}
// SAFETY: as above.
unsafe impl aya::Pod for Layout {}
// SAFETY: as above.
unsafe impl aya::Pod for HeldServer {}
// SAFETY: as above.
unsafe impl aya::Pod for HeldBackend {}
// SAFETY: as above.
unsafe impl aya::Pod for Known {}
// SAFETY: as above.
unsafe impl aya::Pod for StopKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Stop {}
// SAFETY: as above.
unsafe impl aya::Pod for Target {}
// SAFETY: as above.
unsafe impl aya::Pod for Backend {}

#[cfg(test)]
mod tests {
    use super::{
        Backend, FlowKey, HeldBackend, HeldServer, Known, Layout, Stop, StopKey, Target, TaskInfo, UnixPath,
    };

    #[test]
    fn there_is_no_padding() {
        assert_eq!(size_of::<TaskInfo>(), 3 * 8 + 10 * 4 + 16);
        assert_eq!(size_of::<FlowKey>(), 16 + 16 + 8 + 2 + 2 + 4);
        assert_eq!(size_of::<UnixPath>(), 108);
        assert_eq!(size_of::<Layout>() % 4, 0);
        assert_eq!(size_of::<HeldServer>(), 11 * 8 + 4 * 4);
        assert_eq!(size_of::<HeldBackend>(), 5 * 8 + 2 * 4);
        assert_eq!(size_of::<Known>(), 3 * 8 + 2 * 4);
        assert_eq!(size_of::<StopKey>(), 8 + 2 * 4);
        assert_eq!(size_of::<Stop>(), 5 * 8 + 2 * 4);
        assert_eq!(size_of::<Target>(), 6 * 8 + 8 * 4);
        assert_eq!(size_of::<Backend>(), 2 * 8 + 4 * 4);
    }
}
