//! Offsets of kernel structures. They differ from kernel to kernel, so the agent reads them from the kernel's
//! own BTF and hands them to the programs as a constant before loading.

/// The value of an offset that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Declares [`Layout`] and the table from which userspace resolves it, so that the two cannot drift.
macro_rules! layout {
    ($($field:ident = [$($structure:literal . $member:literal),+],)*) => {
        /// Byte offsets of the members that the programs read; [`ABSENT`] where this kernel has none.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        pub struct Layout {
            /// 1 where the offsets were resolved; with 0 the programs use helpers alone.
            pub known: u32,
            $(#[doc = concat!("Offset of `", stringify!($field), "`.")] pub $field: u32,)*
        }

        impl Layout {
            /// No offset is known.
            pub const UNKNOWN: Self = Self { known: 0, $($field: ABSENT,)* };

            /// Fills every offset by asking `find` for structure and member; the first name that exists wins,
            /// since members were renamed over the years.
            pub fn resolve(mut find: impl FnMut(&str, &str) -> Option<u32>) -> Self {
                Self {
                    known: 1,
                    $($field: None$(.or_else(|| find($structure, $member)))+.unwrap_or(ABSENT),)*
                }
            }

            /// The members that this kernel lacks.
            pub fn absent(&self) -> impl Iterator<Item = &'static str> {
                [$((self.$field, stringify!($field)),)*]
                    .into_iter()
                    .filter_map(|(offset, name)| (offset == ABSENT).then_some(name))
            }
        }
    };
}

layout! {
    task_pid = ["task_struct"."pid"],
    task_tgid = ["task_struct"."tgid"],
    task_group_leader = ["task_struct"."group_leader"],
    task_real_parent = ["task_struct"."real_parent"],
    // `real_start_time` until 5.5.
    task_start_boottime = ["task_struct"."start_boottime", "task_struct"."real_start_time"],
    task_cred = ["task_struct"."cred"],
    task_comm = ["task_struct"."comm"],
    task_login_uid = ["task_struct"."loginuid"],
    task_session = ["task_struct"."sessionid"],
    task_nsproxy = ["task_struct"."nsproxy"],
    task_cgroups = ["task_struct"."cgroups"],
    task_exec_id = ["task_struct"."self_exec_id"],
    task_fs = ["task_struct"."fs"],
    fs_root = ["fs_struct"."root"],
    task_mm = ["task_struct"."mm"],
    task_files = ["task_struct"."files"],
    task_thread_pid = ["task_struct"."thread_pid"],
    cred_uid = ["cred"."uid"],
    cred_gid = ["cred"."gid"],
    cred_euid = ["cred"."euid"],
    cred_egid = ["cred"."egid"],
    css_set_dfl_cgrp = ["css_set"."dfl_cgrp"],
    cgroup_kn = ["cgroup"."kn"],
    cgroup_root = ["cgroup"."root"],
    cgroup_root_hierarchy = ["cgroup_root"."hierarchy_id"],
    kernfs_node_id = ["kernfs_node"."id"],
    mm_arg_start = ["mm_struct"."arg_start"],
    mm_arg_end = ["mm_struct"."arg_end"],
    binprm_file = ["linux_binprm"."file"],
    file_path = ["file"."f_path"],
    path_mnt = ["path"."mnt"],
    path_dentry = ["path"."dentry"],
    vfsmount_root = ["vfsmount"."mnt_root"],
    mount_mnt = ["mount"."mnt"],
    mount_parent = ["mount"."mnt_parent"],
    mount_mountpoint = ["mount"."mnt_mountpoint"],
    dentry_parent = ["dentry"."d_parent"],
    dentry_name = ["dentry"."d_name"],
    qstr_name = ["qstr"."name"],
    nsproxy_mnt = ["nsproxy"."mnt_ns"],
    nsproxy_net = ["nsproxy"."net_ns"],
    mnt_namespace_ns = ["mnt_namespace"."ns"],
    net_ns = ["net"."ns"],
    pid_namespace_ns = ["pid_namespace"."ns"],
    ns_common_inum = ["ns_common"."inum"],
    task_pid_links = ["task_struct"."pid_links"],
    pid_tasks = ["pid"."tasks"],
    pid_numbers = ["pid"."numbers"],
    pid_level = ["pid"."level"],
    upid_nr = ["upid"."nr"],
    upid_ns = ["upid"."ns"],
    files_fdt = ["files_struct"."fdt"],
    fdtable_max_fds = ["fdtable"."max_fds"],
    fdtable_fd = ["fdtable"."fd"],
    file_private_data = ["file"."private_data"],
    file_inode = ["file"."f_inode"],
    inode_number = ["inode"."i_ino"],
    inode_mode = ["inode"."i_mode"],
    socket_sk = ["socket"."sk"],
    socket_alloc_socket = ["socket_alloc"."socket"],
    socket_alloc_inode = ["socket_alloc"."vfs_inode"],
    sock_flags = ["sock_common"."skc_flags"],
    sock_family = ["sock_common"."skc_family"],
    sock_net = ["sock_common"."skc_net"],
    sock_cookie = ["sock_common"."skc_cookie"],
    sock_socket = ["sock"."sk_socket"],
    tcp_bytes_received = ["tcp_sock"."bytes_received"],
    tcp_bytes_acked = ["tcp_sock"."bytes_acked"],
    sock_peer_pid = ["sock"."sk_peer_pid"],
    sock_peer_cred = ["sock"."sk_peer_cred"],
    sock_addr_sk = ["bpf_sock_addr_kern"."sk"],
    sock_addr_uaddr = ["bpf_sock_addr_kern"."uaddr"],
    sock_addr_length = ["bpf_sock_addr_kern"."uaddrlen"],
    unix_addr = ["unix_sock"."addr"],
    unix_peer = ["unix_sock"."peer"],
    unix_address_len = ["unix_address"."len"],
    unix_address_name = ["unix_address"."name"],
}

impl Layout {
    /// Everything that the process programs need is there; login uid and session may be absent (no audit).
    pub const fn has_tasks(&self) -> bool {
        self.known == 1
            && self.task_tgid != ABSENT
            && self.task_pid != ABSENT
            && self.task_group_leader != ABSENT
            && self.task_real_parent != ABSENT
            && self.task_start_boottime != ABSENT
            && self.task_cred != ABSENT
            && self.cred_uid != ABSENT
            && self.task_mm != ABSENT
            && self.mm_arg_start != ABSENT
            && self.binprm_file != ABSENT
            && self.file_path != ABSENT
            && self.dentry_parent != ABSENT
            && self.mount_parent != ABSENT
    }

    /// Everything that the statement programs need is there.
    pub const fn has_sockets(&self) -> bool {
        self.has_tasks()
            && self.task_files != ABSENT
            && self.files_fdt != ABSENT
            && self.fdtable_fd != ABSENT
            && self.file_private_data != ABSENT
            && self.file_inode != ABSENT
            && self.inode_number != ABSENT
            && self.socket_sk != ABSENT
            && self.sock_cookie != ABSENT
    }

    /// Everything that the unix socket programs need is there.
    pub const fn has_unix(&self) -> bool {
        self.known == 1
            && self.task_files != ABSENT
            && self.files_fdt != ABSENT
            && self.fdtable_fd != ABSENT
            && self.file_private_data != ABSENT
            && self.socket_sk != ABSENT
            && self.sock_family != ABSENT
            && self.sock_peer_pid != ABSENT
            && self.pid_numbers != ABSENT
            && self.unix_addr != ABSENT
            && self.unix_address_name != ABSENT
    }

    /// Everything is there that refusing a connect needs: who asks, and in which network namespace the socket is.
    pub const fn has_refusal(&self) -> bool {
        self.has_tasks()
            && self.task_exec_id != ABSENT
            && self.task_nsproxy != ABSENT
            && self.nsproxy_net != ABSENT
            && self.ns_common_inum != ABSENT
            && self.net_ns != ABSENT
            && self.sock_net != ABSENT
            && self.sock_addr_sk != ABSENT
    }

    /// The same for unix sockets: the address as the kernel copied it, and the caller's root folder.
    pub const fn has_unix_refusal(&self) -> bool {
        self.has_refusal()
            && self.sock_addr_uaddr != ABSENT
            && self.sock_addr_length != ABSENT
            && self.nsproxy_mnt != ABSENT
            && self.mnt_namespace_ns != ABSENT
            && self.task_fs != ABSENT
            && self.fs_root != ABSENT
    }

    /// The same by the socket that listens: the name to which it is bound, and the namespace of who listens.
    pub const fn has_listener_refusal(&self) -> bool {
        self.has_refusal()
            && self.has_unix()
            && self.unix_address_len != ABSENT
            && self.pid_tasks != ABSENT
            && self.task_pid_links != ABSENT
            && self.nsproxy_mnt != ABSENT
            && self.mnt_namespace_ns != ABSENT
    }
}
