//! PostgreSQL's own relations that show what users keep secret: values of their rows, passwords, other people's texts.

use guard_policy::vocabulary::DataKind;

/// What a column of the server's own holds; `None` for all the others.
pub fn kind(table: &str, column: &str) -> Option<DataKind> {
    match (table, column) {
        ("pg_authid", "rolpassword") | ("pg_shadow", "passwd") => Some(DataKind::PasswordHash),
        // Values of users' columns, the most common of them and samples.
        ("pg_statistic", column) if column.starts_with("stavalues") => Some(DataKind::Tagged),
        ("pg_stats" | "pg_stats_ext" | "pg_stats_ext_exprs", "most_common_vals" | "histogram_bounds")
        | ("pg_stats" | "pg_stats_ext_exprs", "most_common_elems" | "range_bounds_histogram")
        | ("pg_statistic_ext_data", "stxdmcv" | "stxdexpr") => Some(DataKind::Tagged),
        ("pg_user_mapping" | "pg_user_mappings" | "_pg_user_mappings", "umoptions")
        | ("user_mapping_options", "option_value")
        | ("pg_subscription", "subconninfo") => Some(DataKind::Password),
        // Statements of others, with the literals in them.
        ("pg_stat_activity" | "pg_stat_statements", "query") => Some(DataKind::Tagged),
        ("pg_largeobject", "data") => Some(DataKind::Tagged),
        (table, "chunk_data") if table.starts_with("pg_toast_") => Some(DataKind::Tagged),
        _ => None,
    }
}
