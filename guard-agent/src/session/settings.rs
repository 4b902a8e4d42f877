//! What a session's settings say about how its statements are read and judged: reports of the server and statements that
//! it was sent enter, modes, search path and roles leave.
//!
//! What is under way may or may not have taken effect: until the server has answered, old and new both count. The server
//! reports encodings and the kind of literals in every version, the search path from version 18 on.

use guard_policy::vocabulary::{Action, ObjectKind};

use super::followed::Followed;
use crate::{
    sql::{Change, Encoding, Modes, Roles, SearchPath, Statement},
    wire::postgres::TransactionStatus,
};

/// The newest version of the server whose grammar guard has.
const NEWEST: u32 = 18;
/// The oldest version that guard knows.
const OLDEST: u32 = 13;

/// The settings of one session.
#[derive(Debug)]
pub(super) struct Settings {
    modes: Modes,
    /// As the server reported it last.
    client_encoding: Encoding,
    /// The path that the session began with, as far as it is known.
    initial: SearchPath,
    path: Followed<SearchPath>,
    /// Who logged in.
    login: Roles,
    /// Whom `SET ROLE NONE` leads back to: who logged in, or who took their place since.
    own: Roles,
    roles: Followed<Roles>,
    /// Something failed or was rolled back since the transaction began.
    undone: bool,
    /// A change is under way.
    moving: bool,
}

impl Settings {
    /// The settings of a session of `login` that begins with these parameters of the startup packet.
    pub(super) fn new(login: &str, options: Option<&str>, search_path: Option<&str>) -> Self {
        // The server takes up the options first.
        let initial = search_path.map_or_else(|| initial_path(options), SearchPath::parse);
        let login = Roles::of(login);
        Self {
            // Until the server has said what it is.
            modes: Modes { grammar_known: false, ..Modes::default() },
            client_encoding: Encoding::Utf8,
            path: Followed::new(initial.clone()),
            initial,
            own: login.clone(),
            // Where the options speak of a role, nobody knows which.
            roles: Followed::new(if names_a_role(options) { Roles::Any } else { login.clone() }),
            login,
            undone: false,
            moving: false,
        }
    }

    /// How the next statement is to be read.
    pub(super) fn modes(&self) -> Modes {
        self.modes
    }

    /// Where its names are looked for.
    pub(super) fn search_path(&self) -> &SearchPath {
        self.path.now()
    }

    /// In whose name it may run.
    pub(super) fn roles(&self) -> &Roles {
        self.roles.now()
    }

    /// The server reports a setting.
    pub(super) fn reported(&mut self, name: &[u8], value: &str) {
        match name {
            b"standard_conforming_strings" => self.modes.standard_conforming_strings = value == "on",
            b"client_encoding" => {
                self.client_encoding = Encoding::named(value);
                self.modes.client_encoding = self.client_encoding;
            }
            b"server_encoding" => self.modes.server_utf8 = Encoding::named(value) == Encoding::Utf8,
            b"server_version" => self.modes.grammar_known = is_known_version(value),
            b"search_path" => self.path.reported(SearchPath::parse(value), self.moving),
            _ => {}
        }
    }

    /// A statement is sent to the server; true where it changes how the next is read.
    pub(super) fn sent(&mut self, statement: &Statement) -> bool {
        let mut changed = false;
        for change in &statement.changes {
            changed = true;
            match change {
                Change::Rollback => {
                    self.undone = true;
                    self.path.rolls_back();
                    self.roles.rolls_back();
                }
                Change::Path { to, local } => {
                    let to = if *to == SearchPath::Initial { self.initial.clone() } else { to.clone() };
                    self.path.moves(to, *local);
                    self.moving = true;
                }
                Change::Role { to, local } => {
                    let to = to.as_deref().map_or_else(|| self.own.clone(), Roles::of);
                    self.roles.moves(to, *local);
                    self.moving = true;
                }
                Change::Authorization { to, local } => {
                    let to = to.as_deref().map_or_else(|| self.login.clone(), Roles::of);
                    self.own = self.own.clone().or(&to);
                    self.roles.moves(to, *local);
                    self.moving = true;
                }
            }
        }
        self.sent_otherwise(statement) || changed
    }

    /// What functions and code set, without saying to what.
    fn sent_otherwise(&mut self, statement: &Statement) -> bool {
        let settles = |action| matches!(action, Action::Set | Action::Assume);
        if !statement.effects.iter().any(|effect| settles(effect.action)) {
            return false;
        }
        let sets = |setting: &str| {
            statement.effects.iter().any(|effect| {
                let object = &effect.object;
                effect.action == Action::Set
                    && object.kind == ObjectKind::Setting
                    && (object.name == setting || object.name == "*")
            })
        };
        let names = |of: fn(&Change) -> bool| statement.changes.iter().any(of);
        let mut changed = false;
        if sets("search_path") && !names(|change| matches!(change, Change::Path { .. })) {
            self.path.moves(SearchPath::Unknown, false);
            changed = true;
        }
        if sets("client_encoding") {
            self.modes.client_encoding = Encoding::Other;
            changed = true;
        }
        let assumes = statement.effects.iter().any(|effect| effect.action == Action::Assume);
        if assumes && !names(|change| matches!(change, Change::Role { .. } | Change::Authorization { .. })) {
            self.own = Roles::Any;
            self.roles.moves(Roles::Any, false);
            changed = true;
        }
        self.moving |= changed;
        changed
    }

    /// The server refused something.
    pub(super) fn failed(&mut self) {
        if self.moving || self.touched() {
            self.undone = true;
        }
    }

    fn touched(&self) -> bool {
        self.path.touched() || self.roles.touched()
    }

    /// The server waits for the next statement; true where that settles how it is read. `quiet`: nothing is under way.
    pub(super) fn ready(&mut self, transaction: TransactionStatus, quiet: bool) -> bool {
        if !quiet || !(self.moving || self.undone || self.touched()) {
            return false;
        }
        self.moving = false;
        self.modes.client_encoding = self.client_encoding;
        self.path.settle(transaction, self.undone);
        self.roles.settle(transaction, self.undone);
        if transaction == TransactionStatus::Idle {
            self.undone = false;
        }
        true
    }
}

/// Whether a startup packet's options take a role: `-c role=a`.
fn names_a_role(options: Option<&str>) -> bool {
    let words = split(options.unwrap_or_default());
    words.iter().any(|word| {
        let setting = word.trim_start_matches("-c").trim_start_matches("--").trim_start();
        setting.split_once('=').is_some_and(|(name, _)| {
            ["role", "session_authorization"].contains(&name.replace('-', "_").to_ascii_lowercase().as_str())
        })
    })
}

/// The path that a startup packet's options name: `-c search_path=a,b`, `--search_path=a`.
fn initial_path(options: Option<&str>) -> SearchPath {
    let Some(options) = options else { return SearchPath::Initial };
    let mut path = SearchPath::Initial;
    for word in split(options) {
        let setting = word.trim_start_matches("-c").trim_start_matches("--").trim_start();
        if let Some((name, value)) = setting.split_once('=')
            && name.replace('-', "_").eq_ignore_ascii_case("search_path")
        {
            path = SearchPath::parse(value);
        }
    }
    path
}

/// Words of the startup packet's options: a backslash takes the next character as it is.
fn split(options: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        let taken = match c {
            '\\' => chars.next(),
            c if c.is_ascii_whitespace() => None,
            c => Some(c),
        };
        match (taken, words.last_mut()) {
            (Some(c), Some(word)) => word.push(c),
            _ => words.push(String::new()),
        }
    }
    words
}

/// Whether a server of this version reads by the grammar that guard has: PostgreSQL itself, and none too new.
pub(crate) fn is_known_version(version: &str) -> bool {
    let number = version.split(' ').next().unwrap_or("");
    let mut parts = number.split('.');
    let major = parts.next().and_then(|major| major.parse::<u32>().ok());
    let minor = parts.next().map(|minor| minor.parse::<u32>().is_ok());
    // Other servers of the same protocol have versions of three parts.
    major.is_some_and(|major| (OLDEST..=NEWEST).contains(&major))
        && minor == Some(true)
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Classifier, Limits};

    fn run(settings: &mut Settings, text: &str, transaction: TransactionStatus) {
        let statement = Classifier::new(Limits::default()).classify(text.as_bytes(), &Modes::default());
        settings.sent(&statement);
        settings.ready(transaction, true);
    }

    fn path(names: &str) -> SearchPath {
        SearchPath::parse(names)
    }

    const IDLE: TransactionStatus = TransactionStatus::Idle;
    const IN: TransactionStatus = TransactionStatus::Active;

    #[test]
    fn a_path_holds_once_it_is_confirmed_and_both_count_until_then() {
        let mut settings = Settings::new("app", None, None);
        let statement =
            Classifier::new(Limits::default()).classify(b"set search_path = hr", &Modes::default());
        assert!(settings.sent(&statement));
        assert_eq!(*settings.search_path(), path("public, hr"));
        assert!(settings.ready(IDLE, true));
        assert_eq!(*settings.search_path(), path("hr"));
        run(&mut settings, "reset all", IDLE);
        assert_eq!(*settings.search_path(), SearchPath::Initial);
    }

    #[test]
    fn what_is_undone_may_hold_again() {
        let mut settings = Settings::new("app", None, None);
        run(&mut settings, "begin", IN);
        run(&mut settings, "set search_path = hr", IN);
        assert_eq!(*settings.search_path(), path("hr"));
        run(&mut settings, "rollback", IDLE);
        assert_eq!(*settings.search_path(), path("public, hr"));
        run(&mut settings, "set search_path = b", IDLE);
        assert_eq!(*settings.search_path(), path("b"));
        let statement =
            Classifier::new(Limits::default()).classify(b"set search_path = c", &Modes::default());
        settings.sent(&statement);
        settings.failed();
        settings.ready(IDLE, true);
        assert_eq!(*settings.search_path(), path("b, c"));
    }

    #[test]
    fn a_local_path_ends_with_its_transaction() {
        let mut settings = Settings::new("app", None, None);
        run(&mut settings, "begin", IN);
        run(&mut settings, "set local search_path = hr", IN);
        assert_eq!(*settings.search_path(), path("hr"));
        run(&mut settings, "commit", IDLE);
        assert_eq!(*settings.search_path(), SearchPath::Initial);
    }

    #[test]
    fn what_functions_set_is_not_known() {
        let mut settings = Settings::new("app", None, None);
        run(&mut settings, "select set_config('search_path', 'hr', false)", IDLE);
        assert_eq!(*settings.search_path(), SearchPath::Unknown);
        settings.reported(b"search_path", "hr");
        assert_eq!(*settings.search_path(), path("hr"));
    }

    #[test]
    fn options_of_the_startup_packet_count() {
        let begun = |options| Settings::new("app", Some(options), None).path.now().clone();
        assert_eq!(begun("-c search_path=hr,b"), path("hr, b"));
        assert_eq!(begun("-csearch_path=hr"), path("hr"));
        assert_eq!(begun("-c work_mem=1 --search-path=hr,\\ b"), path("hr, b"));
        assert_eq!(begun("-c geqo=off"), SearchPath::Initial);
        assert_eq!(*Settings::new("app", Some("-c search_path=a"), Some("hr")).search_path(), path("hr"));
    }

    #[test]
    fn roles_are_followed_through_transactions() {
        let mut settings = Settings::new("app", None, None);
        let names = |settings: &Settings| settings.roles().names().join(" ");
        assert_eq!(names(&settings), "app");
        let statement = Classifier::new(Limits::default()).classify(b"set role dba", &Modes::default());
        settings.sent(&statement);
        assert_eq!(names(&settings), "app dba", "until the server has answered");
        settings.ready(IDLE, true);
        assert_eq!(names(&settings), "dba");
        run(&mut settings, "reset role", IDLE);
        assert_eq!(names(&settings), "app");
        run(&mut settings, "begin", IN);
        run(&mut settings, "set local role 'dba'", IN);
        assert_eq!(names(&settings), "dba");
        run(&mut settings, "commit", IDLE);
        assert_eq!(names(&settings), "app");
        run(&mut settings, "set session authorization bob", IDLE);
        run(&mut settings, "set role x", IDLE);
        assert_eq!(names(&settings), "x");
        run(&mut settings, "set role none", IDLE);
        assert_eq!(
            names(&settings),
            "app bob",
            "who the session belongs to now is not followed through rollbacks"
        );
        run(&mut settings, "discard all", IDLE);
        assert_eq!(names(&settings), "app");
        run(&mut settings, "select set_config('role', 'dba', false)", IDLE);
        assert_eq!(names(&settings), "*");
    }

    #[test]
    fn a_role_in_the_options_is_any() {
        assert_eq!(*Settings::new("app", Some("-c role=dba"), None).roles(), Roles::Any);
    }

    #[test]
    fn a_lasting_change_outlives_a_local_one() {
        let mut settings = Settings::new("app", None, None);
        run(&mut settings, "begin", IN);
        run(&mut settings, "set role a", IN);
        run(&mut settings, "set local role b", IN);
        run(&mut settings, "commit", IDLE);
        assert_eq!(settings.roles().names(), ["a"]);
    }

    #[test]
    fn an_encoding_under_way_is_not_guessed() {
        let mut settings = Settings::new("app", None, None);
        settings.reported(b"client_encoding", "SJIS");
        let set =
            Classifier::new(Limits::default()).classify(b"set client_encoding = 'GBK'", &Modes::default());
        assert!(settings.sent(&set));
        assert_eq!(settings.modes().client_encoding, Encoding::Other);
        settings.reported(b"client_encoding", "GBK");
        settings.ready(IDLE, true);
        assert_eq!(settings.modes().client_encoding, Encoding::named("GBK"));
    }

    #[test]
    fn only_versions_of_the_grammar_are_trusted_with_errors() {
        for known in ["13.22", "15.14 (Debian 15.14-0+deb12u1)", "18.1"] {
            assert!(is_known_version(known), "{known}");
        }
        for other in ["19.0", "12.3", "19beta1", "13.0.0", "", "9.6.24"] {
            assert!(!is_known_version(other), "{other}");
        }
    }
}
