//! From the client to the server: every request is read as far as it must be, decided, recorded and forwarded.
//!
//! INVARIANT: a statement's bytes reach the server by [`Relay::run_statement`] alone, which takes a [`Permit`].

use std::sync::Arc;

use guard_common::audit::v1::{decision::Verdict, statement::Protocol};
use smallvec::smallvec;

use super::{
    SessionError,
    held::{Asked, Message, Parameters},
    pending::{Awaited, Described, Running},
    prepared::Candidates,
    recorder::must_be_durable,
    refusal,
    relay::Relay,
};
use crate::{
    config::Mode,
    decide::{Held, Permit, Ruling},
    sql::{Prepared, Statement},
    wire::postgres::{
        BindHead, CloseKind, ErrorResponse, Frontend, HEADER_BYTES, Header, MAX_MESSAGE_BYTES, ParseHead,
        WireError, close_or_describe, function_oid, query,
    },
};

/// Names in a Bind that are read; the server's own are cut at 63 bytes.
const MAX_NAMES: usize = 64 * 1024;

/// Bytes of the function's number in a FunctionCall.
const FUNCTION_OID_BYTES: usize = 4;

/// Whether the next message can be taken up.
#[derive(PartialEq, Eq)]
pub(super) enum Progress {
    /// A message has been dealt with.
    Went,
    /// More bytes are needed.
    Waits,
}

/// A statement that may run, and its number in the record.
pub(super) struct Admitted {
    pub(super) permit: Permit,
    pub(super) ordinal: u64,
}

/// Why a statement does not run now.
pub(super) enum Stop {
    Refused(Box<ErrorResponse>),
    /// The one of its statements with this number waits for people.
    Held(Held, usize),
}

impl Relay<'_> {
    /// Deals with every whole message that has come from the client.
    pub(super) async fn on_client(&mut self) -> Result<(), SessionError> {
        // What waits for people stays where it is, and so does everything behind it.
        while !self.finished && !self.holding.waits() {
            self.stream_through();
            if self.passing > 0 || self.dropping > 0 {
                return Ok(());
            }
            let Some(header) = Header::read(self.pipe.requests.unread(), MAX_MESSAGE_BYTES)? else {
                return Ok(());
            };
            if self.masking.is_some() {
                self.first_catalog().await;
            }
            if self.waits_for_catalog() {
                return Ok(());
            }
            if self.on_message(header).await? == Progress::Waits {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Moves on the rest of a message whose fate is settled.
    pub(super) fn stream_through(&mut self) {
        self.passing -= self.pipe.requests.pass(self.passing);
        self.dropping -= self.pipe.requests.skip(self.dropping);
    }

    async fn on_message(&mut self, header: Header) -> Result<Progress, SessionError> {
        let kind = Frontend::from_tag(header.tag)?;
        if let Some(masking) = self.masking.as_deref_mut() {
            masking.sees(kind);
        }
        if self.skipping || self.pending.failed() {
            // Something before it failed or was refused: the server would skip all this too.
            match kind {
                Frontend::Sync => self.skipping = false,
                Frontend::Terminate => {}
                _ => {
                    self.dropping = header.total();
                    return Ok(Progress::Went);
                }
            }
        }
        match kind {
            Frontend::Query | Frontend::Parse => self.on_statement(kind, header).await,
            Frontend::FunctionCall => self.on_function_call(header).await,
            Frontend::Bind => self.on_bind(header),
            Frontend::Execute | Frontend::Describe | Frontend::Close => self.on_named(kind, header).await,
            Frontend::Sync => {
                self.pending.push(Awaited::Sync);
                self.names.next_segment();
                Ok(self.pass(header))
            }
            Frontend::CopyDone | Frontend::CopyFail => {
                self.pending.push(Awaited::CopyEnd);
                Ok(self.pass(header))
            }
            Frontend::CopyData | Frontend::Flush => Ok(self.pass(header)),
            Frontend::Terminate => {
                // Nothing that comes behind it is read: it goes on whole.
                if header.body > MAX_NAMES {
                    return Err(WireError::Malformed('X').into());
                }
                if self.body(header).is_none() {
                    return Ok(Progress::Waits);
                }
                self.finished = true;
                Ok(self.pass(header))
            }
            Frontend::Password => Err(WireError::Unknown('p').into()),
        }
    }

    /// Forwards a message that runs no statement by itself.
    pub(super) fn pass(&mut self, header: Header) -> Progress {
        self.passing = header.total();
        self.stream_through();
        Progress::Went
    }

    /// The body, once all of it is here.
    pub(super) fn body(&self, header: Header) -> Option<&[u8]> {
        self.pipe.requests.unread().get(HEADER_BYTES..header.total())
    }

    /// As much of the body as is here.
    fn beginning(&self, header: Header) -> &[u8] {
        let here = self.pipe.requests.unread();
        here.get(HEADER_BYTES..here.len().min(header.total())).unwrap_or_default()
    }

    async fn on_statement(&mut self, kind: Frontend, header: Header) -> Result<Progress, SessionError> {
        if header.body > self.proxy.limits.max_statement_bytes.saturating_add(MAX_NAMES) {
            return self.on_oversized(kind, header).await;
        }
        let Some(body) = self.body(header) else {
            return Ok(Progress::Waits);
        };
        match kind {
            Frontend::Parse => {
                let ParseHead { name, text } = ParseHead::read(body)?;
                let statement = self.worker.read(text, self.modes).await;
                let (name, statement) = (Box::from(name), self.with_text(statement, text));
                self.on_parse(name, statement, header).await;
            }
            _ => {
                let text = query(body)?;
                let statement = if self.replication && is_replication_command(text) {
                    self.worker.replication_command()
                } else {
                    let statement = self.worker.read(text, self.modes).await;
                    self.with_text(statement, text)
                };
                return Ok(self.on_query(statement, header).await);
            }
        }
        Ok(Progress::Went)
    }

    /// The function's number stands first and says all: its arguments may be long and are not read.
    async fn on_function_call(&mut self, header: Header) -> Result<Progress, SessionError> {
        let here = self.beginning(header);
        if here.len() < header.body.min(FUNCTION_OID_BYTES) {
            return Ok(Progress::Waits);
        }
        let statement = self.worker.classify_function(function_oid(here)?, self.modes);
        let source = self.source_of_query(&statement);
        let asked = Asked::new(Message::FunctionCall, smallvec![statement], header);
        Ok(self.ask(asked.from(source)).await)
    }

    /// Longer than what is read: nobody can say what it does, and policy decides about that.
    async fn on_oversized(&mut self, kind: Frontend, header: Header) -> Result<Progress, SessionError> {
        let statement = self.worker.oversized();
        match kind {
            Frontend::Parse => {
                let body = self.beginning(header);
                let Some(end) = body.iter().take(MAX_NAMES).position(|byte| *byte == 0) else {
                    return if body.len() < MAX_NAMES {
                        Ok(Progress::Waits)
                    } else {
                        Err(WireError::Malformed('P').into())
                    };
                };
                let name = Box::from(&body[..end]);
                self.on_parse(name, statement, header).await;
            }
            _ => return Ok(self.on_query(statement, header).await),
        }
        Ok(Progress::Went)
    }

    async fn on_query(&mut self, statement: Arc<Statement>, header: Header) -> Progress {
        let mut statements: Candidates = smallvec![Arc::clone(&statement)];
        for prepared in &statement.prepared {
            match prepared {
                Prepared::Execute(name) => statements.extend(self.candidates(name.as_bytes())),
                Prepared::Prepare(name) => self.on_prepare(name, &statement),
                Prepared::Deallocate(_) | Prepared::DeallocateAll => {}
            }
        }
        let source = self.source_of_query(&statement);
        self.ask(Asked::new(Message::Query, statements, header).from(source)).await
    }

    async fn on_parse(&mut self, name: Box<[u8]>, statement: Arc<Statement>, header: Header) {
        let limit = self.proxy.limits.max_prepared_statements;
        let room = self.names.has_room_for_statement(&name, limit);
        if !room && self.session.mode == Mode::Enforce {
            return self.refuse_extended(refusal::too_many_names(limit), header);
        }
        let (ruling, statement) = self.rule_to_prepare(statement, header);
        match ruling {
            // It runs with Execute: recorded then.
            Ok(permit) => {
                // A name without room stands for nothing that is known.
                let awaited = if room {
                    let sequence = self.names.parsed(&name, statement);
                    Awaited::Parse { name, sequence }
                } else {
                    Awaited::UnfollowedParse
                };
                self.run_statement(permit, awaited, header);
            }
            Err((decision, response)) => {
                self.record_refusal(&statement, &decision, Protocol::Extended).await;
                self.refuse_extended(response, header);
            }
        }
    }

    fn on_bind(&mut self, header: Header) -> Result<Progress, SessionError> {
        let here = self.beginning(header);
        let Some(head) = BindHead::read(&here[..here.len().min(MAX_NAMES)]) else {
            let whole = here.len() == header.body || here.len() >= MAX_NAMES;
            return if whole { Err(WireError::Malformed('B').into()) } else { Ok(Progress::Waits) };
        };
        let portal: Box<[u8]> = head.portal.into();
        let statements = self.names.statement(head.statement);
        let limit = self.proxy.limits.max_prepared_statements;
        let room = self.names.has_room_for_portal(&portal, limit);
        if !room && self.session.mode == Mode::Enforce {
            self.refuse_extended(refusal::too_many_names(limit), header);
            return Ok(Progress::Went);
        }
        let statements = match self.with_parameters(statements, header)? {
            Parameters::Known(statements) => statements,
            Parameters::Wait => return Ok(Progress::Waits),
            Parameters::Refused(response) => {
                self.refuse_extended(response, header);
                return Ok(Progress::Went);
            }
        };
        if let Some(masking) = self.masking.as_deref_mut() {
            masking.portals.bound(&portal);
        }
        let awaited = if room {
            let sequence = self.names.bound(&portal, statements);
            Awaited::Bind { portal, sequence }
        } else {
            Awaited::UnfollowedBind
        };
        self.pending.push(awaited);
        Ok(self.pass(header))
    }

    async fn on_named(&mut self, kind: Frontend, header: Header) -> Result<Progress, SessionError> {
        if header.body > MAX_NAMES {
            return Err(WireError::Malformed(header.tag.into()).into());
        }
        let Some(body) = self.body(header) else {
            return Ok(Progress::Waits);
        };
        match kind {
            Frontend::Describe => {
                let (kind, name) = close_or_describe(body)?;
                let name: Box<[u8]> = name.into();
                let described = match kind {
                    CloseKind::Portal => self.describes_portal(&name),
                    CloseKind::Statement => Described::Statement,
                };
                self.pending.push(Awaited::Describe(described));
                Ok(self.pass(header))
            }
            Frontend::Close => {
                let (kind, name) = close_or_describe(body)?;
                let name: Box<[u8]> = name.into();
                let awaited = match kind {
                    CloseKind::Statement => Awaited::CloseStatement(self.names.forgetting(Some(&name))),
                    CloseKind::Portal => Awaited::ClosePortal(name),
                };
                self.pending.push(awaited);
                Ok(self.pass(header))
            }
            _ => {
                let portal: Box<[u8]> =
                    crate::wire::postgres::cstring(body).ok_or(WireError::Malformed('E'))?.0.into();
                Ok(self.on_execute(portal, header).await)
            }
        }
    }

    async fn on_execute(&mut self, portal: Box<[u8]>, header: Header) -> Progress {
        let (mut statements, goes_on) = self.names.run_portal(&portal);
        if statements.is_empty() {
            statements.push(self.worker.unknown_statement());
        }
        if goes_on {
            // More rows of what was decided when it began.
            let again = self.goes_on(&portal);
            self.pending.push(Awaited::Execute(again));
            return self.pass(header);
        }
        let inner: Candidates = statements
            .iter()
            .flat_map(|statement| &statement.prepared)
            .filter_map(|prepared| match prepared {
                Prepared::Execute(name) => Some(self.candidates(name.as_bytes())),
                Prepared::Prepare(_) | Prepared::Deallocate(_) | Prepared::DeallocateAll => None,
            })
            .flatten()
            .collect();
        for statement in &statements {
            for prepared in &statement.prepared {
                if let Prepared::Prepare(name) = prepared {
                    self.on_prepare(name, statement);
                }
            }
        }
        let source = self.source_of_portal(&portal, &statements);
        statements.extend(inner);
        self.ask(Asked::new(Message::Execute { portal }, statements, header).from(source)).await
    }

    /// SQL's PREPARE of `name` is about to be sent.
    fn on_prepare(&mut self, name: &str, statement: &Arc<Statement>) {
        if self.names.has_room_for_statement(name.as_bytes(), self.proxy.limits.max_prepared_statements) {
            self.names.prepared_by_sql(name, Arc::clone(statement));
        }
    }

    /// `statement` under way, with what the server forgets when it ends well.
    pub(super) fn running(&mut self, ordinal: u64, statement: &Statement) -> Running {
        let forget = match statement.prepared.as_slice() {
            [Prepared::Deallocate(name)] if statement.parts == 1 => {
                Some(Box::new(self.names.forgetting(Some(name.as_bytes()))))
            }
            [Prepared::DeallocateAll] if statement.parts == 1 => Some(Box::new(self.names.forgetting(None))),
            // Of several statements in one string it is not followed which took effect: a name more is only caution.
            _ => None,
        };
        Running { forget, ..Running::new(ordinal) }
    }

    /// What SQL's EXECUTE of `name` may run; an unknown statement where nobody knows.
    fn candidates(&self, name: &[u8]) -> Candidates {
        let candidates = self.names.statement(name);
        if candidates.is_empty() { smallvec![self.worker.unknown_statement()] } else { candidates }
    }

    /// Decides on what the client asks for. `statements` are what it may turn out to be, the likeliest first: all must be
    /// permitted, and the one that is not, which is on record, or has to wait stands for all. With a permit comes the
    /// number of the one that stands in the record.
    pub(super) async fn rule(
        &mut self,
        statements: &[Arc<Statement>],
        protocol: Protocol,
        justified: bool,
    ) -> Result<(Permit, usize), Stop> {
        let mut admitted: Option<(Permit, usize)> = None;
        let mut waits: Option<(Held, usize)> = None;
        for (number, statement) in statements.iter().enumerate() {
            match self.worker.rule_with_reason(&self.session, self.scope, statement, justified) {
                Ruling::Permitted(permit) => {
                    let telling = permit.decision().verdict() != Verdict::Allowed;
                    if admitted.is_none() || telling {
                        admitted = Some((permit, number));
                    }
                }
                Ruling::Held(held) => {
                    waits = Some(match waits {
                        Some((before, number)) => (before.and(&held), number),
                        None => (held, number),
                    });
                }
                Ruling::Refused(decision) => {
                    self.record_refusal(statement, &decision, protocol).await;
                    return Err(Stop::Refused(Box::new(refusal::by_policy(&decision))));
                }
            }
        }
        if let Some((held, number)) = waits {
            return Err(Stop::Held(held, number));
        }
        // INVARIANT: callers name at least one statement.
        admitted.ok_or_else(|| {
            Stop::Refused(Box::new(ErrorResponse::fatal("XX000", "guard: nothing to decide on")))
        })
    }

    /// Records what is about to run: the one of `statements` with this number stands in the record.
    pub(super) async fn admit(
        &mut self,
        statements: &[Arc<Statement>],
        (permit, number): (Permit, usize),
        protocol: Protocol,
    ) -> Result<Admitted, Box<ErrorResponse>> {
        let durable = statements.iter().any(|statement| must_be_durable(statement));
        let inferred = self.would_refuse_inference();
        let decision = inferred.as_ref().unwrap_or(permit.decision());
        let statement = &statements[number];
        let ordinal = if durable && self.session.mode == Mode::Enforce {
            let recorded = self.recorder.commit(statement, decision, protocol).await;
            recorded.map_err(|error| Box::new(refusal::unrecorded(&error)))?
        } else {
            self.recorder.note(statement, decision, protocol)
        };
        self.proxy.counters.statement();
        let mut changed = false;
        for statement in statements {
            changed |= self.settings.sent(statement);
        }
        if changed {
            self.take_up_settings();
        }
        Ok(Admitted { permit, ordinal })
    }

    /// Sends a statement on. Takes its permit: none, no bytes.
    pub(super) fn run_statement(&mut self, permit: Permit, awaited: Awaited, header: Header) {
        drop(permit);
        self.pending.push(awaited);
        self.pass(header);
    }
}

/// Commands of the walsender, which has a grammar of its own.
fn is_replication_command(text: &[u8]) -> bool {
    const COMMANDS: [&[u8]; 8] = [
        b"IDENTIFY_SYSTEM",
        b"READ_REPLICATION_SLOT",
        b"BASE_BACKUP",
        b"START_REPLICATION",
        b"CREATE_REPLICATION_SLOT",
        b"DROP_REPLICATION_SLOT",
        b"ALTER_REPLICATION_SLOT",
        b"TIMELINE_HISTORY",
    ];
    let text = text.trim_ascii_start();
    let end =
        text.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').unwrap_or(text.len());
    COMMANDS.iter().any(|command| command.eq_ignore_ascii_case(&text[..end]))
}
