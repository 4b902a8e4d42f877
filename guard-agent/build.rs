//! Builds the eBPF objects and leaves them in `OUT_DIR`, from where they are embedded into the agent.

use std::{env, fs, path::PathBuf, process::ExitCode};

use guard_ebpf_builder::{Toolchain, build};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let workspace = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for source in [
        "guard-ebpf/src",
        "guard-ebpf/build.rs",
        "guard-ebpf/Cargo.toml",
        "guard-ebpf/Cargo.lock",
        "guard-common/src/kernel",
        "guard-common/src/kernel.rs",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    for object in build(&Toolchain::probe()?, &workspace.join("guard-ebpf"), &out.join("ebpf"))? {
        let name = object.file_name().ok_or("an object without a name")?;
        fs::copy(&object, out.join(name))?;
    }
    Ok(())
}
