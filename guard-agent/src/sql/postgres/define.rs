//! CREATE, ALTER and DROP enter, their effects leave.

use guard_policy::vocabulary::{Action, Object, ObjectKind};

use super::cursor::{Cursor, Name};
use super::statement::Reader;

/// Moves over the words that name a kind of object. [`ObjectKind::Other`] for the rarer ones.
pub fn object_kind(cursor: &mut Cursor<'_>) -> Option<ObjectKind> {
    const KINDS: [(&[&str], ObjectKind); 47] = [
        (&["foreign", "data", "wrapper"], ObjectKind::Other),
        (&["foreign", "table"], ObjectKind::Table),
        (&["materialized", "view"], ObjectKind::MaterializedView),
        (&["event", "trigger"], ObjectKind::Trigger),
        (&["constraint", "trigger"], ObjectKind::Trigger),
        (&["unique", "index"], ObjectKind::Index),
        (&["user", "mapping"], ObjectKind::Other),
        (&["large", "object"], ObjectKind::Other),
        (&["access", "method"], ObjectKind::Other),
        (&["trusted", "procedural", "language"], ObjectKind::Other),
        (&["trusted", "language"], ObjectKind::Other),
        (&["procedural", "language"], ObjectKind::Other),
        (&["operator", "class"], ObjectKind::Other),
        (&["operator", "family"], ObjectKind::Other),
        (&["default", "conversion"], ObjectKind::Other),
        (&["text", "search", "configuration"], ObjectKind::Other),
        (&["text", "search", "dictionary"], ObjectKind::Other),
        (&["text", "search", "parser"], ObjectKind::Other),
        (&["text", "search", "template"], ObjectKind::Other),
        (&["table"], ObjectKind::Table),
        (&["view"], ObjectKind::View),
        (&["index"], ObjectKind::Index),
        (&["sequence"], ObjectKind::Sequence),
        (&["column"], ObjectKind::Column),
        (&["schema"], ObjectKind::Schema),
        (&["database"], ObjectKind::Database),
        (&["function"], ObjectKind::Function),
        (&["procedure"], ObjectKind::Function),
        (&["routine"], ObjectKind::Function),
        (&["aggregate"], ObjectKind::Function),
        (&["type"], ObjectKind::Type),
        (&["domain"], ObjectKind::Type),
        (&["trigger"], ObjectKind::Trigger),
        (&["rule"], ObjectKind::Trigger),
        (&["policy"], ObjectKind::Trigger),
        (&["role"], ObjectKind::Role),
        (&["user"], ObjectKind::Role),
        (&["group"], ObjectKind::Role),
        (&["extension"], ObjectKind::Extension),
        (&["tablespace"], ObjectKind::Tablespace),
        (&["language"], ObjectKind::Other),
        (&["server"], ObjectKind::Other),
        (&["publication"], ObjectKind::Other),
        (&["subscription"], ObjectKind::Other),
        (&["statistics"], ObjectKind::Other),
        (&["collation"], ObjectKind::Other),
        (&["conversion"], ObjectKind::Other),
    ];
    if let Some((_, kind)) = KINDS.iter().find(|(words, _)| cursor.accept_all(words)) {
        return Some(*kind);
    }
    cursor
        .accept_any(&["cast", "transform", "operator", "assertion", "constraint"])
        .then_some(ObjectKind::Other)
}

/// What may follow the query of a view or of CREATE TABLE AS.
const VIEW_ENDINGS: [&[&str]; 5] = [
    &["with", "no", "data"],
    &["with", "data"],
    &["with", "cascaded", "check", "option"],
    &["with", "local", "check", "option"],
    &["with", "check", "option"],
];

/// What else it means to define or remove an object of the kind that begins with these words.
fn side_effect(first: &str, second: &str) -> Option<(Action, ObjectKind)> {
    match (first, second) {
        ("publication" | "subscription", _) => Some((Action::Replicate, ObjectKind::Server)),
        ("server", _) | ("user", "mapping") | ("foreign", _) => Some((Action::Outbound, ObjectKind::Server)),
        ("language" | "trusted" | "procedural", _) => Some((Action::Load, ObjectKind::Server)),
        _ => None,
    }
}

impl<'a> Reader<'a> {
    /// DROP.
    pub fn drop(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        cursor.take();
        if cursor.accept("owned") {
            self.findings.add_any(Action::Drop, ObjectKind::Unknown);
            return Some(());
        }
        if let Some((Action::Replicate, kind)) = side_effect(cursor.word(), cursor.word_at(1)) {
            self.findings.add_any(Action::Replicate, kind);
        }
        let kind = object_kind(cursor)?;
        cursor.accept("concurrently");
        cursor.accept_if_exists();
        let read = match kind {
            ObjectKind::Other => None,
            ObjectKind::Role => return self.roles(cursor, Action::Role),
            ObjectKind::Trigger => self.attached(cursor, Action::Drop),
            _ => self.names(cursor, |name| (Action::Drop, name.object(kind))),
        };
        match (read, kind) {
            (Some(()), _) => {}
            (None, ObjectKind::Other) => match cursor.name() {
                Some(name) => self.findings.add(Action::Drop, name.object(kind)),
                None => self.findings.add_any(Action::Drop, kind),
            },
            (None, _) => return None,
        }
        if cursor.contains("cascade") {
            // And whatever depends on it.
            self.findings.add_any(Action::Drop, ObjectKind::Unknown);
        }
        Some(())
    }

    /// A trigger, rule or policy: it and the table that it is attached to.
    fn attached(&mut self, cursor: &mut Cursor<'a>, action: Action) -> Option<()> {
        let name = cursor.name()?;
        self.findings.add(action, name.object(ObjectKind::Trigger));
        let mut ahead = *cursor;
        if ahead.skip_behind(&["on"]).is_some()
            && let Some(table) = ahead.table()
        {
            self.findings.add(Action::Alter, table.object(ObjectKind::Table));
        }
        Some(())
    }

    /// CREATE.
    pub fn create(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        cursor.take();
        cursor.accept_all(&["or", "replace"]);
        while cursor.accept_any(&["global", "local", "temporary", "temp", "unlogged", "recursive"]) {}
        let (first, second) = (cursor.word(), cursor.word_at(1));
        if let Some((action, kind)) = side_effect(first, second) {
            self.findings.add_any(action, kind);
        }
        let mut kind = object_kind(cursor)?;
        if first == "foreign" && second == "table" {
            kind = ObjectKind::Table;
        }
        cursor.accept("concurrently");
        cursor.accept_if_exists();
        match kind {
            ObjectKind::Table | ObjectKind::View | ObjectKind::MaterializedView => {
                self.create_table(cursor, kind)
            }
            ObjectKind::Trigger => match first {
                "rule" => self.create_rule(cursor),
                "event" => self.created(cursor, kind),
                _ => self.attached(cursor, Action::Create),
            },
            ObjectKind::Role => self.roles(cursor, Action::Role),
            ObjectKind::Schema => self.create_schema(cursor),
            ObjectKind::Function => self.create_function(cursor),
            ObjectKind::Index => self.create_index(cursor),
            ObjectKind::Extension => {
                self.findings.add_any(Action::Load, ObjectKind::Server);
                self.created(cursor, kind)
            }
            ObjectKind::Column => None,
            _ => self.created(cursor, kind),
        }
    }

    fn created(&mut self, cursor: &mut Cursor<'a>, kind: ObjectKind) -> Option<()> {
        match cursor.name() {
            Some(name) => self.findings.add(Action::Create, name.object(kind)),
            // CREATE CAST (..), CREATE OPERATOR @@ (..).
            None if kind == ObjectKind::Other => self.findings.add_any(Action::Create, kind),
            None => return None,
        }
        Some(())
    }

    /// CREATE TABLE, with or without a query; views.
    fn create_table(&mut self, cursor: &mut Cursor<'a>, kind: ObjectKind) -> Option<()> {
        self.created(cursor, kind)?;
        let mut ahead = *cursor;
        if ahead.skip_behind(&["as"]).is_none() {
            return Some(());
        }
        if ahead.word() == "execute" {
            return self.execute(&mut ahead);
        }
        for ending in VIEW_ENDINGS {
            if ahead.drop_ending(ending) {
                break;
            }
        }
        // `CREATE TABLE t (c int GENERATED ALWAYS AS ..)` has its AS in parentheses; here only a query can follow.
        self.inner_query(&ahead)
    }

    /// The actions of a rule run later, for whoever touches the table: they count as if they ran now.
    fn create_rule(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        let name = cursor.name()?;
        self.findings.add(Action::Create, name.object(ObjectKind::Trigger));
        cursor.skip_behind(&["to"])?;
        let table = cursor.name()?;
        self.findings.add(Action::Alter, table.object(ObjectKind::Table));
        cursor.skip_behind(&["do"])?;
        cursor.accept_any(&["also", "instead"]);
        if cursor.word() == "nothing" {
            return Some(());
        }
        let mut ahead = *cursor;
        match ahead.parenthesis() {
            // `DO (SELECT ..) UNION ..`: one query that begins with a parenthesis.
            Some(actions) if ahead.is_done() => {
                super::statement::statements(actions).into_iter().for_each(|action| self.statement(action));
            }
            _ => self.statement(cursor.rest()),
        }
        Some(())
    }

    /// CREATE SCHEMA, with the statements that it may hold.
    fn create_schema(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        if cursor.accept("authorization") {
            let role = cursor.role()?;
            self.findings.add(Action::Create, Object::named(ObjectKind::Schema, None, role));
        } else {
            self.created(cursor, ObjectKind::Schema)?;
            if cursor.accept("authorization") {
                cursor.role()?;
            }
        }
        if cursor.is_done() {
            return Some(());
        }
        let rest = cursor.rest();
        let is_start = |index: usize| {
            let ahead = Cursor::new(self.lexed, rest.get(index..).unwrap_or(&[]));
            matches!(ahead.word(), "create" | "grant")
        };
        let mut starts: Vec<usize> = (0..rest.len()).filter(|&index| is_start(index)).collect();
        if starts.first() != Some(&0) {
            return None;
        }
        starts.push(rest.len());
        for pair in starts.windows(2) {
            if let [from, to] = pair {
                self.statement(rest.get(*from..*to).unwrap_or(&[]));
            }
        }
        Some(())
    }

    fn create_function(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        self.created(cursor, ObjectKind::Function)?;
        if !self.trusted_language(*cursor) {
            self.findings.add_any(Action::Load, ObjectKind::Server);
        }
        Some(())
    }

    /// No language named, or one whose code can't leave the database.
    pub fn trusted_language(&self, cursor: Cursor<'a>) -> bool {
        let mut cursor = cursor;
        while cursor.skip_behind(&["language"]).is_some() {
            let language = cursor.literal().or_else(|| cursor.identifier()).unwrap_or("");
            if !matches!(
                language.to_ascii_lowercase().as_str(),
                "sql" | "plpgsql" | "plperl" | "pltcl" | "plv8"
            ) {
                return false;
            }
        }
        true
    }

    fn create_index(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        let named = cursor.word() != "on";
        match named.then(|| cursor.name()) {
            Some(name) => self.findings.add(Action::Create, name?.object(ObjectKind::Index)),
            None => self.findings.add_any(Action::Create, ObjectKind::Index),
        }
        if !cursor.accept("on") {
            return None;
        }
        cursor.table()?;
        if cursor.accept("using") {
            cursor.identifier()?;
        }
        // Expressions of an index run for every row.
        self.scan_calls(cursor.rest());
        Some(())
    }

    /// ALTER.
    pub fn alter(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        cursor.take();
        if cursor.accept("system") {
            cursor.accept_any(&["set", "reset"]);
            let name = if cursor.accept("all") { None } else { cursor.name() };
            self.findings.add(
                Action::Configure,
                match name {
                    Some(name) => name.object(ObjectKind::Setting),
                    None => Object::any(ObjectKind::Setting),
                },
            );
            return Some(());
        }
        if cursor.accept_all(&["default", "privileges"]) {
            let action = match cursor.skip_behind(&["grant", "revoke"])? {
                "grant" => Action::Grant,
                _ => Action::Revoke,
            };
            self.findings.add_any(action, ObjectKind::Other);
            return Some(());
        }
        let (first, second) = (cursor.word(), cursor.word_at(1));
        if let Some((action, kind)) = side_effect(first, second)
            && !(first == "foreign" && second == "table")
        {
            self.findings.add_any(action, kind);
        }
        let kind = object_kind(cursor)?;
        let all = cursor.accept("all");
        cursor.accept_if_exists();
        match kind {
            ObjectKind::Role => {
                let object = if all { Object::any(kind) } else { Object::named(kind, None, cursor.role()?) };
                self.findings.add(Action::Role, object);
            }
            _ if all => self.findings.add_any(Action::Alter, kind),
            ObjectKind::Trigger => self.attached(cursor, Action::Alter)?,
            ObjectKind::Table => {
                let table = cursor.table()?;
                self.alter_table(*cursor, table);
            }
            ObjectKind::Other => {
                let object = cursor.name().map_or_else(|| Object::any(kind), |name| name.object(kind));
                self.findings.add(Action::Alter, object);
                self.change_owner(cursor, Object::any(kind));
            }
            _ => {
                let name = cursor.name()?;
                cursor.parenthesis();
                if kind == ObjectKind::Extension {
                    self.findings.add_any(Action::Load, ObjectKind::Server);
                }
                self.findings.add(Action::Alter, name.object(kind));
                self.change_owner(cursor, name.object(kind));
                self.scan_defaults(cursor);
            }
        }
        Some(())
    }

    fn alter_table(&mut self, cursor: Cursor<'a>, table: Name<'a>) {
        self.findings.add(Action::Alter, table.object(ObjectKind::Table));
        for mut action in cursor.items() {
            if action.accept_all(&["owner", "to"]) {
                self.findings.add(Action::Role, table.object(ObjectKind::Table));
            } else if action.accept("drop") {
                let constraint =
                    action.word() == "constraint" && !action.is_done() && action.peek(1).is_some();
                if constraint {
                    continue;
                }
                if action.peek(1).is_some() {
                    action.accept("column");
                }
                action.accept_if_exists();
                let column = format!("{}.{}", table.name, action.identifier().unwrap_or("*"));
                self.findings.add(Action::Drop, Object::named(ObjectKind::Column, table.schema, &column));
                if action.accept("cascade") {
                    self.findings.add_any(Action::Drop, ObjectKind::Unknown);
                }
            } else if action.accept_any(&["attach", "detach"]) && action.accept("partition") {
                if let Some(partition) = action.name() {
                    self.findings.add(Action::Alter, partition.object(ObjectKind::Table));
                }
            } else {
                self.scan_defaults(&action);
            }
        }
    }

    /// Expressions that run at once: defaults of new columns, conversions, checks.
    fn scan_defaults(&mut self, action: &Cursor<'a>) {
        let mut ahead = *action;
        if ahead.skip_behind(&["default", "using", "check", "as"]).is_some() {
            self.scan_calls(ahead.rest());
        }
    }

    fn change_owner(&mut self, cursor: &Cursor<'a>, object: Object) {
        let mut ahead = *cursor;
        if ahead.skip_behind(&["owner"]).is_some() && ahead.word() == "to" {
            self.findings.add(Action::Role, object);
        }
    }
}
