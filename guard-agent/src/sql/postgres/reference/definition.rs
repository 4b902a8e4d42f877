//! Trees of CREATE, ALTER, DROP, GRANT and of what rules the server enter, their effects leave.

use guard_policy::vocabulary::{Action, Object, ObjectKind};

use super::query::{object, table};
use super::tree::At;
use super::utility::{CASCADE, inner, statement};
use crate::sql::effects::Findings;

/// `OBJECT_MATVIEW`.
const MATERIALIZED: u64 = 24;

/// CREATE TABLE AS, CREATE VIEW.
pub fn stored_query(at: At<'_>, findings: &mut Findings, depth: usize) -> bool {
    let (target, kind) = match at.name() {
        "ViewStmt" => (at.get("view"), ObjectKind::View),
        _ if at.number("objtype") == MATERIALIZED => {
            (at.get("into").and_then(|into| into.get("rel")), ObjectKind::MaterializedView)
        }
        _ => (at.get("into").and_then(|into| into.get("rel")), ObjectKind::Table),
    };
    let Some(target) = target else { return false };
    findings.add(Action::Create, object(kind, target));
    inner(at, "query", findings, depth)
}

/// CREATE SCHEMA, with the statements that it may hold.
pub fn schema(at: At<'_>, findings: &mut Findings, depth: usize) -> bool {
    match at.text("schemaname") {
        "" => findings.add_any(Action::Create, ObjectKind::Schema),
        name => findings.add(Action::Create, Object::named(ObjectKind::Schema, None, name)),
    }
    let mut exact = true;
    for element in at.list("schema_elts") {
        exact &= statement(element, findings, depth + 1);
    }
    exact
}

/// The kind that an `ObjectType` stands for.
fn kind(object_type: u64) -> ObjectKind {
    match object_type {
        2 | 20 | 30 | 35 => ObjectKind::Function,
        10 => ObjectKind::Database,
        13 | 50 => ObjectKind::Type,
        15 | 29 | 36 | 45 => ObjectKind::Trigger,
        16 => ObjectKind::Extension,
        19 | 42 => ObjectKind::Table,
        21 => ObjectKind::Index,
        24 => ObjectKind::MaterializedView,
        34 => ObjectKind::Role,
        37 => ObjectKind::Schema,
        38 => ObjectKind::Sequence,
        43 => ObjectKind::Tablespace,
        52 => ObjectKind::View,
        _ => ObjectKind::Other,
    }
}

/// DROP of what has a name in a schema; true where all of it was read.
fn drop(at: At<'_>, findings: &mut Findings) -> bool {
    let kind = kind(at.number("remove_type"));
    let mut exact = matches!(
        kind,
        ObjectKind::Table
            | ObjectKind::Index
            | ObjectKind::View
            | ObjectKind::MaterializedView
            | ObjectKind::Sequence
            | ObjectKind::Schema
            | ObjectKind::Extension
    );
    for dropped in at.list("objects") {
        let names: Vec<&str> = match dropped.name() {
            "List" => dropped.names("items"),
            "String" => vec![dropped.text("sval")],
            _ => Vec::new(),
        };
        match names.as_slice() {
            [name] if exact => findings.add(Action::Drop, Object::named(kind, None, name)),
            [.., schema, name] if exact => {
                findings.add(Action::Drop, Object::named(kind, Some(schema), name));
            }
            _ => {
                exact = false;
                findings.add_any(Action::Drop, kind);
            }
        }
    }
    if at.number("behavior") == CASCADE {
        findings.add_any(Action::Drop, ObjectKind::Unknown);
    }
    exact
}

/// What the statement does at least; true where that is all.
pub fn read(at: At<'_>, findings: &mut Findings, depth: usize) -> bool {
    use ObjectKind::{Function, Other, Server, Setting, Unknown};
    let mut any = |action, kind| findings.add_any(action, kind);
    match at.name() {
        "DropStmt" => return drop(at, findings),
        "DoStmt" => any(Action::Do, Unknown),
        "AlterSystemStmt" => any(Action::Configure, Setting),
        "LoadStmt" => any(Action::Load, Server),
        "GrantStmt" | "GrantRoleStmt" => {
            any(if at.flag("is_grant") { Action::Grant } else { Action::Revoke }, Unknown);
        }
        "AlterDefaultPrivilegesStmt" => {
            let grants = at.get("action").is_some_and(|action| action.flag("is_grant"));
            any(if grants { Action::Grant } else { Action::Revoke }, Unknown);
        }
        "CommentStmt" | "SecLabelStmt" => any(Action::Comment, Unknown),
        "CreateRoleStmt" | "AlterRoleStmt" | "AlterRoleSetStmt" | "DropRoleStmt" => {
            any(Action::Role, ObjectKind::Role);
        }
        "ReassignOwnedStmt" | "AlterOwnerStmt" => any(Action::Role, Unknown),
        "DropOwnedStmt" | "DropdbStmt" | "DropTableSpaceStmt" | "DropUserMappingStmt" => {
            any(Action::Drop, Unknown);
        }
        "CreateExtensionStmt" | "CreatePLangStmt" => {
            any(Action::Load, Server);
            any(Action::Create, Unknown);
        }
        "CreatePublicationStmt" | "CreateSubscriptionStmt" => {
            any(Action::Replicate, Server);
            any(Action::Create, Unknown);
        }
        "AlterPublicationStmt" | "AlterSubscriptionStmt" => {
            any(Action::Replicate, Server);
            any(Action::Alter, Unknown);
        }
        "DropSubscriptionStmt" => {
            any(Action::Replicate, Server);
            any(Action::Drop, Unknown);
        }
        "CreateForeignServerStmt" | "CreateUserMappingStmt" | "CreateFdwStmt" | "CreateForeignTableStmt" => {
            any(Action::Outbound, Server);
            any(Action::Create, Unknown);
        }
        "ImportForeignSchemaStmt" => any(Action::Outbound, Server),
        "CreateStmt" => {
            if let Some(relation) = at.get("relation") {
                findings.add(Action::Create, table(relation));
            }
        }
        "RuleStmt" => {
            any(Action::Create, Unknown);
            at.list("actions").for_each(|action| {
                statement(action, findings, depth + 1);
            });
        }
        "IndexStmt" => any(Action::Create, Unknown),
        "AlterTableStmt" => alter_table(at, findings),
        "RenameStmt" => any(Action::Alter, Unknown),
        "CreateFunctionStmt" => any(Action::Create, Function),
        name if name.starts_with("Create") || name.starts_with("Define") => any(Action::Create, Other),
        name if name.starts_with("Alter") => any(Action::Alter, Other),
        name if name.starts_with("Drop") => any(Action::Drop, Other),
        _ => {}
    }
    false
}

fn alter_table(at: At<'_>, findings: &mut Findings) {
    findings.add_any(Action::Alter, ObjectKind::Unknown);
    for command in at.list("cmds") {
        match command.number("subtype") {
            // `AT_DropColumn`, `AT_ChangeOwner`.
            14 => findings.add_any(Action::Drop, ObjectKind::Column),
            27 => findings.add_any(Action::Role, ObjectKind::Unknown),
            _ => {}
        }
    }
}
