//! Bytes on their way from one side of a session to the other.
//!
//! What came enters at the back; what was read and may go on leaves at the front, without being copied. What guard adds
//! or takes out keeps its place in the order.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::stream::Stream;

/// Most bytes asked of a socket at once.
const READ_BYTES: usize = 64 * 1024;

/// Bytes asked of a socket that has been quiet.
const IDLE_BYTES: usize = 1024;

/// Capacity above which an empty buffer is given back.
const KEEP_BYTES: usize = 64 * 1024;

/// Cleared bytes that are worth a copy, if that saves a write.
const COPY_BYTES: usize = 4 * 1024;

/// One direction of a session.
#[derive(Debug)]
pub(super) struct Flow {
    /// What goes before all else: what guard says itself, and what was cleared before that.
    inserted: BytesMut,
    /// What came. The first `cleared` bytes may go on.
    buffer: BytesMut,
    cleared: usize,
    wanted: usize,
}

impl Flow {
    /// A direction in which `buffer` has come already.
    pub(super) fn new(buffer: BytesMut) -> Self {
        Self { inserted: BytesMut::new(), buffer, cleared: 0, wanted: IDLE_BYTES }
    }

    /// What has come and is not settled yet.
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.cleared..]
    }

    /// The next `count` unread bytes go on, as many as there are. Tells how many.
    pub(super) fn pass(&mut self, count: usize) -> usize {
        let passed = count.min(self.unread().len());
        self.cleared += passed;
        passed
    }

    /// The next `count` unread bytes go nowhere, as many as there are. Tells how many.
    pub(super) fn skip(&mut self, count: usize) -> usize {
        let skipped = count.min(self.unread().len());
        if skipped > 0 {
            self.settle();
            self.buffer.advance(skipped);
        }
        skipped
    }

    /// Puts bytes of guard's own behind what was cleared.
    pub(super) fn insert(&mut self, bytes: &[u8]) {
        self.settle();
        self.inserted.extend_from_slice(bytes);
    }

    /// Bytes that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.inserted.len() + self.cleared
    }

    /// Forgets what waits to be sent.
    pub(super) fn discard(&mut self) {
        self.inserted.clear();
        self.buffer.advance(self.cleared);
        self.cleared = 0;
    }

    /// Gives memory back that a quiet session does not need.
    pub(super) fn rest(&mut self) {
        self.wanted = IDLE_BYTES;
        for buffer in [&mut self.inserted, &mut self.buffer] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
    }

    /// Reads what `from` has; 0 at its end.
    pub(super) fn poll_read(&mut self, from: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        shrink(&mut self.buffer);
        if self.buffer.capacity() == 0 {
            // A quiet session holds no buffer while it waits.
            ready!(from.poll_readable(cx))?;
        }
        self.buffer.reserve(self.wanted);
        let read = ready!(std::pin::pin!(from.read_buf(&mut self.buffer)).poll(cx))?;
        if read >= self.wanted {
            // There may be more: ask for more.
            self.wanted = (self.wanted * 4).min(READ_BYTES);
        }
        Poll::Ready(Ok(read))
    }

    /// Sends what waits. Ready once nothing is left, with the number of bytes that went; an error leaves the rest.
    pub(super) fn poll_write(&mut self, to: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut sent = 0;
        while self.waiting() > 0 {
            if !self.inserted.is_empty() && self.cleared <= COPY_BYTES {
                self.settle();
            }
            let own = !self.inserted.is_empty();
            let bytes = if own { &self.inserted[..] } else { &self.buffer[..self.cleared] };
            match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    sent += written;
                    if own {
                        self.inserted.advance(written);
                    } else {
                        self.buffer.advance(written);
                        self.cleared -= written;
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // What went is told by the next call that sends something: it is only counted.
                Poll::Pending if sent == 0 => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Ok(sent)),
            }
        }
        shrink(&mut self.inserted);
        Poll::Ready(Ok(sent))
    }

    fn settle(&mut self) {
        if self.cleared > 0 {
            self.inserted.extend_from_slice(&self.buffer[..self.cleared]);
            self.buffer.advance(self.cleared);
            self.cleared = 0;
        }
    }
}

fn shrink(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > KEEP_BYTES {
        *buffer = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    fn flow(bytes: &[u8]) -> Flow {
        Flow::new(BytesMut::from(bytes))
    }

    async fn sent(flow: &mut Flow) -> Vec<u8> {
        let (one, mut other) = tokio::io::duplex(1024);
        let mut stream = Stream::Memory(one);
        while flow.waiting() > 0 {
            poll_fn(|cx| flow.poll_write(&mut stream, cx)).await.unwrap();
        }
        drop(stream);
        let mut received = Vec::new();
        other.read_to_end(&mut received).await.unwrap();
        received
    }

    #[tokio::test]
    async fn what_is_added_and_taken_out_keeps_its_place() {
        let mut flow = flow(b"one two three four");
        assert_eq!(flow.pass(4), 4);
        assert_eq!(flow.skip(4), 4);
        flow.insert(b"2 ");
        assert_eq!(flow.pass(6), 6);
        assert_eq!(flow.unread(), b"four");
        assert_eq!(flow.waiting(), 12);
        assert_eq!(sent(&mut flow).await, b"one 2 three ");
        assert_eq!(flow.pass(100), 4);
        assert_eq!(sent(&mut flow).await, b"four");
    }

    #[tokio::test]
    async fn much_that_is_cleared_behind_an_insertion_follows_it() {
        let long = vec![b'x'; 10 * COPY_BYTES];
        let mut flow = flow(&long);
        flow.insert(b"first");
        flow.pass(long.len());
        let (one, mut other) = tokio::io::duplex(1 << 20);
        let mut stream = Stream::Memory(one);
        poll_fn(|cx| flow.poll_write(&mut stream, cx)).await.unwrap();
        drop(stream);
        let mut received = Vec::new();
        other.read_to_end(&mut received).await.unwrap();
        assert!(received.starts_with(b"firstxxx") && received.len() == 5 + long.len());
    }

    #[test]
    fn what_is_discarded_leaves_what_is_unread() {
        let mut flow = flow(b"gone here");
        flow.insert(b"also gone");
        flow.pass(5);
        flow.discard();
        assert_eq!((flow.waiting(), flow.unread()), (0, &b"here"[..]));
    }
}
