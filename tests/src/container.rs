//! A container of runc: namespaces and cgroup of its own, programs of the host.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{Folder, Network, binaries};

/// Folders of the host that it sees, read-only.
const SEEN: [&str; 5] = ["/usr", "/bin", "/lib", "/lib64", "/etc"];

/// A container that has not run yet. Everything that it mounts is gone with its processes.
#[derive(Debug)]
pub struct Container {
    folder: Folder,
    id: String,
}

impl Container {
    /// Prepares one in `network` that also sees the host's folders `also`.
    pub fn new(network: &Network, also: &[PathBuf]) -> Result<Self> {
        let folder = Folder::new("runc")?;
        fs::create_dir(folder.join("root"))?;
        let id = format!("{:064x}", u64::from(std::process::id()) << 20 | 0xc0de);
        let container = Self { folder, id };
        let own = binaries::path("guard-short-client")?;
        let mut seen: Vec<PathBuf> = SEEN.iter().map(PathBuf::from).filter(|path| path.exists()).collect();
        seen.extend(own.parent().map(Path::to_owned));
        seen.extend(also.iter().cloned());
        container.folder.write("config.json", &container.settings(network, &seen, &["true"]).to_string())?;
        Ok(container)
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The command that runs `words` in it, with nothing in their environment but a path.
    pub fn command(&self, words: &[String]) -> Result<Command> {
        let path = self.folder.join("config.json");
        let mut settings: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        settings["process"]["args"] = json!(words);
        fs::write(path, settings.to_string())?;
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.folder.join("state")).args(["run", "--bundle"]);
        command.arg(self.folder.path()).arg(&self.id);
        Ok(command)
    }

    fn settings(&self, network: &Network, seen: &[PathBuf], words: &[&str]) -> Value {
        let mounts: Vec<Value> = seen
            .iter()
            .map(|path| json!({"destination": path, "source": path, "type": "bind", "options": ["rbind", "ro"]}))
            .chain([json!({"destination": "/proc", "type": "proc", "source": "proc"})])
            .collect();
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0},
                "args": words,
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PGCONNECT_TIMEOUT=10"],
                "cwd": "/",
            },
            "root": {"path": "root"},
            "mounts": mounts,
            "linux": {
                "cgroupsPath": format!("/docker/{}", self.id),
                "namespaces": [
                    {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
                    {"type": "network", "path": network.path()},
                ],
            },
        })
    }
}
