//! PostgreSQL: which functions are probed, and where its structures keep what the probes read.
//!
//! The program's own version text says which structures it has: within a major version they do not change, since
//! extensions are compiled against them. Addresses are those of symbols that extensions need, so that stripped programs
//! have them as well.

use std::path::{Path, PathBuf};

use guard_common::kernel::statement::Target;

use super::{Binary, FileId, ProbeError};
use crate::sensor::ObservedServer;

/// What stands before the version in the program, for `postgres --version`.
const VERSION: &str = "postgres (PostgreSQL) ";

/// eBPF programs and the functions that they are attached to.
const PROBES: [(&str, &str); 4] = [
    ("statement_executor", "standard_ExecutorRun"),
    ("statement_utility", "standard_ProcessUtility"),
    ("statement_function", "HandleFunctionRequest"),
    ("statement_replication", "exec_replication_command"),
];

/// Variables that the programs read.
const VARIABLES: [&str; 6] = [
    "MyProcPort",
    "debug_query_string",
    "role_string",
    "namespace_search_path",
    "application_name",
    "standard_conforming_strings",
];

/// Offsets that differ between versions, as the compiler lays out the structures on 64-bit machines.
#[derive(Clone, Copy, Debug)]
struct Layout {
    major: u32,
    /// `Port.database_name`; `Port.user_name` follows.
    port_database: u32,
    /// `PlannedStmt.stmt_location`; `PlannedStmt.stmt_len` follows.
    plan_location: u32,
}

const LAYOUTS: [Layout; 6] = [
    Layout { major: 13, port_database: 328, plan_location: 128 },
    Layout { major: 14, port_database: 328, plan_location: 120 },
    Layout { major: 15, port_database: 328, plan_location: 120 },
    Layout { major: 16, port_database: 328, plan_location: 128 },
    Layout { major: 17, port_database: 320, plan_location: 128 },
    Layout { major: 18, port_database: 384, plan_location: 152 },
];

/// The program file of a PostgreSQL server.
#[derive(Clone, Debug)]
pub struct PostgresProgram {
    /// As it says itself: `15.20 (Debian 15.20-0+deb12u1)`.
    pub version: String,
    /// The GNU build id.
    pub build_id: String,
    pub(super) entry: u64,
    places: Vec<(&'static str, u64)>,
    /// With addresses before relocation.
    target: Target,
}

impl PostgresProgram {
    /// Reads the program at `path`.
    pub fn read(path: &Path) -> Result<Self, ProbeError> {
        let names: Vec<&str> = PROBES.iter().map(|(_, symbol)| *symbol).chain(VARIABLES).collect();
        Self::of(&Binary::read(path, &names, VERSION)?)
    }

    fn of(binary: &Binary) -> Result<Self, ProbeError> {
        let version = binary.version().unwrap_or("?").to_owned();
        let build_id = binary.build_id.clone();
        let Some(layout) = layout(&version) else {
            let (oldest, newest) = (LAYOUTS[0].major, LAYOUTS[LAYOUTS.len() - 1].major);
            return Err(ProbeError::Version { version, build_id, oldest, newest });
        };
        let missing =
            |symbol| ProbeError::Symbol { version: version.clone(), build_id: build_id.clone(), symbol };
        let place = |(program, symbol): &(&'static str, &'static str)| {
            binary.function(symbol).map(|offset| (*program, offset)).ok_or_else(|| missing(symbol))
        };
        let places = PROBES.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        let address = |symbol: &'static str| binary.address(symbol).ok_or_else(|| missing(symbol));
        let target = Target {
            port: address("MyProcPort")?,
            client_text: address("debug_query_string")?,
            role: address("role_string")?,
            search_path: address("namespace_search_path")?,
            application_name: address("application_name")?,
            standard_strings: address("standard_conforming_strings")?,
            // `Port.sock` is the first member, in all versions.
            port_socket: 0,
            port_database: layout.port_database,
            port_user: layout.port_database + 8,
            plan_location: layout.plan_location,
            // `readOnlyTree` came with 14.
            utility_fourth: u32::from(layout.major >= 14),
            reserved: 0,
        };
        Ok(Self { version, build_id, entry: binary.entry, places, target })
    }

    /// The probes of the server whose first process is `pid` and whose program was moved by `moved`.
    pub(super) fn observed(&self, pid: u32, program: PathBuf, file: FileId, moved: u64) -> ObservedServer {
        let at = |address: u64| address.wrapping_add(moved);
        let Target { port, client_text, role, search_path, application_name, standard_strings, .. } =
            self.target;
        let target = Target {
            port: at(port),
            client_text: at(client_text),
            role: at(role),
            search_path: at(search_path),
            application_name: at(application_name),
            standard_strings: at(standard_strings),
            ..self.target
        };
        ObservedServer { pid, program, file, places: self.places.clone(), target }
    }
}

/// The layout of a version such as `15.20 (Debian ..)`; of development versions too, since they are of the next one.
fn layout(version: &str) -> Option<Layout> {
    let digits = version.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(version.len());
    let major: u32 = version.get(..digits)?.parse().ok()?;
    LAYOUTS.into_iter().find(|layout| layout.major == major)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_their_layouts() {
        for (version, major) in [("15.20 (Debian 15.20-0+deb12u1)", 15), ("13.0", 13), ("18beta1", 18)] {
            assert_eq!(layout(version).map(|layout| layout.major), Some(major), "{version}");
        }
        for unknown in ["12.3", "19devel", "", "?", "9.6.24"] {
            assert!(layout(unknown).is_none(), "{unknown}");
        }
    }

    /// Reads each server program that is installed here, as packages of the distribution strip them.
    #[test]
    fn installed_servers_are_read() {
        let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        for path in folders.map(|folder| folder.path().join("bin/postgres")).filter(|path| path.exists()) {
            let program = PostgresProgram::read(&path).expect("a server of a known version");
            assert_eq!(program.places.len(), PROBES.len());
            assert!(!program.build_id.is_empty() && program.version.contains('.'), "{program:?}");
            assert!(program.target.port > program.target.port_user.into(), "{program:?}");
        }
    }
}
