//! The rungs of the ladder: what a kernel lacks, what that costs, what is left.
//!
//! A rung is the lowest thing that is missing. Several things may be: each is told by itself as well.

use serde::{Deserialize, Serialize};

/// Something that the kernel side uses and that not every host has. It can be withheld, to try a rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// A ring buffer for events (Linux 5.8).
    RingBuffer,
    /// The kernel's own type information.
    Btf,
    /// Attaching to cgroups by links, which go with whoever holds them (Linux 5.7).
    BpfLink,
    /// A cgroup v2 hierarchy to attach to.
    CgroupV2,
    /// Loading eBPF programs at all.
    Bpf,
}

/// How far up this host is, from the top to the ground.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Everything.
    Full,
    /// Events by a perf event array.
    NoRingBuffer,
    /// Stable contexts alone.
    NoBtf,
    /// Programs attached to cgroups by flags.
    NoBpfLink,
    /// Connections by TCP's changes of state.
    CgroupV1,
    /// The kernel's tables of sockets, and /proc.
    NoBpf,
}

impl Rung {
    /// All, from the top.
    pub const ALL: [Self; 6] =
        [Self::Full, Self::NoRingBuffer, Self::NoBtf, Self::NoBpfLink, Self::CgroupV1, Self::NoBpf];

    /// The rung of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rung| rung.name() == name)
    }

    /// Its name in records, in `status` and in `doctor`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NoRingBuffer => "no-ring-buffer",
            Self::NoBtf => "no-btf",
            Self::NoBpfLink => "no-bpf-link",
            Self::CgroupV1 => "cgroup-v1",
            Self::NoBpf => "no-bpf",
        }
    }

    /// What guard does there, and what that costs.
    pub const fn means(self) -> &'static str {
        match self {
            Self::Full => "every connection and every process is captured in the kernel",
            Self::NoRingBuffer => "the same, with events by one buffer for each CPU",
            Self::NoBtf => {
                "TCP connections are captured with pid, user and cgroup; executable, arguments and ancestry come from \
                 /proc; connections on unix sockets from the kernel's tables of sockets, four times a second"
            }
            Self::NoBpfLink => {
                "the same as with links; what a crash leaves attached is taken away by the next start of the agent"
            }
            Self::CgroupV1 => {
                "TCP connections are captured by their changes of state; nothing can be refused or steered on \
                 cgroups; units are read from /proc"
            }
            Self::NoBpf => {
                "connections come from the kernel's tables of sockets (sock_diag) four times a second, and by their \
                 ends; identities are reported, not attested; only what passes the proxy can be refused"
            }
        }
    }

    /// What lifts a host from this rung.
    pub const fn brings(self) -> &'static str {
        match self {
            Self::Full => "nothing is above it",
            Self::NoRingBuffer => "Linux 5.8 or later",
            Self::NoBtf => "a kernel with CONFIG_DEBUG_INFO_BTF, and tracefs mounted at /sys/kernel/tracing",
            Self::NoBpfLink => "Linux 5.7 or later",
            Self::CgroupV1 => "a cgroup v2 hierarchy: mount -t cgroup2 none /sys/fs/cgroup/unified",
            Self::NoBpf => {
                "root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN; a kernel with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Feature, Rung};

    #[test]
    fn every_rung_has_a_name_of_its_own() {
        let mut names: Vec<_> = Rung::ALL.iter().map(|rung| rung.name()).collect();
        names.dedup();
        assert_eq!(names.len(), Rung::ALL.len());
        assert!(Rung::Full < Rung::NoBpf);
    }

    #[test]
    fn rungs_are_configured_by_their_names() {
        for rung in Rung::ALL {
            assert_eq!(serde_json::to_value(rung).unwrap(), rung.name());
            assert_eq!(Rung::named(rung.name()), Some(rung));
        }
        assert_eq!(Rung::named("procfs"), None);
    }

    #[test]
    fn features_are_written_as_rungs_are() {
        let written = |feature| serde_json::to_value(feature).unwrap();
        assert_eq!(written(Feature::RingBuffer), "ring-buffer");
        assert_eq!(written(Feature::BpfLink), "bpf-link");
        assert_eq!(written(Feature::CgroupV2), "cgroup-v2");
    }
}
