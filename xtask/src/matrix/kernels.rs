//! Which kernels there are, and how each is booted.

use anyhow::{Result, bail};

/// A kernel of Debian's, and a way to boot it.
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    /// As it is named on the command line and in the table.
    pub name: &'static str,
    /// Debian's suite that has it.
    pub suite: &'static str,
    /// What is added to the kernel's command line.
    pub options: &'static str,
    /// The rung that root reaches there.
    pub rung: &'static str,
    /// The rung that the agent reaches with the capabilities of its unit.
    pub unit_rung: &'static str,
    /// What stops a client round the proxy there, over TCP and on a unix socket.
    pub stops: [&'static str; 2],
}

/// connect fails in the kernel.
const REFUSED: &str = "REFUSED_IN_KERNEL";
/// The connection is ended when the server has accepted it.
const CUT: &str = "CUT";

/// systemd on the older hierarchies alone.
const CGROUP_V1: &str = "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1";

/// From the oldest to the newest.
pub const ALL: [Kernel; 5] = [
    Kernel { stops: [REFUSED, CUT], ..Kernel::whole("5.10", "bullseye-security") },
    // Root can attach to a hierarchy that nobody has mounted.
    Kernel {
        options: CGROUP_V1,
        unit_rung: "cgroup-v1",
        stops: [CUT, CUT],
        ..Kernel::whole("5.10-cgroup-v1", "bullseye-security")
    },
    Kernel { stops: [REFUSED, CUT], ..Kernel::whole("6.1", "bookworm-security") },
    Kernel::whole("6.12", "trixie-security"),
    Kernel::whole("newest", "sid"),
];

impl Kernel {
    /// One that lacks nothing.
    const fn whole(name: &'static str, suite: &'static str) -> Self {
        Self { name, suite, options: "", rung: "full", unit_rung: "full", stops: [REFUSED, REFUSED] }
    }

    /// Those that are named; all where none is.
    pub fn selected(names: &[String]) -> Result<Vec<&'static Self>> {
        if names.is_empty() {
            return Ok(ALL.iter().collect());
        }
        let known: Vec<&str> = ALL.iter().map(|kernel| kernel.name).collect();
        names
            .iter()
            .map(|name| {
                let found = ALL.iter().find(|kernel| kernel.name == name);
                found.map_or_else(|| bail!("no kernel `{name}`; there are {}", known.join(", ")), Ok)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL, Kernel};

    #[test]
    fn kernels_are_named_or_all() {
        assert_eq!(Kernel::selected(&[]).unwrap().len(), ALL.len());
        let chosen = Kernel::selected(&["newest".to_owned(), "5.10".to_owned()]).unwrap();
        assert_eq!(chosen.iter().map(|kernel| kernel.name).collect::<Vec<_>>(), ["newest", "5.10"]);
        assert!(Kernel::selected(&["4.4".to_owned()]).unwrap_err().to_string().contains("6.12"));
    }
}
