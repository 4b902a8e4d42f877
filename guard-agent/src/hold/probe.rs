//! One probe in a program's file, as a descriptor: whoever holds it, or a copy of it, keeps the probe.
//!
//! The watchdog may keep a probe beyond the agent's end, which links of the loader's own cannot be handed over for.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// `struct perf_event_attr` as far as a probe needs it: the size that Linux 2.6.33 gave it.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint: u32,
    path: u64,
    offset: u64,
}

/// `PERF_EVENT_IOC_ENABLE` and `PERF_EVENT_IOC_SET_BPF`, the same on every machine that guard knows.
const ENABLE: libc::c_ulong = 0x2400;
const SET_PROGRAM: libc::c_ulong = 0x4004_2408;
const CLOSE_ON_EXEC: libc::c_ulong = 8;

/// The number under which this kernel knows probes in programs.
pub fn kind() -> io::Result<u32> {
    let kind = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
    kind.trim().parse().map_err(io::Error::other)
}

/// Runs `program` wherever a process comes by `offset` of the file at `path`.
pub fn attach(program: BorrowedFd<'_>, path: &Path, offset: u64) -> io::Result<OwnedFd> {
    let kind = kind()?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Attributes {
        kind,
        size: u32::try_from(size_of::<Attributes>()).map_err(io::Error::other)?,
        path: path.as_ptr() as u64,
        offset,
        ..Attributes::default()
    };
    // SAFETY: attributes and path live through the call; the descriptor is checked. All processes, by way of one processor:
    // probes know no others.
    let fd =
        unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, -1, 0, -1, CLOSE_ON_EXEC) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    let probe = unsafe { OwnedFd::from_raw_fd(fd) };
    for (request, argument) in [(SET_PROGRAM, program.as_raw_fd()), (ENABLE, 0)] {
        // SAFETY: no pointers.
        if unsafe { libc::ioctl(probe.as_raw_fd(), request as _, argument) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(probe)
}
