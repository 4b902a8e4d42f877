//! A function's name enters, what calling it does leaves.
//!
//! A name that is in neither list may do anything. Only functions of `pg_catalog` are in the lists: one of another
//! schema is unknown whatever its name.

use std::collections::HashSet;
use std::sync::LazyLock;

use guard_policy::vocabulary::{Action, ObjectKind};

static HARMLESS: LazyLock<HashSet<&'static str, ahash::RandomState>> = LazyLock::new(|| {
    include_str!("functions.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect()
});

/// Functions that run, here or on another server, what they are given as text.
pub fn runs_text(name: &str) -> bool {
    matches!(
        name,
        "query_to_xml"
            | "query_to_xmlschema"
            | "query_to_xml_and_xmlschema"
            | "ts_stat"
            | "ts_rewrite"
            | "crosstab"
            | "crosstabn"
            | "crosstab2"
            | "crosstab3"
            | "crosstab4"
            | "dblink"
            | "dblink_exec"
            | "dblink_open"
            | "dblink_send_query"
    )
}

static OPERATORS: LazyLock<HashSet<&'static str, ahash::RandomState>> =
    LazyLock::new(|| include_str!("operators.txt").lines().filter(|line| !line.starts_with("# ")).collect());

/// Whether an operator is one that only computes, as far as its name tells.
pub fn is_known_operator(schema: Option<&str>, name: &str) -> bool {
    // What the scanner takes for operators but is punctuation.
    const SYNTAX: [&str; 7] = ["::", ":", ":=", "..", "[", "]", "=>"];
    schema == Some("pg_catalog") || (schema.is_none() && (OPERATORS.contains(name) || SYNTAX.contains(&name)))
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Computes.
    Harmless,
    /// Does this to some object of that kind.
    Does(Action, ObjectKind),
    /// Changes the setting that its first argument names, the role perhaps.
    SetConfig,
    /// Not known: may do anything.
    Unknown,
}

/// Looks up a function by the name that the server reads and the schema that the statement gives.
pub fn call(schema: Option<&str>, name: &str) -> Call {
    let built_in = schema.is_none_or(|schema| schema == "pg_catalog");
    // Only superusers can add to information_schema; its own functions compute.
    let of_views = schema == Some("information_schema") && name.starts_with("_pg_");
    if of_views || (built_in && HARMLESS.contains(name)) {
        return Call::Harmless;
    }
    // Extensions live in any schema: the dangerous ones are known by name wherever they are.
    match dangerous(name) {
        Some(call) => call,
        None => Call::Unknown,
    }
}

fn dangerous(name: &str) -> Option<Call> {
    use Action::{Configure, File, Function, Maintain, Program, Replicate, Session, Terminate, WriteObject};
    let (action, kind) = match name {
        "set_config" => return Some(Call::SetConfig),
        "pg_read_file"
        | "pg_read_file_old"
        | "pg_read_binary_file"
        | "pg_stat_file"
        | "pg_file_write"
        | "pg_file_sync"
        | "pg_file_rename"
        | "pg_file_unlink"
        | "pg_logdir_ls"
        | "lo_import"
        | "lo_export"
        | "pg_show_all_file_settings"
        | "pg_hba_file_rules"
        | "pg_ident_file_mappings" => (File, ObjectKind::File),
        "pg_execute_server_program" => (Program, ObjectKind::Server),
        "nextval" | "setval" => (WriteObject, ObjectKind::Sequence),
        "pg_terminate_backend" | "pg_cancel_backend" => (Terminate, ObjectKind::Session),
        "pg_reload_conf"
        | "pg_rotate_logfile"
        | "pg_rotate_logfile_old"
        | "pg_log_backend_memory_contexts"
        | "pg_import_system_collations" => (Configure, ObjectKind::Server),
        "pg_notify" | "pg_export_snapshot" => (Session, ObjectKind::Session),
        "pg_switch_wal"
        | "pg_create_restore_point"
        | "pg_promote"
        | "pg_backup_start"
        | "pg_backup_stop"
        | "pg_start_backup"
        | "pg_stop_backup"
        | "pg_wal_replay_pause"
        | "pg_wal_replay_resume"
        | "pg_drop_replication_slot"
        | "pg_sync_replication_slots"
        | "pg_replication_slot_advance" => (Replicate, ObjectKind::Server),
        "brin_summarize_new_values"
        | "brin_summarize_range"
        | "brin_desummarize_range"
        | "gin_clean_pending_list" => (Maintain, ObjectKind::Index),
        // They run a query that they are given as text, or read whatever table they are told.
        "query_to_xml"
        | "query_to_xmlschema"
        | "query_to_xml_and_xmlschema"
        | "cursor_to_xml"
        | "cursor_to_xmlschema"
        | "table_to_xml"
        | "table_to_xmlschema"
        | "table_to_xml_and_xmlschema"
        | "schema_to_xml"
        | "schema_to_xmlschema"
        | "schema_to_xml_and_xmlschema"
        | "database_to_xml"
        | "database_to_xmlschema"
        | "database_to_xml_and_xmlschema"
        | "ts_stat"
        | "ts_rewrite"
        | "xpath_table"
        | "crosstab"
        | "crosstabn"
        | "connectby" => (Function, ObjectKind::Function),
        _ => return by_prefix(name).map(|(action, kind)| Call::Does(action, kind)),
    };
    Some(Call::Does(action, kind))
}

fn by_prefix(name: &str) -> Option<(Action, ObjectKind)> {
    const PREFIXES: [(&str, Action, ObjectKind); 14] = [
        ("pg_ls_", Action::File, ObjectKind::File),
        ("pg_sleep", Action::Sleep, ObjectKind::Session),
        ("pg_advisory_", Action::Lock, ObjectKind::Session),
        ("pg_try_advisory_", Action::Lock, ObjectKind::Session),
        ("lo_", Action::WriteObject, ObjectKind::Other),
        ("loread", Action::WriteObject, ObjectKind::Other),
        ("lowrite", Action::WriteObject, ObjectKind::Other),
        ("dblink", Action::Outbound, ObjectKind::Server),
        ("postgres_fdw_", Action::Outbound, ObjectKind::Server),
        ("pg_logical_", Action::Replicate, ObjectKind::Server),
        ("pg_create_", Action::Replicate, ObjectKind::Server),
        ("pg_copy_", Action::Replicate, ObjectKind::Server),
        ("pg_replication_", Action::Replicate, ObjectKind::Server),
        ("pg_stat_reset", Action::Configure, ObjectKind::Server),
    ];
    PREFIXES.iter().find(|(prefix, ..)| name.starts_with(prefix)).map(|&(_, action, kind)| (action, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_ins_are_known_only_in_pg_catalog() {
        assert_eq!(call(None, "lower"), Call::Harmless);
        assert_eq!(call(Some("pg_catalog"), "lower"), Call::Harmless);
        assert_eq!(call(Some("evil"), "lower"), Call::Unknown);
        assert_eq!(call(None, "my_function"), Call::Unknown);
    }

    #[test]
    fn operators_are_known_by_name_and_schema() {
        assert!(
            is_known_operator(None, "+") && is_known_operator(None, "#") && is_known_operator(None, "!=")
        );
        assert!(is_known_operator(Some("pg_catalog"), "<!>"));
        assert!(!is_known_operator(None, "<!>"));
        assert!(!is_known_operator(Some("evil"), "+"));
    }

    #[test]
    fn no_dangerous_function_is_called_harmless() {
        // They only look, whatever the rest of their family does.
        let harmless_of_a_family = ["pg_replication_origin_oid"];
        for name in HARMLESS.iter().filter(|name| !harmless_of_a_family.contains(name)) {
            assert_eq!(dangerous(name), None, "{name}");
        }
        assert_eq!(call(None, "pg_read_file"), Call::Does(Action::File, ObjectKind::File));
        assert_eq!(call(None, "pg_sleep_for"), Call::Does(Action::Sleep, ObjectKind::Session));
        assert_eq!(call(Some("ext"), "dblink_exec"), Call::Does(Action::Outbound, ObjectKind::Server));
        assert_eq!(
            call(None, "pg_create_logical_replication_slot"),
            Call::Does(Action::Replicate, ObjectKind::Server)
        );
    }
}
