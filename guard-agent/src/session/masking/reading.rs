//! Reading the catalog over the session's own connection, between two statements of the client.
//!
//! The client is held meanwhile, for some milliseconds, and sees nothing of it: not the answers, no change of its
//! transaction or settings. Begun only where nothing is under way and no transaction is open.

use std::time::{Duration, Instant};

use super::super::{SessionError, pending::Awaited, relay::Relay};
use crate::{
    catalog::{Progress, Reader},
    wire::postgres::{Backend, ErrorFields, HEADER_BYTES, Header, TransactionStatus},
};

/// How long a session waits for another one to read.
const FIRST_CATALOG: Duration = Duration::from_secs(2);

/// A reading under way.
#[derive(Debug)]
pub(in super::super) struct Reading(pub(in super::super) Box<Reader>);

impl Relay<'_> {
    /// True while the client has to wait for the catalog. Begins to read it where it is due.
    pub(in super::super) fn waits_for_catalog(&mut self) -> bool {
        let Some(masking) = self.masking.as_deref_mut() else { return false };
        if masking.reading {
            return true;
        }
        let quiet = self.pending.is_empty()
            && self.transaction == TransactionStatus::Idle
            && !self.skipping
            && !self.pending.failed()
            && !masking.mid_pipeline
            && !self.holding.waits();
        let now = Instant::now();
        if !quiet || !masking.database.is_due(now) {
            return false;
        }
        let Some(mut reader) = masking.database.begin(now) else { return false };
        let request = reader.request();
        masking.reading = true;
        self.pipe.requests.insert(&request);
        self.pending.push(Awaited::Catalog(Reading(Box::new(reader))));
        true
    }

    /// Waits for the first catalog of a database, where another session reads it: until then only names and values tell
    /// what is sensitive.
    pub(in super::super) async fn first_catalog(&mut self) {
        let Some(masking) = self.masking.as_deref_mut() else { return };
        let until = Instant::now() + FIRST_CATALOG;
        while !masking.knows_catalog() && !masking.patient && !masking.database.is_due(Instant::now()) {
            if Instant::now() >= until {
                masking.patient = true;
                return;
            }
            tokio::time::sleep(FIRST_CATALOG / 200).await;
            masking.follow_catalog();
        }
    }

    /// True while the catalog is being read on this connection.
    pub(in super::super) fn reads_catalog(&self) -> bool {
        self.masking.as_ref().is_some_and(|masking| masking.reading)
    }

    /// Takes a message of the server that is part of the reading; false where it is the client's.
    pub(in super::super) fn on_catalog(
        &mut self,
        kind: Backend,
        header: Header,
        at: usize,
    ) -> Result<bool, SessionError> {
        let end = at + header.total();
        let body = &self.pipe.answers.unread()[at + HEADER_BYTES..end];
        match kind {
            // The reading has a search path of its own, which the server reports from version 18 on.
            Backend::ParameterStatus if body.starts_with(b"search_path\0") => {
                self.pipe.answers.pass(at);
                self.pipe.answers.skip(header.total());
                return Ok(true);
            }
            Backend::ParameterStatus | Backend::NotificationResponse => return Ok(false),
            // The server ends the connection, and says why.
            Backend::ErrorResponse
                if ErrorFields::read(body).is_ok_and(|error| error.severity != b"ERROR") =>
            {
                return Ok(false);
            }
            _ => {}
        }
        let Some(Awaited::Catalog(Reading(reader))) = self.pending.front() else {
            return Err(SessionError::OutOfTurn("an answer to guard's own question"));
        };
        match reader.on_message(header.tag, body) {
            Progress::Wait => {}
            Progress::Send(more) => self.pipe.requests.insert(&more),
            Progress::Done => {
                self.pending.pop();
                if let Some(masking) = self.masking.as_deref_mut() {
                    masking.reading = false;
                    masking.follow_catalog();
                }
            }
        }
        self.pipe.answers.pass(at);
        self.pipe.answers.skip(header.total());
        Ok(true)
    }
}
