//! The two sockets of a session and their buffers: bytes that have come, bytes that wait to go.
//!
//! It reads no message. A side that does not take its bytes stops the other side from being read: memory is bounded by
//! the high-water mark and one read beyond it.

use std::{future::poll_fn, io, pin::Pin, task::Poll, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Sleep,
};

use super::stream::Stream;

/// Most bytes asked of a socket at once.
const READ_BYTES: usize = 16 * 1024;

/// Bytes asked of a socket that has been quiet: what an idle session keeps for each side.
const IDLE_BYTES: usize = 1024;

/// Bytes waiting for one side at which the other side is no longer read.
const HIGH_WATER: usize = 256 * 1024;

/// Capacity above which an empty buffer is given back.
const KEEP_BYTES: usize = 64 * 1024;

/// What has happened on the sockets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Bytes came from the client.
    Client,
    /// Bytes came from the server.
    Server,
    /// The client sends no more.
    ClientEnded,
    /// The client takes no more.
    ClientGone,
    /// The server sends no more.
    ServerEnded,
    /// The timer has run out.
    Timer,
}

/// Both sockets of a session.
#[derive(Debug)]
pub(super) struct Pipe {
    client: Stream,
    server: Stream,
    pub(super) from_client: BytesMut,
    pub(super) from_server: BytesMut,
    pub(super) to_client: BytesMut,
    pub(super) to_server: BytesMut,
    client_ended: bool,
    client_gone: bool,
    server_ended: bool,
    server_closing: bool,
    client_read: usize,
    server_read: usize,
    pub(super) bytes_from_client: u64,
    pub(super) bytes_to_client: u64,
}

impl Pipe {
    pub(super) fn new(client: Stream, server: Stream) -> Self {
        Self {
            client,
            server,
            from_client: BytesMut::new(),
            from_server: BytesMut::new(),
            to_client: BytesMut::new(),
            to_server: BytesMut::new(),
            client_ended: false,
            client_gone: false,
            server_ended: false,
            server_closing: false,
            client_read: IDLE_BYTES,
            server_read: IDLE_BYTES,
            bytes_from_client: 0,
            bytes_to_client: 0,
        }
    }

    /// Sends what waits and returns with the next thing that happens. Cancel safe. `read_client` is false while the
    /// session cannot take more requests.
    pub(super) async fn next(&mut self, read_client: bool, mut timer: Option<Pin<&mut Sleep>>) -> Event {
        poll_fn(|cx| {
            self.poll_flush_server(cx);
            self.poll_flush_client(cx);
            if self.client_gone {
                return Poll::Ready(Event::ClientGone);
            }
            if read_client && !self.client_ended && self.to_server.len() < HIGH_WATER {
                match poll_read(&mut self.client, &mut self.from_client, &mut self.client_read, cx) {
                    Poll::Ready(Ok(read @ 1..)) => {
                        self.bytes_from_client += read as u64;
                        return Poll::Ready(Event::Client);
                    }
                    Poll::Ready(Ok(0) | Err(_)) => {
                        self.client_ended = true;
                        return Poll::Ready(Event::ClientEnded);
                    }
                    Poll::Pending => {}
                }
            }
            if !self.server_ended && self.to_client.len() < HIGH_WATER {
                match poll_read(&mut self.server, &mut self.from_server, &mut self.server_read, cx) {
                    Poll::Ready(Ok(1..)) => return Poll::Ready(Event::Server),
                    Poll::Ready(Ok(0) | Err(_)) => {
                        self.server_ended = true;
                        return Poll::Ready(Event::ServerEnded);
                    }
                    Poll::Pending => {}
                }
            }
            match timer.as_mut().map(|timer| timer.as_mut().poll(cx)) {
                Some(Poll::Ready(())) => Poll::Ready(Event::Timer),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Gives memory back that a quiet session does not need.
    pub(super) fn rest(&mut self) {
        (self.client_read, self.server_read) = (IDLE_BYTES, IDLE_BYTES);
        for buffer in [&mut self.from_client, &mut self.from_server, &mut self.to_client, &mut self.to_server]
        {
            if buffer.is_empty() && buffer.capacity() > IDLE_BYTES {
                *buffer = BytesMut::new();
            }
        }
    }

    /// After the last byte for the server: no more will come. The server goes on to answer.
    pub(super) fn close_server_after_flush(&mut self) {
        self.server_closing = true;
    }

    /// Sends the client what waits for it and closes. A slow client has time for as long as it takes something every `limit`.
    pub(super) async fn finish(&mut self, limit: Duration) {
        let Self { client, to_client, bytes_to_client, client_gone, .. } = self;
        if *client_gone {
            return;
        }
        while !to_client.is_empty() {
            match tokio::time::timeout(limit, client.write_buf(to_client)).await {
                Ok(Ok(written @ 1..)) => *bytes_to_client += written as u64,
                // A client that does not take its last bytes loses them.
                Ok(Ok(0) | Err(_)) | Err(_) => return,
            }
        }
        let _: Result<io::Result<()>, _> = tokio::time::timeout(limit, client.shutdown()).await;
    }

    fn poll_flush_server(&mut self, cx: &mut std::task::Context<'_>) {
        while !self.to_server.is_empty() {
            match Pin::new(&mut self.server).poll_write(cx, &self.to_server) {
                Poll::Ready(Ok(written @ 1..)) => self.to_server.advance(written),
                // Reading from it tells the session that it is gone, after what it still had to say.
                Poll::Ready(_) => self.to_server.clear(),
                Poll::Pending => return,
            }
        }
        shrink(&mut self.to_server);
        // What TLS has encrypted and the socket did not take; nothing on other sockets.
        let _ = Pin::new(&mut self.server).poll_flush(cx);
        if self.server_closing && Pin::new(&mut self.server).poll_shutdown(cx).is_ready() {
            self.server_closing = false;
        }
    }

    fn poll_flush_client(&mut self, cx: &mut std::task::Context<'_>) {
        while !self.to_client.is_empty() {
            match Pin::new(&mut self.client).poll_write(cx, &self.to_client) {
                Poll::Ready(Ok(written @ 1..)) => {
                    self.bytes_to_client += written as u64;
                    self.to_client.advance(written);
                }
                Poll::Ready(_) => {
                    self.client_gone = true;
                    return;
                }
                Poll::Pending => return,
            }
        }
        shrink(&mut self.to_client);
        let _ = Pin::new(&mut self.client).poll_flush(cx);
    }
}

fn poll_read(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    wanted: &mut usize,
    cx: &mut std::task::Context<'_>,
) -> Poll<io::Result<usize>> {
    if buffer.is_empty() {
        shrink(buffer);
    }
    buffer.reserve(*wanted);
    let read = std::pin::pin!(stream.read_buf(buffer)).poll(cx);
    if let Poll::Ready(Ok(read)) = read
        && read >= *wanted
    {
        // There may be more: ask for more.
        *wanted = (*wanted * 4).min(READ_BYTES);
    }
    read
}

fn shrink(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > KEEP_BYTES {
        *buffer = BytesMut::new();
    }
}
