//! Statements that rule rights, settings, transactions and upkeep enter, their effects leave.

use guard_policy::vocabulary::{Action, Object, ObjectKind};

use super::calls;
use super::cursor::Cursor;
use super::lexer::Kind;
use super::statement::{Reader, starts_query};
use crate::sql::{Change, Prepared, SearchPath};

/// What of a session another role takes.
#[derive(Clone, Copy, Debug)]
enum Assumed {
    /// The rights: `SET ROLE`.
    Role,
    /// The whole session: `SET SESSION AUTHORIZATION`.
    Authorization,
}

impl Assumed {
    fn change(self, to: Option<String>, local: bool) -> Change {
        match self {
            Self::Role => Change::Role { to, local },
            Self::Authorization => Change::Authorization { to, local },
        }
    }
}

impl<'a> Reader<'a> {
    /// Everything that is neither a query nor a definition; `None` where the first word is none of PostgreSQL's.
    pub fn administer(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        let verb = cursor.word();
        cursor.take();
        match verb {
            "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => {
                self.findings.add_any(Action::Transaction, ObjectKind::Session);
                if matches!(verb, "rollback" | "abort") && cursor.word() != "prepared" {
                    self.findings.changes.push(Change::Rollback);
                }
            }
            "set" => self.set(cursor)?,
            "reset" => self.reset(cursor)?,
            "show" => self.show(cursor)?,
            "listen" | "unlisten" | "notify" | "close" | "fetch" | "move" => {
                self.findings.add_any(Action::Session, ObjectKind::Session);
            }
            "discard" => {
                self.findings.add_any(Action::Session, ObjectKind::Session);
                if cursor.accept("all") {
                    // Resets the role and all settings too.
                    self.findings.add_any(Action::Set, ObjectKind::Setting);
                    self.findings.changes.push(Change::path_reset());
                    self.findings.changes.push(Change::Authorization { to: None, local: false });
                    self.findings.prepared.push(Prepared::DeallocateAll);
                }
            }
            "truncate" => self.truncate(cursor)?,
            "lock" => self.lock(cursor)?,
            "grant" => self.grant(cursor, Action::Grant)?,
            "revoke" => self.grant(cursor, Action::Revoke)?,
            "reassign" => {
                self.findings.add_any(Action::Role, ObjectKind::Unknown);
            }
            "load" => self.findings.add_any(Action::Load, ObjectKind::Server),
            "vacuum" | "analyze" | "analyse" | "cluster" | "reindex" | "refresh" | "checkpoint" => {
                self.maintain(cursor, verb)?;
            }
            "comment" | "security" => self.comment(cursor)?,
            "import" => {
                self.findings.add_any(Action::Outbound, ObjectKind::Server);
                self.findings.add_any(Action::Create, ObjectKind::Table);
            }
            _ => return None,
        }
        Some(())
    }

    fn set(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        // `SET session_authorization`: one word; `SET SESSION AUTHORIZATION`: two.
        let local = cursor.word() == "local";
        let scoped = !matches!(cursor.peek(1).map(|token| token.kind), Some(Kind::Op | Kind::Dot))
            && cursor.word_at(1) != "to"
            && cursor.accept_any(&["session", "local"]);
        if scoped && matches!(cursor.word_at(1), "authorization" | "characteristics") {
            // `SET LOCAL SESSION AUTHORIZATION`: the first word is only the scope.
            cursor.accept("session");
        }
        match cursor.word() {
            "transaction" | "constraints" => self.findings.add_any(Action::Transaction, ObjectKind::Session),
            "characteristics" if scoped => self.findings.add_any(Action::Transaction, ObjectKind::Session),
            "authorization" if scoped => {
                cursor.take();
                self.assume(cursor, Assumed::Authorization, local);
            }
            "role" => {
                cursor.take();
                if !cursor.accept("to") {
                    cursor.accept_op("=");
                }
                self.assume(cursor, Assumed::Role, scoped && local);
            }
            "time" if cursor.word_at(1) == "zone" => self.setting("timezone"),
            "xml" => self.setting("xmloption"),
            "names" => self.setting("client_encoding"),
            "schema" => {
                self.setting("search_path");
                cursor.take();
                self.path(cursor, scoped && local);
            }
            "catalog" => return None,
            _ => {
                let name = cursor.name()?;
                let setting = name
                    .schema
                    .map_or_else(|| name.name.to_owned(), |schema| format!("{schema}.{}", name.name));
                if !(cursor.accept("to") || cursor.accept_op("=") || cursor.accept_all(&["from", "current"]))
                {
                    return None;
                }
                match setting.to_ascii_lowercase().as_str() {
                    "role" => self.assume(cursor, Assumed::Role, scoped && local),
                    "session_authorization" => self.assume(cursor, Assumed::Authorization, scoped && local),
                    "search_path" => {
                        calls::set(&mut self.findings, Some(&setting));
                        self.path(cursor, scoped && local);
                    }
                    _ => calls::set(&mut self.findings, Some(&setting)),
                }
            }
        }
        Some(())
    }

    /// The schemas that a new search path names.
    fn path(&mut self, cursor: &mut Cursor<'a>, local: bool) {
        if cursor.word() == "default" {
            return self.findings.changes.push(Change::path_reset());
        }
        let mut schemas = Vec::new();
        while let Some(schema) = cursor.literal().or_else(|| cursor.identifier()) {
            schemas.push(schema.to_owned());
            cursor.accept_kind(Kind::Comma);
        }
        let to = if cursor.is_done() { SearchPath::of(schemas) } else { SearchPath::Unknown };
        self.findings.changes.push(Change::Path { to, local });
    }

    fn setting(&mut self, name: &str) {
        self.findings.add(Action::Set, Object::named(ObjectKind::Setting, None, name));
    }

    /// The role that follows, as a name or a literal; `NONE` and `DEFAULT` are the session's own again.
    fn assume(&mut self, cursor: &mut Cursor<'a>, what: Assumed, local: bool) {
        let own = matches!((what, cursor.word()), (_, "default") | (Assumed::Role, "none"));
        let literal = cursor.literal();
        let own = own || (matches!(what, Assumed::Role) && literal == Some("none"));
        let role = literal.or_else(|| cursor.role()).unwrap_or("*");
        self.findings.add(Action::Assume, Object::named(ObjectKind::Role, None, role));
        let to = if own { None } else { Some(role.to_owned()) };
        self.findings.changes.push(what.change(to, local));
    }

    fn reset(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        match cursor.word() {
            "all" => {
                self.findings.add_any(Action::Set, ObjectKind::Setting);
                self.findings.changes.push(Change::path_reset());
            }
            "role" => self.assume_default(Assumed::Role),
            "session" if cursor.word_at(1) == "authorization" => self.assume_default(Assumed::Authorization),
            "time" => self.setting("timezone"),
            "transaction" => self.findings.add_any(Action::Transaction, ObjectKind::Session),
            _ => {
                let name = cursor.name()?;
                let setting = name
                    .schema
                    .map_or_else(|| name.name.to_owned(), |schema| format!("{schema}.{}", name.name));
                if setting.eq_ignore_ascii_case("search_path") {
                    self.findings.changes.push(Change::path_reset());
                }
                calls::set(&mut self.findings, Some(&setting));
            }
        }
        Some(())
    }

    fn assume_default(&mut self, what: Assumed) {
        self.findings.add(Action::Assume, Object::named(ObjectKind::Role, None, "default"));
        self.findings.changes.push(what.change(None, false));
    }

    fn show(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        let setting = match cursor.word() {
            "time" if cursor.word_at(1) == "zone" => "timezone".to_owned(),
            "transaction" => "transaction_isolation".to_owned(),
            "session" if cursor.word_at(1) == "authorization" => "session_authorization".to_owned(),
            "all" => "*".to_owned(),
            _ => {
                let name = cursor.name()?;
                name.schema.map_or_else(|| name.name.to_owned(), |schema| format!("{schema}.{}", name.name))
            }
        };
        self.findings
            .add(Action::Show, Object::named(ObjectKind::Setting, None, &setting.to_ascii_lowercase()));
        Some(())
    }

    fn truncate(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        if matches!(cursor.peek(1).map(|token| token.kind), Some(Kind::Word | Kind::Quoted)) {
            cursor.accept("table");
        }
        loop {
            let table = cursor.table()?;
            self.findings.add(Action::Truncate, table.object(ObjectKind::Table));
            if !cursor.accept_kind(Kind::Comma) {
                break;
            }
        }
        if cursor.contains("cascade") {
            // And every table that refers to them.
            self.findings.add_any(Action::Truncate, ObjectKind::Table);
        }
        Some(())
    }

    fn lock(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        cursor.accept("table");
        loop {
            let table = cursor.table()?;
            self.findings.add(Action::Lock, table.object(ObjectKind::Table));
            if !cursor.accept_kind(Kind::Comma) {
                return Some(());
            }
        }
    }

    /// GRANT and REVOKE: behind ON stand objects, without ON the first list is of roles.
    pub fn grant(&mut self, cursor: &mut Cursor<'a>, action: Action) -> Option<()> {
        let mut ahead = *cursor;
        match ahead.skip_behind(&["on", "to", "from"])? {
            "on" => self.granted_objects(&mut ahead, action),
            _ => {
                if cursor.word_at(1) == "option" && cursor.word_at(2) == "for" {
                    cursor.accept_any(&["admin", "inherit", "set"]);
                    cursor.accept_all(&["option", "for"]);
                }
                self.roles(cursor, action)
            }
        }
    }

    fn granted_objects(&mut self, cursor: &mut Cursor<'a>, action: Action) -> Option<()> {
        if cursor.accept("all") {
            let kind = match cursor.word() {
                "tables" => ObjectKind::Table,
                "sequences" => ObjectKind::Sequence,
                _ => ObjectKind::Function,
            };
            cursor.take();
            if !cursor.accept_all(&["in", "schema"]) {
                return None;
            }
            return self.names(cursor, |name| (action, Object::named(kind, Some(name.name), "*")));
        }
        if cursor.accept_all(&["large", "object"]) {
            self.findings.add_any(action, ObjectKind::Other);
            return Some(());
        }
        let kind = self.granted_kind(cursor);
        self.names(cursor, |name| (action, name.object(kind)))
    }

    fn granted_kind(&self, cursor: &mut Cursor<'a>) -> ObjectKind {
        // `ON domain TO ..`: a table of that name.
        if matches!(cursor.word_at(1), "to" | "from")
            || matches!(cursor.peek(1).map(|token| token.kind), Some(Kind::Comma | Kind::Dot))
        {
            return ObjectKind::Table;
        }
        if cursor.accept_all(&["foreign", "data", "wrapper"]) || cursor.accept_all(&["foreign", "server"]) {
            return ObjectKind::Other;
        }
        let kind = match cursor.word() {
            "table" => ObjectKind::Table,
            "sequence" => ObjectKind::Sequence,
            "database" => ObjectKind::Database,
            "schema" => ObjectKind::Schema,
            "function" | "procedure" | "routine" => ObjectKind::Function,
            "type" | "domain" => ObjectKind::Type,
            "tablespace" => ObjectKind::Tablespace,
            "parameter" => ObjectKind::Setting,
            "language" => ObjectKind::Other,
            _ => return ObjectKind::Table,
        };
        cursor.take();
        kind
    }

    fn maintain(&mut self, cursor: &mut Cursor<'a>, verb: &str) -> Option<()> {
        let kind = match verb {
            "checkpoint" => {
                self.findings.add_any(Action::Maintain, ObjectKind::Server);
                return Some(());
            }
            "refresh" => {
                if !cursor.accept_all(&["materialized", "view"]) {
                    return None;
                }
                ObjectKind::MaterializedView
            }
            "reindex" => {
                cursor.parenthesis();
                let kind = match cursor.word() {
                    "table" => ObjectKind::Table,
                    "index" => ObjectKind::Index,
                    "schema" => ObjectKind::Schema,
                    "database" | "system" => ObjectKind::Database,
                    _ => return None,
                };
                cursor.take();
                kind
            }
            _ => {
                cursor.parenthesis();
                while cursor.accept_any(&["full", "freeze", "verbose", "analyze", "analyse"]) {}
                ObjectKind::Table
            }
        };
        cursor.accept("concurrently");
        if cursor.is_done() {
            self.findings.add_any(Action::Maintain, kind);
            return Some(());
        }
        loop {
            let name = cursor.table()?;
            self.findings.add(Action::Maintain, name.object(kind));
            cursor.parenthesis();
            if !cursor.accept_kind(Kind::Comma) {
                return Some(());
            }
        }
    }

    fn comment(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        cursor.skip_behind(&["on"])?;
        match super::define::object_kind(cursor) {
            Some(kind) if kind != ObjectKind::Other => match cursor.name() {
                Some(name) if kind == ObjectKind::Column => {
                    let column = format!("{}.{}", name.schema.unwrap_or("*"), name.name);
                    self.findings.add(Action::Comment, Object::named(kind, None, &column));
                }
                Some(name) => self.findings.add(Action::Comment, name.object(kind)),
                None => self.findings.add_any(Action::Comment, kind),
            },
            _ => self.findings.add_any(Action::Comment, ObjectKind::Other),
        }
        Some(())
    }

    /// A list of names, each with its effect; argument lists of functions are passed over.
    pub fn names(
        &mut self,
        cursor: &mut Cursor<'a>,
        effect: impl Fn(super::cursor::Name<'a>) -> (Action, Object),
    ) -> Option<()> {
        loop {
            let name = cursor.name()?;
            let (action, object) = effect(name);
            self.findings.add(action, object);
            cursor.parenthesis();
            if !cursor.accept_kind(Kind::Comma) {
                return Some(());
            }
        }
    }

    /// A list of roles, each with that effect.
    pub fn roles(&mut self, cursor: &mut Cursor<'a>, action: Action) -> Option<()> {
        loop {
            let role = cursor.role()?;
            self.findings.add(action, Object::named(ObjectKind::Role, None, role));
            if !cursor.accept_kind(Kind::Comma) {
                return Some(());
            }
        }
    }

    /// A query that follows here: its effects, were it to run.
    pub fn inner_query(&mut self, cursor: &Cursor<'a>) -> Option<()> {
        if starts_query(cursor) {
            self.statement(cursor.rest());
            return Some(());
        }
        None
    }
}
