//! Messages of the server enter, what to send next leaves: the reading of a catalogue over a session's own connection.
//!
//! Knows nothing of sockets. Whatever the server says, it ends with ReadyForQuery and leaves nothing behind in the
//! session. Dropped before that, the next session reads.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Database, Facts, queries, rows};
use crate::wire::postgres::ErrorFields;

/// What follows a message of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More messages of the server.
    Wait,
    /// This is to be sent, then more messages follow.
    Send(Bytes),
    /// It is over, well or not; the server is ready for the session's own.
    Done,
}

/// Where a reading stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Facts,
    Definitions,
    Done,
}

/// Reads the catalogue over a session's own connection, which must be idle and outside of a transaction.
#[derive(Debug)]
pub struct Reader {
    database: Arc<Database>,
    facts: Option<Facts>,
    phase: Phase,
    failed: Option<String>,
    began: Instant,
}

impl Reader {
    pub(super) fn new(database: Arc<Database>) -> Self {
        let facts = Some(Facts::new(database.limits()));
        Self { database, facts, phase: Phase::Facts, failed: None, began: Instant::now() }
    }

    /// What to send first.
    pub fn request(&mut self) -> Bytes {
        query(&queries::facts(&self.database.limits()))
    }

    /// Takes each message of the server up to [`Progress::Done`], ReadyForQuery included. None of them is for the client,
    /// but a ParameterStatus (`S`) and a notification (`A`), which may be.
    pub fn on_message(&mut self, tag: u8, body: &[u8]) -> Progress {
        match tag {
            b'D' => {
                if let Some(facts) = &mut self.facts {
                    rows::take(body, facts);
                }
                Progress::Wait
            }
            b'E' => {
                let fields = ErrorFields::start(body);
                let code = String::from_utf8_lossy(fields.code).into_owned();
                let message = String::from_utf8_lossy(fields.message).into_owned();
                self.failed = Some(format!("{code}: {message}"));
                Progress::Wait
            }
            b'Z' => self.ready(),
            _ => Progress::Wait,
        }
    }

    /// How long it has taken so far.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn ready(&mut self) -> Progress {
        let failed = self.failed.take();
        match (self.phase, failed) {
            (Phase::Facts, None) if self.facts.as_ref().is_some_and(Facts::has_views) => {
                self.phase = Phase::Definitions;
                Progress::Send(query(&queries::definitions(&self.database.limits())))
            }
            (Phase::Facts | Phase::Definitions, failed) => {
                let phase = std::mem::replace(&mut self.phase, Phase::Done);
                match (phase, failed, self.facts.take()) {
                    (Phase::Definitions, failed, Some(mut facts)) => {
                        // Without definitions its views are known by their columns' names alone.
                        facts.complete &= failed.is_none();
                        self.database.finished(facts, self.began, failed.as_deref());
                    }
                    (_, None, Some(facts)) => self.database.finished(facts, self.began, None),
                    (_, failed, _) => self.database.failed(failed.as_deref().unwrap_or("no rows came")),
                }
                Progress::Done
            }
            (Phase::Done, _) => Progress::Done,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.phase != Phase::Done {
            // That a client has left says nothing of the next reading.
            self.database.abandoned();
        }
    }
}

/// A Query message.
fn query(text: &str) -> Bytes {
    let mut message = Vec::with_capacity(text.len() + 6);
    message.push(b'Q');
    let length = u32::try_from(text.len() + 5).unwrap_or(u32::MAX);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(text.as_bytes());
    message.push(0);
    message.into()
}
