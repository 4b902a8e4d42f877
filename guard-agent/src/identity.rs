//! A pid, an address or a socket's peer enters; a [`Workload`] leaves, with how it is known.
//!
//! Facts come from the kernel as they happen; /proc only fills in. Nothing here blocks on name services, and
//! everything is bounded: a process is forgotten some time after it has ended.

mod agents;
mod ancestry;
mod argv;
mod cgroup;
mod cgroup_names;
mod containers;
mod hashes;
mod image;
mod pods;
mod processes;
mod procfs;
mod users;

use std::{net::IpAddr, os::fd::OwnedFd, sync::Arc};

use guard_common::{
    audit::v1::{Ancestor, Container, Namespaces, Pod, ProgramFile, Provenance, workload::Evidence},
    kernel::process::{ExecEvent, TaskInfo, UNSET},
};

pub use guard_common::audit::v1::Workload;

use crate::config::IdentityConfig;
use agents::Recognised;
use cgroup_names::CgroupNames;
use containers::Containers;
use hashes::{FileKey, Hash, Hashes, Program};
use image::Image;
use pods::Pods;
use processes::{Process, ProcessTable};
use users::Users;

/// Hashes that are awaited at once.
const AWAITED: usize = 1_024;
/// What stands in place of a hash that is not known yet.
const PENDING: &str = "pending";

/// Knows the processes of this host and says who they are.
#[derive(Debug)]
pub struct Identifier {
    processes: ProcessTable,
    cgroups: CgroupNames,
    users: Users,
    recognised: Recognised,
    containers: Containers,
    pods: Pods,
    hashes: Hashes,
    /// Processes whose program is being hashed.
    awaited: std::collections::HashMap<(u32, u64), FileKey>,
}

/// Why a process is the one that is meant, and how well that is known.
#[derive(Clone, Copy, Debug)]
struct How {
    evidence: Evidence,
    process: &'static str,
}

impl How {
    const CAPTURED: Self = Self { evidence: Evidence::Attested, process: "connect" };
    /// The kernel told the number alone.
    const NUMBERED: Self = Self { evidence: Evidence::Reported, process: "connect" };
    const PEER: Self = Self { evidence: Evidence::Attested, process: "peer" };
    const OWNER: Self = Self { evidence: Evidence::Reported, process: "socket-owner" };
}

impl Identifier {
    /// An empty table; [`Identifier::scan_some`] fills it with what runs already. `wake` is written to when something
    /// that was pending is known.
    pub fn new(config: &IdentityConfig, wake: Arc<OwnedFd>) -> Self {
        let root = containers::host_root();
        Self {
            processes: ProcessTable::new(config.max_processes),
            cgroups: CgroupNames::new(),
            users: Users::default(),
            recognised: Recognised::new(config),
            pods: Pods::new(&root, config),
            containers: Containers::new(root),
            hashes: Hashes::new(config.hash_max_mib.saturating_mul(1024 * 1024), wake),
            awaited: std::collections::HashMap::new(),
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
        // Its processes will be asked about soon: what is known of the container is fetched while there is time.
        let place = cgroup::Place::of(&path);
        if let Some(container) = place.container.filter(|container| container.claimed_by_uid.is_none()) {
            self.containers.find(&container.runtime, &container.id);
        }
        if place.pod.is_some() {
            self.pods.wanted();
        }
        self.cgroups.learn(id, path);
    }

    /// The processes that run, as far as the kernel has told of them.
    pub fn running(&self) -> Vec<TaskInfo> {
        self.processes.running()
    }

    /// Every process id in use now.
    pub fn all_pids(&self) -> std::collections::HashSet<u32> {
        procfs::pids().into_iter().collect()
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
        let how = if task.start_ns == 0 { How::NUMBERED } else { How::CAPTURED };
        Arc::new(self.describe(&process, task, how))
    }

    /// The process that the kernel named for a unix socket, as it was when the server accepted; `credentials` are its
    /// effective uid and gid when it connected.
    pub fn live_peer(&mut self, task: &TaskInfo, credentials: (u32, u32)) -> Arc<Workload> {
        let process = self.processes.known_or_read(task);
        Arc::new(self.describe(&process, &with_credentials(task, credentials), How::PEER))
    }

    /// The process that had that pid `at_ns` after boot, of which the kernel tells nothing else any more.
    pub fn peer(&mut self, pid: u32, credentials: (u32, u32), at_ns: u64) -> Arc<Workload> {
        let process = self.processes.at(pid, at_ns);
        self.by_credentials(pid, process, credentials, How::PEER)
    }

    /// A process that the kernel named for a connection that exists (`SO_PEERCRED`): `credentials` are effective uid and
    /// gid.
    pub fn by_pid(&mut self, pid: u32, credentials: (u32, u32), evidence: Evidence) -> Arc<Workload> {
        let process = self.processes.latest_or_read(pid);
        self.by_credentials(pid, process, credentials, How { evidence, ..How::PEER })
    }

    /// The process that holds a socket, as /proc shows it.
    pub fn owner(&mut self, pid: u32) -> Arc<Workload> {
        match self.processes.latest_or_read(pid) {
            Some(process) => Arc::new(self.describe(&process, &process.task, How::OWNER)),
            None => self.by_credentials(pid, None, (UNSET, UNSET), How::OWNER),
        }
    }

    fn by_credentials(
        &mut self,
        pid: u32,
        process: Option<Process>,
        credentials: (u32, u32),
        how: How,
    ) -> Arc<Workload> {
        if let Some(process) = process {
            let task = with_credentials(&process.task, credentials);
            return Arc::new(self.describe(&process, &task, how));
        }
        let (uid, gid) = credentials;
        let (login_uid, session) = (UNSET, UNSET);
        let task = TaskInfo { pid, uid, gid, euid: uid, login_uid, session, ..TaskInfo::default() };
        let mut workload = self.describe(&Process::unknown(task), &task, how);
        workload.set_evidence(Evidence::Reported);
        Arc::new(workload)
    }

    /// Whether something about `workload` will be known in a moment.
    pub fn is_pending(workload: &Workload) -> bool {
        workload.program_file.as_ref().is_some_and(|file| file.unhashed == PENDING)
    }

    /// Adds what was pending; false where it still is.
    pub fn settle(&mut self, workload: &mut Arc<Workload>) -> bool {
        if !Self::is_pending(workload) {
            return true;
        }
        let process = (workload.pid, workload.process_started_ns);
        let hash = match self.awaited.get(&process) {
            Some(key) => self.hashes.result(key),
            None => Hash::Not("forgotten"),
        };
        if matches!(hash, Hash::Pending(_)) {
            return false;
        }
        if let Some(file) = &mut Arc::make_mut(workload).program_file {
            (file.sha256, file.unhashed) = told(&hash);
        }
        true
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

    fn describe(&mut self, process: &Process, task: &TaskInfo, how: How) -> Workload {
        let image = &process.image;
        let (cgroup, cgroup_known_by) = self.cgroups.path(task.cgroup_id, task.pid);
        let place = cgroup::Place::of(&cgroup);
        let (container, pod) = self.place(place.container, place.pod);
        let lineage = || {
            let above = process.ancestry.iter().map(|ancestor| ancestor.image.as_ref());
            std::iter::once(image.as_ref()).chain(above)
        };
        let ai_agent = self.recognised.ai_agents.recognise(lineage()).unwrap_or_default().to_owned();
        let ci_runner = self.recognised.ci_runners.recognise(lineage()).unwrap_or_default().to_owned();
        let login_uid = (task.login_uid != UNSET).then_some(task.login_uid);
        Workload {
            evidence: how.evidence.into(),
            pid: task.pid,
            process_started_ns: task.start_ns,
            executable: image.executable.clone(),
            argv: argv::for_record(&image.argv, image.argv_truncated),
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
            container,
            pod,
            ai_agent,
            ci_runner,
            remote_address: String::new(),
            comm: if task.comm[0] == 0 { image.comm.clone() } else { image::comm(&task.comm) },
            cgroup,
            certificate: None,
            reported_by: String::new(),
            program_file: self.program_file(process, task),
            namespaces: Some(Namespaces {
                pid: task.pid_namespace,
                mount: task.mount_namespace,
                net: task.net_namespace,
            }),
            known_by: Some(Provenance {
                process: how.process.to_owned(),
                executable: process.source.as_str().to_owned(),
                cgroup: cgroup_known_by.to_owned(),
            }),
        }
    }

    /// Completes what the cgroup tells of container and pod with what runtime and kubelet tell.
    fn place(&mut self, container: Option<Container>, pod: Option<Pod>) -> (Option<Container>, Option<Pod>) {
        let Some(mut container) = container else {
            return (None, pod.map(|pod| self.pod(pod, "")));
        };
        if container.claimed_by_uid.is_some() {
            // What others are is not looked up for a name that the user has chosen.
            return (Some(container), None);
        }
        let found = self.containers.find(&container.runtime, &container.id);
        let mut pod = pod;
        if let Some(found) = found {
            container.runtime = found.runtime.to_owned();
            container.name.clone_from(&found.name);
            container.image.clone_from(&found.image);
            container.image_id.clone_from(&found.image_id);
            container.labels.clone_from(&found.labels);
            container.known_by = found.known_by.to_owned();
            if let Some(told) = &found.pod {
                let pod = pod.get_or_insert_with(|| Pod { uid: told.uid.clone(), ..Pod::default() });
                pod.namespace.clone_from(&told.namespace);
                pod.name.clone_from(&told.name);
                pod.container.clone_from(&told.container);
                pod.known_by.push(found.known_by.to_owned());
            }
        }
        let pod = pod.map(|pod| self.pod(pod, &container.id));
        (Some(container), pod)
    }

    fn pod(&mut self, mut pod: Pod, container: &str) -> Pod {
        self.pods.complete(&mut pod, container);
        pod
    }

    fn program_file(&mut self, process: &Process, task: &TaskInfo) -> Option<ProgramFile> {
        let image = &process.image;
        if image.executable.is_empty() && image.inode == 0 {
            return None;
        }
        let program = Program {
            pid: task.pid,
            lives: self.processes.lives(task.pid, task.start_ns),
            path: &image.executable,
            inode: image.inode,
        };
        let hash = self.hashes.of(program);
        if let Hash::Pending(key) = hash {
            if self.awaited.len() >= AWAITED {
                self.awaited.clear();
            }
            self.awaited.insert((task.pid, task.start_ns), key);
        }
        let (sha256, unhashed) = told(&hash);
        Some(ProgramFile { inode: image.inode, sha256, unhashed })
    }
}

/// A hash as it stands in records: itself, or why there is none.
fn told(hash: &Hash) -> (String, String) {
    match hash {
        Hash::Known(hash) => (hash.to_string(), String::new()),
        Hash::Pending(_) => (String::new(), PENDING.to_owned()),
        Hash::Not(reason) => (String::new(), (*reason).to_owned()),
    }
}

/// Peer credentials are the effective ids at the time of connecting. Where they fit what is known, that tells the real
/// ones too; otherwise the process has changed its user since.
fn with_credentials(task: &TaskInfo, (uid, gid): (u32, u32)) -> TaskInfo {
    if uid == task.euid || uid == UNSET {
        return *task;
    }
    TaskInfo { uid, gid, euid: uid, ..*task }
}

fn ancestor(ancestor: &ancestry::Link) -> Ancestor {
    Ancestor {
        pid: ancestor.pid,
        executable: ancestor.image.executable.clone(),
        comm: ancestor.image.comm.clone(),
        uid: ancestor.uid,
        started_ns: ancestor.start_ns,
        known_by: ancestor.source.as_str().to_owned(),
    }
}

/// What people call the container that process `pid` runs in: its name, or the start of its id.
pub fn container_label(pid: u32) -> Option<String> {
    let cgroups = procfs::cgroups(pid);
    let container = cgroups.iter().find_map(|(_, path)| cgroup::Place::of(path).container)?;
    let trusted = container.claimed_by_uid.is_none();
    let found = trusted
        .then(|| Containers::new(containers::host_root()).find(&container.runtime, &container.id))
        .flatten();
    let name = found.map(|found| match &found.pod {
        Some(pod) => format!("{}/{}/{}", pod.namespace, pod.name, pod.container),
        None => found.name.clone(),
    });
    Some(name.filter(|name| !name.is_empty()).unwrap_or_else(|| container.id.chars().take(12).collect()))
}

/// The systemd unit that process `pid` runs in.
pub fn unit_of(pid: u32) -> Option<String> {
    procfs::cgroups(pid).iter().find_map(|(_, path)| cgroup::Place::of(path).unit)
}
