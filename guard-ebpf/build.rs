//! Tells the programs for which machine they are: registers of a process have other names on each.

use std::env;

fn main() {
    let machine = env::var("CARGO_CFG_BPF_TARGET_ARCH").unwrap_or_else(|_| {
        let host = env::var("HOST").unwrap_or_default();
        host.split('-').next().unwrap_or_default().to_owned()
    });
    println!("cargo::rerun-if-env-changed=CARGO_CFG_BPF_TARGET_ARCH");
    println!("cargo::rustc-check-cfg=cfg(bpf_target_arch, values(any()))");
    println!("cargo::rustc-cfg=bpf_target_arch=\"{machine}\"");
}
