//! Reading PEM files: sizes bounded, keys only where nobody else can read them, within a process's own file system.

use std::{
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};

/// Larger files hold no certificates, keys or settings.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read `{path}`: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others can read the key.
    #[error(
        "the key `{path}` can be read or changed by others (mode {mode:04o}): chmod 0600 `{path}`, or 0640 for a group"
    )]
    Exposed {
        /// The key.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It does not hold what it should.
    #[error("`{path}`: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Where paths begin: this host, or the file system as a process sees it, which may be a container's.
#[derive(Debug)]
pub(super) enum Root {
    Host,
    Process(OwnedFd),
}

/// A file that was read, and how to tell that it is another one now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Root {
    /// The root of the process `pid`.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self::Process(open(format!("/proc/{pid}/root").as_str(), flags, Mode::empty())?))
    }

    /// Opens a file. A link in a container leads nowhere but into that container.
    fn open(&self, path: &Path) -> io::Result<File> {
        match self {
            Self::Host => File::open(path),
            Self::Process(root) => {
                let how = OpenHow::new()
                    .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
                    .resolve(ResolveFlag::RESOLVE_IN_ROOT);
                Ok(openat2(root, path, how).map(File::from)?)
            }
        }
    }

    /// Reads a file whole.
    pub(super) fn read(&self, path: &Path) -> Result<(Vec<u8>, Stamp), FileError> {
        let (bytes, stamp, _) = self.read_file(path)?;
        Ok((bytes, stamp))
    }

    /// Reads a private key: by the rule of the server itself, nobody but its owner may change it, and nobody but its owner
    /// and group may read it.
    pub(super) fn read_key(&self, path: &Path) -> Result<(Vec<u8>, Stamp), FileError> {
        let (bytes, stamp, mode) = self.read_file(path)?;
        if mode & 0o037 != 0 {
            return Err(FileError::Exposed { path: path.to_owned(), mode });
        }
        Ok((bytes, stamp))
    }

    fn read_file(&self, path: &Path) -> Result<(Vec<u8>, Stamp, u32), FileError> {
        let failed = |error| FileError::Read { path: path.to_owned(), error };
        let mut file = self.open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.len() > MAX_BYTES {
            return Err(failed(io::Error::other("it is no ordinary file of at most 1 MiB")));
        }
        let mut bytes = Vec::new();
        file.by_ref().take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        Ok((bytes, Stamp::new(path, &metadata), metadata.mode() & 0o777))
    }

    /// The files of a folder, sorted by name, for `include_dir`.
    pub(super) fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let seen = match self {
            Self::Host => folder.to_owned(),
            Self::Process(root) => {
                let how = OpenHow::new()
                    .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
                    .resolve(ResolveFlag::RESOLVE_IN_ROOT);
                let opened = openat2(root, folder, how)?;
                use std::os::fd::AsRawFd;
                return names(Path::new(&format!("/proc/self/fd/{}", opened.as_raw_fd())), folder);
            }
        };
        names(&seen, folder)
    }

    /// Whether the file that `stamp` was taken of is still the same.
    pub(super) fn unchanged(&self, stamp: &Stamp) -> bool {
        let metadata = self.open(&stamp.path).and_then(|file| file.metadata());
        metadata.is_ok_and(|metadata| Stamp::new(&stamp.path, &metadata) == *stamp)
    }
}

fn names(real: &Path, shown: &Path) -> io::Result<Vec<PathBuf>> {
    const MOST: usize = 256;
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(real)?.take(MOST).flatten().map(|entry| shown.join(entry.file_name())).collect();
    names.sort();
    Ok(names)
}

impl Stamp {
    fn new(path: &Path, metadata: &std::fs::Metadata) -> Self {
        Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "key").unwrap();
        for (mode, fine) in [(0o600, true), (0o640, true), (0o400, true), (0o644, false), (0o660, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = Root::Host.read_key(&path);
            assert_eq!(read.is_ok(), fine, "{mode:o}");
            if let Err(error) = read {
                assert!(error.to_string().contains("chmod 0600"), "{error}");
            }
        }
    }

    #[test]
    fn a_replaced_file_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let (_, stamp) = Root::Host.read(&path).unwrap();
        assert!(Root::Host.unchanged(&stamp));
        std::fs::write(folder.path().join("new"), "two").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(!Root::Host.unchanged(&stamp));
    }

    #[test]
    fn links_of_a_process_stay_within_its_root() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("inside"), "inside").unwrap();
        symlink("/inside", folder.path().join("link")).unwrap();
        symlink("../../../../../etc/passwd", folder.path().join("out")).unwrap();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = Root::Process(open(folder.path(), flags, Mode::empty()).unwrap());
        assert_eq!(root.read(Path::new("/link")).unwrap().0, b"inside");
        assert!(root.read(Path::new("/out")).is_err());
        assert!(Root::of(std::process::id()).unwrap().read(Path::new("/proc/self/stat")).is_ok());
    }
}
