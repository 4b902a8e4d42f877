//! The two sockets of a session and the bytes between them.
//!
//! It reads no message. A side that does not take its bytes stops the other side from being read: memory is bounded by
//! the high-water mark and one read beyond it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{flow::Flow, stream::Stream};

/// Bytes waiting for one side at which the other side is no longer read.
const HIGH_WATER: usize = 256 * 1024;

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
}

/// Both sockets of a session.
#[derive(Debug)]
pub(super) struct Pipe {
    client: Stream,
    server: Stream,
    /// From the client to the server.
    pub(super) requests: Flow,
    /// From the server to the client.
    pub(super) answers: Flow,
    client_ended: bool,
    client_gone: bool,
    server_ended: bool,
    server_closing: bool,
    /// What the server says now is not for the client: a client that reads nothing must not hold it up.
    pub(super) swallows: bool,
    pub(super) bytes_from_client: u64,
    pub(super) bytes_to_client: u64,
}

impl Pipe {
    /// Both sockets, and what the server has said already.
    pub(super) fn new(client: Stream, server: Stream, said: BytesMut) -> Self {
        Self {
            client,
            server,
            requests: Flow::new(BytesMut::new()),
            answers: Flow::new(said),
            client_ended: false,
            client_gone: false,
            server_ended: false,
            server_closing: false,
            swallows: false,
            bytes_from_client: 0,
            bytes_to_client: 0,
        }
    }

    /// Sends what waits and returns with the next thing that happens. Cancel safe. `read_client` is false while the
    /// session cannot take more requests.
    pub(super) async fn next(&mut self, read_client: bool) -> Event {
        std::future::poll_fn(|cx| self.poll_next(read_client, cx)).await
    }

    /// The same, for who waits for other things as well.
    pub(super) fn poll_next(&mut self, read_client: bool, cx: &mut Context<'_>) -> Poll<Event> {
        self.poll_flush_server(cx);
        self.poll_flush_client(cx);
        if self.client_gone {
            return Poll::Ready(Event::ClientGone);
        }
        if read_client && !self.client_ended && self.requests.waiting() < HIGH_WATER {
            match self.requests.poll_read(&mut self.client, cx) {
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
        if !self.server_ended && (self.swallows || self.answers.waiting() < HIGH_WATER) {
            match self.answers.poll_read(&mut self.server, cx) {
                Poll::Ready(Ok(1..)) => return Poll::Ready(Event::Server),
                Poll::Ready(Ok(0) | Err(_)) => {
                    self.server_ended = true;
                    return Poll::Ready(Event::ServerEnded);
                }
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// Gives memory back that a quiet session does not need.
    pub(super) fn rest(&mut self) {
        self.requests.rest();
        self.answers.rest();
    }

    /// After the last byte for the server: no more will come. The server goes on to answer.
    pub(super) fn close_server_after_flush(&mut self) {
        self.server_closing = true;
    }

    /// Sends the client what waits for it and closes. A slow client has time for as long as it takes something every `limit`.
    pub(super) async fn finish(&mut self, limit: Duration) {
        let Self { client, answers, bytes_to_client, client_gone, .. } = self;
        if *client_gone {
            return;
        }
        while answers.waiting() > 0 {
            match timeout(limit, std::future::poll_fn(|cx| answers.poll_write(client, cx))).await {
                Ok(Ok(written)) => *bytes_to_client += written as u64,
                // A client that does not take its last bytes loses them.
                Ok(Err(_)) | Err(_) => return,
            }
        }
        let _: Result<io::Result<()>, _> = timeout(limit, client.shutdown()).await;
    }

    fn poll_flush_server(&mut self, cx: &mut Context<'_>) {
        while self.requests.waiting() > 0 {
            match self.requests.poll_write(&mut self.server, cx) {
                Poll::Ready(Ok(_)) => {}
                // Reading from it tells the session that it is gone, after what it still had to say.
                Poll::Ready(Err(_)) => self.requests.discard(),
                Poll::Pending => return,
            }
        }
        // What TLS has encrypted and the socket did not take; nothing on other sockets.
        let _ = Pin::new(&mut self.server).poll_flush(cx);
        if self.server_closing && Pin::new(&mut self.server).poll_shutdown(cx).is_ready() {
            self.server_closing = false;
        }
    }

    fn poll_flush_client(&mut self, cx: &mut Context<'_>) {
        while self.answers.waiting() > 0 {
            match self.answers.poll_write(&mut self.client, cx) {
                Poll::Ready(Ok(written)) => self.bytes_to_client += written as u64,
                Poll::Ready(Err(_)) => {
                    self.client_gone = true;
                    return;
                }
                Poll::Pending => return,
            }
        }
        let _ = Pin::new(&mut self.client).poll_flush(cx);
    }
}
