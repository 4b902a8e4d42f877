//! The eBPF objects, embedded into the agent.

/// Puts the bytes where an ELF reader may cast them.
#[repr(C, align(32))]
struct Aligned<Bytes: ?Sized>(Bytes);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/guard-ebpf.o")));

static HOLD: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/guard-hold.o")));

/// The ELF object that holds statements.
pub fn hold_object() -> &'static [u8] {
    &HOLD.0
}

/// The ELF object with all programs and maps of the sensor.
pub fn object() -> &'static [u8] {
    &OBJECT.0
}
