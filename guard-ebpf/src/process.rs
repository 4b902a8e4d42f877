//! exec, fork and exit of processes, on raw tracepoints: they need no tracefs.

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
    events::{Entry, header, log, reserve},
    read::{member_or, offset, task_info},
};

/// Names and mounts on the way from a program to the root.
const MAX_STEPS: usize = 32;

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    let binprm: u64 = ctx.arg(2);
    let Some(mut entry) = reserve::<ExecEvent>(EventKind::Exec) else { return 0 };
    let event = entry.as_mut_ptr();
    // SAFETY: the ring buffer's entry is as large as the event; every byte up to the kept lengths is written.
    unsafe {
        (&raw mut (*event).header).write(header(EventKind::Exec));
        (&raw mut (*event).task).write(task_info(task));
        (&raw mut (*event).inode).write(inode_of(binprm));
    }
    read_path(&mut entry, binprm);
    read_argv(&mut entry, task);
    entry.submit(&ctx);
    log!(&ctx, "exec of pid {}", member_or::<u32>(task, offset!(task_tgid), 0));
    0
}

/// The file that was opened, by its number: a path may lead elsewhere by the time it is looked at.
#[inline(always)]
fn inode_of(binprm: u64) -> u64 {
    let file: u64 = member_or(binprm, offset!(binprm_file), 0);
    let inode: u64 = member_or(file, offset!(file_inode), 0);
    member_or(inode, offset!(inode_number), 0)
}

/// Walks from the program file up to the root of its mounts, as d_path does.
#[inline(always)]
fn read_path(entry: &mut Entry<ExecEvent>, binprm: u64) {
    let event = entry.as_mut_ptr();
    let file: u64 = member_or(binprm, offset!(binprm_file), 0);
    let path = file + u64::from(offset!(file_path));
    let mut mount: u64 = member_or(path, offset!(path_mnt), 0);
    let mut dentry: u64 = member_or(path, offset!(path_dentry), 0);
    let mut kept = 0_u64;
    let mut truncated = 1_u32;
    for _ in 0..MAX_STEPS {
        // Room for the longest name: the verifier wants a bound that does not depend on what was read.
        if kept > (PATH_LEN - NAME_LEN) as u64 {
            break;
        }
        if dentry == member_or(mount, offset!(vfsmount_root), 0) {
            // The root of a mount stands for the folder on which it is mounted.
            let inner = mount.wrapping_sub(u64::from(offset!(mount_mnt)));
            let parent: u64 = member_or(inner, offset!(mount_parent), 0);
            if parent == inner || parent == 0 {
                truncated = 0;
                break;
            }
            dentry = member_or(inner, offset!(mount_mountpoint), 0);
            mount = parent + u64::from(offset!(mount_mnt));
            continue;
        }
        let name: u64 = member_or(dentry + u64::from(offset!(dentry_name)), offset!(qstr_name), 0);
        // SAFETY: the bound above leaves room for NAME_LEN bytes; the helper checks the source.
        let read = unsafe {
            let to = (&raw mut (*event).path).cast::<u8>().add(kept as usize);
            bpf_probe_read_kernel_str(to.cast(), NAME_LEN as u32, name as *const _)
        };
        if read <= 0 || read > NAME_LEN as i64 {
            break;
        }
        kept += read as u64;
        let parent: u64 = member_or(dentry, offset!(dentry_parent), 0);
        if parent == dentry || parent == 0 {
            truncated = 0; // A file without a folder, such as that of memfd_create.
            break;
        }
        dentry = parent;
    }
    // SAFETY: fields of the reserved entry.
    unsafe {
        (&raw mut (*event).path_kept).write(kept as u32);
        (&raw mut (*event).path_truncated).write(truncated);
    }
}

#[inline(always)]
fn read_argv(entry: &mut Entry<ExecEvent>, task: u64) {
    let event = entry.as_mut_ptr();
    let memory: u64 = member_or(task, offset!(task_mm), 0);
    let start: u64 = member_or(memory, offset!(mm_arg_start), 0);
    let end: u64 = member_or(memory, offset!(mm_arg_end), 0);
    let length = end.saturating_sub(start);
    // Not a byte more than the arguments: the environment follows them, with its secrets.
    let wanted = if length > ARGV_LEN as u64 { ARGV_LEN as u32 } else { length as u32 };
    // SAFETY: bounded by the field's length; the helper checks the source.
    let result = unsafe { bpf_probe_read_user((&raw mut (*event).argv).cast(), wanted, start as *const _) };
    // SAFETY: fields of the reserved entry.
    unsafe {
        (&raw mut (*event).argv_bytes).write(length as u32);
        (&raw mut (*event).argv_kept).write(if result == 0 { wanted } else { 0 });
    }
}

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    let child: u64 = ctx.arg(1);
    let pid: u32 = member_or(child, offset!(task_pid), 0);
    if pid != member_or(child, offset!(task_tgid), 0) {
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
    let pid: u32 = member_or(task, offset!(task_pid), 0);
    if pid != member_or(task, offset!(task_tgid), 0) {
        return 0; // A thread; the leader ends the process.
    }
    #[cfg(not(feature = "perf-array"))]
    crate::statement::ended(pid);
    let Some(mut entry) = reserve::<ExitEvent>(EventKind::Exit) else { return 0 };
    let start_ns = member_or(task, offset!(task_start_boottime), 0);
    entry.write(ExitEvent { header: header(EventKind::Exit), start_ns, pid, reserved: 0 });
    entry.submit(&ctx);
    0
}
