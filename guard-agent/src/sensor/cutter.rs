//! The thread that ends connections which have been decided on too late to refuse them.
//!
//! A socket's name enters; what came of it leaves. It waits for nobody but the kernel, and has a thread of its own: it
//! enters the network namespaces of servers.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io,
    net::SocketAddr,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use super::{
    destroy::Diag,
    event::{Accepted, Endpoint, SocketId},
    host,
    shutdown::{Wanted, shutdown},
};

/// Connections that may wait to be cut. Beyond, they are not, which is recorded.
const QUEUE: usize = 4_096;
/// Network namespaces of which a socket is kept.
const NAMESPACES: usize = 64;
/// Processes whose network namespace is looked at to find one.
const PROCESSES: usize = 65_536;

/// What came of cutting a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It has ended by it.
    Done,
    /// It had ended before.
    Gone,
    /// It goes on, and why.
    Failed(String),
}

/// A connection to be cut, by the server's end.
#[derive(Clone, Debug)]
pub struct Target {
    socket: SocketId,
    endpoint: Endpoint,
    /// Cookie of the server's network namespace; 0 for the agent's own.
    namespace: u64,
    /// Processes that may hold the server's end, or have started who does.
    servers: Vec<u32>,
}

impl Target {
    /// The connection that was `accepted` by a server whose process is `server`, where that is known.
    pub fn new(accepted: &Accepted, server: Option<u32>) -> Self {
        let servers: BTreeSet<u32> = [accepted.server_pid, server.unwrap_or(0)].into();
        Self {
            socket: accepted.socket,
            endpoint: accepted.endpoint.clone(),
            namespace: accepted.namespace_cookie,
            servers: servers.into_iter().filter(|pid| *pid != 0).collect(),
        }
    }
}

/// One order.
#[derive(Debug)]
pub struct Order {
    pub target: Target,
    pub reply: oneshot::Sender<Cut>,
}

/// Starts the thread. It ends with the last sender.
pub fn start() -> io::Result<SyncSender<Order>> {
    let (orders, queue) = sync_channel(QUEUE);
    thread::Builder::new().name("guard-cutter".to_owned()).spawn(move || Cutter::default().run(&queue))?;
    Ok(orders)
}

#[derive(Debug, Default)]
struct Cutter {
    /// By the cookie of the namespace; 0 for the agent's own.
    sockets: HashMap<u64, Diag>,
    /// The cookie of the agent's own.
    own: Option<u64>,
}

impl Cutter {
    fn run(mut self, queue: &Receiver<Order>) {
        while let Ok(order) = queue.recv() {
            let cut = self.cut(&order.target);
            if let Cut::Failed(error) = &cut {
                tracing::warn!("a connection was not cut: {error}");
            }
            let _ = order.reply.send(cut);
        }
    }

    fn cut(&mut self, target: &Target) -> Cut {
        let (client, server) = match &target.endpoint {
            Endpoint::Tcp { client, server } => (*client, *server),
            Endpoint::Unix { .. } => return by_descriptor(target),
        };
        match self.destroy(target, server, client) {
            Ok(true) => Cut::Done,
            Ok(false) => Cut::Gone,
            Err(error) => match by_descriptor(target) {
                Cut::Done => Cut::Done,
                Cut::Gone | Cut::Failed(_) => Cut::Failed(error),
            },
        }
    }

    fn destroy(&mut self, target: &Target, local: SocketAddr, remote: SocketAddr) -> Result<bool, String> {
        let diag = self.socket(target.namespace)?;
        let cookie = match target.socket {
            SocketId::Cookie(cookie) => cookie,
            // Found in /proc: it is the one of this inode number, or none.
            SocketId::Inode(wanted) => match diag.find(local, remote).map_err(explain)? {
                Some((cookie, inode)) if inode == wanted => cookie,
                Some(_) | None => return Ok(false),
            },
            // Open as far as the kernel has told: it is the one with these ends.
            SocketId::Serial(_) => match diag.find(local, remote).map_err(explain)? {
                Some((cookie, _)) => cookie,
                None => return Ok(false),
            },
        };
        diag.destroy(local, remote, cookie).map_err(explain)
    }

    fn socket(&mut self, namespace: u64) -> Result<&Diag, String> {
        let own = *self.own.get_or_insert_with(host::namespace_cookie);
        let namespace = if namespace == own { 0 } else { namespace };
        if !self.sockets.contains_key(&namespace) {
            if self.sockets.len() >= NAMESPACES {
                self.sockets.clear();
            }
            let opened = if namespace == 0 { Diag::open().map_err(explain) } else { open_in(namespace) };
            self.sockets.insert(namespace, opened?);
        }
        self.sockets.get(&namespace).ok_or_else(String::new)
    }
}

fn by_descriptor(target: &Target) -> Cut {
    let wanted = match target.socket {
        SocketId::Cookie(cookie) => Wanted::Cookie(cookie),
        SocketId::Inode(inode) => Wanted::Inode(inode),
        // A number of the sensor's own is on no descriptor.
        SocketId::Serial(_) => return Cut::Gone,
    };
    match shutdown(&target.servers, wanted) {
        Ok(true) => Cut::Done,
        Ok(false) => Cut::Gone,
        Err(error) => Cut::Failed(format!(
            "the server's descriptor cannot be borrowed ({error}): that takes CAP_SYS_PTRACE and Linux 5.6"
        )),
    }
}

fn explain(error: io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => format!("{error}: ending connections takes CAP_NET_ADMIN"),
        Some(libc::EOPNOTSUPP) => {
            format!("{error}: this kernel was built without CONFIG_INET_DIAG_DESTROY")
        }
        _ => error.to_string(),
    }
}

/// A socket in the network namespace with that cookie.
fn open_in(namespace: u64) -> Result<Diag, String> {
    let mut failure = "no process is in the server's network namespace any more".to_owned();
    let mut seen = BTreeSet::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten().take(PROCESSES);
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let Some(inode) = super::places::namespace(pid, "net") else { continue };
        if !seen.insert(inode) {
            continue;
        }
        match enter(pid) {
            Ok(diag) if diag.namespace_cookie() == namespace => return Ok(diag),
            Ok(_) => {}
            Err(error) => {
                failure = format!(
                    "the server's network namespace cannot be entered ({error}): that takes CAP_SYS_ADMIN"
                );
            }
        }
    }
    Err(failure)
}

/// On a thread that ends afterwards: it cannot come back into the agent's namespace without the same right.
fn enter(pid: u32) -> io::Result<Diag> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    let inside = thread::Builder::new().name("guard-namespace".to_owned()).spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Diag::open()
    })?;
    inside.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}
