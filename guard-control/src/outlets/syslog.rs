//! Syslog as RFC 5424 has it, over TLS (RFC 5425) or to this host over TCP, in frames with their length (RFC 6587).
//!
//! Enters: records. Leaves: one bounded message each. Syslog knows no acknowledgement: a batch counts as taken when the
//! receiver's host has acknowledged all of its bytes, and what went out shortly before a connection broke goes out again on the
//! next one.

mod cef;
mod message;

use std::{
    collections::VecDeque,
    io,
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use super::{
    Given, Outlet, OutletError, Taken,
    address::{self, Address, Stream},
    config,
};

/// How long a receiver may take for a batch.
const TIME: Duration = Duration::from_secs(20);
/// For so long the receiver may have a batch in its hands without having kept it.
const REPEATED: Duration = Duration::from_secs(10);
/// Bytes that are kept for the next connection, at most.
const MAX_REPEATED: usize = 4 * 1024 * 1024;

/// A receiver of syslog.
pub(super) struct Syslog {
    settings: config::Syslog,
    tls: Option<Arc<ClientConfig>>,
    stream: Option<Box<dyn Stream>>,
    /// What went out lately, the oldest first.
    lately: VecDeque<(Instant, Vec<u8>)>,
}

impl Syslog {
    /// Checks what can be checked without the receiver.
    pub(super) fn open(settings: &config::Syslog) -> Result<Self, OutletError> {
        let own = settings.certificate.as_ref().zip(settings.key.as_ref());
        let tls = settings.tls.then(|| address::tls(settings.ca.as_deref(), own)).transpose()?.map(Arc::new);
        Ok(Self { settings: settings.clone(), tls, stream: None, lately: VecDeque::new() })
    }

    fn address(&self) -> &Address {
        &self.settings.address
    }

    async fn send(&mut self, frames: &[u8]) -> Result<(), OutletError> {
        let address = self.address().to_string();
        let failed =
            |error: io::Error| OutletError::Receiver { address: address.clone(), problem: error.to_string() };
        // A receiver that has closed the connection meanwhile says so only when it is looked at.
        let mut open = self.stream.take();
        if let Some(stream) = &mut open
            && has_ended(stream.as_mut()).await
        {
            open = None;
        }
        let mut stream = match open {
            Some(stream) => stream,
            None => {
                let mut stream = address::connect(self.address(), self.tls.as_ref()).await?;
                for (_, frames) in &self.lately {
                    stream.write_all(frames).await.map_err(failed)?;
                }
                stream
            }
        };
        stream.write_all(frames).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        acknowledged(stream.as_ref()).await.map_err(failed)?;
        if has_ended(stream.as_mut()).await {
            return Err(failed(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "it has closed the connection",
            )));
        }
        self.stream = Some(stream);
        Ok(())
    }

    fn remember(&mut self, frames: Vec<u8>) {
        self.lately.push_back((Instant::now(), frames));
        let mut bytes: usize = self.lately.iter().map(|(_, frames)| frames.len()).sum();
        while let Some((at, frames)) = self.lately.front()
            && (at.elapsed() > REPEATED || bytes > MAX_REPEATED)
        {
            bytes -= frames.len();
            self.lately.pop_front();
        }
    }
}

#[tonic::async_trait]
impl Outlet for Syslog {
    async fn take(&mut self, batch: &[Given]) -> Result<Taken, OutletError> {
        let mut frames = Vec::with_capacity(batch.len() * 1_024);
        for given in batch {
            let message = message::message(&self.settings, &given.flat);
            frames.extend_from_slice(format!("{} ", message.len()).as_bytes());
            frames.extend_from_slice(message.as_bytes());
        }
        let late = OutletError::Late { address: self.address().to_string(), within: TIME };
        timeout(TIME, self.send(&frames)).await.map_err(|_| late)??;
        self.remember(frames);
        Ok(Taken::Given)
    }
}

/// Whether the receiver has closed its side; what it says is left unread by nobody, and means nothing.
async fn has_ended(stream: &mut dyn Stream) -> bool {
    let mut said = [0; 512];
    // Bounded: a receiver that talks without end is one that does not listen.
    for _ in 0..64 {
        match timeout(Duration::ZERO, stream.read(&mut said)).await {
            Err(_) => return false,
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return true,
        }
    }
    true
}

/// Waits until the receiver's host has acknowledged every byte.
async fn acknowledged(stream: &dyn Stream) -> io::Result<()> {
    let mut pause = Duration::from_micros(200);
    while unacknowledged(stream)? > 0 {
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    Ok(())
}

/// Bytes in the socket's queue that the peer's kernel has not acknowledged.
fn unacknowledged(stream: &dyn Stream) -> io::Result<i32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as the stream is borrowed, and SIOCOUTQ (as TIOCOUTQ) writes one int.
    let done = unsafe { libc::ioctl(stream.socket().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes) }
}
