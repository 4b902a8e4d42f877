//! The eBPF object, embedded into the agent.

/// Puts the bytes where an ELF reader may cast them.
#[repr(C, align(32))]
struct Aligned<Bytes: ?Sized>(Bytes);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/guard-ebpf.o")));

/// The ELF object with all programs and maps.
pub fn object() -> &'static [u8] {
    &OBJECT.0
}
