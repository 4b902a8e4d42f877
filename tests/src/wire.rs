//! A PostgreSQL client that can misbehave: it sends the bytes that a test gives it and reads messages.
//!
//! Message formats: the chapter "Frontend/Backend Protocol" of PostgreSQL's manual, version 3.0.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::tls;

/// How long a server may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Longer messages than any test asks for.
const LONGEST: usize = 1 << 24;

/// An SSLRequest.
pub const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A startup packet for protocol 3.0.
pub fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for text in ["user", user, "database", database] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    packet(&body)
}

/// `body` behind its length, which counts itself.
pub fn packet(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut packet = length.to_be_bytes().to_vec();
    packet.extend_from_slice(body);
    packet
}

/// A message: its tag, its length, its body.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend(packet(body));
    message
}

/// Zero-terminated text.
fn text(value: &str) -> Vec<u8> {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// A simple query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &text(sql))
}

/// Parse, Bind, Describe, Execute and Sync for a statement without parameters: what drivers send.
pub fn extended(name: &str, sql: &str) -> Vec<u8> {
    let mut bytes = message(b'P', &[text(name), text(sql), vec![0, 0]].concat());
    bytes.extend(message(b'B', &[text(""), text(name), vec![0; 6]].concat()));
    bytes.extend(message(b'D', b"P\0"));
    bytes.extend(message(b'E', &[0; 5]));
    bytes.extend(message(b'S', b""));
    bytes
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its first byte.
    pub tag: u8,
    /// What follows its length.
    pub body: Vec<u8>,
}

impl Message {
    /// The fields of an ErrorResponse or NoticeResponse, by their letter.
    pub fn fields(&self) -> BTreeMap<char, String> {
        let parts = self.body.split(|byte| *byte == 0).filter(|part| !part.is_empty());
        parts.map(|part| (char::from(part[0]), String::from_utf8_lossy(&part[1..]).into_owned())).collect()
    }

    /// SQLSTATE of an error.
    pub fn sqlstate(&self) -> Option<String> {
        if self.tag == b'E' { self.fields().remove(&'C') } else { None }
    }
}

/// SQLSTATE of the first error among `answers`.
pub fn first_error(answers: &[Message]) -> Option<String> {
    answers.iter().find_map(Message::sqlstate)
}

/// A connection whose bytes the test decides.
#[derive(Debug)]
pub struct RawClient {
    socket: TcpStream,
    stream: Box<dyn Duplex>,
}

/// What a client reads from and writes to.
trait Duplex: Read + Write + std::fmt::Debug + Send {}

impl<T: Read + Write + std::fmt::Debug + Send> Duplex for T {}

impl RawClient {
    /// Connects and says nothing.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(crate::run::patience(ANSWER_LIMIT)))?;
        stream.set_write_timeout(Some(crate::run::patience(ANSWER_LIMIT)))?;
        stream.set_nodelay(true)?;
        Ok(Self { socket: stream.try_clone()?, stream: Box::new(stream) })
    }

    /// Puts the connection under TLS: after a request for it, or at once where `direct`.
    pub fn secure(mut self, config: Arc<ClientConfig>, direct: bool) -> Result<Self> {
        if !direct {
            self.send(&TLS_REQUEST)?;
            let mut answer = [0];
            self.stream.read_exact(&mut answer).context("waiting for the answer to the request for TLS")?;
            ensure!(answer == *b"S", "TLS is not offered: {answer:?}");
        }
        let mut session = ClientConnection::new(config, tls::server_name())?;
        let mut socket = self.socket.try_clone()?;
        while session.is_handshaking() {
            session.complete_io(&mut socket).context("TLS handshake")?;
        }
        self.stream = Box::new(StreamOwned::new(session, socket));
        Ok(self)
    }

    /// Logs in by trust.
    pub fn start(mut self, user: &str, database: &str) -> Result<Self> {
        self.send(&startup(user, database))?;
        let answers = self.until_ready()?;
        match first_error(&answers) {
            None => Ok(self),
            Some(sqlstate) => bail!("the login of {user} failed with {sqlstate}"),
        }
    }

    /// Connects and logs in by trust.
    pub fn log_in(address: SocketAddr, user: &str, database: &str) -> Result<Self> {
        Self::connect(address)?.start(user, database)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("sending")
    }

    /// Sends bytes as far as the server takes them: it may hang up in the middle.
    pub fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The same connection once more: to send and to read at the same time.
    pub fn other_hand(&self) -> Result<Self> {
        let socket = self.socket.try_clone()?;
        Ok(Self { stream: Box::new(socket.try_clone()?), socket })
    }

    /// Waits this long for each message, where a server has a lot to do first.
    pub fn patient(&mut self, limit: Duration) -> Result<()> {
        self.socket.set_read_timeout(Some(limit))?;
        self.socket.set_write_timeout(Some(limit)).context("setting a limit")
    }

    /// Says that nothing more will be sent; the answers still come.
    pub fn end_sending(&mut self) -> Result<()> {
        self.socket.shutdown(Shutdown::Write).context("closing one's side")
    }

    /// Sends until the other side takes no more for `limit`; gives how many of `bytes` it took.
    pub fn send_until_stuck(&mut self, bytes: &[u8], limit: Duration) -> Result<usize> {
        self.socket.set_write_timeout(Some(limit))?;
        let mut sent = 0;
        let stuck = loop {
            match self.stream.write(&bytes[sent..]) {
                Ok(0) => break Ok(()),
                Ok(written) => sent += written,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    break Ok(());
                }
                Err(error) => break Err(error),
            }
        };
        self.socket.set_write_timeout(Some(crate::run::patience(ANSWER_LIMIT)))?;
        stuck.context("sending")?;
        Ok(sent)
    }

    /// The next message; `None` where the server has hung up.
    pub fn receive(&mut self) -> Result<Option<Message>> {
        let mut head = [0; 5];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if hung_up(error.kind()) => return Ok(None),
            Err(error) => return Err(error).context("waiting for a message"),
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if !(4..=LONGEST).contains(&length) {
            bail!("a message of length {length} from the server");
        }
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).context("in a message")?;
        Ok(Some(Message { tag: head[0], body }))
    }

    /// All messages up to and with ReadyForQuery, or up to the end of the connection.
    pub fn until_ready(&mut self) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        while let Some(message) = self.receive()? {
            let last = message.tag == b'Z';
            messages.push(message);
            if last {
                break;
            }
        }
        Ok(messages)
    }

    /// Sends a simple query and gives all answers.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Message>> {
        self.send(&query(sql))?;
        self.until_ready()
    }

    /// Sends a simple query and throws its answer away; gives its length in bytes. `limit` is for each part of it.
    pub fn drain_query(&mut self, sql: &str, limit: Duration) -> Result<u64> {
        const CHUNK: usize = 256 * 1024;
        const READY: [u8; 6] = *b"Z\0\0\0\x05I";
        self.socket.set_read_timeout(Some(limit))?;
        self.send(&query(sql))?;
        let mut chunk = vec![0; CHUNK];
        let mut total = 0;
        let mut end = Vec::new();
        while end != READY {
            let read = self.stream.read(&mut chunk).context("in a result")?;
            if read == 0 {
                bail!("the connection ended after {total} bytes of a result");
            }
            total += read as u64;
            end.extend_from_slice(&chunk[read.saturating_sub(READY.len())..read]);
            end.drain(..end.len().saturating_sub(READY.len()));
        }
        Ok(total)
    }

    /// Whether the server hangs up, whatever it says before that; false where it just waits.
    pub fn is_closed_by_server(&mut self, within: Duration) -> bool {
        let _ = self.socket.set_read_timeout(Some(within));
        let mut sink = [0; 4096];
        loop {
            match self.stream.read(&mut sink) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return hung_up(error.kind()),
            }
        }
    }
}

fn hung_up(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_themselves() {
        assert_eq!(query("x"), b"Q\0\0\0\x06x\0");
        let packet = startup("app", "shop");
        assert_eq!(u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]) as usize, packet.len());
        assert!(packet.ends_with(b"user\0app\0database\0shop\0\0"));
    }

    #[test]
    fn error_fields_are_read() {
        let error = Message { tag: b'E', body: b"SERROR\0C42501\0Mno\0\0".to_vec() };
        assert_eq!(error.sqlstate().as_deref(), Some("42501"));
        assert_eq!(error.fields().get(&'M').map(String::as_str), Some("no"));
    }
}
