//! A connected socket of either kind, in clear or under TLS, to read from and write to.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsStream;

/// A connection to a client or to a server.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
    /// Under TLS. What has been encrypted and not yet sent goes out with the next flush or read.
    Tls(Box<TlsStream<Stream>>),
    /// In the place of one that was taken: at its end, and taking nothing.
    Taken,
    /// In memory, for tests of whole sessions.
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

impl Stream {
    /// Ready when reading may give something: bytes, the end or an error. Ready at once where that cannot be asked.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Takes a byte that is there already; `None` where nothing waits. Does not wait itself.
    pub(super) async fn waiting_byte(&mut self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let read = poll_fn(|cx| Poll::Ready(Pin::new(&mut *self).poll_read(cx, &mut buffer))).await;
        match read {
            Poll::Ready(Ok(())) => Ok(buffer.filled().first().copied()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(None),
        }
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $body:expr, $taken:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $body,
            Stream::Unix($stream) => $body,
            Stream::Tls($stream) => $body,
            Stream::Taken => Poll::Ready($taken),
            #[cfg(test)]
            Stream::Memory($stream) => $body,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Self::Tls(stream) = &mut *self
            && stream.get_ref().1.wants_write()
            // A socket that was full when it was written to has woken this task: what waits goes out first.
            && let Poll::Ready(Err(error)) = Pin::new(stream).poll_flush(cx)
        {
            return Poll::Ready(Err(error));
        }
        each!(self, stream => Pin::new(stream).poll_read(cx, buf), Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf), Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx), Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx), Ok(()))
    }
}
