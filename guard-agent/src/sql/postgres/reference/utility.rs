//! The tree of any statement enters, its effects leave, and whether they are all of them.
//!
//! Where it is not exact it still names the action: enough to contradict a reading that missed it.

use guard_policy::vocabulary::{Action, Object, ObjectKind};

use super::super::calls;
use super::definition;
use super::query::{self, is_query, object, table};
use super::tree::At;
use crate::sql::Prepared;
use crate::sql::effects::Findings;

/// Statements within statements beyond this are not followed.
const MAX_NESTING: usize = 16;

/// `DROP_CASCADE`.
pub const CASCADE: u64 = 2;

/// Adds the effects of one statement; false where there may be more than were found.
pub fn statement(at: At<'_>, findings: &mut Findings, depth: usize) -> bool {
    if depth > MAX_NESTING {
        findings.add_any(Action::Unreadable, ObjectKind::Unknown);
        return false;
    }
    if is_query(at) {
        query::read(at, findings);
        return true;
    }
    match at.name() {
        "ExplainStmt" => explain(at, findings, depth),
        "PrepareStmt" => {
            findings.add_any(Action::Session, ObjectKind::Session);
            findings.prepared.push(Prepared::Prepare(at.text("name").to_owned()));
            inner(at, "query", findings, depth)
        }
        "DeclareCursorStmt" => {
            findings.add_any(Action::Session, ObjectKind::Session);
            inner(at, "query", findings, depth)
        }
        "ExecuteStmt" => execute(at, findings),
        "DeallocateStmt" => {
            findings.add_any(Action::Session, ObjectKind::Session);
            findings.prepared.push(if at.flag("isall") {
                Prepared::DeallocateAll
            } else {
                Prepared::Deallocate(at.text("name").to_owned())
            });
            true
        }
        "CopyStmt" => copy(at, findings, depth),
        "CreateTableAsStmt" | "ViewStmt" => definition::stored_query(at, findings, depth),
        "CreateSchemaStmt" => definition::schema(at, findings, depth),
        _ => plain(at, findings) || definition::read(at, findings, depth),
    }
}

/// The statement under `field`.
pub fn inner(at: At<'_>, field: &'static str, findings: &mut Findings, depth: usize) -> bool {
    at.get(field).is_some_and(|inner| statement(inner, findings, depth + 1))
}

fn explain(at: At<'_>, findings: &mut Findings, depth: usize) -> bool {
    let off = |option: At<'_>| {
        option.get("arg").is_some_and(|arg| match arg.name() {
            "String" => matches!(arg.text("sval").to_ascii_lowercase().as_str(), "off" | "false"),
            "Boolean" => !arg.flag("boolval"),
            _ => false,
        })
    };
    let analyze = |name: &str| matches!(name, "analyze" | "analyse");
    if at.list("options").any(|option| analyze(option.text("defname")) && !off(option)) {
        findings.add_any(Action::Explain, ObjectKind::Session);
        return inner(at, "query", findings, depth);
    }
    let mut planned = Findings::default();
    let exact = inner(at, "query", &mut planned, depth);
    for effect in planned.effects() {
        // Functions that claim to be immutable run while the plan is made.
        let action = if effect.action == Action::Function { Action::Function } else { Action::Explain };
        findings.add(action, effect.object.clone());
    }
    exact
}

fn execute(at: At<'_>, findings: &mut Findings) -> bool {
    let name = at.text("name");
    findings.prepared.push(Prepared::Execute(name.to_owned()));
    findings.add(Action::Execute, Object::named(ObjectKind::Other, None, name));
    at.list("params").for_each(|param| query::expressions(param, findings));
    true
}

fn copy(at: At<'_>, findings: &mut Findings, depth: usize) -> bool {
    let out = !at.flag("is_from");
    let mut objects = Vec::new();
    let mut exact = true;
    if let Some(relation) = at.get("relation") {
        objects.push(table(relation));
    }
    if at.get("query").is_some() {
        let mut read = Findings::default();
        exact = inner(at, "query", &mut read, depth);
        let selected = read.effects().iter().filter(|effect| effect.action == Action::Select);
        objects.extend(selected.map(|effect| effect.object.clone()));
        findings.merge(read);
    }
    if at.flag("is_program") {
        findings.add_any(Action::Program, ObjectKind::Server);
    } else if !at.text("filename").is_empty() {
        findings.add_any(Action::File, ObjectKind::File);
    }
    for object in objects {
        if out {
            findings.add(Action::Select, object.clone());
        }
        findings.add(if out { Action::CopyOut } else { Action::CopyIn }, object);
    }
    if let Some(condition) = at.get("where_clause") {
        query::expressions(condition, findings);
    }
    exact
}

/// Statements without a statement inside whose effects are all here.
fn plain(at: At<'_>, findings: &mut Findings) -> bool {
    let session = |findings: &mut Findings, action| findings.add_any(action, ObjectKind::Session);
    match at.name() {
        "TransactionStmt" | "ConstraintsSetStmt" => session(findings, Action::Transaction),
        "ListenStmt" | "UnlistenStmt" | "NotifyStmt" | "ClosePortalStmt" | "FetchStmt" => {
            session(findings, Action::Session);
        }
        "DiscardStmt" => {
            session(findings, Action::Session);
            // `DISCARD_ALL`: resets the role and all settings too.
            if at.number("target") == 1 {
                findings.add_any(Action::Set, ObjectKind::Setting);
                findings.prepared.push(Prepared::DeallocateAll);
            }
        }
        "VariableSetStmt" => variable(at, findings),
        "VariableShowStmt" => {
            let name = match at.text("name") {
                "all" => "*".to_owned(),
                name => name.to_ascii_lowercase(),
            };
            findings.add(Action::Show, Object::named(ObjectKind::Setting, None, &name));
        }
        "TruncateStmt" => {
            let tables = at.list("relations").map(table);
            tables.for_each(|table| findings.add(Action::Truncate, table));
            if at.number("behavior") == CASCADE {
                findings.add_any(Action::Truncate, ObjectKind::Table);
            }
        }
        "LockStmt" => {
            let tables = at.list("relations").map(table);
            tables.for_each(|table| findings.add(Action::Lock, table));
        }
        "CallStmt" => {
            let Some(call) = at.get("funccall") else { return false };
            let names = call.names("funcname");
            let [.., name] = names.as_slice() else { return false };
            let schema = names.len().checked_sub(2).and_then(|index| names.get(index)).copied();
            findings.add(Action::Call, Object::named(ObjectKind::Function, schema, name));
            call.list("args").for_each(|arg| query::expressions(arg, findings));
        }
        "VacuumStmt" | "ClusterStmt" | "ReindexStmt" | "RefreshMatViewStmt" | "CheckPointStmt" => {
            maintain(at, findings);
        }
        _ => return false,
    }
    true
}

fn maintain(at: At<'_>, findings: &mut Findings) {
    let before = findings.added();
    let kind = match (at.name(), at.number("kind")) {
        ("CheckPointStmt", _) => ObjectKind::Server,
        ("RefreshMatViewStmt", _) => ObjectKind::MaterializedView,
        // `REINDEX_OBJECT_INDEX`, `_SCHEMA`; `_SYSTEM` and `_DATABASE`.
        ("ReindexStmt", 1) => ObjectKind::Index,
        ("ReindexStmt", 3) => ObjectKind::Schema,
        ("ReindexStmt", 4 | 5) => ObjectKind::Database,
        _ => ObjectKind::Table,
    };
    for relation in at.list("rels").filter_map(|relation| relation.get("relation")) {
        findings.add(Action::Maintain, object(kind, relation));
    }
    if let Some(relation) = at.get("relation") {
        findings.add(Action::Maintain, object(kind, relation));
    }
    let name = at.text("name");
    if !name.is_empty() {
        findings.add(Action::Maintain, Object::named(kind, None, name));
    }
    if findings.added() == before {
        findings.add_any(Action::Maintain, kind);
    }
}

/// SET and RESET.
fn variable(at: At<'_>, findings: &mut Findings) {
    let name = at.text("name").to_ascii_lowercase();
    let value = at.list("args").next().and_then(At::string);
    match name.as_str() {
        "" => findings.add_any(Action::Set, ObjectKind::Setting),
        "transaction" | "session characteristics" | "transaction snapshot" => {
            findings.add_any(Action::Transaction, ObjectKind::Session);
        }
        "role" | "session_authorization" => {
            let role = value.unwrap_or("default");
            findings.add(Action::Assume, Object::named(ObjectKind::Role, None, role));
        }
        // `SET TRANSACTION ISOLATION LEVEL` and its like, by their own names.
        name if name.starts_with("transaction_") && at.number("kind") != 1 => {
            findings.add_any(Action::Transaction, ObjectKind::Session);
        }
        name => calls::set(findings, Some(name)),
    }
}
