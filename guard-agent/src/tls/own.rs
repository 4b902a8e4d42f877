//! The database server's own certificate and key: a running server's pid enters, the files that it was told to use leave.
//!
//! Asked are the process's command line and its settings files, in the server's own order of precedence. Nothing is asked
//! of the server itself.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    files::{Root, Stamp},
    settings::{Files, Settings},
};

/// The files that a server uses for TLS, as its own process sees them.
#[derive(Debug)]
pub(super) struct OwnFiles {
    pub(super) root: Root,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
    pub(super) client_crl: Option<PathBuf>,
    /// It speaks TLS 1.3 alone.
    pub(super) only_13: bool,
    /// The settings files that said so.
    pub(super) settings: Vec<Stamp>,
}

/// Why a server's own files are not known.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// Nobody knows which process the server is.
    #[error("the server's process is not known (is it running on this host?)")]
    NoProcess,
    /// Its process cannot be looked into.
    #[error("cannot look into the server's process {pid}: {error}")]
    Process {
        /// Its pid.
        pid: u32,
        /// Why not.
        error: io::Error,
    },
    /// Its settings do not switch TLS on.
    #[error("the server has `ssl = off`")]
    Off,
}

impl OwnFiles {
    /// The files of the server whose postmaster is `pid`.
    pub(super) fn of(pid: Option<u32>) -> Result<Self, OwnError> {
        let pid = pid.ok_or(OwnError::NoProcess)?;
        let failed = |error| OwnError::Process { pid, error };
        let root = Root::of(pid).map_err(failed)?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).map_err(failed)?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let arguments = Settings::of_arguments(line.split('\0').filter(|word| !word.is_empty()));
        // A postmaster works in its data folder.
        let data = working_folder(pid).map_err(failed)?;
        let home = arguments.folder().filter(|folder| folder.is_absolute()).unwrap_or(&data).to_owned();
        let file =
            arguments.get("config_file").map_or_else(|| home.join("postgresql.conf"), |file| data.join(file));
        let mut files = Reader { root, stamps: Vec::new() };
        let mut settings = Settings::default();
        settings.add_file(&file, &mut files);
        settings.add_file(&data.join("postgresql.auto.conf"), &mut files);
        settings.add(arguments);
        if !settings.is_on("ssl") {
            return Err(OwnError::Off);
        }
        let place = |name: &str| settings.get(name).map(|file| data.join(file));
        Ok(Self {
            certificate: place("ssl_cert_file").unwrap_or_else(|| data.join("server.crt")),
            key: place("ssl_key_file").unwrap_or_else(|| data.join("server.key")),
            client_ca: place("ssl_ca_file"),
            client_crl: place("ssl_crl_file"),
            only_13: settings
                .get("ssl_min_protocol_version")
                .is_some_and(|version| version.eq_ignore_ascii_case("TLSv1.3")),
            root: files.root,
            settings: files.stamps,
        })
    }
}

/// Where a process works, as it calls it itself: of one in a chroot the link names the place outside of it.
fn working_folder(pid: u32) -> io::Result<PathBuf> {
    let folder = fs::read_link(format!("/proc/{pid}/cwd"))?;
    let root = fs::read_link(format!("/proc/{pid}/root"))?;
    Ok(inside(&root, &folder))
}

fn inside(root: &Path, folder: &Path) -> PathBuf {
    folder.strip_prefix(root).map_or_else(|_| folder.to_owned(), |rest| Path::new("/").join(rest))
}

struct Reader {
    root: Root,
    stamps: Vec<Stamp>,
}

impl Files for Reader {
    fn read(&mut self, path: &Path) -> Option<String> {
        let (bytes, stamp) = self.root.read(path).ok()?;
        self.stamps.push(stamp);
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn list(&mut self, folder: &Path) -> Vec<PathBuf> {
        self.root.list(folder).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_a_chroot_are_called_as_its_processes_call_them() {
        let inside = |root: &str, folder: &str| inside(Path::new(root), Path::new(folder));
        assert_eq!(inside("/", "/var/lib/postgresql"), Path::new("/var/lib/postgresql"));
        assert_eq!(inside("/srv/old", "/srv/old/var/lib"), Path::new("/var/lib"));
        assert_eq!(inside("/srv/old", "/srv/older/var"), Path::new("/srv/older/var"));
    }
}
