//! exec, fork and exit of processes, on raw tracepoints: they need no tracefs.

use core::mem::offset_of;

use aya_ebpf::{
    helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel_str, bpf_probe_read_user},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use guard_common::kernel::{
    EventKind,
    process::{ARGV_LEN, ExecEvent, ExitEvent, ForkEvent, NAME_LEN, PATH_LEN},
};

use crate::{
    events::{Draft, draft, header, log, reserve},
    read::{cleared, offset, task_info},
};

/// Names and mounts on the way from a program to the root.
const MAX_STEPS: usize = 32;

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    let binprm: u64 = ctx.arg(2);
    let Some(mut entry) = draft::<ExecEvent>(EventKind::Exec) else { return 0 };
    let event = entry.as_mut_ptr();
    // SAFETY: the draft is as large as the event; every byte up to the kept lengths is written.
    unsafe {
        (&raw mut (*event).header).write(header(EventKind::Exec));
        (&raw mut (*event).task).write(task_info(task));
        (&raw mut (*event).inode).write(inode_of(binprm));
    }
    read_path(&mut entry, binprm);
    read_argv(&mut entry, task);
    entry.submit(&ctx);
    log!(&ctx, "exec of pid {}", cleared::<u32>(task, offset!(task_tgid)));
    0
}

/// The file that was opened, by its number: a path may lead elsewhere by the time it is looked at.
#[inline(always)]
fn inode_of(binprm: u64) -> u64 {
    let file: u64 = cleared(binprm, offset!(binprm_file));
    let inode: u64 = cleared(file, offset!(file_inode));
    cleared(inode, offset!(inode_number))
}

const _: () = assert!(PATH_LEN.is_power_of_two(), "a mask bounds it");
const _: () = assert!(offset_of!(ExecEvent, path) + PATH_LEN - 1 + NAME_LEN <= size_of::<ExecEvent>());

/// Walks from the program file up to the root of its mounts, as d_path does.
///
/// What it has found so far is in the event and not in variables: a verifier that knows how much was read follows each
/// length from there on to the end by itself.
#[inline(always)]
fn read_path(entry: &mut Draft<ExecEvent>, binprm: u64) {
    let event = entry.as_mut_ptr();
    let file: u64 = cleared(binprm, offset!(binprm_file));
    let path = file + u64::from(offset!(file_path));
    let mut mount: u64 = cleared(path, offset!(path_mnt));
    let mut dentry: u64 = cleared(path, offset!(path_dentry));
    // SAFETY: fields of the draft, here and below.
    let (kept, truncated) = unsafe { (&raw mut (*event).path_kept, &raw mut (*event).path_truncated) };
    unsafe {
        kept.write_volatile(0);
        truncated.write_volatile(1);
    }
    for _ in 0..MAX_STEPS {
        if dentry == cleared(mount, offset!(vfsmount_root)) {
            // The root of a mount stands for the folder on which it is mounted.
            let inner = mount.wrapping_sub(u64::from(offset!(mount_mnt)));
            let parent: u64 = cleared(inner, offset!(mount_parent));
            if parent == inner || parent == 0 {
                // SAFETY: as above.
                unsafe { truncated.write_volatile(0) };
                return;
            }
            dentry = cleared(inner, offset!(mount_mountpoint));
            mount = parent + u64::from(offset!(mount_mnt));
            continue;
        }
        // SAFETY: as above.
        let at = unsafe { kept.read_volatile() };
        // Room for the longest name.
        if at > (PATH_LEN - NAME_LEN) as u32 {
            return;
        }
        let name: u64 = cleared(dentry + u64::from(offset!(dentry_name)), offset!(qstr_name));
        // SAFETY: what the mask leaves is within the event; the helper checks the source.
        let read = unsafe {
            // The mask changes nothing: it is a bound that every verifier can follow.
            let at = kept.read_volatile() & (PATH_LEN as u32 - 1);
            let to = (&raw mut (*event).path).cast::<u8>().add(at as usize);
            bpf_probe_read_kernel_str(to.cast(), NAME_LEN as u32, name as *const _)
        };
        if read <= 0 {
            return;
        }
        // SAFETY: as above.
        unsafe { kept.write_volatile(at + read as u32) };
        let parent: u64 = cleared(dentry, offset!(dentry_parent));
        if parent == dentry || parent == 0 {
            // A file without a folder, such as that of memfd_create.
            // SAFETY: as above.
            unsafe { truncated.write_volatile(0) };
            return;
        }
        dentry = parent;
    }
}

#[inline(always)]
fn read_argv(entry: &mut Draft<ExecEvent>, task: u64) {
    let event = entry.as_mut_ptr();
    let memory: u64 = cleared(task, offset!(task_mm));
    let start: u64 = cleared(memory, offset!(mm_arg_start));
    let end: u64 = cleared(memory, offset!(mm_arg_end));
    let length = end.saturating_sub(start);
    // Not a byte more than the arguments: the environment follows them, with its secrets.
    let wanted = if length > ARGV_LEN as u64 { ARGV_LEN as u32 } else { length as u32 };
    // SAFETY: bounded by the field's length; the helper checks the source.
    let result = unsafe { bpf_probe_read_user((&raw mut (*event).argv).cast(), wanted, start as *const _) };
    // SAFETY: fields of the draft.
    unsafe {
        (&raw mut (*event).argv_bytes).write(length as u32);
        (&raw mut (*event).argv_kept).write(if result == 0 { wanted } else { 0 });
    }
}

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    let child: u64 = ctx.arg(1);
    let pid: u32 = cleared(child, offset!(task_pid));
    if pid != cleared(child, offset!(task_tgid)) {
        return 0; // A thread.
    }
    let Some(mut entry) = reserve::<ForkEvent>(EventKind::Fork) else { return 0 };
    let event = ForkEvent { header: header(EventKind::Fork), task: task_info(child) };
    entry.write(event);
    entry.submit(&ctx);
    0
}

/// `sched_process_exit(struct task_struct *p, ..)`.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(ctx: RawTracePointContext) -> i32 {
    // The task is the current one; kernels differ only in what else they pass.
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let pid: u32 = cleared(task, offset!(task_pid));
    if pid != cleared(task, offset!(task_tgid)) {
        return 0; // A thread; the leader ends the process.
    }
    #[cfg(not(feature = "perf-array"))]
    crate::statement::ended(pid);
    let Some(mut entry) = reserve::<ExitEvent>(EventKind::Exit) else { return 0 };
    let start_ns = cleared(task, offset!(task_start_boottime));
    entry.write(ExitEvent { header: header(EventKind::Exit), start_ns, pid, reserved: 0 });
    entry.submit(&ctx);
    0
}
