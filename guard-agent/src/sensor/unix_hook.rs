//! Attaches the program that refuses connects to unix sockets, at the first hook that this kernel takes: cgroup/connect_unix
//! (since Linux 6.7), else the kernel's own check of each connect, else the one of eBPF among its security modules. The
//! loader has no types for them, so programs are loaded by the system call itself.
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

use guard_common::kernel::{layout::Layout, maps as kernel_maps};

use super::{aligned, btf, load};

/// What the verifier may write about a refusal.
const LOG_BYTES: usize = 64 * 1024;

/// Why a hook cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The object is not what it should be.
    #[error("the eBPF object has no usable `{0}`: {1}")]
    Object(&'static str, String),
    /// This kernel's type information does not have what the hook needs.
    #[error("this kernel's BTF does not tell what {0} needs")]
    Unknown(Hook),
    /// No such hook, or the verifier refuses the program.
    #[error("the kernel takes no program for {hook} ({error}){reason}")]
    Load {
        /// Which.
        hook: Hook,
        /// As the system call said.
        error: io::Error,
        /// The verifier's last words.
        reason: String,
    },
    /// Attaching failed.
    #[error("nothing can be attached to {hook}: {error}")]
    Attach {
        /// Which.
        hook: Hook,
        /// As the system call said.
        error: io::Error,
    },
    /// None of them can.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    All(Vec<Self>),
}

/// Where connects to unix sockets can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// On the cgroup, by the path that connect was given (Linux 6.7).
    Cgroup,
    /// In place of the kernel's own check, by the socket that listens (Linux 5.7).
    Check,
    /// As one of the kernel's security modules, where `bpf` is among them (`lsm=`).
    SecurityModule,
}

/// The hooks that are tried, in this order: the one of `cgroup` for it and all below it, the others for the host.
pub fn hooks(security: bool, cgroup: Option<&File>) -> impl Iterator<Item = (Hook, Option<&File>)> {
    let first = cgroup.map(|cgroup| (Hook::Cgroup, Some(cgroup)));
    let others = [Hook::Check, Hook::SecurityModule].into_iter().filter(move |_| security);
    first.into_iter().chain(others.map(|hook| (hook, None)))
}

impl Hook {
    const fn program(self) -> &'static str {
        match self {
            Self::Cgroup => "connect_unix",
            Self::Check | Self::SecurityModule => "unix_stream_connect",
        }
    }

    /// The kinds of the program and of its place, and the function of the kernel that it goes to, if it goes to one.
    fn target(self) -> Option<(bpf_prog_type, bpf_attach_type, u32)> {
        use {bpf_attach_type as place, bpf_prog_type as kind};
        Some(match self {
            Self::Cgroup => (kind::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, place::BPF_CGROUP_UNIX_CONNECT, 0),
            Self::Check => (kind::BPF_PROG_TYPE_TRACING, place::BPF_MODIFY_RETURN, btf::unix_check()?),
            Self::SecurityModule => (kind::BPF_PROG_TYPE_LSM, place::BPF_LSM_MAC, btf::unix_check_of_lsm()?),
        })
    }

    const fn is_described(self, layout: &Layout) -> bool {
        match self {
            Self::Cgroup => layout.has_unix_refusal(),
            Self::Check | Self::SecurityModule => layout.has_listener_refusal(),
        }
    }
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cgroup => "cgroup/connect_unix (Linux 6.7)",
            Self::Check => "security_unix_stream_connect (Linux 5.7 with CONFIG_FUNCTION_TRACER)",
            Self::SecurityModule => "bpf_lsm_unix_stream_connect (`bpf` in `lsm=`)",
        })
    }
}

/// Loads a program with the maps of `ebpf`, and `events`, which have been taken out of it, and attaches it to the first of
/// `hooks` that this kernel takes.
pub fn attach<'a>(
    ebpf: &Ebpf,
    events: BorrowedFd<'_>,
    hooks: impl Iterator<Item = (Hook, Option<&'a File>)>,
    layout: &Layout,
) -> Result<(OwnedFd, Hook), HookError> {
    let mut failures = Vec::new();
    for (hook, cgroup) in hooks {
        match attach_to(hook, ebpf, events, cgroup, layout) {
            Ok(link) => return Ok((link, hook)),
            Err(error) => failures.push(error),
        }
    }
    Err(HookError::All(failures))
}

fn attach_to(
    hook: Hook,
    ebpf: &Ebpf,
    events: BorrowedFd<'_>,
    cgroup: Option<&File>,
    layout: &Layout,
) -> Result<OwnedFd, HookError> {
    if !hook.is_described(layout) {
        return Err(HookError::Unknown(hook));
    }
    let target = hook.target().ok_or(HookError::Unknown(hook))?;
    let (instructions, license) = relocated(hook.program(), ebpf, events)?;
    let program = load(hook, target, &instructions, &license)?;
    let linked = match (hook, cgroup) {
        (Hook::Cgroup, Some(cgroup)) => link_to_cgroup(&program, cgroup),
        _ => link_to_function(&program),
    };
    linked.map_err(|error| HookError::Attach { hook, error })
}

fn relocated(
    name: &'static str,
    ebpf: &Ebpf,
    events: BorrowedFd<'_>,
) -> Result<(Vec<bpf_insn>, std::ffi::CString), HookError> {
    let broken = |error: &dyn std::fmt::Display| HookError::Object(name, error.to_string());
    let mut object = Object::parse(aligned::object(true)).map_err(|error| broken(&error))?;
    let maps = std::mem::take(&mut object.maps);
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let mut made = Vec::with_capacity(maps.len());
    for (map_name, map) in &maps {
        let fd = match ebpf.map(map_name) {
            Some(map) => descriptor(map),
            None if map_name == kernel_maps::EVENTS => Some(events.as_raw_fd()),
            // Of other rooms, which have taken theirs: this program has nothing to do with them.
            None => None,
        };
        made.extend(fd.map(|fd| (map_name.as_str(), fd, map)));
    }
    object.relocate_maps(made.into_iter(), &text).map_err(|error| broken(&error))?;
    object.relocate_calls(&text).map_err(|error| broken(&error))?;
    let program = object.programs.get(name).ok_or_else(|| broken(&"it is not there"))?;
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

fn load(
    hook: Hook,
    (kind, place, function): (bpf_prog_type, bpf_attach_type, u32),
    instructions: &[bpf_insn],
    license: &std::ffi::CStr,
) -> Result<OwnedFd, HookError> {
    let mut log = vec![0_u8; LOG_BYTES];
    // SAFETY: a union of integers and addresses: zero is a value of it.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: every field of the union is plain.
    let program = unsafe { &mut attributes.__bindgen_anon_3 };
    program.prog_type = kind as u32;
    program.expected_attach_type = place as u32;
    program.attach_btf_id = function;
    program.insns = instructions.as_ptr() as u64;
    program.insn_cnt = u32::try_from(instructions.len()).unwrap_or(u32::MAX);
    program.license = license.as_ptr() as u64;
    // The last byte stays zero.
    let room = program.prog_name.len() - 1;
    for (to, from) in program.prog_name[..room].iter_mut().zip(hook.program().bytes()) {
        *to = from as std::ffi::c_char;
    }
    // First without a log: the kernel fails where one does not fit.
    match call(bpf_cmd::BPF_PROG_LOAD, &mut attributes) {
        Ok(program) => return Ok(program),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            return Err(HookError::Load { hook, error, reason: String::new() });
        }
        Err(_) => {}
    }
    // SAFETY: as above.
    let program = unsafe { &mut attributes.__bindgen_anon_3 };
    program.log_level = load::VERIFIER_LOG.bits();
    program.log_size = LOG_BYTES as u32;
    program.log_buf = log.as_mut_ptr() as u64;
    call(bpf_cmd::BPF_PROG_LOAD, &mut attributes).map_err(|error| {
        let text = String::from_utf8_lossy(&log).into_owned();
        let mut last = text.trim_end_matches('\0').lines().rev().map(str::trim);
        let statistics = ["processed ", "verification time", "stack depth"];
        let said = |line: &&str| !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start));
        let reason = last.find(said);
        let reason = reason.map(|line| format!(": {line}")).unwrap_or_default();
        HookError::Load { hook, error, reason }
    })
}

fn link_to_cgroup(program: &OwnedFd, cgroup: &File) -> io::Result<OwnedFd> {
    // SAFETY: as in `load`.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    attributes.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attributes.link_create.__bindgen_anon_2.target_fd = cgroup.as_raw_fd().cast_unsigned();
    attributes.link_create.attach_type = bpf_attach_type::BPF_CGROUP_UNIX_CONNECT as u32;
    call(bpf_cmd::BPF_LINK_CREATE, &mut attributes)
}

/// The kernel knows from the program which function it is for.
fn link_to_function(program: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: as in `load`.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    attributes.raw_tracepoint.prog_fd = program.as_raw_fd().cast_unsigned();
    call(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attributes)
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
