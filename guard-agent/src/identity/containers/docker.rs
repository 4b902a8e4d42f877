//! Docker's own state: `config.v2.json` of each container, under the daemon's `data-root`.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Found, json, labels, pod_by_labels};

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    name: String,
    image: String,
    config: Config,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    image: String,
    labels: Option<HashMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Daemon {
    data_root: Option<PathBuf>,
}

/// The container `id`.
pub fn read(root: &Path, id: &str) -> Option<Found> {
    let state: State = json(&data_root(root).join("containers").join(id).join("config.v2.json"))?;
    if state.name.is_empty() {
        return None; // Whatever it is, it is not what Docker writes.
    }
    let all = state.config.labels.unwrap_or_default();
    Some(Found {
        runtime: "docker",
        name: state.name.trim_start_matches('/').to_owned(),
        image: state.config.image,
        image_id: state.image,
        labels: labels(&all),
        known_by: "docker-state",
        pod: pod_by_labels(&all),
    })
}

fn data_root(root: &Path) -> PathBuf {
    let daemon: Option<Daemon> = json(&root.join("etc/docker/daemon.json"));
    let configured = daemon.and_then(|daemon| daemon.data_root);
    let absolute = configured.filter(|path| path.is_absolute()).unwrap_or_else(|| "/var/lib/docker".into());
    root.join(absolute.strip_prefix("/").unwrap_or(&absolute))
}
