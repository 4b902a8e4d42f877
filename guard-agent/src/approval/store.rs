//! Requests on disk: one file to which every change is appended, each with its length and checksum.
//!
//! The last word on a request counts. Where the file does not read to its end, nothing that it may have forgotten counts as
//! approved; what is more than a write that was cut off is kept aside. The file is written by a thread of its own; mode
//! 0600.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use guard_common::api::agent::ApprovalRequest;
use prost::Message;
use tokio::sync::oneshot;

const FILE: &str = "requests";
const MAGIC: &[u8; 8] = b"GUARDAP1";
/// Length and checksum.
const HEAD: usize = 8;
/// Longest frame that can be: texts are bounded.
const MAX_FRAME: usize = 1024 * 1024;
/// Largest file that is read.
const MAX_FILE: u64 = 256 * 1024 * 1024;
/// Bytes at which the file is written anew, with the last words alone.
const REWRITE_AT: u64 = 8 * 1024 * 1024;

/// Why requests cannot be kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder or the file.
    #[error("cannot keep requests for approval in `{path}`: {problem}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The writer has ended.
    #[error("requests for approval are not kept any more: the agent is stopping")]
    Closed,
}

/// What was on disk.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) requests: Vec<ApprovalRequest>,
    /// Some of it may be lost.
    pub(super) doubtful: bool,
    /// More than the last write.
    damaged: bool,
}

type Done = oneshot::Sender<Result<(), StoreError>>;

enum Order {
    Keep { id: String, bytes: Vec<u8>, done: Option<Done> },
    Forget(String),
}

/// A handle on the file.
pub(super) struct Store {
    orders: Option<mpsc::Sender<Order>>,
    error: Arc<Mutex<Option<String>>>,
}

impl Store {
    pub(super) fn in_memory() -> Self {
        Self { orders: None, error: Arc::default() }
    }

    /// Reads what `folder` keeps and starts to write there.
    pub(super) fn open(folder: &Path) -> Result<(Self, Kept), StoreError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| StoreError::Io { path, problem: error.to_string() }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
        let path = folder.join(FILE);
        let (kept, frames) = read(&path).map_err(at(&path))?;
        if kept.damaged {
            let aside = folder.join(format!("{FILE}.damaged-{}", uuid::Uuid::now_v7().simple()));
            fs::rename(&path, &aside).map_err(at(&path))?;
            tracing::error!(kept = %aside.display(), "the file of requests for approval is damaged: what was approved is not");
        }
        let mut file = Written { path: path.clone(), file: None, bytes: 0, frames };
        file.rewrite().map_err(at(&path))?;
        let error = Arc::<Mutex<Option<String>>>::default();
        let (orders, incoming) = mpsc::channel();
        let told = Arc::clone(&error);
        thread::Builder::new()
            .name("guard-approvals".to_owned())
            .spawn(move || file.run(&incoming, &told))
            .map_err(at(&path))?;
        Ok((Self { orders: Some(orders), error }, kept))
    }

    /// Why the last change could not be kept; nothing where it could.
    pub(super) fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns when `request` is on disk.
    pub(super) async fn keep(&self, request: &ApprovalRequest) -> Result<(), StoreError> {
        let Some(orders) = &self.orders else { return Ok(()) };
        let (done, answer) = oneshot::channel();
        let order = Order::Keep { id: request.id.clone(), bytes: request.encode_to_vec(), done: Some(done) };
        orders.send(order).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Keeps `request` without waiting.
    pub(super) fn keep_later(&self, request: &ApprovalRequest) {
        let order = Order::Keep { id: request.id.clone(), bytes: request.encode_to_vec(), done: None };
        // Without a writer the agent is stopping: what is open is withdrawn at the next start.
        self.orders.as_ref().map(|orders| orders.send(order));
    }

    pub(super) fn forget(&self, id: &str) {
        self.orders.as_ref().map(|orders| orders.send(Order::Forget(id.to_owned())));
    }
}

/// The writer's side.
struct Written {
    path: PathBuf,
    /// None after a failure: the file is then written anew.
    file: Option<File>,
    bytes: u64,
    /// The last words.
    frames: BTreeMap<String, Vec<u8>>,
}

impl Written {
    fn run(mut self, orders: &mpsc::Receiver<Order>, told: &Mutex<Option<String>>) {
        while let Ok(order) = orders.recv() {
            let (id, bytes, done) = match order {
                Order::Keep { id, bytes, done } => (id, bytes, done),
                Order::Forget(id) => {
                    // It leaves the file with the next rewriting.
                    self.frames.remove(&id);
                    continue;
                }
            };
            let result = self.append(id, bytes).map_err(|error| {
                self.file = None;
                StoreError::Io { path: self.path.clone(), problem: error.to_string() }
            });
            let problem = result.as_ref().err().map(ToString::to_string);
            if let Some(problem) = &problem {
                tracing::error!("{problem}");
            }
            *told.lock().unwrap_or_else(PoisonError::into_inner) = problem;
            done.map(|done| done.send(result));
        }
    }

    fn append(&mut self, id: String, bytes: Vec<u8>) -> io::Result<()> {
        let frame = frame(&bytes)?;
        self.frames.insert(id, bytes);
        if self.file.is_none() || self.bytes > REWRITE_AT {
            return self.rewrite();
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        file.write_all(&frame)?;
        file.sync_data()?;
        self.bytes += frame.len() as u64;
        Ok(())
    }

    /// Writes the last words to a new file that takes the old one's place.
    fn rewrite(&mut self) -> io::Result<()> {
        let next = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        let mut content = MAGIC.to_vec();
        for bytes in self.frames.values() {
            content.extend(frame(bytes)?);
        }
        file.write_all(&content)?;
        file.sync_all()?;
        fs::rename(&next, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.bytes = content.len() as u64;
        self.file = Some(file);
        Ok(())
    }
}

fn frame(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length as usize <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::other("a request is too long to be kept"))?;
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend(crc32fast::hash(bytes).to_le_bytes());
    frame.extend_from_slice(bytes);
    Ok(frame)
}

type Frames = BTreeMap<String, Vec<u8>>;

fn read(path: &Path) -> io::Result<(Kept, Frames)> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    let mut kept = Kept::default();
    let mut requests: BTreeMap<String, ApprovalRequest> = BTreeMap::new();
    let mut frames = Frames::new();
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        kept.damaged = !bytes.is_empty();
        return Ok((kept, frames));
    };
    while !rest.is_empty() {
        match next(rest) {
            Next::Frame(body, after) => {
                let Ok(request) = ApprovalRequest::decode(body) else {
                    kept.damaged = true;
                    break;
                };
                frames.insert(request.id.clone(), body.to_vec());
                requests.insert(request.id.clone(), request);
                rest = after;
            }
            // The host died while it was written, or its length is damaged.
            Next::CutOff => {
                kept.doubtful = true;
                break;
            }
            Next::Damaged => {
                kept.damaged = true;
                break;
            }
        }
    }
    kept.doubtful |= kept.damaged;
    kept.requests = requests.into_values().collect();
    kept.requests.sort_by_key(|request| {
        request.opened.as_ref().map(|opened| (opened.seconds, opened.nanos)).unwrap_or_default()
    });
    Ok((kept, frames))
}

enum Next<'a> {
    Frame(&'a [u8], &'a [u8]),
    CutOff,
    Damaged,
}

fn next(rest: &[u8]) -> Next<'_> {
    let Some((head, body)) = rest.split_first_chunk::<HEAD>() else { return Next::CutOff };
    let [a, b, c, d, checksum @ ..] = *head;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > MAX_FRAME {
        return Next::Damaged;
    }
    let Some((body, after)) = body.split_at_checked(length) else { return Next::CutOff };
    match crc32fast::hash(body) == u32::from_le_bytes(checksum) {
        true => Next::Frame(body, after),
        // A power cut may leave a last frame of the right length with other content.
        false if after.is_empty() => Next::CutOff,
        false => Next::Damaged,
    }
}
