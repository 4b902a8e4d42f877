//! One process of a server and the connection that it serves: what is needed to read and decide its statements.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use guard_common::audit::v1::{self as record, workload::Evidence};
use guard_policy::{Principal, vocabulary::Action};

use super::{runs::Runs, tally::Tally};
use crate::{
    connections::Joined,
    decide::{AppliedMode, Decider, Scope, Session},
    identity::Workload,
    sensor::{BackendSeen, Level, RunsSeen, StatementSeen},
    servers::Server,
    sql::{Change, Roles, SearchPath, Statement},
};

/// How long statements wait for their connection to be known: the proxy's own may be told of that much later.
pub const JOIN_WITHIN: Duration = Duration::from_millis(2_500);
/// Statements that wait; one more, and they are recorded without their connection.
const WAITING: usize = 1_024;
/// What PostgreSQL starts with.
const DEFAULT_PATH: &str = "\"$user\", public";

/// A backend.
#[derive(Debug)]
pub struct Backend {
    seen: BackendSeen,
    server: Option<Arc<Server>>,
    joined: Option<Arc<Joined>>,
    workload: Arc<Workload>,
    session: Session,
    scope: Scope,
    /// Somebody has taken another's name for the session: settings do not tell whose.
    authorization: Option<Roles>,
    ordinal: u64,
    sequence: u32,
    last_utility: Option<Arc<Utility>>,
    pub(super) runs: Runs,
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) tally: Tally<Arc<record::Statement>>,
    first: Instant,
    pub(super) last: Instant,
}

/// What waits for the connection to be known.
#[derive(Debug)]
pub enum Waiting {
    /// A statement.
    Statement(StatementSeen),
    /// Some that ran again.
    Runs(RunsSeen),
}

/// A utility statement: plans of its own parts are not statements of their own.
#[derive(Debug)]
pub struct Utility {
    text: Vec<u8>,
    start: usize,
    end: usize,
}

impl Backend {
    /// A backend of `server`; its connection is not known yet.
    pub fn new(seen: BackendSeen, server: Option<Arc<Server>>, decider: &Decider) -> Self {
        let workload = Arc::new(Workload { evidence: Evidence::Unspecified.into(), ..Workload::default() });
        let session = session(&seen, server.as_deref(), &workload, None, decider);
        let now = Instant::now();
        let mut backend = Self {
            seen,
            server,
            joined: None,
            workload,
            scope: session.scope(),
            session,
            authorization: None,
            ordinal: 0,
            sequence: 0,
            last_utility: None,
            runs: Runs::default(),
            waiting: VecDeque::new(),
            tally: Tally::default(),
            first: now,
            last: now,
        };
        backend.follow();
        backend
    }

    /// Its connection is known.
    pub fn join(&mut self, joined: Arc<Joined>, decider: &Decider) {
        self.workload = Arc::clone(&joined.workload);
        self.server = Some(Arc::clone(&joined.server));
        self.session = session(&self.seen, self.server.as_deref(), &self.workload, Some(&joined), decider);
        self.joined = Some(joined);
        self.follow();
    }

    /// Its settings have changed.
    pub fn told(&mut self, seen: BackendSeen) {
        self.seen = seen;
        self.follow();
    }

    fn follow(&mut self) {
        let BackendSeen { user, role, application_name, search_path, .. } = &self.seen;
        let taken = if role.is_empty() || role == "none" { user } else { role };
        self.session.roles = match &self.authorization {
            Some(roles) if taken == user => roles.clone(),
            Some(_) | None => Roles::of(taken),
        };
        self.session.application_name.clone_from(application_name);
        self.session.search_path = match search_path.as_str() {
            DEFAULT_PATH | "" => SearchPath::Initial,
            path => SearchPath::parse(path),
        };
        self.scope = self.session.scope();
    }

    /// The statement runs, `times` in a row: what it changes of the session that no setting tells. Returns the ordinal of
    /// the first.
    pub fn ran(&mut self, statement: &Statement, times: u64) -> u64 {
        for change in &statement.changes {
            if let Change::Authorization { to, .. } = change {
                let own = Roles::of(&self.seen.user);
                let to = to.as_deref().map_or_else(|| own.clone(), Roles::of);
                // It may be undone with its transaction: either may hold from now on.
                self.authorization = Some(self.authorization.take().unwrap_or(own).or(&to));
                self.follow();
            }
        }
        let first = self.ordinal + 1;
        self.ordinal += times;
        first
    }

    /// Whether nothing more is to be waited for before its statements are recorded.
    pub fn is_ready(&self) -> bool {
        self.joined.is_some() || self.waiting.len() >= WAITING || self.first.elapsed() >= JOIN_WITHIN
    }

    /// The last of its events that was seen.
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Statements that were lost before this one.
    pub fn lost_before(&mut self, sequence: u32) -> u64 {
        let before = std::mem::replace(&mut self.sequence, sequence);
        // The first that is seen of it may be any: what was before belongs to another observer. The count begins again
        // where the kernel side has forgotten the backend.
        if before == 0 { 0 } else { u64::from(sequence.saturating_sub(before).saturating_sub(1)) }
    }

    /// Whether what was seen is a part of the utility statement that ran last, such as the plan of EXPLAIN ANALYZE,
    /// COPY (query) or CREATE TABLE AS. Keeps utility statements for the next.
    pub fn is_part(&mut self, seen: &StatementSeen) -> bool {
        let start = seen.location.unwrap_or(0);
        let end = if seen.length == 0 { seen.text.len() } else { start.saturating_add(seen.length) };
        match seen.level {
            Level::Executor => self.utility_before(seen).is_some_and(|utility| {
                // Versions before 18 do not tell where in the text such a plan begins.
                let inside = start >= utility.start && end <= utility.end;
                let untold = start == 0 && seen.length == 0;
                (inside || untold) && utility.text == seen.text
            }),
            Level::Utility => {
                self.last_utility = Some(Arc::new(Utility { text: seen.text.clone(), start, end }));
                false
            }
            Level::Function(_) | Level::Replication => false,
        }
    }

    /// The utility statement that ran last before: it may have been counted alone.
    fn utility_before(&self, seen: &StatementSeen) -> Option<Arc<Utility>> {
        if seen.utility == 0 { self.last_utility.clone() } else { self.runs.utility(seen.utility) }
    }

    /// The same, after a utility statement was seen.
    pub fn last_utility(&self) -> Option<Arc<Utility>> {
        self.last_utility.clone()
    }

    /// The proxy sees what the client sends on this connection.
    pub fn is_proxied(&self) -> bool {
        self.joined.as_ref().is_some_and(|joined| joined.proxied)
    }

    /// True until the connection is known.
    pub fn is_alone(&self) -> bool {
        self.joined.is_none()
    }

    /// What decisions read.
    pub fn session(&self) -> (&Session, Scope) {
        (&self.session, self.scope)
    }

    /// As the kernel told it.
    pub fn seen(&self) -> &BackendSeen {
        &self.seen
    }

    /// Who is at the other end.
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// Its server's name.
    pub fn server_name(&self) -> &str {
        self.server.as_ref().map_or("", |server| server.name.as_str())
    }

    /// The connection's name in records; empty where it could not be told.
    pub fn connection_id(&self) -> String {
        self.joined.as_ref().map(|joined| joined.id.to_string()).unwrap_or_default()
    }

    /// Statements so far.
    pub fn ordinal(&self) -> u64 {
        self.ordinal
    }
}

fn session(
    seen: &BackendSeen,
    server: Option<&Server>,
    workload: &Workload,
    joined: Option<&Joined>,
    decider: &Decider,
) -> Session {
    let principal = Principal::new(workload);
    let unknown = Server::default();
    let server = server.unwrap_or(&unknown);
    let AppliedMode { mode, from: mode_from } = AppliedMode::PROBED;
    Session {
        meter: decider.meter(&principal, &server.name),
        principal,
        target: decider.target(server, &seen.database),
        mode,
        mode_from,
        proxied: joined.is_some_and(|joined| joined.proxied),
        transport: joined.map_or("tcp", |joined| joined.transport),
        db_user: seen.user.clone(),
        application_name: seen.application_name.clone(),
        search_path: SearchPath::default(),
        roles: Roles::of(&seen.user),
    }
}

/// Begin and end of transactions: on the extended protocol the server runs a copy of their text, which looks like
/// another statement's. They never run inside of one.
pub fn is_transaction_control(statement: &Statement) -> bool {
    !statement.effects.is_empty()
        && statement.effects.iter().all(|effect| effect.action == Action::Transaction)
}

#[cfg(test)]
mod tests {
    use guard_policy::PolicySet;

    use super::*;
    use crate::{
        config::Config,
        sql::{Classifier, Limits, Modes},
    };

    fn backend(role: &str, search_path: &str) -> Backend {
        let decider = Decider::new(PolicySet::built_in().unwrap(), &Config::default());
        let seen = BackendSeen {
            pid: 1,
            start_ns: 2,
            server_pid: 3,
            cookie: 4,
            inode: 5,
            user: "app".to_owned(),
            database: "shop".to_owned(),
            role: role.to_owned(),
            application_name: "psql".to_owned(),
            search_path: search_path.to_owned(),
        };
        Backend::new(seen, None, &decider)
    }

    fn seen(level: Level, text: &str, location: usize, length: usize) -> StatementSeen {
        StatementSeen {
            pid: 1,
            start_ns: 2,
            at: Duration::ZERO,
            sequence: 1,
            level,
            nested: false,
            standard_strings: true,
            location: Some(location),
            length,
            text: text.as_bytes().to_vec(),
            address: 0,
            cut: None,
            counted: None,
            utility: 0,
        }
    }

    #[test]
    fn plans_of_a_utility_statement_are_its_parts() {
        let mut backend = backend("none", DEFAULT_PATH);
        let text = "EXPLAIN ANALYZE DELETE FROM t; DELETE FROM u";
        assert!(!backend.is_part(&seen(Level::Utility, text, 0, 29)));
        assert!(backend.is_part(&seen(Level::Executor, text, 0, 0)), "versions before 18");
        assert!(backend.is_part(&seen(Level::Executor, text, 16, 13)), "version 18");
        assert!(!backend.is_part(&seen(Level::Executor, text, 30, 0)), "the second statement");
        assert!(!backend.is_part(&seen(Level::Executor, "DELETE FROM u", 0, 0)));
        assert!(!backend.is_part(&seen(Level::Utility, "COMMIT", 0, 0)));
        assert!(!backend.is_part(&seen(Level::Executor, text, 16, 13)), "of an earlier one");
    }

    #[test]
    fn what_is_lost_between_is_counted() {
        let mut backend = backend("none", DEFAULT_PATH);
        assert_eq!(backend.lost_before(500), 0, "another agent saw what was before");
        assert_eq!(backend.lost_before(501), 0);
        assert_eq!(backend.lost_before(505), 3);
        assert_eq!(backend.lost_before(1), 0, "the count begins again");
        assert_eq!(backend.lost_before(2), 0);
    }

    #[test]
    fn settings_become_what_decisions_read() {
        let plain = backend("none", DEFAULT_PATH);
        assert_eq!(plain.session().0.roles.names(), ["app"]);
        assert_eq!(plain.session().0.search_path, SearchPath::Initial);
        let moved = backend("dba", "hr, public");
        assert_eq!(moved.session().0.roles.names(), ["dba"]);
        assert_eq!(moved.session().0.search_path, SearchPath::parse("hr, public"));
        assert_ne!(plain.session().1, moved.session().1);
    }

    #[test]
    fn anothers_name_is_remembered() {
        let mut backend = backend("none", DEFAULT_PATH);
        let mut classifier = Classifier::new(Limits::default());
        let statement = classifier.classify(b"SET SESSION AUTHORIZATION boss", &Modes::default());
        backend.ran(&statement, 1);
        assert_eq!(backend.session().0.roles.names(), ["app", "boss"]);
        assert_eq!(backend.ordinal(), 1);
    }
}
