//! The threads that serve sessions.

use std::{
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{OwnedSemaphorePermit, mpsc},
};

use super::precedence;
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

/// Sessions that share a thread before the next one is used: together they find more of each other's work ready at once,
/// and wake fewer cores.
const TOGETHER: usize = 16;

/// A client on its way to a thread: sockets travel without a runtime.
pub(super) struct Arrival {
    pub(super) proxy: Arc<Proxy>,
    pub(super) socket: Socket,
    pub(super) peer: Peer,
    /// Held while the session lives.
    pub(super) place: OwnedSemaphorePermit,
    /// The place is one of the few for those that come when all others are taken.
    pub(super) surplus: bool,
    /// It was going to the server's own address.
    pub(super) steered: bool,
}

/// A connected socket that belongs to no runtime.
pub(super) enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// Handles on the session threads. They end with the last handle and the last session.
#[derive(Clone, Debug)]
pub struct SessionThreads {
    threads: Arc<[SessionThread]>,
}

#[derive(Debug)]
struct SessionThread {
    queue: mpsc::Sender<(Arrival, Load)>,
    sessions: Arc<AtomicUsize>,
}

/// One session of a thread's count, for as long as it lives.
#[derive(Debug)]
struct Load(Arc<AtomicUsize>);

impl Load {
    fn of(sessions: &Arc<AtomicUsize>) -> Self {
        sessions.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(sessions))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which thread the next session goes to: the first that has few, else the one that has fewest.
fn next_thread(sessions: &[usize]) -> usize {
    let few = sessions.iter().position(|count| *count < TOGETHER);
    let fewest = || sessions.iter().enumerate().min_by_key(|(_, count)| **count).map(|(number, _)| number);
    few.or_else(fewest).unwrap_or(0)
}

impl SessionThreads {
    /// Starts as many threads as `limits` says.
    pub fn start(limits: &ProxyConfig, decider: &Arc<Decider>) -> io::Result<Self> {
        let count = match limits.threads {
            0 => thread::available_parallelism()?.get(),
            count => count.min(1_024),
        };
        let large = LargeTexts::start(session::caps(limits))?;
        let mut refused = precedence::of_session(limits.nice).err();
        let threads: io::Result<Vec<SessionThread>> = (0..count)
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
                        let _ = made.send(Ok(precedence::of_thread(limits.nice)));
                        let worker = Worker::new(&limits, decider).with(large);
                        runtime.block_on(serve(arrivals, worker));
                    }
                    Err(error) => drop(made.send(Err(error))),
                };
                thread::Builder::new()
                    .name(format!("session-{number}"))
                    .stack_size(STACK_BYTES)
                    .spawn(run)?;
                let done = is_made.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
                refused = refused.take().or(done.err());
                Ok(SessionThread { queue, sessions: Arc::default() })
            })
            .collect();
        let threads = threads?.into();
        if let Some(error) = refused {
            tracing::info!(
                "statements wait longer for the proxy while the host is busy: `proxy.nice = {}` takes CAP_SYS_NICE ({error})",
                limits.nice
            );
        }
        Ok(Self { threads })
    }

    /// Hands a client to a thread that has room for it. False: all are full.
    pub(super) fn hand_over(&self, mut arrival: Arrival) -> bool {
        let counts: Vec<_> =
            self.threads.iter().map(|thread| thread.sessions.load(Ordering::Relaxed)).collect();
        let first = next_thread(&counts);
        for offset in 0..self.threads.len() {
            let SessionThread { queue, sessions } = &self.threads[(first + offset) % self.threads.len()];
            match queue.try_send((arrival, Load::of(sessions))) {
                Ok(()) => return true,
                Err(
                    mpsc::error::TrySendError::Full((back, _)) | mpsc::error::TrySendError::Closed((back, _)),
                ) => arrival = back,
            }
        }
        false
    }
}

async fn serve(mut arrivals: mpsc::Receiver<(Arrival, Load)>, worker: Worker) {
    let worker = Rc::new(worker);
    while let Some((arrival, load)) = arrivals.recv().await {
        let Arrival { proxy, socket, peer, place, surplus, steered } = arrival;
        let stream = match socket {
            Socket::Tcp(socket) => tokio::net::TcpStream::from_std(socket).map(Stream::Tcp),
            Socket::Unix(socket) => tokio::net::UnixStream::from_std(socket).map(Stream::Unix),
        };
        let worker = Rc::clone(&worker);
        match stream {
            Ok(stream) => {
                tokio::task::spawn_local(async move {
                    let client = Client { stream, peer, surplus, steered };
                    session::serve(proxy, worker, client).await;
                    drop((place, load));
                });
            }
            Err(error) => tracing::warn!("an accepted client was lost: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_stay_together_while_they_are_few_and_spread_when_they_are_many() {
        assert_eq!(next_thread(&[0, 0]), 0);
        assert_eq!(next_thread(&[TOGETHER - 1, 0]), 0);
        assert_eq!(next_thread(&[TOGETHER, 0]), 1);
        assert_eq!(next_thread(&[40, 39, 41]), 1);
        assert_eq!(next_thread(&[40, TOGETHER - 1, 41]), 1);
    }

    #[test]
    fn a_session_counts_as_long_as_it_lives() {
        let sessions = Arc::default();
        let load = Load::of(&sessions);
        assert_eq!(sessions.load(Ordering::Relaxed), 1);
        drop(load);
        assert_eq!(sessions.load(Ordering::Relaxed), 0);
    }
}
