//! What container runtimes keep on disk about their containers: a runtime and an id enter; name, image and pod leave.
//!
//! No daemon is asked, so an answer takes microseconds and a daemon that hangs harms nobody. Only files of root are
//! read, each bounded; what does not parse is as good as not there.

mod bundle;
mod docker;
mod storage;

use std::{
    collections::HashMap,
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use guard_common::audit::v1::Label;

use storage::Storage;

/// Containers that are remembered.
const LIMIT: usize = 8_192;
/// How long a container of which nothing was found is not looked for again.
const MISSING: Duration = Duration::from_secs(2);
/// How long what was found is good for: containers can be renamed.
const FRESH: Duration = Duration::from_secs(60);
/// Largest file that is read.
const FILE_LIMIT: u64 = 8 * 1024 * 1024;
/// Labels that are kept, and bytes of each.
const LABELS: usize = 64;
const LABEL_BYTES: usize = 512;

/// What is known of a container beyond its id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// docker | podman | containerd | cri-o
    pub runtime: &'static str,
    pub name: String,
    pub image: String,
    pub image_id: String,
    pub labels: Vec<Label>,
    /// Where it stands.
    pub known_by: &'static str,
    /// The pod that it belongs to.
    pub pod: Option<PodOfContainer>,
}

/// What a container's own state tells of its pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodOfContainer {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    /// The container's name in it.
    pub container: String,
}

/// The containers of this host.
#[derive(Debug)]
pub struct Containers {
    root: PathBuf,
    storage: Storage,
    known: HashMap<String, (Instant, Option<Arc<Found>>)>,
}

impl Containers {
    /// Those of the host whose files are under `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { storage: Storage::new(&root), root, known: HashMap::new() }
    }

    /// The container `id`; `runtime` as its cgroup tells it.
    pub fn find(&mut self, runtime: &str, id: &str) -> Option<Arc<Found>> {
        if !is_id(id) {
            return None;
        }
        if let Some((at, found)) = self.known.get(id) {
            let good = if found.is_some() { FRESH } else { MISSING };
            if at.elapsed() < good {
                return found.clone();
            }
        }
        if self.known.len() >= LIMIT {
            self.known.clear();
        }
        let before = self.known.get(id).and_then(|(_, found)| found.clone());
        // A container that has gone meanwhile is still what it was.
        let found = self.look(runtime, id).map(Arc::new).or(before);
        self.known.insert(id.to_owned(), (Instant::now(), found.clone()));
        found
    }

    fn look(&mut self, runtime: &str, id: &str) -> Option<Found> {
        match runtime {
            "docker" => docker::read(&self.root, id),
            "podman" => self.storage.read(id),
            "cri-o" => bundle::crio(&self.root, id).or_else(|| self.storage.read(id)),
            "containerd" => bundle::containerd(&self.root, id).or_else(|| docker::read(&self.root, id)),
            _ => bundle::containerd(&self.root, id)
                .or_else(|| bundle::crio(&self.root, id))
                .or_else(|| docker::read(&self.root, id))
                .or_else(|| self.storage.read(id)),
        }
    }
}

/// The host's root as this process reaches it: its own, or that of the first process where the agent runs in a container
/// that shares the host's processes.
pub fn host_root() -> PathBuf {
    let name = |path: &str| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    match (name("/"), name("/proc/1/root")) {
        (Some(own), Some(first)) if own != first => PathBuf::from("/proc/1/root"),
        _ => PathBuf::from("/"),
    }
}

/// Ids stand in paths: nothing but digits and letters.
fn is_id(id: &str) -> bool {
    (8..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A JSON file of root, bounded.
fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let file = fs::File::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// In order of their names, as many and as long as are kept.
pub(super) fn labels<'a>(all: impl IntoIterator<Item = (&'a String, &'a String)>) -> Vec<Label> {
    let mut labels: Vec<Label> = all
        .into_iter()
        .filter(|(name, value)| name.len() + value.len() <= LABEL_BYTES)
        .map(|(name, value)| Label { name: name.clone(), value: value.clone() })
        .collect();
    labels.sort_by(|one, other| one.name.cmp(&other.name));
    labels.truncate(LABELS);
    labels
}

/// The pod of a container by the labels that kubelet gives to its containers.
fn pod_by_labels(labels: &HashMap<String, String>) -> Option<PodOfContainer> {
    let get = |name: &str| labels.get(name).cloned().unwrap_or_default();
    let pod = PodOfContainer {
        uid: get("io.kubernetes.pod.uid"),
        namespace: get("io.kubernetes.pod.namespace"),
        name: get("io.kubernetes.pod.name"),
        container: get("io.kubernetes.container.name"),
    };
    (!pod.name.is_empty()).then_some(pod)
}

#[cfg(test)]
mod tests;
