//! Commands that run cargo inside a cargo build without inheriting the outer build's settings.

use std::{env, ffi::OsStr, process::Command};

/// Variables of the outer build that would change the inner one.
const REMOVED: [&str; 14] = [
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_LINKER",
    "RUSTC_BOOTSTRAP",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "MAKEFLAGS",
    "MFLAGS",
    "OUT_DIR",
    "TARGET",
    "HOST",
];

/// What of `CARGO_*` stays: where things are and how to reach the registry.
const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];

/// A command in an environment of its own.
pub(crate) fn isolated(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in REMOVED {
        command.env_remove(name);
    }
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(removed) {
            command.env_remove(name);
        }
    }
    command
}

fn removed(name: &str) -> bool {
    (name == "CARGO" || name.starts_with("CARGO_") || name.starts_with("__CARGO"))
        && !KEPT.iter().any(|kept| name.starts_with(kept))
}

#[cfg(test)]
mod tests {
    use super::removed;

    #[test]
    fn keeps_the_way_to_the_registry() {
        for kept in
            ["CARGO_HOME", "CARGO_HTTP_PROXY", "CARGO_NET_OFFLINE", "CARGO_REGISTRIES_X_INDEX", "PATH"]
        {
            assert!(!removed(kept), "{kept}");
        }
    }

    #[test]
    fn drops_the_outer_build() {
        for dropped in
            ["CARGO", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "CARGO_PKG_NAME"]
        {
            assert!(removed(dropped), "{dropped}");
        }
    }
}
