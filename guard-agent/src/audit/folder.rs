//! The journal's folder: who may use it, whose chain it is, and how far the control plane has it.
//!
//! The agent's id lies beside the segments, so that a new chain gets a new id and an old one keeps its own.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use uuid::Uuid;

use super::journal::JournalOpenError;

const LOCK: &str = "lock";
const AGENT_ID: &str = "agent-id";
const ACKNOWLEDGED: &str = "acknowledged";

/// Makes the folder if need be; only its owner may enter.
pub fn prepare(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    if fs::metadata(dir)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Keeps every other agent out for as long as it lives. The kernel gives it up when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the folder.
    pub fn take(dir: &Path) -> Result<Self, JournalOpenError> {
        let path = dir.join(LOCK);
        let io = |error| JournalOpenError::Io { path: path.clone(), error };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(JournalOpenError::InUse { dir: dir.to_owned(), holder: holder(&path) });
            }
            Err((_, errno)) => return Err(io(errno.into())),
        };
        // Only for the message of whoever comes second: a full disk must not keep the agent from starting.
        let _ = file.set_len(0).and_then(|()| writeln!(&mut *file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn holder(path: &Path) -> String {
    match read_short(path).map(|text| text.trim().parse::<u32>()) {
        Ok(Ok(pid)) => format!("the agent with pid {pid}"),
        _ => "another agent".to_owned(),
    }
}

/// The agent's id, if the folder has one.
pub fn agent_id(dir: &Path) -> io::Result<Option<Uuid>> {
    match read_short(&dir.join(AGENT_ID)) {
        Ok(text) => match Uuid::try_parse(text.trim()) {
            Ok(id) => Ok(Some(id)),
            Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no UUID")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives the folder a new agent id.
pub fn new_agent_id(dir: &Path) -> io::Result<Uuid> {
    let id = Uuid::new_v4();
    replace(dir, AGENT_ID, &format!("{id}\n"), true)?;
    Ok(id)
}

/// The id of the chain that is in the folder, or will be: made now where there is none yet.
pub fn claim_agent_id(dir: &Path) -> io::Result<Uuid> {
    prepare(dir)?;
    match agent_id(dir)? {
        Some(id) => Ok(id),
        None => new_agent_id(dir),
    }
}

/// The last record that the control plane had acknowledged when this was last written down.
pub fn acknowledged(dir: &Path) -> Option<u64> {
    read_short(&dir.join(ACKNOWLEDGED)).ok()?.trim().parse().ok()
}

/// Writes down what the control plane has acknowledged. It is a hint for the next start: no fsync.
pub fn set_acknowledged(dir: &Path, sequence: u64) -> io::Result<()> {
    replace(dir, ACKNOWLEDGED, &format!("{sequence}\n"), false)
}

/// Forgets what was acknowledged: a new chain begins.
pub fn forget_acknowledged(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(ACKNOWLEDGED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes changes to the folder itself durable.
pub fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

pub(super) fn replace(dir: &Path, name: &str, text: &str, durable: bool) -> io::Result<()> {
    let temporary: PathBuf = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&temporary, dir.join(name))?;
    if durable { sync(dir) } else { Ok(()) }
}

fn read_short(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(256).read_to_string(&mut text)?;
    Ok(text)
}
