//! Builds the eBPF object with whatever BPF toolchain this machine has.
//!
//! Enters: the source folder and a target folder. Leaves: the path of the object. It probes, installs nothing,
//! and names the one command that mends a missing toolchain.

mod command;
mod toolchain;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use toolchain::Toolchain;

/// What rustc calls the target.
pub const TARGET: &str = "bpfel-unknown-none";
/// File name of the sensor's object.
const OBJECT: &str = "guard-ebpf";
/// File name of the one that steers.
const STEERING: &str = "guard-steer";
/// File name of the one that holds statements.
const HOLDING: &str = "guard-hold";

/// Why there is no eBPF object.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// bpf-linker is neither in `PATH` nor in cargo's folder.
    #[error(
        "bpf-linker is not installed, and the eBPF programs cannot be linked without it; run `cargo xtask setup`"
    )]
    NoLinker,
    /// No compiler for the BPF target.
    #[error(
        "no Rust toolchain here can compile for {TARGET}: it takes a nightly with the rust-src component, or \
         Debian's rustc-web with libstd-rust-web-dev-bpf; run `cargo xtask setup`"
    )]
    NoCompiler,
    /// cargo could not be started.
    #[error("`{program}` cannot be run: {error}")]
    Start {
        /// What was to be run.
        program: String,
        /// Why not.
        error: io::Error,
    },
    /// The compiler refused.
    #[error("building the eBPF programs with {toolchain} failed:\n{output}")]
    Compile {
        /// The toolchain that was used.
        toolchain: String,
        /// What it printed.
        output: String,
    },
    /// The object cannot be put to its place.
    #[error("the eBPF object cannot be kept at {object}: {error}")]
    Keep {
        /// Its place.
        object: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The compiler was content, but there is no object.
    #[error("the eBPF build left no object at {0}")]
    NoObject(PathBuf),
}

/// Which way events take in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// A ring buffer.
    RingBuffer,
    /// A perf event array, for kernels without the ring buffer.
    PerfArray,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::RingBuffer, Self::PerfArray];

    /// File name of the object, once it is built.
    pub const fn object(self) -> &'static str {
        match self {
            Self::RingBuffer => "guard-ebpf.o",
            Self::PerfArray => "guard-ebpf-perf-array.o",
        }
    }
}

/// Builds the programs in `source_dir` (the `guard-ebpf` folder), keeping everything below `target_dir`, and leaves one
/// object there for every [`Variant`]. Returns their paths.
pub fn build(
    toolchain: &Toolchain,
    source_dir: &Path,
    target_dir: &Path,
) -> Result<Vec<PathBuf>, BuildError> {
    let mut objects = Vec::new();
    let mut keep = |built: &Path, name: &str| -> Result<(), BuildError> {
        let object = target_dir.join(name);
        let copied = std::fs::copy(built, &object);
        copied.map_err(|error| BuildError::Keep { object: object.clone(), error })?;
        objects.push(object);
        Ok(())
    };
    for variant in Variant::ALL {
        let built = compile(toolchain, source_dir, target_dir, variant)?;
        keep(&built, variant.object())?;
        if variant == Variant::RingBuffer {
            // Beside it: the program that steers connections, and those that hold statements.
            keep(&built.with_file_name(STEERING), "guard-steer.o")?;
            keep(&built.with_file_name(HOLDING), "guard-hold.o")?;
        }
    }
    Ok(objects)
}

fn compile(
    toolchain: &Toolchain,
    source_dir: &Path,
    target_dir: &Path,
    variant: Variant,
) -> Result<PathBuf, BuildError> {
    let mut cargo = toolchain.cargo();
    cargo
        .args(["build", "--release", "--locked", "--target", TARGET, "--manifest-path"])
        .arg(source_dir.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(source_dir);
    if variant == Variant::PerfArray {
        cargo.args(["--features", "perf-array"]);
    }
    let program = cargo.get_program().to_string_lossy().into_owned();
    let output = cargo.output().map_err(|error| BuildError::Start { program, error })?;
    if !output.status.success() {
        return Err(BuildError::Compile {
            toolchain: toolchain.describe(),
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    let object = target_dir.join(TARGET).join("release").join(OBJECT);
    if object.is_file() { Ok(object) } else { Err(BuildError::NoObject(object)) }
}
