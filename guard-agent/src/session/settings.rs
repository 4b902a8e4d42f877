//! What a session's settings say about how its statements are read: reports of the server and statements that it was
//! sent enter, modes and search path leave.
//!
//! What is under way may or may not have taken effect: until the server has answered, old and new both count. The server
//! reports encodings and the kind of literals in every version, the search path from version 18 on.

use guard_policy::vocabulary::{Action, ObjectKind};

use crate::{
    sql::{Change, Encoding, Modes, SearchPath, Statement},
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
    /// What the session began with, as far as it is known.
    initial: SearchPath,
    /// What may be in force.
    path: SearchPath,
    /// What is in force if all that is under way succeeds.
    next: SearchPath,
    /// What holds again when the transaction is undone.
    committed: SearchPath,
    /// Everything that was in force since the transaction began.
    seen: SearchPath,
    /// The transaction's end takes `next` along.
    local: bool,
    /// Something failed or was rolled back since the transaction began.
    undone: bool,
    /// A change is under way.
    moving: bool,
}

impl Settings {
    /// The settings of a session that begins with these parameters of the startup packet.
    pub(super) fn new(options: Option<&str>, search_path: Option<&str>) -> Self {
        // The server takes up the options first.
        let initial = search_path.map_or_else(|| initial_path(options), SearchPath::parse);
        Self {
            // Until the server has said what it is.
            modes: Modes { grammar_known: false, ..Modes::default() },
            client_encoding: Encoding::Utf8,
            path: initial.clone(),
            next: initial.clone(),
            committed: initial.clone(),
            seen: initial.clone(),
            initial,
            local: false,
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
        &self.path
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
            b"search_path" => {
                let path = SearchPath::parse(value);
                // More may be under way behind what is reported.
                self.path = if self.moving { path.clone().or(&self.path) } else { path.clone() };
                self.next = path;
            }
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
                    self.path = self.path.clone().or(&self.seen);
                }
                Change::Path { to, local } => {
                    let to = if *to == SearchPath::Initial { self.initial.clone() } else { to.clone() };
                    self.local = *local;
                    self.moves(to);
                }
            }
        }
        if statement.effects.iter().all(|effect| effect.action != Action::Set) {
            return changed;
        }
        let sets = |setting: &str| {
            statement.effects.iter().any(|effect| {
                let object = &effect.object;
                effect.action == Action::Set
                    && object.kind == ObjectKind::Setting
                    && (object.name == setting || object.name == "*")
            })
        };
        let named = statement.changes.iter().any(|change| matches!(change, Change::Path { .. }));
        if sets("search_path") && !named {
            // By a function, or in code: to what is not said.
            self.local = false;
            self.moves(SearchPath::Unknown);
            changed = true;
        }
        if sets("client_encoding") {
            self.modes.client_encoding = Encoding::Other;
            self.moving = true;
            changed = true;
        }
        changed
    }

    fn moves(&mut self, to: SearchPath) {
        self.path = self.path.clone().or(&to);
        self.seen = self.seen.clone().or(&to);
        self.next = to;
        self.moving = true;
    }

    /// The server refused something.
    pub(super) fn failed(&mut self) {
        if self.moving || self.seen != self.committed {
            self.undone = true;
        }
    }

    /// The server waits for the next statement; true where that settles how it is read. `quiet`: nothing is under way.
    pub(super) fn ready(&mut self, transaction: TransactionStatus, quiet: bool) -> bool {
        let touched = self.moving || self.undone || self.seen != self.committed;
        if !quiet || !touched {
            return false;
        }
        self.moving = false;
        self.modes.client_encoding = self.client_encoding;
        if transaction != TransactionStatus::Idle {
            self.path = if self.undone { self.seen.clone().or(&self.next) } else { self.next.clone() };
            return true;
        }
        self.path = match (self.undone, self.local) {
            (true, _) => self.seen.clone().or(&self.committed),
            (false, true) => self.committed.clone(),
            (false, false) => self.next.clone(),
        };
        self.committed = self.path.clone();
        self.next = self.path.clone();
        self.seen = self.path.clone();
        (self.local, self.undone) = (false, false);
        true
    }
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
fn is_known_version(version: &str) -> bool {
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
        let mut settings = Settings::new(None, None);
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
        let mut settings = Settings::new(None, None);
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
        let mut settings = Settings::new(None, None);
        run(&mut settings, "begin", IN);
        run(&mut settings, "set local search_path = hr", IN);
        assert_eq!(*settings.search_path(), path("hr"));
        run(&mut settings, "commit", IDLE);
        assert_eq!(*settings.search_path(), SearchPath::Initial);
    }

    #[test]
    fn what_functions_set_is_not_known() {
        let mut settings = Settings::new(None, None);
        run(&mut settings, "select set_config('search_path', 'hr', false)", IDLE);
        assert_eq!(*settings.search_path(), SearchPath::Unknown);
        settings.reported(b"search_path", "hr");
        assert_eq!(*settings.search_path(), path("hr"));
    }

    #[test]
    fn options_of_the_startup_packet_count() {
        let begun = |options| Settings::new(Some(options), None).path;
        assert_eq!(begun("-c search_path=hr,b"), path("hr, b"));
        assert_eq!(begun("-csearch_path=hr"), path("hr"));
        assert_eq!(begun("-c work_mem=1 --search-path=hr,\\ b"), path("hr, b"));
        assert_eq!(begun("-c geqo=off"), SearchPath::Initial);
        assert_eq!(Settings::new(Some("-c search_path=a"), Some("hr")).path, path("hr"));
    }

    #[test]
    fn an_encoding_under_way_is_not_guessed() {
        let mut settings = Settings::new(None, None);
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
