//! One stopped backend: what it was about to run enters, and whether it may leaves.
//!
//! The way is that of a statement in the proxy: read, decide, record, let go. The same policy decides, with the workload
//! behind the backend's connection as its principal. A statement that writes runs only once it is on record.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    rc::Rc,
    sync::Arc,
};

use guard_common::{
    audit::v1::{self as record, Decision, decision::Verdict, statement::Protocol},
    kernel::hold::{HeldBackend, HoldEvent, Known, level},
};
use guard_policy::{Principal, vocabulary::Parse};

use super::{
    HeldServers,
    backend::{Client, Registry, Settings},
    kernel::Maps,
    process::Process,
    reading::{Held, operations},
    target::Target,
};
use crate::{
    approval::{Approvals, from_name, from_text},
    audit::{AuditLog, SessionStamp, StatementEntry},
    config::Mode,
    decide::{AppliedMode, Decider, Permit, Ruling, Scope, Session},
    servers::Server,
    session::{Worker, must_be_durable},
    sql::{Modes, Roles, Room, SearchPath, Statement, Touched},
};

/// Sessions that are remembered; beyond, all are found out anew.
const MAX_SESSIONS: usize = 16_384;
/// Scopes that have a number of their own.
const MAX_SCOPES: usize = 65_536;
/// Roles whose numbers are remembered.
const MAX_ROLES: usize = 4_096;

/// Bytes of what statements were sent with that may be held at once.
const TEXTS: usize = 64 * 1024 * 1024;

/// What becomes of a stopped backend.
#[derive(Debug)]
pub enum Sentence {
    /// It goes on.
    Run,
    /// It goes on, and its statement is cancelled.
    Cancel,
    /// It stays stopped until people have decided.
    Wait(Box<Waiting>),
}

/// A statement that waits for people.
#[derive(Debug)]
pub struct Waiting {
    /// What was decided.
    pub held: crate::decide::Held,
    /// All about it.
    pub asked: Asked,
}

/// A statement with all that was found out about it.
#[derive(Debug)]
pub struct Asked {
    /// Whose.
    pub session: Rc<SessionFacts>,
    /// The session as policies see it now.
    pub now: Session,
    /// What it does.
    pub statement: Arc<Statement>,
    /// How its text was read.
    pub modes: Modes,
    /// Its text; nothing where it is too long.
    pub text: Option<Vec<u8>>,
    /// Why somebody wants it.
    pub reason: Option<String>,
    /// Where it was stopped.
    pub event: HoldEvent,
}

/// A session that is known.
#[derive(Debug)]
pub struct SessionFacts {
    /// Who it is.
    pub client: Client,
    /// Where.
    pub server: Arc<Server>,
    /// What policies read of it that stays the same.
    base: Session,
    stamp: Arc<SessionStamp>,
    statements: Cell<u64>,
    scope: u64,
}

/// What the judge goes by.
pub struct Judge {
    /// Decides.
    pub decider: Arc<Decider>,
    /// Records.
    pub audit: AuditLog,
    /// Asks people.
    pub approvals: Approvals,
    registry: Registry,
    worker: Worker,
    /// For what statements were sent with.
    room: Room,
    limit: usize,
    maps: Rc<RefCell<Maps>>,
    sessions: RefCell<HashMap<(u32, u64), Rc<SessionFacts>>>,
    scopes: RefCell<HashMap<Scope, u64>>,
    roles: RefCell<HashMap<(u32, u32), String>>,
}

/// What the agent lends to the judge.
#[derive(Debug)]
pub struct Lent {
    /// Decides.
    pub decider: Arc<Decider>,
    /// Records.
    pub audit: AuditLog,
    /// Asks people.
    pub approvals: Approvals,
    /// Knows who connects.
    pub registry: Registry,
    /// Told which servers are held.
    pub held: HeldServers,
}

impl Judge {
    /// A judge that reads statements with `worker`, up to `limit` bytes.
    pub fn new(lent: Lent, worker: Worker, limit: usize, maps: Rc<RefCell<Maps>>) -> Self {
        let Lent { decider, audit, approvals, registry, held: _ } = lent;
        Self {
            decider,
            audit,
            approvals,
            registry,
            worker,
            room: Room::new(TEXTS),
            limit,
            maps,
            sessions: RefCell::default(),
            scopes: RefCell::default(),
            roles: RefCell::default(),
        }
    }

    /// Decides on what `event` stopped in a backend of `target`. An error of the kind `NotFound`: it has ended.
    pub async fn judge(&self, event: &HoldEvent, target: &Target) -> io::Result<Sentence> {
        let process = Process::open(event.key.pid, event.stop.start_ns)?;
        let memory = process.memory()?;
        let unknown = || io::Error::other("who is at the other end of its socket cannot be found out");
        let session = self.session(event, target, &process, &memory).await.ok_or_else(unknown)?;
        if session.client.proxied {
            self.tell_backend(event, &session, HeldBackend { exempt: 1, ..HeldBackend::default() });
            return Ok(Sentence::Run);
        }
        if event.scope != session.scope {
            self.tell_backend(event, &session, HeldBackend::default());
        }
        let settings = Settings::read(&memory, target);
        let held = Held::read(&memory, event.level, event.text, self.limit);
        drop((memory, process));
        let now = self.now(&session, &settings, event);
        let (statement, modes, whole) = held.statement(&self.worker, &settings, target).await;
        let statement = match &held.text {
            // Its parameters are not seen, nor what columns its tables have.
            Some(text) if whole && self.audit.literals().wants() => {
                statement.as_sent(text, &modes, Touched::default(), &self.room)
            }
            _ => statement,
        };
        let reason = self.reason(held.text.as_deref(), &now);
        if target.counts {
            now.meter.statement();
        }
        let asked = Asked { session, now, statement, modes, text: held.text, reason, event: *event };
        Ok(match self.rule(&asked) {
            Ruling::Permitted(permit) => self.permitted(&asked, permit).await,
            // Nothing runs yet: it is asked for where it does.
            Ruling::Held(_) if held.level == level::PARSE => Sentence::Run,
            Ruling::Held(held) => Sentence::Wait(Box::new(Waiting { held, asked })),
            Ruling::Refused(decision) => {
                self.refused(&asked, &decision);
                Sentence::Cancel
            }
        })
    }

    /// Decides, by the policies of this moment.
    pub fn rule(&self, asked: &Asked) -> Ruling {
        let justified = self.decider.reads_reasons() && asked.reason.is_some();
        self.worker.rule_with_reason(&asked.now, asked.now.scope(), &asked.statement, justified)
    }

    fn reason(&self, text: Option<&[u8]>, session: &Session) -> Option<String> {
        text.and_then(from_text).or_else(|| from_name(&session.application_name))
    }

    /// Records a statement that may run, and lets the kernel know it again.
    async fn permitted(&self, asked: &Asked, permit: Permit) -> Sentence {
        if !self.recorded(asked, permit.decision()).await {
            return Sentence::Cancel;
        }
        self.remember(asked, permit.decision());
        Sentence::Run
    }

    /// Records what may run; false where it must not, because what is not on record must not run.
    pub async fn recorded(&self, asked: &Asked, decision: &Arc<Decision>) -> bool {
        let entry = asked.session.entry(&asked.statement, decision, asked.event.stop.level);
        if asked.now.mode == Mode::Monitor || !must_be_durable(&asked.statement) {
            self.audit.record_statement(entry);
            return true;
        }
        let committed = self.audit.commit_statement(entry).await;
        if let Err(error) = &committed {
            tracing::error!(
                server = asked.now.target.id(),
                "a statement is cancelled because it cannot be recorded: {error}"
            );
        }
        committed.is_ok()
    }

    /// Records what must not run, and says why: its client sees no more than that it was cancelled.
    pub fn refused(&self, asked: &Asked, decision: &Arc<Decision>) {
        let entry = asked.session.entry(&asked.statement, decision, asked.event.stop.level);
        self.audit.record_statement(entry);
        tracing::warn!(
            backend = asked.event.key.pid,
            db_user = asked.now.db_user,
            database = asked.now.target.database_name(),
            workload = asked.session.client.workload.label(),
            policy = decision.policy,
            reason = decision.reason,
            request = decision.approval_request,
            "a statement round the proxy is cancelled before it runs: {}",
            decision.subject
        );
    }

    /// Lets the kernel know a statement that is allowed without any doubt, in this session's terms.
    fn remember(&self, asked: &Asked, decision: &Decision) {
        let event = &asked.event;
        let certain = event.hash != [0; 2]
            && decision.verdict() == Verdict::Allowed
            && !self.decider.policies().reads_rates();
        if !certain {
            return;
        }
        // By the epoch that the kernel side went by: if policies have changed meanwhile, nobody will look for it.
        let known = |level| Known { hash: event.hash, scope: asked.session.scope, epoch: event.epoch, level };
        let mut maps = self.maps.borrow_mut();
        maps.know(known(event.level));
        // Read in full, the text is the same wherever it comes by next.
        if event.stop.level == level::PARSE && asked.statement.parse == Parse::Full {
            maps.know(known(level::UTILITY));
            operations(&asked.statement).for_each(|operation| maps.know(known(level::RUN | operation << 8)));
        }
    }

    /// Lets the programs know a session.
    fn tell_backend(&self, event: &HoldEvent, session: &SessionFacts, backend: HeldBackend) {
        let backend = HeldBackend { start_ns: event.stop.start_ns, scope: session.scope, ..backend };
        self.maps.borrow_mut().set_backend(event.key.pid, backend);
    }

    /// What people have approved runs without a further question until the client's message is done.
    pub fn grant(&self, asked: &Asked) {
        let event = &asked.event;
        let (granted, granted_in) = (event.hash, event.message);
        if granted != [0; 2] && granted_in != 0 {
            let backend = HeldBackend { granted, granted_in, ..HeldBackend::default() };
            self.tell_backend(event, &asked.session, backend);
        }
    }

    /// Who is behind a backend; found out once.
    async fn session(
        &self,
        event: &HoldEvent,
        target: &Target,
        process: &Process,
        memory: &super::process::Memory,
    ) -> Option<Rc<SessionFacts>> {
        let key = (event.key.pid, event.stop.start_ns);
        if let Some(known) = self.sessions.borrow().get(&key) {
            return Some(Rc::clone(known));
        }
        let client = Client::learn(process, memory, target, &self.registry).await?;
        if client.database.is_empty() && !client.proxied {
            tracing::warn!(backend = key.0, "database and user of a session cannot be read");
        }
        let session = Rc::new(self.known(client, target, key.0));
        let mut sessions = self.sessions.borrow_mut();
        if sessions.len() >= MAX_SESSIONS {
            sessions.clear();
        }
        sessions.insert(key, Rc::clone(&session));
        Some(session)
    }

    fn known(&self, client: Client, target: &Target, backend_pid: u32) -> SessionFacts {
        let server = &target.server;
        let principal = Principal::new(&client.workload);
        let AppliedMode { mode, from: mode_from } = self.decider.mode(&server.name, &client.database);
        let base = Session {
            meter: self.decider.meter(&principal, &server.name),
            principal,
            target: self.decider.target(server, &client.database),
            mode,
            mode_from,
            proxied: false,
            transport: client.transport,
            db_user: client.user.clone(),
            application_name: String::new(),
            search_path: SearchPath::default(),
            roles: Roles::of(&client.user),
        };
        let stamp = Arc::new(SessionStamp::of(record::Statement {
            connection_id: client.connection_id.clone(),
            db_user: client.user.clone(),
            database: client.database.clone(),
            workload: client.workload.label(),
            evidence: "hold".to_owned(),
            backend_pid,
            ..record::Statement::default()
        }));
        let scope = self.scope(&base);
        SessionFacts { client, server: Arc::clone(server), base, stamp, statements: Cell::new(0), scope }
    }

    /// A number for all that stays the same in a session, never 0.
    fn scope(&self, base: &Session) -> u64 {
        let mut scopes = self.scopes.borrow_mut();
        let next = scopes.len() as u64 + 1;
        if scopes.len() >= MAX_SCOPES {
            // One that nobody else has: it is known to the kernel for this session alone.
            return u64::from_ne_bytes(*uuid::Uuid::now_v7().as_bytes().last_chunk().unwrap_or(&[1; 8]))
                | 1 << 63;
        }
        *scopes.entry(base.scope()).or_insert(next)
    }

    /// The session as it is at this moment.
    fn now(&self, session: &SessionFacts, settings: &Settings, event: &HoldEvent) -> Session {
        Session {
            application_name: settings.application_name.clone(),
            search_path: settings.search_path.as_deref().map_or(SearchPath::Unknown, SearchPath::parse),
            roles: self.roles_now(session, settings, event),
            ..session.base.clone()
        }
    }

    /// In whose name it runs. Functions may run in the name of their owner, of whom only the number is known.
    fn roles_now(&self, session: &SessionFacts, settings: &Settings, event: &HoldEvent) -> Roles {
        let [in_force, login] = event.roles;
        let role = settings.role.as_deref().unwrap_or("*");
        let name = if role == "none" { session.client.user.as_str() } else { role };
        if in_force == 0 || (role == "none" && in_force == login) {
            return Roles::of(name);
        }
        let mut known = self.roles.borrow_mut();
        let key = (event.postmaster, in_force);
        if event.stop.level == level::PARSE && role != "none" && role != "*" {
            // What a client sends runs in no function.
            if known.len() >= MAX_ROLES {
                known.clear();
            }
            known.insert(key, role.to_owned());
        }
        known.get(&key).map_or(Roles::Any, |role| Roles::of(role))
    }

    /// Forgets sessions that have ended.
    pub fn tidy(&self) {
        self.sessions.borrow_mut().retain(|(pid, start_ns), _| Process::open(*pid, *start_ns).is_ok());
    }
}

impl SessionFacts {
    fn entry(&self, statement: &Arc<Statement>, decision: &Arc<Decision>, at: u32) -> StatementEntry {
        let ordinal = self.statements.get() + 1;
        self.statements.set(ordinal);
        let protocol = if at == level::CALL { Protocol::FunctionCall } else { Protocol::Unspecified };
        StatementEntry {
            session: Arc::clone(&self.stamp),
            ordinal,
            statement: Arc::clone(statement),
            decision: Arc::clone(decision),
            protocol,
        }
    }
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge").field("limit", &self.limit).finish_non_exhaustive()
    }
}
