//! Unix sockets, as `unix_diag` tells them (the kernel's `include/uapi/linux/unix_diag.h`).

use std::{collections::BTreeSet, ffi::OsString, io, os::unix::ffi::OsStringExt, path::PathBuf};

use super::netlink::{Netlink, attributes, word};

const AF_UNIX: u8 = 1;
const STREAM: u8 = 1;
const ESTABLISHED: u8 = 1;
const NAME: u16 = 0;
const PEER: u16 = 2;
/// Asks for name and peer.
const SHOW: u32 = 1 | 4;
/// Bytes of `struct unix_diag_msg`.
const MESSAGE: usize = 16;

/// The server's side of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixConnection {
    /// Where the server listens; an abstract name starts with `@`.
    pub path: PathBuf,
    /// Inode number of the server's socket.
    pub inode: u64,
    /// Inode number of the client's socket.
    pub peer_inode: u64,
}

/// Connections on these sockets, in this network namespace; nothing where the kernel does not tell.
pub fn connections(paths: &BTreeSet<PathBuf>) -> Vec<UnixConnection> {
    let mut found = all().unwrap_or_default();
    found.retain(|connection| paths.contains(&connection.path));
    found
}

/// Every connection whose server listens somewhere: an accepted socket has the name of the one that listens.
pub fn all() -> io::Result<Vec<UnixConnection>> {
    let mut request = vec![AF_UNIX, 0, 0, 0];
    for word in [1 << ESTABLISHED, 0, SHOW, u32::MAX, u32::MAX] {
        request.extend(u32::to_ne_bytes(word));
    }
    let mut found = Vec::new();
    Netlink::dump(&request, |message| found.extend(connection(message)))?;
    Ok(found)
}

fn connection(message: &[u8]) -> Option<UnixConnection> {
    let (kind, state) = (*message.get(1)?, *message.get(2)?);
    if kind != STREAM || state != ESTABLISHED {
        return None;
    }
    let mut connection =
        UnixConnection { path: PathBuf::new(), inode: word(message, 4)?.into(), peer_inode: 0 };
    for (kind, value) in attributes(message, MESSAGE) {
        match kind {
            NAME => connection.path = path(value)?,
            PEER => connection.peer_inode = word(value, 0)?.into(),
            _ => {}
        }
    }
    (!connection.path.as_os_str().is_empty()).then_some(connection)
}

fn path(name: &[u8]) -> Option<PathBuf> {
    let mut bytes = match name.first()? {
        0 => name.to_vec(),
        _ => name.split(|byte| *byte == 0).next()?.to_vec(),
    };
    if bytes[0] == 0 {
        bytes[0] = b'@';
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        os::unix::net::{UnixListener, UnixStream},
        path::Path,
    };

    use super::{connection, connections, path};

    #[test]
    fn a_connection_is_found_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("s");
        let listener = UnixListener::bind(&place).unwrap();
        let wanted = BTreeSet::from([place.clone()]);
        assert!(connections(&wanted).is_empty());
        let client = UnixStream::connect(&place).unwrap();
        let server = listener.accept().unwrap();
        let found = connections(&wanted);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].path == place && found[0].inode != found[0].peer_inode && found[0].peer_inode != 0);
        drop((client, server));
        assert!(connections(&wanted).is_empty());
    }

    #[test]
    fn names_are_paths_or_abstract() {
        assert_eq!(path(b"/run/x\0").as_deref(), Some(Path::new("/run/x")));
        assert_eq!(path(b"\0name").as_deref(), Some(Path::new("@name")));
        assert_eq!(path(b""), None);
        for length in 0..16 {
            assert!(connection(&vec![1; length]).is_none());
        }
    }
}
