//! The eBPF objects, embedded into the agent.

/// Puts the bytes where an ELF reader may cast them.
#[repr(C, align(32))]
struct Aligned<Bytes: ?Sized>(Bytes);

static RING_BUFFER: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/guard-ebpf.o")));
static PERF_ARRAY: &Aligned<[u8]> =
    &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/guard-ebpf-perf-array.o")));

static HOLD: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/guard-hold.o")));

/// The ELF object that holds statements.
pub fn hold_object() -> &'static [u8] {
    &HOLD.0
}

/// The ELF object with all programs and maps, for kernels with a ring buffer and for those without.
pub fn object(ring_buffer: bool) -> &'static [u8] {
    if ring_buffer { &RING_BUFFER.0 } else { &PERF_ARRAY.0 }
}
