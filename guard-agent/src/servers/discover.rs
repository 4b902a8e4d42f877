//! Finds PostgreSQL servers by their processes: the postmaster is the one whose parent is no postgres.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use procfs::process::{Process, all_processes};

use super::{Elsewhere, Engine, Server};
use crate::sensor::{listeners, socket_inodes, unix_listeners};

/// Servers that are found at most.
const LIMIT: usize = 64;

/// The servers that run now, sorted by pid. Their environment is empty until [`super::merge`] gives them one.
pub fn discover() -> Vec<Server> {
    postmasters().into_iter().filter_map(server).take(LIMIT).collect()
}

/// Processes that run postgres and were not started by one.
fn postmasters() -> Vec<u32> {
    let Ok(processes) = all_processes() else { return Vec::new() };
    let mut found = BTreeMap::new();
    for process in processes.flatten() {
        if is_postgres(&process)
            && let Ok(stat) = process.stat()
            && let Ok(pid) = u32::try_from(stat.pid)
        {
            found.insert(pid, u32::try_from(stat.ppid).unwrap_or(0));
        }
    }
    found.iter().filter(|(_, parent)| !found.contains_key(parent)).map(|(pid, _)| *pid).collect()
}

/// By the program file: a process may call itself anything. A file that was replaced by an upgrade counts too.
fn is_postgres(process: &Process) -> bool {
    process.exe().is_ok_and(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        matches!(name.strip_suffix(" (deleted)").unwrap_or(&name), "postgres" | "postmaster")
    })
}

/// What a postmaster listens on; nothing where it listens on nothing, such as in single-user mode.
fn server(pid: u32) -> Option<Server> {
    let held: HashSet<u64> = socket_inodes(pid);
    let addresses: Vec<_> = listeners(pid)
        .into_iter()
        .filter(|listener| held.contains(&listener.inode))
        .map(|listener| listener.address)
        .collect();
    let unix_sockets: Vec<_> = unix_listeners(pid)
        .into_iter()
        .filter(|listener| held.contains(&listener.inode))
        .map(|listener| listener.path)
        .filter(|path| postgres_port(path).is_some())
        .collect();
    let port = addresses
        .first()
        .map(|address| address.port())
        .or_else(|| unix_sockets.first().and_then(|path| postgres_port(path)))?;
    let elsewhere = Elsewhere::of(pid, &unix_sockets);
    // Several containers have the same port: their own names tell them apart for good.
    let label =
        elsewhere.as_ref().map(|elsewhere| elsewhere.label.as_str()).filter(|label| !label.is_empty());
    let place = label.map(|label| format!("@{label}")).unwrap_or_default();
    Some(Server {
        name: format!("{}-{port}{place}", Engine::Postgresql.as_str()),
        engine: Engine::Postgresql,
        environment: String::new(),
        addresses,
        unix_sockets,
        pid: Some(pid),
        elsewhere,
    })
}

/// The port in the name of a PostgreSQL socket, `.s.PGSQL.5432`.
fn postgres_port(path: &Path) -> Option<u16> {
    let name = path.file_name()?.to_str()?;
    name.trim_start_matches('@').strip_prefix(".s.PGSQL.")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::postgres_port;

    #[test]
    fn the_port_is_in_the_name_of_the_socket() {
        assert_eq!(postgres_port(Path::new("/run/postgresql/.s.PGSQL.5432")), Some(5432));
        assert_eq!(postgres_port(Path::new("@/tmp/.s.PGSQL.1")), Some(1));
        for other in ["/run/.s.PGSQL.5432.lock", "/run/x", "/run/.s.PGSQL.70000", "/"] {
            assert_eq!(postgres_port(Path::new(other)), None, "{other}");
        }
    }
}
