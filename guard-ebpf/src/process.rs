//! exec, fork and exit of processes, on raw tracepoints: they need no tracefs.

use aya_ebpf::{
    helpers::generated::{
        bpf_get_current_task, bpf_probe_read_kernel_str, bpf_probe_read_user,
    },
    macros::raw_tracepoint,
    maps::ring_buf::RingBufEntry,
    programs::RawTracePointContext,
};
use guard_common::kernel::{
    EventKind,
    process::{ARGV_LEN, ExecEvent, ExitEvent, ForkEvent, PATH_LEN},
};

use crate::{
    events::{header, reserve},
    read::{member_or, offset, task_info},
};

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
        (&raw mut (*event).reserved).write(0);
    }
    read_path(&mut entry, binprm);
    read_argv(&mut entry, task);
    entry.submit(0);
    0
}

#[inline(always)]
fn read_path(entry: &mut RingBufEntry<ExecEvent>, binprm: u64) {
    let event = entry.as_mut_ptr();
    let name: u64 = member_or(binprm, offset!(binprm_interp), 0);
    // SAFETY: the length is that of the field; the helper checks the source.
    let read = unsafe {
        bpf_probe_read_kernel_str((&raw mut (*event).path).cast(), PATH_LEN as u32, name as *const _)
    };
    // The helper counts the final zero byte.
    let kept = if read > 0 && read <= PATH_LEN as i64 { read as u32 - 1 } else { 0 };
    // SAFETY: a field of the reserved entry.
    unsafe { (&raw mut (*event).path_kept).write(kept) };
}

#[inline(always)]
fn read_argv(entry: &mut RingBufEntry<ExecEvent>, task: u64) {
    let event = entry.as_mut_ptr();
    let memory: u64 = member_or(task, offset!(task_mm), 0);
    let start: u64 = member_or(memory, offset!(mm_arg_start), 0);
    let end: u64 = member_or(memory, offset!(mm_arg_end), 0);
    let length = end.saturating_sub(start);
    // Not a byte more than the arguments: the environment follows them, with its secrets.
    let wanted = if length > ARGV_LEN as u64 { ARGV_LEN as u32 } else { length as u32 };
    // SAFETY: bounded by the field's length; the helper checks the source.
    let result =
        unsafe { bpf_probe_read_user((&raw mut (*event).argv).cast(), wanted, start as *const _) };
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
    entry.submit(0);
    0
}

/// `sched_process_exit(struct task_struct *p, ..)`.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(_ctx: RawTracePointContext) -> i32 {
    // The task is the current one; kernels differ only in what else they pass.
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let pid: u32 = member_or(task, offset!(task_pid), 0);
    if pid != member_or(task, offset!(task_tgid), 0) {
        return 0; // A thread; the leader ends the process.
    }
    let Some(mut entry) = reserve::<ExitEvent>(EventKind::Exit) else { return 0 };
    let start_ns = member_or(task, offset!(task_start_boottime), 0);
    entry.write(ExitEvent { header: header(EventKind::Exit), start_ns, pid, reserved: 0 });
    entry.submit(0);
    0
}
