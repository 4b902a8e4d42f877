//! Which structures userspace may copy to and from maps byte by byte.

use super::{
    hold::{HeldBackend, HeldServer, Known, Stop, StopKey},
    layout::Layout,
    process::TaskInfo,
    refusal::{Peer, PeerVerdict, Place, UnixPlace, Verdict},
    socket::FlowKey,
    state::StateLayout,
    statement::{Backend, Target},
    steer::{OwnConnection, SteeredAddress, SteeringRule},
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
unsafe impl aya::Pod for StateLayout {}
// SAFETY: as above.
unsafe impl aya::Pod for SteeredAddress {}
// SAFETY: as above.
unsafe impl aya::Pod for SteeringRule {}
// SAFETY: as above.
unsafe impl aya::Pod for OwnConnection {}
// SAFETY: as above.
unsafe impl aya::Pod for Target {}
// SAFETY: as above.
unsafe impl aya::Pod for Backend {}
// SAFETY: as above.
unsafe impl aya::Pod for Verdict {}
// SAFETY: as above.
unsafe impl aya::Pod for Place {}
// SAFETY: as above.
unsafe impl aya::Pod for UnixPlace {}
// SAFETY: as above.
unsafe impl aya::Pod for Peer {}
// SAFETY: as above.
unsafe impl aya::Pod for PeerVerdict {}

#[cfg(test)]
mod tests {
    use super::{
        Backend, FlowKey, HeldBackend, HeldServer, Known, Layout, OwnConnection, Peer, PeerVerdict, Place,
        SteeredAddress, SteeringRule, Stop, StopKey, Target, TaskInfo, UnixBytes, UnixPath, UnixPlace,
        Verdict,
    };

    #[test]
    fn there_is_no_padding() {
        assert_eq!(size_of::<TaskInfo>(), 4 * 8 + 10 * 4 + 16);
        assert_eq!(size_of::<FlowKey>(), 16 + 16 + 8 + 2 + 2 + 4);
        assert_eq!(size_of::<UnixPath>(), 108);
        assert_eq!(size_of::<UnixBytes>(), 3 * 8);
        assert_eq!(size_of::<Layout>() % 4, 0);
        assert_eq!(size_of::<HeldServer>(), 11 * 8 + 4 * 4);
        assert_eq!(size_of::<HeldBackend>(), 5 * 8 + 2 * 4);
        assert_eq!(size_of::<Known>(), 3 * 8 + 2 * 4);
        assert_eq!(size_of::<StopKey>(), 8 + 2 * 4);
        assert_eq!(size_of::<Stop>(), 5 * 8 + 2 * 4);
        assert_eq!(size_of::<SteeredAddress>(), 16 + 4);
        assert_eq!(size_of::<SteeringRule>(), 4 + 4);
        assert_eq!(size_of::<OwnConnection>(), 16 + 2 + 2);
        assert_eq!(size_of::<Target>(), 6 * 8 + 6 * 4);
        assert_eq!(size_of::<Backend>(), 3 * 8 + 6 * 4 + 16 * 16);
        assert_eq!(size_of::<Verdict>(), 3 * 8);
        assert_eq!(size_of::<Place>(), 16 + 4 + 2 + 2);
        assert_eq!(size_of::<UnixPlace>(), 3 * 4);
        assert_eq!(size_of::<Peer>(), 16 + 4);
        assert_eq!(size_of::<PeerVerdict>(), 2 * 8 + 2 * 4);
    }
}
