//! Which structures userspace may copy to and from maps byte by byte.

use super::{
    layout::Layout,
    process::TaskInfo,
    socket::FlowKey,
    state::StateLayout,
    unix::{UnixBytes, UnixPath},
};

// SAFETY: `repr(C)`, every bit pattern is valid, and there is no padding: the tests compare the sizes.
unsafe impl aya::Pod for TaskInfo {}
// SAFETY: as above.
unsafe impl aya::Pod for FlowKey {}
// SAFETY: as above.
unsafe impl aya::Pod for UnixPath {}
// SAFETY: as above.
unsafe impl aya::Pod for UnixBytes {}
// SAFETY: as above.
unsafe impl aya::Pod for Layout {}
// SAFETY: as above.
unsafe impl aya::Pod for StateLayout {}

#[cfg(test)]
mod tests {
    use super::{FlowKey, Layout, TaskInfo, UnixBytes, UnixPath};

    #[test]
    fn there_is_no_padding() {
        assert_eq!(size_of::<TaskInfo>(), 3 * 8 + 10 * 4 + 16);
        assert_eq!(size_of::<FlowKey>(), 16 + 16 + 8 + 2 + 2 + 4);
        assert_eq!(size_of::<UnixPath>(), 108);
        assert_eq!(size_of::<UnixBytes>(), 3 * 8);
        assert_eq!(size_of::<Layout>() % 4, 0);
    }
}
