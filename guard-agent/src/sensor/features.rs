//! What this kernel has of what the kernel side uses. Probed, never taken from a version number: distributions bring
//! features to old kernels, and builds leave them out of new ones.

use std::{fs, io, path::PathBuf};

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported, is_map_supported},
};
use guard_common::kernel::{helper, layout::Layout, state::StateLayout};

use super::{btf, host, rung::Feature};

/// What was found.
#[derive(Debug)]
pub struct Features {
    /// Events can go by a ring buffer.
    pub ring_buffer: bool,
    /// Offsets of kernel structures, or why they are not known.
    pub layout: Result<Layout, String>,
    /// Programs can be attached to cgroups by links.
    pub bpf_link: bool,
    /// The root of the cgroup v2 hierarchy.
    pub cgroup: Option<fs::File>,
    /// Bits of `guard_common::kernel::helper`.
    pub helpers: u32,
    /// Where the fields of the tracepoint for changes of state are.
    pub state: Option<StateLayout>,
}

impl Features {
    /// Probes for everything but what is withheld.
    pub fn probe(withheld: &[Feature]) -> Self {
        let may = |feature| !withheld.contains(&feature);
        let layout = if may(Feature::Btf) {
            btf::kernel_layout().map_err(|error| error.to_string())
        } else {
            Err("withheld by `sensor.without`".to_owned())
        };
        Self {
            ring_buffer: may(Feature::RingBuffer) && is_map_supported(MapType::RingBuf).unwrap_or(false),
            layout,
            bpf_link: may(Feature::BpfLink) && has_cgroup_links(),
            cgroup: may(Feature::CgroupV2).then(host::cgroup_hierarchy).flatten(),
            helpers: helpers(),
            state: state_layout(),
        }
    }
}

/// Where tracefs describes the tracepoint.
fn state_layout() -> Option<StateLayout> {
    let folder: PathBuf = host::tracefs()?.join("events/sock/inet_sock_set_state");
    StateLayout::parse(&fs::read_to_string(folder.join("format")).ok()?)
}

fn helpers() -> u32 {
    // What cannot be probed is taken for absent: a program would not load.
    let has = |program, function| is_helper_supported(program, function).unwrap_or(false);
    let reads = |program| {
        has(program, BpfHelper::BPF_FUNC_probe_read_kernel)
            && has(program, BpfHelper::BPF_FUNC_get_current_task)
    };
    let bit = |there: bool, bit: u32| if there { bit } else { 0 };
    let sockets = ProgramType::SockOps;
    bit(has(sockets, BpfHelper::BPF_FUNC_get_netns_cookie), helper::NETNS_COOKIE)
        | bit(has(sockets, BpfHelper::BPF_FUNC_probe_read_kernel), helper::SOCKET_READS)
        | bit(reads(ProgramType::CgroupSockAddr), helper::CGROUP_READS)
}

/// A kernel that knows the command looks for the program, and finds that its descriptor is not open.
fn has_cgroup_links() -> bool {
    const LINK_CREATE: libc::c_long = 28;
    const CGROUP_INET4_CONNECT: u32 = 10;
    let attributes: [u32; 4] = [u32::MAX, u32::MAX, CGROUP_INET4_CONNECT, 0];
    // SAFETY: the attributes live through the call and are as long as said.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, LINK_CREATE, attributes.as_ptr(), size_of_val(&attributes)) };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EBADF)
}
