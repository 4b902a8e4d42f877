//! Servers of other versions than the machine's own: packages of several releases of Debian, unpacked, never installed.
//!
//! Each is a folder that a server takes for the root of its system: its own C library is in there, and nothing of this
//! machine is mounted. `cargo xtask setup test` puts them there.

use std::path::{Path, PathBuf};

/// PostgreSQL's major versions, and the releases of Debian that have them. None has 14 or 16.
pub const POSTGRES: [(u32, &str); 4] = [(13, "bullseye"), (15, "bookworm"), (17, "trixie"), (18, "sid")];

/// Written when everything else is in its place.
pub const COMPLETE: &str = "etc/guard-complete";

/// Where they are kept.
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/postgresql")
}

/// The root of one version.
pub fn root_of(major: u32) -> PathBuf {
    home().join(major.to_string())
}

/// Whether it is there, whole.
pub fn is_there(major: u32) -> bool {
    root_of(major).join(COMPLETE).exists()
}

/// The folder of its programs, as they see it.
pub fn programs(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))
}
