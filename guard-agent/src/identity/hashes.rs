//! SHA-256 of program files: a process enters, the hash of what it runs leaves, now or a moment later.
//!
//! A thread of its own reads the files, one after the other, each once for as long as it does not change. A file is
//! taken by its descriptor and compared with the number that the kernel gave when it was run: never by name alone.

use std::{
    collections::{HashMap, HashSet},
    fs::{File, Metadata},
    io::Read,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use sha2::{Digest, Sha256};

/// Files that wait.
const QUEUE: usize = 256;
/// Hashes that are remembered.
const REMEMBERED: usize = 8_192;
const CHUNK: usize = 128 * 1024;

/// Names the contents of a file: they cannot change without one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileKey {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What is known of a program file's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hash {
    /// The hash, hex.
    Known(Arc<str>),
    /// It will be known soon.
    Pending(FileKey),
    /// It will not be known: why.
    Not(&'static str),
}

#[derive(Debug, Default)]
struct Shared {
    known: HashMap<FileKey, Result<Arc<str>, &'static str>>,
    pending: HashSet<FileKey>,
}

/// The hashes of program files.
#[derive(Debug)]
pub struct Hashes {
    /// Largest file that is read; 0: none is.
    limit: u64,
    jobs: Option<SyncSender<(FileKey, File)>>,
    shared: Arc<Mutex<Shared>>,
}

/// A program file, as the kernel or /proc names it.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// A process that ran it.
    pub pid: u32,
    /// That process is the one that is meant, and lives.
    pub lives: bool,
    /// Its path, in the mount namespace of the process.
    pub path: &'a str,
    /// Its inode number; 0 where it is not known.
    pub inode: u64,
}

impl Hashes {
    /// Reads files of at most `limit` bytes; `wake` is written to when there is a new hash.
    pub fn new(limit: u64, wake: Arc<OwnedFd>) -> Self {
        let shared = Arc::<Mutex<Shared>>::default();
        let (jobs, queue) = sync_channel(QUEUE);
        let (results, thread) =
            (Arc::clone(&shared), std::thread::Builder::new().name("guard-hash".to_owned()));
        let started = limit > 0 && thread.spawn(move || work(&queue, &results, &wake)).is_ok();
        Self { limit, jobs: started.then_some(jobs), shared }
    }

    /// The hash of a program.
    pub fn of(&self, program: Program<'_>) -> Hash {
        let Some(jobs) = &self.jobs else { return Hash::Not("off") };
        let Some(file) = open(program) else { return Hash::Not("gone") };
        let Ok(metadata) = file.metadata() else { return Hash::Not("unreadable") };
        if !metadata.is_file() {
            return Hash::Not("no file");
        }
        if metadata.len() > self.limit {
            return Hash::Not("too large");
        }
        let key = FileKey::of(&metadata);
        let mut shared = lock(&self.shared);
        match shared.known.get(&key) {
            Some(Ok(hash)) => return Hash::Known(Arc::clone(hash)),
            Some(Err(reason)) => return Hash::Not(reason),
            None if shared.pending.contains(&key) => return Hash::Pending(key),
            None => {}
        }
        if jobs.try_send((key, file)).is_err() {
            return Hash::Not("too many at once");
        }
        shared.pending.insert(key);
        Hash::Pending(key)
    }

    /// What became of a hash that was pending.
    pub fn result(&self, key: &FileKey) -> Hash {
        match lock(&self.shared).known.get(key) {
            Some(Ok(hash)) => Hash::Known(Arc::clone(hash)),
            Some(Err(reason)) => Hash::Not(reason),
            None => Hash::Pending(*key),
        }
    }
}

/// Without waiting for whoever may stand behind a name: it has to be a file in the end.
fn open(program: Program<'_>) -> Option<File> {
    let open = |path: &Path| File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok();
    let is_it = |file: &File| {
        program.inode != 0 && file.metadata().is_ok_and(|metadata| metadata.ino() == program.inode)
    };
    let of_process = open(Path::new(&format!("/proc/{}/exe", program.pid)));
    // Some file systems show another number than the kernel uses within: a process that lives is proof enough.
    of_process
        .filter(|file| program.lives || is_it(file))
        .or_else(|| open(Path::new(program.path)).filter(|file| is_it(file)))
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(queue: &Receiver<(FileKey, File)>, shared: &Mutex<Shared>, wake: &OwnedFd) {
    while let Ok((key, file)) = queue.recv() {
        let hash = hash(&key, file);
        let mut shared = lock(shared);
        shared.pending.remove(&key);
        if shared.known.len() >= REMEMBERED {
            shared.known.clear();
        }
        shared.known.insert(key, hash);
        drop(shared);
        let _ = nix::unistd::write(wake, &1_u64.to_ne_bytes());
    }
}

fn hash(key: &FileKey, mut file: File) -> Result<Arc<str>, &'static str> {
    let mut digest = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut left = key.size;
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            // It grows: what was hashed is nothing.
            Ok(read) if read as u64 > left => return Err("changed"),
            Ok(read) => {
                left -= read as u64;
                digest.update(&chunk[..read]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err("unreadable"),
        }
    }
    let same = file.metadata().is_ok_and(|metadata| FileKey::of(&metadata) == *key);
    if same && left == 0 { Ok(hex::encode(digest.finalize()).into()) } else { Err("changed") }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

    use super::{Hash, Hashes, Program};

    fn hashes(limit: u64) -> Hashes {
        let nobody = std::fs::File::options().write(true).open("/dev/null").unwrap();
        Hashes::new(limit, Arc::new(nobody.into()))
    }

    fn settled(hashes: &Hashes, program: Program<'_>) -> Hash {
        for _ in 0..400 {
            match hashes.of(program) {
                Hash::Pending(_) => std::thread::sleep(Duration::from_millis(5)),
                settled => return settled,
            }
        }
        panic!("no hash");
    }

    fn file(contents: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(contents).unwrap();
        file
    }

    fn by_name(file: &tempfile::NamedTempFile) -> Program<'_> {
        let inode = file.as_file().metadata().unwrap().ino();
        Program { pid: 0, lives: false, path: file.path().to_str().unwrap(), inode }
    }

    #[test]
    fn the_same_contents_have_one_hash() {
        let (hashes, abc) = (hashes(1000), file(b"abc"));
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(settled(&hashes, by_name(&abc)), Hash::Known(expected.into()));
        // At once this time.
        assert_eq!(hashes.of(by_name(&abc)), Hash::Known(expected.into()));
    }

    #[test]
    fn a_file_that_was_written_to_is_hashed_again() {
        let (hashes, mut changing) = (hashes(1000), file(b"abc"));
        let first = settled(&hashes, by_name(&changing));
        std::thread::sleep(Duration::from_millis(20));
        changing.write_all(b"d").unwrap();
        assert_ne!(settled(&hashes, by_name(&changing)), first);
    }

    #[test]
    fn what_was_not_run_is_not_hashed() {
        let (hashes, other) = (hashes(1000), file(b"abc"));
        let program = Program { inode: by_name(&other).inode + 1, ..by_name(&other) };
        assert_eq!(hashes.of(program), Hash::Not("gone"));
        assert_eq!(hashes.of(Program { inode: 0, ..program }), Hash::Not("gone"));
    }

    #[test]
    fn large_files_and_pipes_are_left_alone() {
        let (hashes, large) = (hashes(2), file(b"abc"));
        assert_eq!(hashes.of(by_name(&large)), Hash::Not("too large"));
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let inode = std::fs::metadata(&pipe).unwrap().ino();
        let program = Program { pid: 0, lives: false, path: pipe.to_str().unwrap(), inode };
        assert_eq!(hashes.of(program), Hash::Not("no file"));
    }

    #[test]
    fn a_living_process_is_hashed_by_itself() {
        let hashes = hashes(u64::MAX);
        let program = Program { pid: std::process::id(), lives: true, path: "", inode: 0 };
        assert!(matches!(settled(&hashes, program), Hash::Known(_)));
    }
}
