//! The threads that serve sessions.

use std::{io, rc::Rc, sync::Arc, thread};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{OwnedSemaphorePermit, mpsc},
};

use crate::{
    config::ProxyConfig,
    decide::Decider,
    session::{self, Client, Peer, Proxy, Stream, Worker},
    sql::LargeTexts,
};

/// Stack of a session thread: what the deepest statement within the classifier's limits takes, with room.
pub const STACK_BYTES: usize = 32 * 1024 * 1024;

/// Clients that may wait for one thread.
const QUEUE: usize = 1_024;

/// A client on its way to a thread: sockets travel without a runtime.
pub(super) struct Arrival {
    pub(super) proxy: Arc<Proxy>,
    pub(super) socket: Socket,
    pub(super) peer: Peer,
    /// Held while the session lives.
    pub(super) place: OwnedSemaphorePermit,
    /// The place is one of the few for those that come when all others are taken.
    pub(super) surplus: bool,
}

/// A connected socket that belongs to no runtime.
pub(super) enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// Handles on the session threads. They end with the last handle and the last session.
#[derive(Clone, Debug)]
pub struct SessionThreads {
    queues: Arc<[mpsc::Sender<Arrival>]>,
}

impl SessionThreads {
    /// Starts as many threads as `limits` says.
    pub fn start(limits: &ProxyConfig, decider: &Arc<Decider>) -> io::Result<Self> {
        let count = match limits.threads {
            // The other half is the database's.
            0 => (thread::available_parallelism()?.get() / 2).max(1),
            count => count.min(1_024),
        };
        let large = LargeTexts::start(session::caps(limits))?;
        let queues: io::Result<Vec<_>> = (0..count)
            .map(|number| {
                let (queue, arrivals) = mpsc::channel(QUEUE);
                let (limits, decider) = (limits.clone(), Arc::clone(decider));
                let large = large.clone();
                // The runtime stays on the thread that makes it: the thread tells whether it could.
                let (made, is_made) = std::sync::mpsc::channel();
                let run = move || match Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default())
                {
                    Ok(runtime) => {
                        let _ = made.send(Ok(()));
                        let worker = Worker::new(&limits, decider).with(large);
                        runtime.block_on(serve(arrivals, worker));
                    }
                    Err(error) => drop(made.send(Err(error))),
                };
                thread::Builder::new()
                    .name(format!("session-{number}"))
                    .stack_size(STACK_BYTES)
                    .spawn(run)?;
                is_made.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
                Ok(queue)
            })
            .collect();
        Ok(Self { queues: queues?.into() })
    }

    /// Hands a client to the thread with the shortest queue, from the one whose turn it is. False: all are full.
    pub(super) fn hand_over(&self, mut arrival: Arrival, turn: usize) -> bool {
        for offset in 0..self.queues.len() {
            let queue = &self.queues[(turn + offset) % self.queues.len()];
            match queue.try_send(arrival) {
                Ok(()) => return true,
                Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => {
                    arrival = back
                }
            }
        }
        false
    }
}

async fn serve(mut arrivals: mpsc::Receiver<Arrival>, worker: Worker) {
    let worker = Rc::new(worker);
    while let Some(Arrival { proxy, socket, peer, place, surplus }) = arrivals.recv().await {
        let stream = match socket {
            Socket::Tcp(socket) => tokio::net::TcpStream::from_std(socket).map(Stream::Tcp),
            Socket::Unix(socket) => tokio::net::UnixStream::from_std(socket).map(Stream::Unix),
        };
        let worker = Rc::clone(&worker);
        match stream {
            Ok(stream) => {
                tokio::task::spawn_local(async move {
                    let client = Client { stream, peer, surplus };
                    session::serve(proxy, worker, client).await;
                    drop(place);
                });
            }
            Err(error) => tracing::warn!("an accepted client was lost: {error}"),
        }
    }
}
