//! containers/storage, which Podman and CRI-O share: one JSON file lists the containers of a storage driver.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use serde::Deserialize;

use super::{Found, PodOfContainer, json};

/// Names of storage drivers; the list of each is in a folder called after it.
const DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];
const FOLDERS: [&str; 2] = ["var/lib/containers/storage", "run/containers/storage"];
const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    id: String,
    names: Option<Vec<String>>,
    image: String,
    /// JSON in a string.
    metadata: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Metadata {
    image_name: String,
    name: String,
    pod_name: String,
    namespace: String,
    uid: String,
    metadata_name: String,
}

/// A list, as long as its file does not change.
#[derive(Debug)]
struct List {
    stamp: (SystemTime, u64),
    entries: Arc<HashMap<String, Entry>>,
}

/// Every list of this host.
#[derive(Debug)]
pub struct Storage {
    files: Vec<PathBuf>,
    lists: HashMap<PathBuf, List>,
}

impl Storage {
    /// Those under `root`.
    pub fn new(root: &Path) -> Self {
        let folders = FOLDERS.iter().flat_map(|folder| {
            DRIVERS.iter().map(move |driver| root.join(folder).join(format!("{driver}-containers")))
        });
        let files = folders.flat_map(|folder| LISTS.iter().map(move |list| folder.join(list))).collect();
        Self { files, lists: HashMap::new() }
    }

    /// The container `id`.
    pub fn read(&mut self, id: &str) -> Option<Found> {
        let files = self.files.clone();
        files.iter().find_map(|file| self.entries(file)?.get(id).cloned()).map(found)
    }

    fn entries(&mut self, file: &Path) -> Option<Arc<HashMap<String, Entry>>> {
        let metadata = fs::metadata(file).ok()?;
        let stamp = (metadata.modified().ok()?, metadata.len());
        if let Some(list) = self.lists.get(file)
            && list.stamp == stamp
        {
            return Some(Arc::clone(&list.entries));
        }
        let entries: Vec<Entry> = json(file)?;
        let entries = Arc::new(entries.into_iter().map(|entry| (entry.id.clone(), entry)).collect());
        self.lists.insert(file.to_owned(), List { stamp, entries: Arc::clone(&entries) });
        Some(entries)
    }
}

fn found(entry: Entry) -> Found {
    let metadata: Metadata = serde_json::from_str(&entry.metadata).unwrap_or_default();
    let name = entry.names.unwrap_or_default().into_iter().next();
    let in_pod = !metadata.pod_name.is_empty() && !metadata.namespace.is_empty();
    let pod = in_pod.then_some(PodOfContainer {
        uid: metadata.uid,
        namespace: metadata.namespace,
        name: metadata.pod_name,
        container: metadata.metadata_name,
    });
    Found {
        runtime: if in_pod { "cri-o" } else { "podman" },
        name: name.unwrap_or(metadata.name),
        image: metadata.image_name,
        image_id: entry.image,
        labels: Vec::new(),
        known_by: "podman-state",
        pod,
    }
}
