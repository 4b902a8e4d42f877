//! Which toolchain on this machine can compile for BPF. Found by probing, never by a version number.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{BuildError, TARGET, command::isolated};

/// A way to compile and link eBPF programs.
#[derive(Clone, Debug)]
pub struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

#[derive(Clone, Debug)]
enum Compiler {
    /// A nightly of rustup with `rust-src`: it builds `core` itself.
    Nightly,
    /// A compiler that ships `core` for the target.
    Prebuilt(PathBuf),
}

impl Toolchain {
    /// Looks for a compiler and for bpf-linker.
    pub fn probe() -> Result<Self, BuildError> {
        let compiler = nightly().or_else(prebuilt).ok_or(BuildError::NoCompiler)?;
        let linker = search_path().map(|folder| folder.join("bpf-linker")).find(|file| file.is_file());
        Ok(Self { compiler, linker: linker.ok_or(BuildError::NoLinker)? })
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        let linker = self.linker.display();
        match &self.compiler {
            Compiler::Nightly => format!("rustup's nightly with rust-src, {linker}"),
            Compiler::Prebuilt(rustc) => {
                format!("{} with a prebuilt core for {TARGET}, {linker}", rustc.display())
            }
        }
    }

    /// Its cargo, with everything set but the arguments.
    pub(crate) fn cargo(&self) -> Command {
        let flags = format!("-Cdebuginfo=2\u{1f}-Clinker={}\u{1f}-Clink-arg=--btf", self.linker.display());
        let mut cargo = match &self.compiler {
            Compiler::Nightly => {
                let mut rustup = isolated("rustup");
                rustup.env("RUSTUP_AUTO_INSTALL", "0").args(["run", "nightly", "cargo"]);
                rustup.args(["-Zbuild-std=core"]);
                rustup
            }
            Compiler::Prebuilt(rustc) => {
                // The cargo of the outer build takes any compiler; so does a cargo that came with this one.
                let mut cargo = isolated(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
                cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        };
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags).stdin(Stdio::null());
        cargo
    }
}

fn nightly() -> Option<Compiler> {
    let mut rustup = isolated("rustup");
    rustup.env("RUSTUP_AUTO_INSTALL", "0").args(["run", "nightly", "rustc", "--print", "sysroot"]);
    let sysroot = PathBuf::from(printed(&mut rustup)?);
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file().then_some(Compiler::Nightly)
}

fn prebuilt() -> Option<Compiler> {
    search_path().map(|folder| folder.join("rustc")).find(|rustc| has_core(rustc)).map(Compiler::Prebuilt)
}

fn has_core(rustc: &Path) -> bool {
    if !rustc.is_file() {
        return false;
    }
    let mut command = isolated(rustc);
    // For a proxy of rustup: it must not fetch a toolchain because it was asked.
    command.env("RUSTUP_AUTO_INSTALL", "0").args(["--print", "target-libdir", "--target", TARGET]);
    let Some(folder) = printed(&mut command) else { return false };
    std::fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

/// The first line that a command prints, where it succeeds.
fn printed(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next().map(str::trim).filter(|line| !line.is_empty())?;
    output.status.success().then(|| line.to_owned())
}

/// `PATH`, then where cargo installs programs, then the system's own folders: rustup's proxy may hide the
/// distribution's compiler, and a build started by a service may have no `PATH` at all.
fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.extend(env::var_os("CARGO_HOME").map(|home| PathBuf::from(home).join("bin")));
    folders.extend(env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo/bin")));
    folders.extend(["/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    folders.into_iter()
}
