//! What guard has set in network namespaces, written down before it is set: so that it can be found and taken away when
//! the agent that did it is gone.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// The file in the state folder.
#[derive(Debug)]
pub struct Manifest {
    path: PathBuf,
    content: Content,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Content {
    /// Namespaces are numbered anew with each boot.
    boot_id: String,
    instance: String,
    mark: u32,
    namespaces: Vec<Entry>,
}

/// One network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Entry {
    /// Its number.
    pub inode: u64,
    /// What the setting was before.
    pub fwmark_accept: String,
    /// The table of nftables that steers there; empty where there is none.
    pub nftables: String,
}

impl Manifest {
    /// Reads the file in `state`. What an earlier boot wrote counts no more.
    pub fn read(state: &Path, instance: &str, mark: u32) -> io::Result<Self> {
        let path = state.join("steering.json");
        let empty =
            || Content { boot_id: boot_id(), instance: instance.to_owned(), mark, namespaces: Vec::new() };
        let content = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => empty(),
            Err(error) => return Err(error),
        };
        let content = if content.boot_id == boot_id() { content } else { empty() };
        Ok(Self { path, content })
    }

    /// The namespaces in which something was set.
    pub fn namespaces(&self) -> &[Entry] {
        &self.content.namespaces
    }

    /// The mark under which it was set.
    pub fn mark(&self) -> u32 {
        self.content.mark
    }

    /// Whether nothing was set under another mark.
    pub fn fits(&self, mark: u32) -> bool {
        self.content.namespaces.is_empty() || self.content.mark == mark
    }

    /// Writes down a namespace. What was before stays what it was when it is written down again.
    pub fn add(&mut self, entry: Entry, mark: u32) -> io::Result<()> {
        self.content.mark = mark;
        match self.content.namespaces.iter_mut().find(|known| known.inode == entry.inode) {
            Some(known) if known.nftables == entry.nftables => return Ok(()),
            Some(known) => known.nftables = entry.nftables,
            None => self.content.namespaces.push(entry),
        }
        self.write()
    }

    /// Forgets a namespace.
    pub fn forget(&mut self, inode: u64) -> io::Result<()> {
        self.content.namespaces.retain(|entry| entry.inode != inode);
        if !self.content.namespaces.is_empty() {
            return self.write();
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whole or not at all.
    fn write(&self) -> io::Result<()> {
        let new = self.path.with_extension("json.new");
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(&self.content).map_err(io::Error::other)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(inode: u64, before: &str) -> Entry {
        Entry { inode, fwmark_accept: before.to_owned(), nftables: String::new() }
    }

    #[test]
    fn what_was_before_is_kept_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::read(folder.path(), "agent", 7).unwrap();
        manifest.add(entry(1, "0"), 7).unwrap();
        let mut again = Manifest::read(folder.path(), "agent", 7).unwrap();
        again.add(entry(1, "1"), 7).unwrap();
        assert_eq!(Manifest::read(folder.path(), "agent", 7).unwrap().namespaces(), [entry(1, "0")]);
        assert!(!again.fits(8));
        again.forget(1).unwrap();
        assert!(!folder.path().join("steering.json").exists());
    }

    #[test]
    fn another_boot_starts_with_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"boot_id": "other", "instance": "agent", "mark": 7, "namespaces": [{"inode": 1}]}"#;
        fs::write(folder.path().join("steering.json"), text).unwrap();
        assert!(Manifest::read(folder.path(), "agent", 7).unwrap().namespaces().is_empty());
    }
}
