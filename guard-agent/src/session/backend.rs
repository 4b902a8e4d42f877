//! From the server to the client: answers are matched with requests, and refusals take the place of the errors that
//! stand for them. Rows pass unread.

use guard_common::audit::v1::outcome::Status;

use super::{
    SessionError,
    masking::Step,
    pending::{Awaited, Sqlstate},
    relay::Relay,
    short::Short,
};
use crate::wire::postgres::{
    Backend, CommandTag, ErrorFields, HEADER_BYTES, Header, MAX_MESSAGE_BYTES, TransactionStatus,
    parameter_status, ready_for_query,
};

/// Longest control message that is read; rows and COPY data are longer and pass unread.
pub(super) const MAX_CONTROL: usize = 1024 * 1024;

/// What is read of an error. One that quotes a long value is longer; its SQLSTATE stands at its beginning.
const MAX_ERROR: usize = 16 * 1024;

impl Relay<'_> {
    /// Deals with everything that has come from the server.
    pub(super) fn on_server(&mut self) -> Result<(), SessionError> {
        // Messages are passed on in one piece: `at` is the end of what has been looked at.
        let mut at = 0;
        let outcome = self.look(&mut at);
        // What came before a lie as well: else guard's last word would stand in the middle of a row.
        self.pipe.answers.pass(at);
        self.say_due();
        outcome
    }

    fn look(&mut self, looked: &mut usize) -> Result<(), SessionError> {
        loop {
            let at = *looked;
            let here = self.pipe.answers.unread().len() - at;
            if self.server_passing > 0 {
                let passed = self.server_passing.min(here);
                self.server_passing -= passed;
                *looked += passed;
                if self.server_passing > 0 {
                    return Ok(());
                }
                continue;
            }
            let rest = &self.pipe.answers.unread()[at..];
            let Some(header) = Header::read(rest, MAX_MESSAGE_BYTES).map_err(SessionError::Server)? else {
                return Ok(());
            };
            let kind = Backend::from_tag(header.tag).map_err(SessionError::Server)?;
            if self.holding.is_estimating() && header.body <= MAX_CONTROL {
                if rest.len() < header.total() {
                    return Ok(());
                }
                if self.swallow(kind, at + HEADER_BYTES, at + header.total()) {
                    self.pipe.answers.pass(at);
                    self.pipe.answers.skip(header.total());
                    *looked = 0;
                    continue;
                }
            }
            match self.mask(kind, header, at)? {
                Step::Pass => {}
                Step::Waits => return Ok(()),
                Step::Clean(bytes) => {
                    *looked += bytes;
                    continue;
                }
                Step::Done => {
                    *looked = 0;
                    continue;
                }
            }
            let rest = &self.pipe.answers.unread()[at..];
            if !is_read(kind) {
                if kind == Backend::DataRow && self.rows_pass() && !self.holding.is_estimating() {
                    let passed = self.pass_rows(at);
                    if passed > 0 {
                        *looked += passed;
                        continue;
                    }
                }
                self.on_answer(kind)?;
                self.server_passing = header.total();
                continue;
            }
            if kind == Backend::ErrorResponse && header.body > MAX_ERROR {
                let Some(body) = rest.get(HEADER_BYTES..HEADER_BYTES + MAX_ERROR) else {
                    return Ok(());
                };
                // The server's answer to what guard put in a statement's place is never as long.
                let code = Short::from_bytes(ErrorFields::start(body).code);
                self.on_failure(code);
                self.server_passing = header.total();
                continue;
            }
            if header.body > MAX_CONTROL {
                return Err(SessionError::Server(crate::wire::postgres::WireError::Length {
                    tag: header.tag.into(),
                    length: i64::try_from(header.body).unwrap_or(i64::MAX),
                }));
            }
            if rest.len() < header.total() {
                return Ok(());
            }
            let end = at + header.total();
            if kind == Backend::ErrorResponse {
                let replaced = self.on_error(at + HEADER_BYTES, end)?;
                if let Some(response) = replaced {
                    self.pipe.answers.pass(at);
                    self.pipe.answers.skip(end - at);
                    self.pipe.answers.insert(&response);
                    *looked = 0;
                    continue;
                }
            } else {
                self.on_control(kind, at + HEADER_BYTES, end)?;
            }
            *looked = end;
        }
    }

    /// The rows that stand whole from `at` on, one behind the other: counted, and passed unread. Returns their bytes.
    fn pass_rows(&mut self, at: usize) -> usize {
        let unread = &self.pipe.answers.unread()[at..];
        let (mut end, mut rows) = (0, 0);
        // A lie is met again, by who says so.
        while let Ok(Some(header)) = Header::read(&unread[end..], MAX_MESSAGE_BYTES)
            && Backend::from_tag(header.tag) == Ok(Backend::DataRow)
            && header.total() <= unread.len() - end
        {
            end += header.total();
            rows += 1;
        }
        self.uncounted_rows += rows;
        end
    }

    /// Answers whose kind says all.
    pub(super) fn on_answer(&mut self, kind: Backend) -> Result<(), SessionError> {
        match kind {
            Backend::ParseComplete => match self.pending.pop() {
                Some(Awaited::Parse { name, sequence }) => self.names.parse_confirmed(&name, sequence),
                Some(Awaited::UnfollowedParse) => {}
                _ => return Err(SessionError::OutOfTurn("ParseComplete")),
            },
            Backend::BindComplete => match self.pending.pop() {
                Some(Awaited::Bind { portal, sequence }) => self.names.bind_confirmed(&portal, sequence),
                Some(Awaited::UnfollowedBind) => {}
                _ => return Err(SessionError::OutOfTurn("BindComplete")),
            },
            Backend::CloseComplete => match self.pending.pop() {
                Some(Awaited::CloseStatement(forget)) => self.names.forget(&forget),
                Some(Awaited::ClosePortal(name)) => {
                    self.names.closed_portal(&name);
                    if let Some(masking) = self.masking.as_deref_mut() {
                        masking.portals.closed(&name);
                    }
                }
                _ => return Err(SessionError::OutOfTurn("CloseComplete")),
            },
            // Within a simple query it describes its rows.
            Backend::RowDescription | Backend::NoData => {
                if matches!(self.pending.front(), Some(Awaited::Describe(_))) {
                    self.pending.pop();
                }
            }
            Backend::DataRow | Backend::CopyData => self.uncounted_rows += 1,
            Backend::PortalSuspended | Backend::EmptyQueryResponse => {
                self.count_rows(0);
                if matches!(self.pending.front(), Some(Awaited::Execute(_))) {
                    let status =
                        if kind == Backend::PortalSuspended { Status::Suspended } else { Status::Completed };
                    self.end_front(status);
                }
            }
            Backend::CopyInResponse | Backend::CopyBothResponse => self.pending.copy_in_began(),
            Backend::FunctionCallResponse => {
                if let Some(Awaited::FunctionCall(running)) = self.pending.front() {
                    running.ended = true;
                }
            }
            Backend::Authentication
            | Backend::BackendKeyData
            | Backend::NegotiateProtocolVersion
            | Backend::CommandComplete
            | Backend::CopyDone
            | Backend::CopyOutResponse
            | Backend::ErrorResponse
            | Backend::NoticeResponse
            | Backend::NotificationResponse
            | Backend::ParameterDescription
            | Backend::ParameterStatus
            | Backend::ReadyForQuery => {}
        }
        Ok(())
    }

    /// Answers whose body is read: CommandComplete, ReadyForQuery, ParameterStatus.
    pub(super) fn on_control(&mut self, kind: Backend, start: usize, end: usize) -> Result<(), SessionError> {
        let body = &self.pipe.answers.unread()[start..end];
        match kind {
            Backend::CommandComplete => {
                let tag = CommandTag::read(body).map_err(SessionError::Server)?;
                let (rows, text) = (tag.rows(), Short::new(tag.text));
                self.count_rows(rows);
                let ends = matches!(self.pending.front(), Some(Awaited::Execute(_)));
                if let Some(
                    Awaited::Query(running)
                    | Awaited::Execute(Some(running))
                    | Awaited::FunctionCall(running),
                ) = self.pending.front()
                {
                    running.rows = running.rows.saturating_add(rows);
                    running.tag = text;
                    running.ended = true;
                    if let Some(forget) = running.forget.take() {
                        self.names.forget(&forget);
                    }
                }
                if ends {
                    self.end_front(Status::Completed);
                }
            }
            Backend::ReadyForQuery => {
                self.transaction = ready_for_query(body).map_err(SessionError::Server)?;
                self.on_ready()?;
            }
            _ => {
                let (name, value) = parameter_status(body).map_err(SessionError::Server)?;
                let (name, value) = (name.to_owned(), String::from_utf8_lossy(value).into_owned());
                self.on_parameter(&name, &value);
            }
        }
        Ok(())
    }

    fn on_ready(&mut self) -> Result<(), SessionError> {
        match self.pending.ready() {
            Some(Awaited::Sync) => {}
            Some(Awaited::Query(running) | Awaited::FunctionCall(running)) => {
                self.recorder.ended(running, Status::Completed);
            }
            // Its error has taken the refusal along, unless the server failed on it in another way.
            Some(Awaited::RefusedQuery(number)) => self.refusals.skipped(number),
            _ => return Err(SessionError::OutOfTurn("ReadyForQuery")),
        }
        if self.settings.ready(self.transaction, self.pending.is_empty()) {
            self.take_up_settings();
        }
        if let Some(masking) = self.masking.as_deref_mut().filter(|_| self.pending.is_empty()) {
            masking.knows_encoding();
        }
        if self.transaction == TransactionStatus::Idle && self.pending.is_empty() {
            if let Some(masking) = self.masking.as_deref_mut() {
                masking.settled();
                masking.portals.forget();
            }
            self.names.transaction_ended();
        }
        Ok(())
    }

    /// A setting that the reading of statements or policies depend on.
    pub(super) fn on_parameter(&mut self, name: &[u8], value: &str) {
        self.settings.reported(name, value);
        if let Some(masking) = self.masking.as_deref_mut() {
            masking.reported(name, value);
        }
        self.take_up_settings();
        if name == b"application_name" {
            value.clone_into(&mut self.session.application_name);
            self.scope = self.session.scope();
        }
    }

    /// What the session's settings have become decides how its next statements are read.
    pub(super) fn take_up_settings(&mut self) {
        self.modes = self.settings.modes();
        let (path, roles) = (self.settings.search_path(), self.settings.roles());
        if self.session.search_path != *path || self.session.roles != *roles {
            (self.session.search_path, self.session.roles) = (path.clone(), roles.clone());
            self.scope = self.session.scope();
        }
    }

    /// An error: of a statement, or of one that guard replaced. Returns what takes its place.
    pub(super) fn on_error(&mut self, start: usize, end: usize) -> Result<Option<Vec<u8>>, SessionError> {
        let fields =
            ErrorFields::read(&self.pipe.answers.unread()[start..end]).map_err(SessionError::Server)?;
        let code = Short::from_bytes(fields.code);
        let ours = self.refusals.answered(fields.message);
        self.on_failure(code);
        Ok(ours.map(|response| response.encode()))
    }

    /// What the server works on has failed.
    fn on_failure(&mut self, code: Sqlstate) {
        self.count_rows(0);
        self.settings.failed();
        if let Some(masking) = self.masking.as_deref_mut() {
            masking.portals.forget();
        }
        match self.pending.front() {
            Some(Awaited::Query(running) | Awaited::FunctionCall(running)) => running.failure = code,
            // Between requests: the server ends the connection, and says why.
            Some(Awaited::RefusedQuery(_) | Awaited::Sync) | None => {}
            Some(_) => {
                if let Some(Awaited::Execute(Some(running))) = self.pending.front() {
                    running.failure = code;
                }
                let skipped = self.pending.skip_to_sync();
                skipped.into_iter().for_each(|awaited| self.skipped(awaited));
            }
        }
    }

    /// The server skipped this request, or failed on it.
    pub(super) fn skipped(&mut self, awaited: Awaited) {
        match awaited {
            Awaited::Parse { name, sequence } => self.names.parse_failed(&name, sequence),
            Awaited::Bind { portal, sequence } => self.names.bind_failed(&portal, sequence),
            Awaited::Refusal(number) | Awaited::RefusedQuery(number) => self.refusals.skipped(number),
            Awaited::Execute(Some(running)) | Awaited::Query(running) | Awaited::FunctionCall(running) => {
                self.recorder.ended(running, Status::Skipped);
            }
            Awaited::Execute(None)
            | Awaited::UnfollowedParse
            | Awaited::UnfollowedBind
            | Awaited::Describe(_)
            | Awaited::CloseStatement(_)
            | Awaited::ClosePortal(_)
            | Awaited::Sync
            | Awaited::CopyEnd
            | Awaited::Catalog(_) => {}
        }
    }

    /// A statement has come to rest: what it sent, or what it says that it changed, counts for its principal.
    fn count_rows(&mut self, told: u64) {
        let sent = std::mem::take(&mut self.uncounted_rows);
        self.session.meter.rows(sent.max(told));
    }

    fn end_front(&mut self, otherwise: Status) {
        if let Some(Awaited::Execute(Some(running))) = self.pending.pop() {
            self.recorder.ended(running, otherwise);
        }
    }
}

/// Messages whose body guard reads.
fn is_read(kind: Backend) -> bool {
    matches!(
        kind,
        Backend::CommandComplete | Backend::ErrorResponse | Backend::ParameterStatus | Backend::ReadyForQuery
    )
}
