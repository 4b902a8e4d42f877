//! Pods: the uid in a cgroup's path enters; namespace, name, labels, service account and owner leave.
//!
//! The names of kubelet's log folders are there at once. kubelet, or else the runtime, is asked by a thread of its own,
//! when a pod shows up that is not known yet: whoever connects does not wait for it.

mod cri;
mod kubelet;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant, SystemTime},
};

use guard_common::audit::v1::{Label, Pod};

use kubelet::Endpoint;

use crate::config::IdentityConfig;

/// Time between two questions to kubelet.
const AT_MOST_EVERY: Duration = Duration::from_secs(2);
/// Labels and owners change: what is known is asked for again.
const REFRESH: Duration = Duration::from_secs(60);
/// Log folders that are remembered.
const FOLDERS: usize = 4_096;

/// A pod as kubelet tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KnownPod {
    pub namespace: String,
    pub name: String,
    pub labels: Vec<Label>,
    pub service_account: String,
    pub owner_kind: String,
    pub owner_name: String,
    /// Name and image of its containers, by their ids.
    pub containers: HashMap<String, (String, String)>,
    /// kubelet | cri
    pub known_by: &'static str,
}

/// By uid.
type Known = Arc<HashMap<String, Arc<KnownPod>>>;

/// The pods of this node.
#[derive(Debug)]
pub struct Pods {
    logs: PathBuf,
    folders: HashMap<String, (String, String)>,
    folders_of: Option<SystemTime>,
    known: Arc<Mutex<Known>>,
    ask: Option<SyncSender<()>>,
}

impl Pods {
    /// Those of the node whose files are under `root`.
    pub fn new(root: &Path, config: &IdentityConfig) -> Self {
        let known = Arc::<Mutex<Known>>::default();
        let endpoint = Endpoint::new(config, root).unwrap_or_else(|error| {
            tracing::warn!(%error, "kubelet is not asked about pods");
            None
        });
        let ask = start(endpoint, root.to_owned(), Arc::clone(&known));
        Self { logs: root.join("var/log/pods"), folders: HashMap::new(), folders_of: None, known, ask }
    }

    /// Completes `pod`, of which the uid is known; `container` is the id of the container in it.
    pub fn complete(&mut self, pod: &mut Pod, container: &str) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&pod.uid).cloned();
        let Some(known) = known else {
            self.wanted();
            if pod.name.is_empty()
                && let Some((namespace, name)) = self.by_folder(&pod.uid)
            {
                (pod.namespace, pod.name) = (namespace, name);
                pod.known_by.push("log-folder".to_owned());
            }
            return;
        };
        pod.namespace.clone_from(&known.namespace);
        pod.name.clone_from(&known.name);
        pod.labels.clone_from(&known.labels);
        pod.service_account.clone_from(&known.service_account);
        pod.owner_kind.clone_from(&known.owner_kind);
        pod.owner_name.clone_from(&known.owner_name);
        if let Some((name, _)) = known.containers.get(container) {
            pod.container.clone_from(name);
        }
        pod.known_by.insert(0, known.known_by.to_owned());
    }

    /// Has kubelet asked soon: somebody will want to know.
    pub fn wanted(&mut self) {
        if let Some(ask) = &self.ask
            && let Err(TrySendError::Disconnected(())) = ask.try_send(())
        {
            self.ask = None;
        }
    }

    /// kubelet keeps the logs of a pod in `NAMESPACE_NAME_UID`; neither of the first two has an underscore.
    fn by_folder(&mut self, uid: &str) -> Option<(String, String)> {
        let changed = fs::metadata(&self.logs).and_then(|metadata| metadata.modified()).ok();
        if changed != self.folders_of {
            self.folders_of = changed;
            let entries = fs::read_dir(&self.logs).ok()?.flatten().take(FOLDERS);
            self.folders = entries
                .filter_map(|entry| {
                    let name = entry.file_name().into_string().ok()?;
                    let mut parts = name.splitn(3, '_').map(str::to_owned);
                    let (namespace, pod) = (parts.next()?, parts.next()?);
                    Some((parts.next()?, (namespace, pod)))
                })
                .collect();
        }
        self.folders.get(uid).cloned()
    }
}

fn start(endpoint: Option<Endpoint>, root: PathBuf, known: Arc<Mutex<Known>>) -> Option<SyncSender<()>> {
    let (ask, asked) = sync_channel(1);
    let thread = std::thread::Builder::new().name("guard-pods".to_owned());
    let started = thread.spawn(move || keep_asking(endpoint.as_ref(), &root, &known, &asked));
    if let Err(error) = &started {
        tracing::warn!(%error, "nobody is asked about pods");
    }
    started.is_ok().then_some(ask)
}

/// Asks when there is a pod that is not known, and now and then where there are pods at all. Ends with the sensor.
fn keep_asking(endpoint: Option<&Endpoint>, root: &Path, known: &Mutex<Known>, asked: &Receiver<()>) {
    let mut said = String::new();
    let mut last: Option<Instant> = None;
    loop {
        match asked.recv_timeout(REFRESH) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) if last.is_some() => {}
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Some(rest) = last.and_then(|last| AT_MOST_EVERY.checked_sub(last.elapsed())) {
            std::thread::sleep(rest);
        }
        match list(endpoint, root) {
            Ok((pods, complaint)) => {
                *known.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(pods);
                say(&mut said, complaint);
            }
            // The names from the disk are used meanwhile.
            Err(complaint) => say(&mut said, complaint),
        }
        last = Some(Instant::now());
    }
}

/// kubelet's list, else the runtime's; and what there is to complain about.
fn list(
    endpoint: Option<&Endpoint>,
    root: &Path,
) -> Result<(HashMap<String, Arc<KnownPod>>, String), String> {
    let complaint = match endpoint.map(Endpoint::pods) {
        Some(Ok(pods)) => return Ok((pods, String::new())),
        Some(Err(error)) => format!("kubelet does not tell about pods: {error}"),
        None => String::new(),
    };
    match cri::pods(root) {
        Ok(pods) => Ok((pods, complaint)),
        Err(error) => Err(format!("{complaint}; nor does the container runtime: {error}")),
    }
}

/// Once for each reason.
fn say(said: &mut String, complaint: String) {
    if complaint != *said && !complaint.is_empty() {
        tracing::warn!("{complaint}");
    }
    *said = complaint;
}

#[cfg(test)]
mod tests;
