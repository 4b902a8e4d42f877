//! A call found in a statement enters, its effects leave.

use guard_policy::vocabulary::{Action, Object, ObjectKind};

use super::functions::{self, Call};
use crate::sql::effects::Findings;

/// Adds what calling this function does. `first`: its first argument where that is a literal.
pub fn add(findings: &mut Findings, schema: Option<&str>, name: &str, first: Option<&str>) {
    let object = || Object::named(ObjectKind::Function, schema, name);
    match functions::call(schema, name) {
        Call::Harmless => {}
        Call::Unknown => findings.add(Action::Function, object()),
        Call::Does(Action::Function, _) => findings.add(Action::Function, object()),
        Call::Does(action, kind) => {
            findings.add_any(action, kind);
            // Known by name alone: it may be another function of that name.
            if schema.is_some_and(|schema| schema != "pg_catalog") {
                findings.add(Action::Function, object());
            }
        }
        Call::SetConfig => set(findings, first),
    }
}

/// Adds what applying this operator does. Every schema but `pg_catalog` may hold one that does anything.
pub fn operator(findings: &mut Findings, schema: Option<&str>, name: &str) {
    if !functions::is_known_operator(schema, name) {
        findings.add(Action::Function, Object::named(ObjectKind::Function, schema, name));
    }
}

/// Adds the effects of changing a setting; `None` where its name is not known.
pub fn set(findings: &mut Findings, setting: Option<&str>) {
    let Some(setting) = setting else {
        findings.add_any(Action::Set, ObjectKind::Setting);
        findings.add_any(Action::Assume, ObjectKind::Role);
        return;
    };
    let setting = setting.to_ascii_lowercase();
    if matches!(setting.as_str(), "role" | "session_authorization") {
        findings.add_any(Action::Assume, ObjectKind::Role);
    }
    findings.add(Action::Set, Object::named(ObjectKind::Setting, None, &setting));
}

/// `UPDATE pg_settings` sets what its rows name: a rule of the server's makes `set_config` of it.
pub fn through_view(findings: &mut Findings, updated: &Object) {
    if updated.name == "pg_settings" && updated.schema.as_deref().is_none_or(|schema| schema == "pg_catalog")
    {
        set(findings, None);
    }
}
