//! OCI bundles: containerd and CRI-O write what kubelet asked for into the annotations of `config.json`.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use guard_common::audit::v1::Label;
use serde::Deserialize;

use super::{Found, PodOfContainer, json, labels, pod_by_labels};

/// Folders of containerd's tasks: its own, and that of k3s and RKE2. Below them, one for each of its namespaces.
const CONTAINERD: [&str; 3] = [
    "run/containerd/io.containerd.runtime.v2.task",
    "run/containerd/io.containerd.runtime.v1.linux",
    "run/k3s/containerd/io.containerd.runtime.v2.task",
];
/// Folders of CRI-O's containers.
const CRIO: [&str; 2] =
    ["run/containers/storage/overlay-containers", "var/lib/containers/storage/overlay-containers"];
/// Namespaces of containerd that are looked into.
const NAMESPACES: usize = 32;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    annotations: HashMap<String, String>,
}

/// A container of containerd, whoever had it made: kubelet, nerdctl, Docker.
pub fn containerd(root: &Path, id: &str) -> Option<Found> {
    let spec: Spec = CONTAINERD.iter().find_map(|folder| {
        let namespaces = fs::read_dir(root.join(folder)).ok()?.flatten().take(NAMESPACES);
        namespaces.map(|namespace| bundle(&namespace.path(), id)).find_map(|path| json(&path))
    })?;
    from_containerd(&spec.annotations)
}

/// A container of CRI-O.
pub fn crio(root: &Path, id: &str) -> Option<Found> {
    let spec: Spec =
        CRIO.iter().find_map(|folder| json(&root.join(folder).join(id).join("userdata/config.json")))?;
    from_crio(&spec.annotations)
}

fn bundle(namespace: &Path, id: &str) -> PathBuf {
    namespace.join(id).join("config.json")
}

/// `io.kubernetes.cri.*`, as containerd's CRI plugin writes them; `nerdctl/*` otherwise.
fn from_containerd(annotations: &HashMap<String, String>) -> Option<Found> {
    let get = |name: &str| annotations.get(name).cloned().unwrap_or_default();
    let pod = PodOfContainer {
        uid: get("io.kubernetes.cri.sandbox-uid"),
        namespace: get("io.kubernetes.cri.sandbox-namespace"),
        name: get("io.kubernetes.cri.sandbox-name"),
        container: get("io.kubernetes.cri.container-name"),
    };
    let nerdctl = get("nerdctl/name");
    let name = if nerdctl.is_empty() { pod.container.clone() } else { nerdctl };
    let found = Found {
        runtime: "containerd",
        name,
        image: get("io.kubernetes.cri.image-name"),
        image_id: String::new(),
        labels: own_labels(annotations, "io.kubernetes.cri."),
        known_by: "oci-bundle",
        pod: (!pod.name.is_empty()).then_some(pod),
    };
    (!found.name.is_empty() || found.pod.is_some()).then_some(found)
}

/// `io.kubernetes.cri-o.*`; kubelet's labels are one JSON object in there.
fn from_crio(annotations: &HashMap<String, String>) -> Option<Found> {
    let get =
        |name: &str| annotations.get(&format!("io.kubernetes.cri-o.{name}")).cloned().unwrap_or_default();
    let kubelets: HashMap<String, String> = serde_json::from_str(&get("Labels")).unwrap_or_default();
    let pod = pod_by_labels(&kubelets).or_else(|| {
        let pod = PodOfContainer {
            uid: String::new(),
            namespace: get("Namespace"),
            name: get("KubeName"),
            container: String::new(),
        };
        (!pod.name.is_empty()).then_some(pod)
    });
    let name = pod.as_ref().map(|pod| pod.container.clone()).filter(|name| !name.is_empty());
    let found = Found {
        runtime: "cri-o",
        name: name.unwrap_or_else(|| get("Name")),
        image: [get("ImageName"), get("Image")]
            .into_iter()
            .find(|image| !image.is_empty())
            .unwrap_or_default(),
        image_id: get("ImageRef"),
        labels: labels(kubelets.iter().filter(|(name, _)| !name.starts_with("io.kubernetes."))),
        known_by: "oci-bundle",
        pod,
    };
    (!found.name.is_empty()).then_some(found)
}

fn own_labels(annotations: &HashMap<String, String>, not: &str) -> Vec<Label> {
    labels(annotations.iter().filter(|(name, _)| !name.starts_with(not)))
}
