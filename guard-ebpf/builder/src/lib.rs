//! Finds a BPF toolchain and builds the eBPF object with it.
