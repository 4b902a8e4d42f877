//! Logging in: the server asks, the client answers, and guard passes it on without reading secrets.
//!
//! Leaves with a session that is ready for its first statement, or with the server's refusal.

use guard_common::audit::v1::SessionStarted;
use guard_policy::Principal;

use super::{
    Attested, Peer, Proxy, Served, SessionError, Worker,
    held::Holding,
    literals::ROOM,
    masking::Masking,
    pending::Pending,
    pipe::{Event, Pipe},
    prepared::Names,
    recorder::Recorder,
    refusal::{self, Refusals},
    relay::Relay,
    settings::Settings,
    upstream::Transport,
    way::Binding,
};
use crate::{
    approval::cancel_digest,
    audit::SessionStamp,
    decide::{AppliedMode, Ruling, Session},
    sql::{Roles, Room, SearchPath},
    wire::postgres::{
        Backend, ErrorFields, ErrorResponse, Frontend, HEADER_BYTES, Header, MAX_MESSAGE_BYTES, Severity,
        Startup, TransactionStatus, WireError, backend_process_id, parameter_status, ready_for_query,
        sasl_mechanisms, without_channel_binding,
    },
};

/// Longest message before the login is through, from either side.
const MAX_LOGIN_MESSAGE: usize = 64 * 1024;

/// Settings that a server may tell of before its client is in; PostgreSQL has about fifteen.
const MAX_PARAMETERS: usize = 256;

/// Authentication requests and answers before it is a loop without end.
const MAX_ROUNDS: usize = 64;

/// One login.
pub(super) struct Login<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) worker: &'a Worker,
    pub(super) attested: &'a Attested<'a>,
    pub(super) startup: Startup,
    pub(super) via: Via,
    session: Session,
}

/// The way that the session takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Via {
    pub(super) transport: Transport,
    pub(super) binding: Binding,
    /// The client's version of TLS; empty for none.
    pub(super) client_tls: &'static str,
}

/// How a login ended.
pub(super) enum End<'a> {
    /// The session can begin.
    Ready(Box<Relay<'a>>),
    /// The server refused it, or one side left.
    Over(Served),
}

/// What the server has told so far.
#[derive(Default)]
struct Told {
    parameters: Vec<(Vec<u8>, String)>,
    backend_pid: u32,
    /// Names the session to whoever cancels.
    cancel: Option<[u8; 32]>,
    failure: String,
    /// The server wanted something before it let the client in.
    asked: bool,
    /// The client may bind its login to the server's certificate.
    keeps_plus: bool,
    ready: Option<TransactionStatus>,
}

impl<'a> Login<'a> {
    /// The login of whom `attested` names, with this startup packet.
    pub(super) fn new(
        proxy: &'a Proxy,
        worker: &'a Worker,
        attested: &'a Attested<'a>,
        startup: Startup,
        via: Via,
    ) -> Self {
        let session = session(proxy, attested, &startup);
        Self { proxy, worker, attested, startup, via, session }
    }

    /// Whether policy lets the session begin; asked before the server hears of it. Replication is an action of its own.
    pub(super) fn admit(&self) -> Result<(), SessionError> {
        let session = &self.session;
        if self.startup.replication()
            && let Ruling::Refused(decision) =
                self.worker.rule(session, session.scope(), &self.worker.replication_command())
        {
            let response = ErrorResponse { severity: Severity::Fatal, ..refusal::by_policy(&decision) };
            let failure = response.code.to_owned();
            self.recorder().started(SessionStarted { failure, ..self.started(&Told::default()) });
            return Err(SessionError::Refused(decision.policy.clone(), response));
        }
        Ok(())
    }

    /// Relays between client and server, from the server's first answer on.
    pub(super) async fn relay(self, mut pipe: Pipe) -> Result<End<'a>, SessionError> {
        let mut told = Told { keeps_plus: self.via.binding == Binding::EndToEnd, ..Told::default() };
        let mut rounds = 0;
        // What it said while the way to it was chosen.
        while told.ready.is_none() && pass_request(&mut pipe, &mut told)? {}
        // Statements that the client sends without waiting for its login stay where they are until then.
        let mut ahead = false;
        while told.ready.is_none() {
            match pipe.next(!ahead).await {
                Event::Client => loop {
                    match pass_answer(&mut pipe)? {
                        Answer::Passed => rounds += 1,
                        Answer::Waits => break,
                        Answer::Statement => {
                            ahead = true;
                            break;
                        }
                    }
                    if rounds > MAX_ROUNDS {
                        return Err(WireError::Malformed('p').into());
                    }
                },
                Event::Server => while told.ready.is_none() && pass_request(&mut pipe, &mut told)? {},
                // It may still want to read what the server has to say.
                Event::ClientEnded => pipe.close_server_after_flush(),
                Event::ClientGone | Event::ServerEnded => return Ok(self.over(pipe, &told).await),
            }
        }
        Ok(End::Ready(Box::new(self.begin(pipe, told))))
    }

    fn recorder(&self) -> Recorder {
        let stamp = SessionStamp::new(
            &self.attested.connection.id().to_string(),
            &self.session.db_user,
            self.startup.database(),
            self.session.principal.name(),
        );
        Recorder::new(self.proxy.audit.clone(), stamp, self.session.mode)
    }

    fn started(&self, told: &Told) -> SessionStarted {
        let parameter = |name: &[u8]| {
            told.parameters
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
                .unwrap_or_default()
        };
        SessionStarted {
            connection_id: self.attested.connection.id().to_string(),
            db_user: self.startup.user().to_owned(),
            database: self.startup.database().to_owned(),
            application_name: self.startup.parameter("application_name").unwrap_or_default().to_owned(),
            backend_pid: told.backend_pid,
            server_version: parameter(b"server_version"),
            failure: told.failure.clone(),
            client_tls: self.via.client_tls.to_owned(),
            upstream: self.via.transport.as_str().to_owned(),
            channel_binding: self.via.binding.describe().to_owned(),
        }
    }

    fn begin(self, pipe: Pipe, told: Told) -> Relay<'a> {
        let recorder = self.recorder();
        recorder.started(self.started(&told));
        let by_tcp = matches!(self.attested.peer, Peer::Tcp { .. }) && self.attested.origin().is_none();
        if !told.asked && self.proxy.ways.prefer_unix && by_tcp {
            tracing::warn!(
                server = %self.attested.server.name,
                connection = %self.attested.connection.id(),
                "the server let a TCP client in without a password, because guard reaches it by its unix socket: \
                 check the `local` lines of pg_hba.conf, or take `unix_socket` out of the configuration"
            );
        }
        let startup = &self.startup;
        let settings =
            Settings::new(startup.user(), startup.parameter("options"), startup.parameter("search_path"));
        let masking = self.masking(&told);
        let literals = recorder.keeps_literals().then(|| Room::new(ROOM));
        let mut relay = Relay {
            proxy: self.proxy,
            worker: self.worker,
            pipe,
            pending: Pending::default(),
            names: Names::default(),
            refusals: Refusals::new(),
            recorder,
            scope: self.session.scope(),
            session: self.session,
            modes: settings.modes(),
            settings,
            replication: self.startup.replication(),
            transaction: told.ready.unwrap_or_default(),
            passing: 0,
            dropping: 0,
            server_passing: 0,
            uncounted_rows: 0,
            skipping: false,
            finished: false,
            masking: None,
            holding: Holding::new(self.attested, told.cancel),
            literals,
        };
        relay.masking = masking;
        for (name, value) in &told.parameters {
            relay.on_parameter(name, value);
        }
        relay.take_up_settings();
        relay
    }

    /// The session's part in masking: none where it is off, for replication, and before what is no PostgreSQL.
    fn masking(&self, told: &Told) -> Option<Box<Masking>> {
        let masks = &self.proxy.masks;
        let is_postgres = told.parameters.iter().any(|(name, _)| name == b"server_version");
        if !masks.enabled || self.startup.replication() || !is_postgres {
            return None;
        }
        let (server, database) = (&self.attested.server.name, self.startup.database());
        let database = masks.catalogs.database(server, database);
        Some(Box::new(Masking::new(std::sync::Arc::clone(masks), database, self.session.mode)))
    }

    /// The login came to nothing: the server said why, or somebody left.
    async fn over(self, mut pipe: Pipe, told: &Told) -> End<'a> {
        let failure = if told.failure.is_empty() { "08006".to_owned() } else { told.failure.clone() };
        let reason = format!("login failed: {failure}");
        self.recorder().started(SessionStarted { failure, ..self.started(told) });
        pipe.finish(super::LAST_WORDS).await;
        End::Over(Served { reason, ..served(&pipe, 0) })
    }
}

/// What decisions of the session will read.
fn session(proxy: &Proxy, attested: &Attested<'_>, startup: &Startup) -> Session {
    let (decider, server) = (&proxy.decider, attested.server);
    let principal = Principal::new(&attested.workload);
    let AppliedMode { mode, from: mode_from } = decider.mode(&server.name, startup.database());
    Session {
        meter: decider.meter(&principal, &server.name),
        principal,
        target: decider.target(server, startup.database()),
        mode,
        mode_from,
        proxied: true,
        transport: attested.peer.transport(),
        db_user: startup.user().to_owned(),
        application_name: startup.parameter("application_name").unwrap_or_default().to_owned(),
        search_path: SearchPath::default(),
        roles: Roles::of(startup.user()),
    }
}

/// The sums of a session that is over.
pub(super) fn served(pipe: &Pipe, statements: u64) -> Served {
    Served {
        reason: String::new(),
        bytes_from_client: pipe.bytes_from_client,
        bytes_to_client: pipe.bytes_to_client,
        statements,
    }
}

/// What the client sent during its login.
enum Answer {
    /// An answer to the server, or a goodbye: passed on.
    Passed,
    /// Not yet whole.
    Waits,
    /// What belongs to the session that is to begin.
    Statement,
}

/// Passes one answer of the client on. Its content is a secret and is not looked at.
fn pass_answer(pipe: &mut Pipe) -> Result<Answer, SessionError> {
    let Some(header) = Header::read(pipe.requests.unread(), MAX_MESSAGE_BYTES)? else {
        return Ok(Answer::Waits);
    };
    match Frontend::from_tag(header.tag)? {
        // A client without a password says goodbye.
        Frontend::Password | Frontend::Terminate => {}
        _ => return Ok(Answer::Statement),
    }
    if header.body > MAX_LOGIN_MESSAGE {
        return Err(WireError::Malformed('p').into());
    }
    if pipe.requests.unread().len() < header.total() {
        return Ok(Answer::Waits);
    }
    pipe.requests.pass(header.total());
    Ok(Answer::Passed)
}

/// Passes one message of the server on and keeps what the session will need.
fn pass_request(pipe: &mut Pipe, told: &mut Told) -> Result<bool, SessionError> {
    let buffer = pipe.answers.unread();
    let Some(header) = Header::read(buffer, MAX_LOGIN_MESSAGE).map_err(SessionError::Server)? else {
        return Ok(false);
    };
    let kind = Backend::from_tag(header.tag).map_err(SessionError::Server)?;
    let Some(body) = buffer.get(HEADER_BYTES..header.total()) else {
        return Ok(false);
    };
    match kind {
        Backend::ParameterStatus => {
            let (name, value) = parameter_status(body).map_err(SessionError::Server)?;
            let (name, value) = (name.to_owned(), String::from_utf8_lossy(value).into_owned());
            told.parameters.retain(|(known, _)| *known != name);
            if told.parameters.len() == MAX_PARAMETERS {
                return Err(SessionError::Server(WireError::Malformed('S')));
            }
            told.parameters.push((name, value));
        }
        Backend::BackendKeyData => {
            told.backend_pid = backend_process_id(body).map_err(SessionError::Server)?;
            told.cancel = Some(cancel_digest(body));
        }
        Backend::ErrorResponse => {
            let fields = ErrorFields::read(body).map_err(SessionError::Server)?;
            told.failure = String::from_utf8_lossy(fields.code).chars().take(5).collect();
        }
        Backend::ReadyForQuery => told.ready = Some(ready_for_query(body).map_err(SessionError::Server)?),
        // Code 0 is AuthenticationOk; every other code asks for something or goes on with it.
        Backend::Authentication => {
            told.asked |= body.iter().any(|byte| *byte != 0);
            if let Some(mechanisms) = sasl_mechanisms(body).filter(|_| !told.keeps_plus) {
                let offered = without_channel_binding(mechanisms).map_err(SessionError::Server)?;
                pipe.answers.skip(header.total());
                pipe.answers.insert(&offered);
                return Ok(true);
            }
        }
        Backend::NegotiateProtocolVersion | Backend::NoticeResponse => {}
        _ => return Err(SessionError::OutOfTurn("a message of a running session")),
    }
    pipe.answers.pass(header.total());
    Ok(true)
}
