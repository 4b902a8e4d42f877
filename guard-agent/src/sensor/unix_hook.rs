//! Attaches the program that refuses connects to unix sockets. The loader has no type for its hook (cgroup/connect_unix,
//! since Linux 6.7), so it is loaded by the system call itself.
//!
//! The object and the maps that were made from it enter; a link leaves, which detaches when it is dropped.

use std::{
    collections::HashSet,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use aya::{Ebpf, maps::Map};
use aya_obj::{
    Object,
    generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type},
};

use guard_common::kernel::maps as kernel_maps;

use super::aligned;

/// Its name in the object.
const PROGRAM: &str = "connect_unix";
/// What the verifier may write about a refusal.
const LOG_BYTES: usize = 64 * 1024;

/// Why the hook cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The object is not what it should be.
    #[error("the eBPF object has no usable `{PROGRAM}`: {0}")]
    Object(String),
    /// No such attach type, or the verifier refuses the program.
    #[error(
        "the kernel does not take `{PROGRAM}` ({error}){reason}; cgroup/connect_unix came with Linux 6.7"
    )]
    Load {
        /// As the system call said.
        error: io::Error,
        /// The verifier's last words.
        reason: String,
    },
    /// Attaching failed.
    #[error("`{PROGRAM}` cannot be attached: {0}")]
    Attach(io::Error),
}

/// Loads the program with the maps of `ebpf`, and `events`, which have been taken out of it, and attaches it to the cgroup
/// and all below it.
pub fn attach(ebpf: &Ebpf, events: BorrowedFd<'_>, cgroup: &File) -> Result<OwnedFd, HookError> {
    let (instructions, license) = relocated(ebpf, events)?;
    let program = load(&instructions, &license)?;
    link(&program, cgroup).map_err(HookError::Attach)
}

fn relocated(ebpf: &Ebpf, events: BorrowedFd<'_>) -> Result<(Vec<bpf_insn>, std::ffi::CString), HookError> {
    let broken = |error: &dyn std::fmt::Display| HookError::Object(error.to_string());
    let mut object = Object::parse(aligned::object(true)).map_err(|error| broken(&error))?;
    let maps = std::mem::take(&mut object.maps);
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let mut made = Vec::with_capacity(maps.len());
    for (name, map) in &maps {
        let fd = match ebpf.map(name) {
            Some(map) => descriptor(map),
            None if name == kernel_maps::EVENTS => Some(events.as_raw_fd()),
            // Of other rooms, which have taken theirs: this program has nothing to do with them.
            None => None,
        };
        made.extend(fd.map(|fd| (name.as_str(), fd, map)));
    }
    object.relocate_maps(made.into_iter(), &text).map_err(|error| broken(&error))?;
    object.relocate_calls(&text).map_err(|error| broken(&error))?;
    let program = object.programs.get(PROGRAM).ok_or_else(|| broken(&"it is not there"))?;
    let function = object.functions.get(&program.function_key()).ok_or_else(|| broken(&"it has no code"))?;
    Ok((function.instructions.clone(), program.license.clone()))
}

fn descriptor(map: &Map) -> Option<RawFd> {
    let data = match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerfEventArray(data)
        | Map::RingBuf(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd().as_raw_fd())
}

fn load(instructions: &[bpf_insn], license: &std::ffi::CStr) -> Result<OwnedFd, HookError> {
    let mut log = vec![0_u8; LOG_BYTES];
    // SAFETY: a union of integers and addresses: zero is a value of it.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: every field of the union is plain.
    let program = unsafe { &mut attributes.__bindgen_anon_3 };
    program.prog_type = bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR as u32;
    program.expected_attach_type = bpf_attach_type::BPF_CGROUP_UNIX_CONNECT as u32;
    program.insns = instructions.as_ptr() as u64;
    program.insn_cnt = u32::try_from(instructions.len()).unwrap_or(u32::MAX);
    program.license = license.as_ptr() as u64;
    for (to, from) in program.prog_name.iter_mut().zip(PROGRAM.bytes()) {
        *to = from as std::ffi::c_char;
    }
    // First without a log: the kernel fails where one does not fit.
    match call(bpf_cmd::BPF_PROG_LOAD, &mut attributes) {
        Ok(program) => return Ok(program),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            return Err(HookError::Load { error, reason: String::new() });
        }
        Err(_) => {}
    }
    // SAFETY: as above.
    let program = unsafe { &mut attributes.__bindgen_anon_3 };
    program.log_level = 1;
    program.log_size = LOG_BYTES as u32;
    program.log_buf = log.as_mut_ptr() as u64;
    call(bpf_cmd::BPF_PROG_LOAD, &mut attributes).map_err(|error| {
        let text = String::from_utf8_lossy(&log).into_owned();
        let mut last = text.trim_end_matches('\0').lines().rev().map(str::trim);
        let reason = last.find(|line| !line.is_empty() && !line.starts_with("processed "));
        let reason = reason.map(|line| format!(": {line}")).unwrap_or_default();
        HookError::Load { error, reason }
    })
}

fn link(program: &OwnedFd, cgroup: &File) -> io::Result<OwnedFd> {
    // SAFETY: as in `load`.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    attributes.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attributes.link_create.__bindgen_anon_2.target_fd = cgroup.as_raw_fd().cast_unsigned();
    attributes.link_create.attach_type = bpf_attach_type::BPF_CGROUP_UNIX_CONNECT as u32;
    call(bpf_cmd::BPF_LINK_CREATE, &mut attributes)
}

/// A command that opens a descriptor.
fn call(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    let size = size_of::<bpf_attr>();
    // SAFETY: the structure is as large as is said, and all that it points to lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, attributes, size) };
    let descriptor = RawFd::try_from(result).ok().filter(|descriptor| *descriptor >= 0);
    match descriptor {
        // SAFETY: just opened, and nobody else's.
        Some(descriptor) => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        None => Err(io::Error::last_os_error()),
    }
}
