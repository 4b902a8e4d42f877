//! New cgroups of the v2 hierarchy.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_kernel_str, macros::raw_tracepoint, programs::RawTracePointContext,
};
use guard_common::kernel::{
    EventKind,
    cgroup::{CGROUP_PATH_LEN, CgroupEvent},
};

use crate::{
    events::{header, reserve},
    read::{cleared, kernfs_id, member_or, offset},
};

/// `cgroup_mkdir(struct cgroup *cgrp, const char *path)`.
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: RawTracePointContext) -> i32 {
    let cgroup: u64 = ctx.arg(0);
    let path: u64 = ctx.arg(1);
    let root: u64 = cleared(cgroup, offset!(cgroup_root));
    // Ids of the v1 hierarchies (above 0) may be those of other cgroups in the v2 one.
    if member_or(root, offset!(cgroup_root_hierarchy), u32::MAX) != 0 {
        return 0;
    }
    let Some(mut entry) = reserve::<CgroupEvent>(EventKind::Cgroup) else { return 0 };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is as large as the event, the helper bounds the copy and checks the source.
    unsafe {
        (&raw mut (*event).header).write(header(EventKind::Cgroup));
        (&raw mut (*event).id).write(kernfs_id(cgroup));
        (&raw mut (*event).reserved).write(0);
        let destination = (&raw mut (*event).path).cast();
        let read = bpf_probe_read_kernel_str(destination, CGROUP_PATH_LEN as u32, path as *const _);
        let kept = if read > 0 && read <= CGROUP_PATH_LEN as i64 { read as u32 - 1 } else { 0 };
        (&raw mut (*event).path_kept).write(kept);
    }
    entry.submit(&ctx);
    0
}
