//! Closes the folders of unix sockets, for hosts whose kernel cannot refuse a connect there: opt-in, per server.
//!
//! Nobody but the server's user and root reaches a socket in a closed folder. What a folder was before is on disk before it
//! changes, so that it is given back by whoever comes next: this agent when it stops, the next one when it starts, or
//! `guard-agent restore`. Never touched: folders that others write to, and those that are not the server's own.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

/// In the state folder.
const FILE: &str = "closed-folders.json";
/// Permissions beside the owner's.
const OTHERS: u32 = 0o077;
/// Permissions and what stands before them.
const MODE: u32 = 0o7777;

/// Why a folder is not closed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Not there, or not permitted.
    #[error(
        "the folder `{path}` cannot be closed: {error}; it takes CAP_FOWNER, and ReadWritePaths= in guard's unit"
    )]
    Use {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Closing it would lock out others, or the server itself.
    #[error(
        "the folder `{path}` is not closed: {reason}; give the server a folder of its own (`unix_socket_directories`)"
    )]
    Shared {
        /// The folder.
        path: PathBuf,
        /// What speaks against it.
        reason: &'static str,
    },
    /// The list of closed folders.
    #[error("`{path}` cannot be used: {error}")]
    List {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A folder as it was before.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Closed {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Its permissions before.
    before: u32,
    /// Its permissions now.
    now: u32,
}

/// The folders that are closed.
#[derive(Debug)]
pub struct Folders {
    list: PathBuf,
    closed: Mutex<Vec<Closed>>,
}

impl Folders {
    /// None is closed; those that an agent before has left closed are given back.
    pub fn new(state: &Path) -> Result<Self, FolderError> {
        restore(state)?;
        Ok(Self { list: state.join(FILE), closed: Mutex::default() })
    }

    /// Closes the folder of this socket, if it is not closed already. True where it was open.
    pub fn close(&self, socket: &Path) -> Result<bool, FolderError> {
        let Some(path) = socket.parent().filter(|parent| parent.is_absolute()) else { return Ok(false) };
        let failed = |error| FolderError::Use { path: path.to_owned(), error };
        let server = fs::symlink_metadata(socket).map_err(failed)?.uid();
        let folder = open(path).map_err(failed)?;
        let found = folder.metadata().map_err(failed)?;
        let before = found.mode() & MODE;
        let shared = |reason| Err(FolderError::Shared { path: path.to_owned(), reason });
        if found.uid() != server {
            return shared("it does not belong to the server's user, who would be locked out");
        }
        if before & 0o002 != 0 {
            return shared("everybody writes to it");
        }
        if before & OTHERS == 0 {
            return Ok(false);
        }
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let place = |one: &Closed| (one.device, one.inode) == (found.dev(), found.ino());
        // Opened again by somebody: it is closed again, and what it was at first counts.
        let before = closed.iter().find(|one| place(one)).map_or(before, |one| one.before);
        let now = before & !OTHERS;
        closed.retain(|one| !place(one));
        closed.push(Closed { path: path.to_owned(), device: found.dev(), inode: found.ino(), before, now });
        // Before it changes: an agent that dies in between has a list that says more than was done.
        write(&self.list, &closed)?;
        folder.set_permissions(Permissions::from_mode(now)).map_err(failed)?;
        Ok(true)
    }

    /// Gives them all back.
    pub fn open_all(&self) -> Result<(), FolderError> {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        give_back(&self.list, &closed)?;
        closed.clear();
        Ok(())
    }
}

/// Gives back what an agent with this state folder has left closed; the folders that it opened.
pub fn restore(state: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let list = state.join(FILE);
    let failed = |error| FolderError::List { path: list.clone(), error };
    let text = match fs::read_to_string(&list) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let closed: Vec<Closed> = serde_json::from_str(&text).map_err(|error| failed(error.into()))?;
    give_back(&list, &closed)
}

/// All that can be; the list goes when none is left.
fn give_back(list: &Path, closed: &[Closed]) -> Result<Vec<PathBuf>, FolderError> {
    let (mut opened, mut left, mut failure) = (Vec::new(), Vec::new(), None);
    for one in closed {
        match open_again(one) {
            Ok(true) => opened.push(one.path.clone()),
            // Another folder, or somebody has given it other permissions: it is not as guard left it.
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                left.push(one.clone());
                failure.get_or_insert(FolderError::Use { path: one.path.clone(), error });
            }
        }
    }
    if left.is_empty() {
        match fs::remove_file(list) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FolderError::List { path: list.to_owned(), error });
            }
            Ok(()) | Err(_) => {}
        }
    } else {
        write(list, &left)?;
    }
    failure.map_or(Ok(opened), Err)
}

fn open_again(one: &Closed) -> io::Result<bool> {
    let folder = open(&one.path)?;
    let found = folder.metadata()?;
    if (found.dev(), found.ino(), found.mode() & MODE) != (one.device, one.inode, one.now) {
        return Ok(false);
    }
    folder.set_permissions(Permissions::from_mode(one.before))?;
    Ok(true)
}

/// The folder itself, and never what a link in its place names.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // `/run/x` where `/var/run` is a link to it: of the way to it links count, in its place none.
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn write(list: &Path, closed: &[Closed]) -> Result<(), FolderError> {
    let written = || -> io::Result<()> {
        let new = list.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(closed)?)?;
        file.sync_all()?;
        fs::rename(&new, list)?;
        // The name as well.
        list.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    written().map_err(|error| FolderError::List { path: list.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    struct Fixture {
        root: tempfile::TempDir,
        _listener: UnixListener,
    }

    impl Fixture {
        fn new(mode: u32) -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("sockets")).unwrap();
            fs::create_dir(root.path().join("state")).unwrap();
            let listener = UnixListener::bind(root.path().join("sockets/s")).unwrap();
            let fixture = Self { root, _listener: listener };
            fixture.set(mode);
            fixture
        }

        fn folder(&self) -> PathBuf {
            self.root.path().join("sockets")
        }

        fn set(&self, mode: u32) {
            fs::set_permissions(self.folder(), Permissions::from_mode(mode)).unwrap();
        }

        fn mode(&self) -> u32 {
            fs::metadata(self.folder()).unwrap().mode() & MODE
        }

        fn state(&self) -> PathBuf {
            self.root.path().join("state")
        }

        fn start(&self) -> Folders {
            Folders::new(&self.state()).unwrap()
        }

        fn close(&self, folders: &Folders) -> bool {
            folders.close(&self.folder().join("s")).unwrap()
        }
    }

    #[test]
    fn a_closed_folder_is_given_back_when_the_agent_stops() {
        let fixture = Fixture::new(0o2775);
        let folders = fixture.start();
        assert!(fixture.close(&folders));
        assert_eq!(fixture.mode(), 0o2700);
        assert!(!fixture.close(&folders), "once is enough");
        folders.open_all().unwrap();
        assert_eq!(fixture.mode(), 0o2775);
        assert!(!fixture.state().join(FILE).exists());
    }

    #[test]
    fn it_is_given_back_after_a_crash_by_the_next_start_or_the_command() {
        let fixture = Fixture::new(0o755);
        assert!(fixture.close(&fixture.start()));
        assert_eq!(fixture.mode(), 0o700);
        assert_eq!(restore(&fixture.state()).unwrap(), [fixture.folder()]);
        assert_eq!(fixture.mode(), 0o755);
        assert!(restore(&fixture.state()).unwrap().is_empty());
        assert!(fixture.close(&fixture.start()));
        let next = fixture.start();
        assert_eq!(fixture.mode(), 0o755);
        assert!(fixture.close(&next));
    }

    #[test]
    fn what_somebody_else_has_changed_since_stays_theirs() {
        let fixture = Fixture::new(0o755);
        let folders = fixture.start();
        fixture.close(&folders);
        fixture.set(0o750);
        folders.open_all().unwrap();
        assert_eq!(fixture.mode(), 0o750);
        // Opened meanwhile and closed again: what it was at first comes back.
        let fixture = Fixture::new(0o755);
        let folders = fixture.start();
        fixture.close(&folders);
        fixture.set(0o711);
        assert!(fixture.close(&folders));
        folders.open_all().unwrap();
        assert_eq!(fixture.mode(), 0o755);
    }

    #[test]
    fn folders_of_others_are_left_alone() {
        let fixture = Fixture::new(0o1777);
        let error = fixture.start().close(&fixture.folder().join("s")).unwrap_err();
        assert!(error.to_string().contains("everybody writes"), "{error}");
        assert_eq!(fixture.mode(), 0o1777);
        let link = fixture.root.path().join("link");
        std::os::unix::fs::symlink(fixture.folder(), &link).unwrap();
        assert!(fixture.start().close(&link.join("s")).is_err(), "a link in its place");
        assert!(fixture.start().close(Path::new("s")).is_ok_and(|closed| !closed));
    }

    #[test]
    fn a_broken_list_is_told() {
        let fixture = Fixture::new(0o755);
        fs::write(fixture.state().join(FILE), "{").unwrap();
        assert!(matches!(Folders::new(&fixture.state()), Err(FolderError::List { .. })));
    }
}
