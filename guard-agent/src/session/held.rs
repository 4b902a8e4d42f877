//! Statements that wait for people before they go to the server.
//!
//! A statement that policy holds stays where it is, unsent, with everything behind it; its client is told by a NOTICE. What
//! people say lets it run, decided anew at that moment, or puts a refusal in its place. While it waits, answers of the
//! server go on to the client, the client may cancel or leave, and the thread serves its other sessions.
//!
//! INVARIANT: of what waits no byte is sent but by the permit that a claim gives.

mod asking;
mod estimate;
mod words;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use guard_common::audit::v1::{Decision, Workload, statement::Protocol};

use super::{
    Attested, SessionError,
    frontend::{Progress, Stop},
    masking::Source,
    pending::{Awaited, Running},
    pipe::Pipe,
    prepared::Candidates,
    relay::Relay,
};
use crate::{
    approval::{Binding, ClaimError, Exact, Exacts, Hold, Word, from_name, from_text},
    decide::{Grant, Permit, Ruling},
    sql::Statement,
    wire::postgres::{BindHead, ErrorResponse, HEADER_BYTES, Header, ParseHead, WireError, query},
};

/// Longest message that can wait, in bytes: it waits in memory.
const MAX_HELD: usize = 1024 * 1024;

/// What a client may send behind it before it is read no further.
const READ_AHEAD: usize = 64 * 1024;

/// A Flush: the server answers what it was sent before.
const FLUSH: [u8; HEADER_BYTES] = [b'H', 0, 0, 0, 4];

/// What runs a statement.
#[derive(Debug)]
pub(super) enum Message {
    Query,
    Execute { portal: Box<[u8]> },
    FunctionCall,
}

/// What a client asks to run: the message stands at the front of what it has sent.
#[derive(Debug)]
pub(super) struct Asked {
    message: Message,
    /// What it may turn out to be, the likeliest first.
    statements: Candidates,
    header: Header,
    /// What its rows may come from; `None` where nothing is masked.
    source: Option<Source>,
}

impl Asked {
    pub(super) fn new(message: Message, statements: Candidates, header: Header) -> Self {
        Self { message, statements, header, source: None }
    }

    /// Its rows come from `source`.
    pub(super) fn from(self, source: Option<Source>) -> Self {
        Self { source, ..self }
    }

    fn is_extended(&self) -> bool {
        matches!(self.message, Message::Execute { .. })
    }

    fn protocol(&self, replication: bool) -> Protocol {
        match self.message {
            Message::Query if replication => Protocol::Replication,
            Message::Query => Protocol::Simple,
            Message::Execute { .. } => Protocol::Extended,
            Message::FunctionCall => Protocol::FunctionCall,
        }
    }
}

/// A refusal for the record, and for the client.
type Refusal = (Arc<Decision>, ErrorResponse);

/// Whether parameters of a statement that will wait are known.
pub(super) enum Parameters {
    Known(Candidates),
    /// More bytes are needed.
    Wait,
    Refused(ErrorResponse),
}

/// The statement that waits.
#[derive(Debug)]
struct Waiting {
    hold: Hold,
    asked: Asked,
    decision: Arc<Decision>,
    binding: Option<Binding>,
}

/// What a session knows of statements that wait.
#[derive(Debug)]
pub(super) struct Holding {
    connection_id: String,
    workload: Arc<Workload>,
    cancel: Option<[u8; 32]>,
    /// Of prepared statements that will wait when they are run.
    exacts: Exacts,
    waiting: Option<Box<Waiting>>,
    /// What the server is asked about it.
    estimating: Option<Box<estimate::Estimating>>,
    /// What the client is to be told between two of the server's messages.
    due: Vec<u8>,
}

impl Holding {
    /// Of a session of whom `attested` names; it can be cancelled by the key that `cancel` stands for.
    pub(super) fn new(attested: &Attested<'_>, cancel: Option<[u8; 32]>) -> Self {
        Self {
            connection_id: attested.connection.id().to_string(),
            workload: Arc::clone(&attested.workload),
            cancel,
            exacts: Exacts::default(),
            waiting: None,
            estimating: None,
            due: Vec::new(),
        }
    }

    /// True while a statement waits.
    pub(super) fn waits(&self) -> bool {
        self.waiting.is_some()
    }

    /// True while answers of the server are guard's.
    pub(super) fn is_estimating(&self) -> bool {
        self.estimating.is_some()
    }

    /// Whether the client is read: behind a statement that waits, only so far that its leaving is seen.
    pub(super) fn reads(&self, pipe: &Pipe) -> bool {
        self.waiting
            .as_ref()
            .is_none_or(|waiting| pipe.requests.unread().len() < waiting.asked.header.total() + READ_AHEAD)
    }

    /// The next word about what waits.
    pub(super) fn poll_word(&mut self, cx: &mut Context<'_>) -> Poll<Word> {
        match &mut self.waiting {
            Some(waiting) => waiting.hold.poll_word(cx),
            None => Poll::Pending,
        }
    }

    /// Nobody waits any more: it never runs.
    pub(super) fn withdraw(&mut self, why: &str) {
        if let Some(waiting) = self.waiting.take() {
            waiting.hold.withdraw(why);
        }
    }
}

impl Relay<'_> {
    /// Runs what the client asks for, or refuses it, or lets it wait.
    pub(super) async fn ask(&mut self, asked: Asked) -> Progress {
        self.session.meter.statement();
        let protocol = asked.protocol(self.replication);
        if let Some(decision) = self.refused_inference(asked.source.as_ref()) {
            if let Some(statement) = asked.statements.first() {
                self.record_refusal(statement, &decision, protocol).await;
            }
            self.refuse_asked(&asked, super::refusal::by_policy(&decision));
            return Progress::Went;
        }
        let justified = self.proxy.decider.reads_reasons() && self.reason(&asked).is_some();
        let ruled = self.rule_on_all(&asked, protocol, justified).await;
        match ruled {
            Ok(permitted) => self.run_asked(asked, permitted).await,
            Err(Stop::Refused(response)) => self.refuse_asked(&asked, *response),
            // In a box, as everything about it: few sessions ever need the room.
            Err(Stop::Held(held, number)) => return Box::pin(self.hold(asked, held, number)).await,
        }
        Progress::Went
    }

    /// Decides on what is asked, and on what only the catalog tells of it: calls of functions that are written as columns.
    async fn rule_on_all(
        &mut self,
        asked: &Asked,
        protocol: Protocol,
        justified: bool,
    ) -> Result<(Permit, usize), Stop> {
        let calling = asked.source.as_ref().and_then(Source::calling);
        if let Some(calling) = calling {
            match self.rule(&[calling], protocol, justified).await {
                // What is asked needs a permit of its own.
                Ok(permitted) => drop(permitted),
                // What is asked waits, whatever of it has to.
                Err(Stop::Held(held, _)) => return Err(Stop::Held(held, 0)),
                Err(refused) => return Err(refused),
            }
        }
        self.rule(&asked.statements, protocol, justified).await
    }

    async fn run_asked(&mut self, asked: Asked, permitted: (Permit, usize)) {
        let protocol = asked.protocol(self.replication);
        let admitted = match self.admit(&asked.statements, permitted, protocol).await {
            Ok(admitted) => admitted,
            Err(response) => return self.refuse_asked(&asked, *response),
        };
        let Asked { message, statements, header, source } = asked;
        if let Message::Execute { portal } = &message {
            self.names.portal_ran(portal);
        }
        if let Some(statement) = statements.first() {
            self.note_sent(statement, source.as_ref());
        }
        let running = match (&message, statements.as_slice()) {
            (Message::Query, [statement, ..]) | (Message::Execute { .. }, [statement]) => {
                self.running(admitted.ordinal, statement)
            }
            _ => Running::new(admitted.ordinal),
        };
        let results = match &message {
            Message::Execute { portal } => self.results_of_portal(portal, source, admitted.ordinal),
            Message::Query | Message::FunctionCall => self.results_of(source),
        };
        let running = Running { results, ..running };
        let awaited = match message {
            Message::Query => Awaited::Query(running),
            Message::Execute { .. } => Awaited::Execute(Some(running)),
            Message::FunctionCall => Awaited::FunctionCall(running),
        };
        self.run_statement(admitted.permit, awaited, header);
    }

    /// What the rows of `asked` may come from, as it is known now.
    fn source_of(&mut self, asked: &Asked) -> Option<Source> {
        match (&asked.message, asked.statements.first()) {
            (Message::Query, Some(statement)) => self.source_of_query(statement),
            (Message::Execute { portal }, _) => self.source_of_portal(portal, &asked.statements),
            _ => asked.source.clone(),
        }
    }

    fn refuse_asked(&mut self, asked: &Asked, response: ErrorResponse) {
        match asked.message {
            Message::Query | Message::FunctionCall => self.refuse_query(response, asked.header),
            Message::Execute { .. } => self.refuse_extended(response, asked.header),
        }
    }

    /// Something has been said about what waits.
    pub(super) async fn on_word(&mut self, word: Word) -> Result<(), SessionError> {
        match word {
            Word::Remind => {
                if let Some(waiting) = &self.holding.waiting {
                    let notice = words::reminder(waiting.hold.id());
                    self.tell(&notice);
                }
                return Ok(());
            }
            Word::Cancelled => self.end_held(words::cancelled()).await,
            Word::Settled => self.settled().await,
        }
        // What has waited behind it.
        self.on_client().await
    }

    /// What waits does not wait any longer, and is refused.
    pub(super) async fn give_up(&mut self, why: &str) -> Result<(), SessionError> {
        let Some(waiting) = self.holding.waiting.take() else { return Ok(()) };
        let Waiting { hold, asked, decision, .. } = *waiting;
        let id = hold.id().to_owned();
        hold.withdraw(why);
        self.record_held(&asked, &decision, &id).await;
        self.refuse_asked(&asked, words::over(&decision, &id, why));
        self.on_client().await
    }

    /// What waits in a pipeline of which an earlier statement has failed would be skipped by the server.
    pub(super) async fn skip_held(&mut self) -> Result<(), SessionError> {
        let in_pipeline = self.holding.waiting.as_ref().is_some_and(|waiting| waiting.asked.is_extended());
        if in_pipeline && self.pending.failed() {
            self.holding.withdraw("an earlier statement of the same pipeline has failed");
            return self.on_client().await;
        }
        Ok(())
    }

    async fn end_held(&mut self, response: ErrorResponse) {
        let Some(waiting) = self.holding.waiting.take() else { return };
        let Waiting { hold, asked, decision, .. } = *waiting;
        self.record_held(&asked, &decision, hold.id()).await;
        self.refuse_asked(&asked, response);
    }

    async fn record_held(&mut self, asked: &Asked, decision: &Arc<Decision>, id: &str) {
        let mut refused = (**decision).clone();
        refused.set_verdict(guard_common::audit::v1::decision::Verdict::Refused);
        refused.cached = false;
        id.clone_into(&mut refused.approval_request);
        let protocol = asked.protocol(self.replication);
        if let Some(statement) = asked.statements.first().cloned() {
            self.record_refusal(&statement, &Arc::new(refused), protocol).await;
        }
    }

    /// People have decided, or the time is up. What policies say by now counts.
    async fn settled(&mut self) {
        let Some(waiting) = self.holding.waiting.take() else { return };
        let Waiting { hold, mut asked, decision, binding } = *waiting;
        let protocol = asked.protocol(self.replication);
        // What it shows may have changed as well: views, tags, settings.
        asked.source = self.source_of(&asked);
        if let Some(refused) = self.refused_inference(asked.source.as_ref()) {
            if let Some(statement) = asked.statements.first() {
                self.record_refusal(statement, &refused, protocol).await;
            }
            hold.refuse("policies refuse by now what it uses columns for");
            return self.refuse_asked(&asked, super::refusal::by_policy(&refused));
        }
        let justified = self.proxy.decider.reads_reasons() && self.reason(&asked).is_some();
        let ruled = match self.rule_on_all(&asked, protocol, justified).await {
            Err(Stop::Refused(response)) => {
                hold.refuse("policies have changed while it waited: they refuse it now");
                return self.refuse_asked(&asked, *response);
            }
            Ok(permitted) => Ok(permitted),
            Err(Stop::Held(held, number)) => Err((held, number)),
        };
        let why = if ruled.as_ref().is_err_and(|(held, _)| held.decision().needs != decision.needs) {
            Some("policies have changed while it waited: others have to approve it now")
        } else if self.binding(&asked) != binding {
            Some("the session's search path, roles or encoding have changed while it waited")
        } else {
            None
        };
        if let Some(why) = why {
            let id = hold.id().to_owned();
            hold.refuse(why);
            self.record_held(&asked, &decision, &id).await;
            return self.refuse_asked(&asked, words::over(&decision, &id, why));
        }
        match hold.claim().await {
            Ok(claim) => {
                let permitted = match ruled {
                    Ok(permitted) => permitted,
                    Err((held, number)) => (held.granted(Grant::Approved(claim)), number),
                };
                self.run_asked(asked, permitted).await;
            }
            Err(error) => {
                let id = hold.id().to_owned();
                self.record_held(&asked, &decision, &id).await;
                let response = match error {
                    ClaimError::Over(request) => words::over(&decision, &id, &request.note),
                    ClaimError::Unrecorded(error) => words::unrecorded(&error),
                };
                self.refuse_asked(&asked, response);
            }
        }
    }

    /// Rules on a statement that is prepared, and keeps its text where it will wait. A refusal comes with its response.
    pub(super) fn rule_to_prepare(
        &mut self,
        statement: Arc<Statement>,
        header: Header,
    ) -> (Result<Permit, Refusal>, Arc<Statement>) {
        let reads_reasons = self.proxy.decider.reads_reasons();
        let exact = |relay: &Self| {
            let body = relay.body(header)?;
            let head = ParseHead::read(body).ok()?;
            // Behind both texts and their zeros: the types of the parameters.
            let types = body.get(head.name.len() + head.text.len() + 2..)?;
            Some(Exact::new(head.text, types))
        };
        let known = if reads_reasons { exact(self) } else { None };
        let by_name = || from_name(&self.session.application_name).is_some();
        let justified =
            reads_reasons && (by_name() || known.as_ref().is_some_and(|exact| exact.reason().is_some()));
        match self.worker.rule_with_reason(&self.session, self.scope, &statement, justified) {
            Ruling::Permitted(permit) => match known.filter(|exact| exact.reason().is_some()) {
                Some(exact) => (Ok(permit), self.holding.exacts.keep(&statement, exact)),
                None => (Ok(permit), statement),
            },
            Ruling::Held(held) => match known.or_else(|| exact(self)) {
                Some(exact) => (Ok(held.to_prepare()), self.holding.exacts.keep(&statement, exact)),
                None => (Err((held.refused(""), words::too_long(held.decision()))), statement),
            },
            Ruling::Refused(decision) => {
                let response = super::refusal::by_policy(&decision);
                (Err((decision, response)), statement)
            }
        }
    }

    /// What a Bind is about, with its parameters where it will wait, or where the record is to hold them.
    pub(super) fn with_parameters(
        &mut self,
        mut statements: Candidates,
        header: Header,
    ) -> Result<Parameters, SessionError> {
        let exacts = &self.holding.exacts;
        let waits = !exacts.is_empty() && statements.iter().any(|one| exacts.of(one).is_some());
        let long = header.total() > MAX_HELD;
        if waits && long {
            return Ok(Parameters::Refused(words::too_long(&Decision::default())));
        }
        let records = self.literals.is_some() && statements.iter().any(|one| one.sent.is_some());
        if !waits && !records {
            return Ok(Parameters::Known(statements));
        }
        let body = self.body(header);
        if body.is_none() && !long {
            return Ok(Parameters::Wait);
        }
        let malformed = || SessionError::from(WireError::Malformed('B'));
        let values = match body.filter(|_| !long) {
            Some(body) => {
                let head = BindHead::read(body).ok_or_else(malformed)?;
                Some(body.get(head.portal.len() + head.statement.len() + 2..).ok_or_else(malformed)?)
            }
            None => None,
        };
        let bound = statements.iter().map(|statement| {
            let sent = match &self.literals {
                Some(room) => statement.with_values(values, room).ok_or_else(malformed)?,
                None => Arc::clone(statement),
            };
            let exact = match (self.holding.exacts.of(statement), values) {
                (Some(exact), Some(values)) => Some(exact.bind(values).ok_or_else(malformed)?),
                _ => None,
            };
            Ok((sent, exact))
        });
        let bound: Vec<(Arc<Statement>, Option<Exact>)> = bound.collect::<Result<_, SessionError>>()?;
        for (statement, (sent, exact)) in statements.iter_mut().zip(bound) {
            *statement = match exact {
                Some(exact) => self.holding.exacts.keep(&sent, exact),
                None => sent,
            };
        }
        Ok(Parameters::Known(statements))
    }

    /// The reason that is given for what is asked.
    fn reason(&self, asked: &Asked) -> Option<String> {
        let in_text = match asked.message {
            Message::Query => self.body(asked.header).and_then(|body| query(body).ok()).and_then(from_text),
            Message::Execute { .. } | Message::FunctionCall => None,
        };
        let prepared = || {
            let exacts = asked.statements.iter().filter_map(|statement| self.holding.exacts.of(statement));
            exacts.filter_map(|exact| exact.reason()).next().map(str::to_owned)
        };
        in_text.or_else(prepared).or_else(|| from_name(&self.session.application_name))
    }

    /// Tells the client something as soon as the server's message under way is through.
    fn tell(&mut self, notice: &ErrorResponse) {
        self.holding.due.extend(notice.encode_notice());
        self.say_due();
    }

    /// Says what is due, between two of the server's messages.
    pub(super) fn say_due(&mut self) {
        if !self.holding.due.is_empty() && self.server_passing == 0 {
            let due = std::mem::take(&mut self.holding.due);
            self.pipe.answers.insert(&due);
        }
    }
}
