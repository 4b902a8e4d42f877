//! Attaching programs to cgroups: by a link where the kernel has them, else by flags.
//!
//! A link goes with whoever holds it. What is attached by flags stays when the agent dies, so it is taken away when the
//! sensor ends, and what another run has left behind before this one begins.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use aya::{
    maps::loaded_maps,
    programs::{ProgramError, loaded_programs},
};
use guard_common::kernel::maps;

/// `BPF_PROG_ATTACH`, `BPF_PROG_DETACH` and `BPF_PROG_QUERY` of the kernel's `bpf.h`.
const ATTACH: libc::c_long = 8;
const DETACH: libc::c_long = 9;
const QUERY: libc::c_long = 16;
/// `BPF_F_ALLOW_MULTI`: beside the programs of others.
const ALLOW_MULTI: u32 = 2;
/// Programs of one kind that are looked at on one cgroup; the kernel takes 64.
const MOST: usize = 64;

/// Where on a cgroup a program runs: `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Place {
    /// TCP sockets' lives.
    SockOps = 3,
    /// connect over IPv4.
    Connect4 = 10,
    /// connect over IPv6.
    Connect6 = 11,
}

/// A program on a cgroup that is there by flags. It goes when this does.
#[derive(Debug)]
pub struct Attached {
    cgroup: OwnedFd,
    program: OwnedFd,
    place: Place,
}

impl Attached {
    /// Puts `program` beside what is there.
    pub fn new(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, place: Place) -> io::Result<Self> {
        let attached =
            Self { cgroup: cgroup.try_clone_to_owned()?, program: program.try_clone_to_owned()?, place };
        attached.call(ATTACH, ALLOW_MULTI)?;
        Ok(attached)
    }

    fn call(&self, command: libc::c_long, flags: u32) -> io::Result<()> {
        change(command, self.cgroup.as_fd(), self.program.as_fd(), self.place, flags)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Err(error) = self.call(DETACH, 0) {
            tracing::warn!(%error, place = ?self.place, "an eBPF program stays attached to its cgroup");
        }
    }
}

fn change(
    command: libc::c_long,
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    place: Place,
    flags: u32,
) -> io::Result<()> {
    let (cgroup, program) = (cgroup.as_raw_fd().cast_unsigned(), program.as_raw_fd().cast_unsigned());
    let attributes: [u32; 4] = [cgroup, program, place as u32, flags];
    // SAFETY: the attributes live through the call and are as long as said.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes away what runs of the agent that ended without a word have left on `cgroup`: programs with guard's maps that
/// no process holds. Returns how many.
pub fn clear_left_behind(cgroup: BorrowedFd<'_>) -> usize {
    let mut cleared = 0;
    for place in [Place::SockOps, Place::Connect4, Place::Connect6] {
        let attached: HashSet<u32> = attached_to(cgroup, place).into_iter().collect();
        if attached.is_empty() {
            continue;
        }
        // Looked at before any is opened here: who opens one holds it.
        let held = held_programs();
        let left = |program: &aya::programs::ProgramInfo| {
            attached.contains(&program.id()) && !held.contains(&program.id()) && is_guards(program)
        };
        for program in loaded_programs().flatten().filter(left) {
            let detached = program
                .fd()
                .and_then(|fd| change(DETACH, cgroup, fd.as_fd(), place, 0).map_err(ProgramError::IOError));
            match detached {
                Ok(()) => cleared += 1,
                Err(error) => {
                    tracing::warn!(%error, "what an earlier run left attached cannot be taken away")
                }
            }
        }
    }
    cleared
}

/// Ids of the programs on a cgroup.
fn attached_to(cgroup: BorrowedFd<'_>, place: Place) -> Vec<u32> {
    #[repr(C)]
    struct Query {
        cgroup: u32,
        place: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        reserved: u32,
    }
    let mut ids = [0_u32; MOST];
    let mut query = Query {
        cgroup: cgroup.as_raw_fd().cast_unsigned(),
        place: place as u32,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: MOST as u32,
        reserved: 0,
    };
    // SAFETY: the structure and the array that it names live through the call and are as long as said.
    let result = unsafe { libc::syscall(libc::SYS_bpf, QUERY, &raw mut query, size_of::<Query>()) };
    if result < 0 { Vec::new() } else { ids[..(query.count as usize).min(MOST)].to_vec() }
}

/// Ids of the programs that processes have open, as /proc tells them.
fn held_programs() -> HashSet<u32> {
    let mut held = HashSet::new();
    let Ok(processes) = fs::read_dir("/proc") else { return held };
    for process in processes
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
    {
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let is_program =
                fs::read_link(descriptor.path()).is_ok_and(|target| target.to_string_lossy().contains("bpf"));
            if !is_program {
                continue;
            }
            let info = process.path().join("fdinfo").join(descriptor.file_name());
            let info = fs::read_to_string(info).unwrap_or_default();
            held.extend(
                info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse::<u32>().ok()),
            );
        }
    }
    held
}

fn is_guards(program: &aya::programs::ProgramInfo) -> bool {
    let Ok(Some(ids)) = program.map_ids() else { return false };
    // The kernel keeps 15 bytes of a name.
    let name = &maps::WATCHED_PORTS[..maps::WATCHED_PORTS.len().min(15)];
    loaded_maps().flatten().any(|map| ids.contains(&map.id()) && map.name_as_str() == Some(name))
}
