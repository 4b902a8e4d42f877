//! One session with a server or with guard, for statements that may be anything: bytes in, what came of them out.
//!
//! It answers COPY in place of a person, so that no statement can leave it waiting.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use guard_tests::wire::{Message, RawClient, message};

/// What came of one message.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// SQLSTATE and text of the first error.
    pub error: Option<(String, String)>,
    /// The rows, as text.
    pub rows: Vec<Vec<Option<String>>>,
    /// Where the transaction stands: `I`, `T` or `E`.
    pub status: char,
    /// The server hung up.
    pub closed: bool,
}

impl Answer {
    /// SQLSTATE of the first error, `""` where there was none.
    pub fn sqlstate(&self) -> &str {
        self.error.as_ref().map_or("", |(sqlstate, _)| sqlstate)
    }

    /// The first column of the first row.
    pub fn value(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }
}

/// A session.
#[derive(Debug)]
pub struct Client {
    raw: RawClient,
    /// Where the transaction stands.
    pub status: char,
}

impl Client {
    /// Logs in.
    pub fn log_in(address: SocketAddr, user: &str, database: &str) -> Result<Self> {
        Ok(Self { raw: RawClient::log_in(address, user, database)?, status: 'I' })
    }

    /// Sends one simple query.
    pub fn query(&mut self, sql: impl AsRef<[u8]>) -> Result<Answer> {
        self.raw.send(&message(b'Q', &[sql.as_ref(), b"\0"].concat()))?;
        self.answer()
    }

    /// The same; an error of the server is an error.
    pub fn expect(&mut self, sql: &str) -> Result<Answer> {
        let answer = self.query(sql)?;
        match &answer.error {
            Some((sqlstate, text)) => bail!("{sqlstate} {text}: {:.160}", sql.trim()),
            None if answer.closed => bail!("the server hung up: {sql}"),
            None => Ok(answer),
        }
    }

    /// Prepares `sql` without running it.
    pub fn parse(&mut self, sql: impl AsRef<[u8]>) -> Result<Answer> {
        let parse = message(b'P', &[b"\0", sql.as_ref(), b"\0\0\0"].concat());
        self.raw.send(&[parse, message(b'S', b"")].concat())?;
        self.answer()
    }

    /// Prepares `sql` as `name`, binds and runs it, as drivers do.
    pub fn execute(&mut self, name: &str, sql: impl AsRef<[u8]>) -> Result<Answer> {
        let mut bytes = message(b'P', &[name.as_bytes(), b"\0", sql.as_ref(), b"\0\0\0"].concat());
        bytes.extend(message(b'B', &[b"\0", name.as_bytes(), &[0; 7]].concat()));
        // One row: the portal is suspended where there are more.
        bytes.extend(message(b'E', b"\0\0\0\0\x01"));
        bytes.extend(message(b'S', b""));
        self.raw.send(&bytes)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut answer = Answer { status: self.status, ..Answer::default() };
        loop {
            let Some(message) = self.raw.receive()? else {
                answer.closed = true;
                return Ok(answer);
            };
            match message.tag {
                b'E' if answer.error.is_none() => {
                    let fields = message.fields();
                    let field = |letter| fields.get(&letter).cloned().unwrap_or_default();
                    answer.error = Some((field('C'), field('M')));
                }
                b'D' => answer.rows.push(row(&message).context("a row of the server")?),
                b'G' | b'W' => self.raw.send(&guard_tests::wire::message(b'f', b"no data\0"))?,
                b'Z' => {
                    self.status = message.body.first().copied().map_or('?', char::from);
                    answer.status = self.status;
                    return Ok(answer);
                }
                _ => {}
            }
        }
    }
}

fn row(message: &Message) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = message.body.split_at_checked(2)?;
    let count = u16::from_be_bytes([count[0], count[1]]);
    let mut row = Vec::with_capacity(count.into());
    for _ in 0..count {
        let (length, after) = rest.split_at_checked(4)?;
        let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        let Ok(length) = usize::try_from(length) else {
            row.push(None);
            rest = after;
            continue;
        };
        let (value, after) = after.split_at_checked(length)?;
        row.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest = after;
    }
    Some(row)
}
