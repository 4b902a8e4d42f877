//! Functions by what their results show of their arguments. What is in no list shows all of them.

/// Results that tell a number about a value, or a place among others, but nothing of the value itself.
const HIDE: [&str; 44] = [
    "array_dims",
    "array_length",
    "array_lower",
    "array_ndims",
    "array_upper",
    "bit_length",
    "cardinality",
    "char_length",
    "character_length",
    "count",
    "cume_dist",
    "dense_rank",
    "has_any_column_privilege",
    "has_column_privilege",
    "has_database_privilege",
    "has_function_privilege",
    "has_schema_privilege",
    "has_table_privilege",
    "isempty",
    "isfinite",
    "json_array_length",
    "json_typeof",
    "jsonb_array_length",
    "jsonb_typeof",
    "length",
    "lower_inc",
    "lower_inf",
    "ntile",
    "num_nonnulls",
    "num_nulls",
    "octet_length",
    "percent_rank",
    "pg_collation_for",
    "pg_column_compression",
    "pg_column_size",
    "pg_column_toast_chunk_id",
    "pg_get_serial_sequence",
    "pg_input_is_valid",
    "pg_sleep",
    "pg_typeof",
    "rank",
    "regr_count",
    "row_number",
    "setseed",
];

/// Results that are true or false: comparisons by another name.
const COMPARE: [&str; 28] = [
    "array_eq",
    "array_ne",
    "arraycontained",
    "arraycontains",
    "arrayoverlap",
    "bpchareq",
    "bpcharne",
    "int4eq",
    "int8eq",
    "jsonb_contains",
    "jsonb_exists",
    "jsonb_exists_all",
    "jsonb_exists_any",
    "jsonb_path_exists",
    "jsonb_path_match",
    "nameeq",
    "regexp_like",
    "starts_with",
    "texteq",
    "textlike",
    "textne",
    "textnlike",
    "texticlike",
    "texticnlike",
    "textregexeq",
    "textregexne",
    "texticregexeq",
    "texticregexne",
];

/// Results that are an argument's value itself, or hold it whole in each element or row.
const SAME: [&str; 24] = [
    "any_value",
    "array_agg",
    "array_append",
    "array_cat",
    "array_prepend",
    "array_remove",
    "btrim",
    "citext",
    "first_value",
    "initcap",
    "lag",
    "last_value",
    "lead",
    "lower",
    "ltrim",
    "max",
    "min",
    "mode",
    "nth_value",
    "percentile_disc",
    "rtrim",
    "text",
    "unnest",
    "upper",
];

/// What calling a function does with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Shows them changed.
    Shows,
    /// Shows the first of them as it is.
    Same,
    /// Shows nothing of them.
    Hides,
    /// Compares them.
    Compares,
    /// Runs a query that it is given as text.
    RunsText,
    /// Reads whatever relation it is told.
    Reads,
}

/// Looks up a function by its names as written.
pub fn call(names: &[&str]) -> Call {
    let (schema, name) = match names {
        [name] => (None, *name),
        [.., schema, name] => (Some(*schema), *name),
        [] => return Call::Shows,
    };
    // Extensions live in any schema.
    if runs_text(name) {
        return Call::RunsText;
    }
    if reads(name) {
        return Call::Reads;
    }
    if schema.is_some_and(|schema| schema != "pg_catalog") {
        return Call::Shows;
    }
    if HIDE.contains(&name) {
        Call::Hides
    } else if COMPARE.contains(&name) {
        Call::Compares
    } else if SAME.contains(&name) {
        Call::Same
    } else {
        Call::Shows
    }
}

/// Functions whose rows are those of a query that they are given, as text or in parts.
fn runs_text(name: &str) -> bool {
    crate::sql::postgres::functions::runs_text(name)
        || matches!(name, "xpath_table" | "connectby")
        || name.starts_with("dblink")
}

fn reads(name: &str) -> bool {
    let exports = ["table_to_xml", "schema_to_xml", "database_to_xml", "cursor_to_xml"];
    (exports.iter().any(|export| name.starts_with(export)) && !name.ends_with("_to_xmlschema"))
        || name.starts_with("pg_logical_slot_")
        || matches!(name, "get_raw_page" | "heap_page_items" | "heap_page_item_attrs" | "tuple_data_split")
        // Texts of other sessions, with the values that they quote.
        || matches!(name, "pg_stat_get_activity" | "pg_stat_get_backend_activity" | "pg_stat_statements")
        || matches!(name, "lo_get" | "loread")
}

/// Whether no text shows what makes a function's result: it is none of the server's own that only compute.
pub fn is_opaque(names: &[&str]) -> bool {
    let (schema, name) = match names {
        [name] => (None, *name),
        [.., schema, name] => (Some(*schema), *name),
        [] => return true,
    };
    !crate::sql::postgres::is_harmless(schema, name)
}

/// Functions through which a value leaves by another way than the result: settings, notifications, time, locks.
pub fn is_sink(names: &[&str]) -> bool {
    const NAMES: [&str; 8] = [
        "set_config",
        "pg_notify",
        "nextval",
        "setval",
        "setseed",
        "lowrite",
        "pg_file_write",
        "pg_log_standby_snapshot",
    ];
    const PREFIXES: [&str; 5] = ["dblink", "lo_", "pg_sleep", "pg_advisory_", "pg_try_advisory_"];
    let Some(name) = names.last() else { return false };
    NAMES.contains(name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The columns of a built-in function in FROM; `None` where they are not known. `arguments`: how many it has.
pub fn columns(names: &[&str], arguments: usize) -> Option<&'static [&'static str]> {
    let name = match names {
        [name] | ["pg_catalog", name] => *name,
        _ => return None,
    };
    Some(match name {
        "json_each" | "jsonb_each" | "json_each_text" | "jsonb_each_text" | "each" => &["key", "value"],
        "json_array_elements"
        | "jsonb_array_elements"
        | "json_array_elements_text"
        | "jsonb_array_elements_text" => &["value"],
        "unnest" if arguments == 1 => return None,
        // Named after the function, or its alias.
        "generate_series"
        | "generate_subscripts"
        | "regexp_split_to_table"
        | "regexp_matches"
        | "string_to_table"
        | "json_object_keys"
        | "jsonb_object_keys"
        | "jsonb_path_query"
        | "xpath"
        | "lower"
        | "upper"
        | "now"
        | "current_setting"
        | "to_jsonb"
        | "to_json"
        | "row_to_json"
        | "concat"
        | "concat_ws"
        | "format"
        | "substr"
        | "substring"
        | "left"
        | "right"
        | "replace" => &[""],
        _ => return None,
    })
}

/// Operators that compare: their results are true or false.
pub fn is_comparison(names: &[&str]) -> bool {
    match names {
        [operator] | ["pg_catalog", operator] => matches!(
            *operator,
            "=" | "<>"
                | "!="
                | "<"
                | ">"
                | "<="
                | ">="
                | "~~"
                | "~~*"
                | "!~~"
                | "!~~*"
                | "~"
                | "~*"
                | "!~"
                | "!~*"
                | "^@"
                | "@>"
                | "<@"
                | "&&"
                | "?"
                | "?|"
                | "?&"
                | "@@"
                | "@?"
                | "<<="
                | ">>="
                | "~=~"
                | "~<~"
                | "~>~"
                | "~<=~"
                | "~>=~"
        ),
        _ => false,
    }
}

/// Types that hold the text of a value as it is.
pub fn keeps_value(names: &[&str]) -> bool {
    match names {
        [name] | ["pg_catalog", name] => {
            matches!(*name, "text" | "varchar" | "citext" | "int8" | "numeric" | "timestamp" | "timestamptz")
        }
        _ => false,
    }
}
