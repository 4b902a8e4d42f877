//! A pid, an address or a socket's peer enters; a [`Workload`] leaves, with how it is known.
//!
//! Facts come from the kernel as they happen; /proc only fills in. Nothing here blocks on name services, and
//! everything is bounded: a process is forgotten some time after it has ended.

mod agents;
mod ancestry;
mod cgroup;
mod cgroup_names;
mod image;
mod processes;
mod procfs;
mod users;

use std::{net::IpAddr, sync::Arc};

use guard_common::{
    audit::v1::{Ancestor, workload::Evidence},
    kernel::process::{ExecEvent, TaskInfo, UNSET},
};

pub use guard_common::audit::v1::Workload;

use crate::config::IdentityConfig;
use agents::Agents;
use cgroup_names::CgroupNames;
use image::Image;
use processes::{Process, ProcessTable};
use users::Users;

/// Knows the processes of this host and says who they are.
#[derive(Debug)]
pub struct Identifier {
    processes: ProcessTable,
    cgroups: CgroupNames,
    users: Users,
    agents: Agents,
}

impl Identifier {
    /// An empty table; [`Identifier::scan_some`] fills it with what runs already.
    pub fn new(config: &IdentityConfig) -> Self {
        Self {
            processes: ProcessTable::new(config.max_processes),
            cgroups: CgroupNames::new(),
            users: Users::default(),
            agents: Agents::new(&config.ai_agents),
        }
    }

    /// Learns a few of the processes that run now from /proc; false when it knows them all.
    pub fn scan_some(&mut self) -> bool {
        self.processes.scan_some()
    }

    /// A process has a new program image.
    pub fn exec(&mut self, event: &ExecEvent) {
        self.processes.exec(event.task, Image::from_event(event));
    }

    /// There is a new process.
    pub fn fork(&mut self, task: TaskInfo) {
        self.processes.fork(task);
    }

    /// A process has ended.
    pub fn exit(&mut self, pid: u32, start_ns: u64) {
        self.processes.exit(pid, start_ns);
    }

    /// A cgroup of that path was made.
    pub fn cgroup(&mut self, id: u64, path: String) {
        self.cgroups.learn(id, path);
    }

    /// Forgets what is no longer needed; to be called every few seconds.
    pub fn tidy(&mut self) {
        self.processes.tidy();
        self.cgroups.tidy();
    }

    /// Whether the table is up to date for a process that the kernel captured; its exec may still be on its way.
    pub fn is_current(&self, task: &TaskInfo) -> bool {
        self.processes.is_current(task)
    }

    /// The process that the kernel captured when it connected. Where it could tell no more than ids, what runs under them
    /// is read from /proc later: it may have become another program meanwhile.
    pub fn captured(&mut self, task: &TaskInfo) -> Arc<Workload> {
        let process = self.processes.known_or_read(task);
        let evidence = if task.start_ns == 0 { Evidence::Reported } else { Evidence::Attested };
        Arc::new(self.describe(&process, task, evidence))
    }

    /// `credentials` are effective uid and gid. A process named by the kernel for a connection that exists (`SO_PEERCRED`), or found in /proc.
    pub fn by_pid(&mut self, pid: u32, credentials: Option<(u32, u32)>, evidence: Evidence) -> Arc<Workload> {
        let Some(process) = self.processes.latest_or_read(pid) else {
            let (uid, gid) = credentials.unwrap_or((UNSET, UNSET));
            let task = TaskInfo { pid, uid, gid, euid: uid, login_uid: UNSET, ..TaskInfo::default() };
            let mut workload = self.describe(&Process::unknown(task), &task, evidence);
            workload.set_evidence(Evidence::Reported);
            return Arc::new(workload);
        };
        let mut task = process.task;
        // Peer credentials are the effective ids. Where they fit what is known, that tells the real ones too;
        // otherwise the process has changed its user since.
        if let Some((uid, gid)) = credentials
            && uid != task.euid
        {
            (task.uid, task.gid, task.euid) = (uid, gid, uid);
        }
        Arc::new(self.describe(&process, &task, evidence))
    }

    /// A process of this host that is gone; only its user is known, by its socket.
    pub fn of_user(&mut self, uid: u32) -> Arc<Workload> {
        let (evidence, user) = (Evidence::Reported.into(), self.users.name(uid));
        Arc::new(Workload { evidence, uid, gid: UNSET, euid: uid, user, ..Workload::default() })
    }

    /// Someone of whom only the address is known.
    pub fn remote(address: IpAddr) -> Arc<Workload> {
        Arc::new(Workload {
            evidence: Evidence::Address.into(),
            remote_address: address.to_canonical().to_string(),
            ..Workload::default()
        })
    }

    /// Someone whose address a load balancer has told.
    pub fn relayed(address: IpAddr, balancer: IpAddr) -> Arc<Workload> {
        let mut workload = Self::remote(address);
        Arc::make_mut(&mut workload).reported_by = balancer.to_canonical().to_string();
        workload
    }

    fn describe(&mut self, process: &Process, task: &TaskInfo, evidence: Evidence) -> Workload {
        let image = &process.image;
        let cgroup = self.cgroups.path(task.cgroup_id, task.pid);
        let place = cgroup::Place::of(&cgroup);
        let lineage = process.ancestry.iter().map(|ancestor| ancestor.image.as_ref());
        let ai_agent = self.agents.recognise(std::iter::once(image.as_ref()).chain(lineage));
        let login_uid = (task.login_uid != UNSET).then_some(task.login_uid);
        Workload {
            evidence: evidence.into(),
            pid: task.pid,
            process_started_ns: task.start_ns,
            executable: image.executable.clone(),
            argv: image.argv.clone(),
            argv_truncated: image.argv_truncated,
            uid: task.uid,
            gid: task.gid,
            euid: if task.euid == UNSET { task.uid } else { task.euid },
            user: self.users.name(task.uid),
            login_uid,
            login_user: login_uid.map(|uid| self.users.name(uid)).unwrap_or_default(),
            login_session: if task.session == UNSET { 0 } else { task.session },
            ancestry: process.ancestry.iter().map(ancestor).collect(),
            cgroup_id: task.cgroup_id,
            unit: place.unit.unwrap_or_default(),
            container: place.container,
            pod: place.pod,
            ai_agent: ai_agent.unwrap_or_default().to_owned(),
            remote_address: String::new(),
            comm: if task.comm[0] == 0 { image.comm.clone() } else { image::comm(&task.comm) },
            cgroup,
            certificate: None,
            reported_by: String::new(),
        }
    }
}

fn ancestor(ancestor: &ancestry::Link) -> Ancestor {
    Ancestor {
        pid: ancestor.pid,
        executable: ancestor.image.executable.clone(),
        comm: ancestor.image.comm.clone(),
        uid: ancestor.uid,
    }
}
