//! The SQL that reads a database's own catalogue: nothing but `pg_catalog`, nothing that a role could be refused.
//!
//! Several statements in one message run in one transaction that the server itself ends: the settings made here go with
//! it, well or not. Every row says in its first column what it is about.

use super::Limits;

/// Settings for the rest of the message. With no schema on the path every name is looked up in `pg_catalog`, and
/// definitions come with all names in full.
const SETTINGS: &str = "/* guard reads the catalogue */ SELECT '-', \
    pg_catalog.set_config('search_path', '', true), \
    pg_catalog.set_config('statement_timeout', '15s', true), \
    pg_catalog.set_config('lock_timeout', '1s', true), \
    pg_catalog.set_config('jit', 'off', true)";

/// Relations that have columns, but other sessions' temporary ones and what holds long values.
const RELATIONS: &str = "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') \
    AND pg_catalog.left(n.nspname::pg_catalog.text, 8) <> 'pg_toast' \
    AND (pg_catalog.left(n.nspname::pg_catalog.text, 8) <> 'pg_temp_' OR n.oid = pg_catalog.pg_my_temp_schema())";

/// What a first message asks for: everything but the definitions of views.
pub fn facts(limits: &Limits) -> String {
    let Limits { relations, columns, .. } = limits;
    let (relations, columns) = (relations + 1, columns + 1);
    let parts = [
        SETTINGS.to_owned(),
        format!(
            "SELECT 'r', c.oid, n.nspname, c.relname, c.relkind {RELATIONS} ORDER BY c.oid LIMIT {relations}"
        ),
        format!(
            "SELECT 'a', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attgenerated \
             FROM pg_catalog.pg_attribute a \
             WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid IN (SELECT c.oid {RELATIONS}) \
             ORDER BY a.attrelid, a.attnum LIMIT {columns}"
        ),
        format!(
            "SELECT 't', t.oid, t.typname, t.typtype, t.typcategory, \
             CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END, t.typbasetype, t.typrelid \
             FROM pg_catalog.pg_type t WHERE t.typrelid = 0 OR t.oid >= 16384 ORDER BY t.oid LIMIT {columns}"
        ),
        format!(
            "SELECT 'd', d.objoid, d.objsubid, pg_catalog.left(d.description, 1000) \
             FROM pg_catalog.pg_description d \
             WHERE d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass \
             AND d.description ~* 'guard *:' LIMIT {columns}"
        ),
        format!(
            "SELECT 'k', k.conrelid, k.confrelid, pg_catalog.array_to_string(k.conkey, ','), \
             pg_catalog.array_to_string(k.confkey, ',') \
             FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' LIMIT {columns}"
        ),
        format!("SELECT 'i', i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i LIMIT {columns}"),
        format!(
            "SELECT 'g', d.adrelid, d.adnum, pg_catalog.left(pg_catalog.pg_get_expr(d.adbin, d.adrelid), 20000) \
             FROM pg_catalog.pg_attrdef d \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum \
             WHERE a.attgenerated <> '' LIMIT {columns}"
        ),
        // Bodies in standard SQL (`BEGIN ATOMIC`, from version 14) have no text; what they refer to stands in pg_depend.
        format!(
            "SELECT 'f', p.proname, pg_catalog.left(p.prosrc, 20000) \
             FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
             WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal') AND p.prokind IN ('f', 'w', 'p') \
             AND p.prosrc <> '' AND p.prorettype <> 'pg_catalog.trigger'::pg_catalog.regtype LIMIT {columns}"
        ),
        format!(
            "SELECT DISTINCT 'f', p.proname, pg_catalog.quote_ident(c.relname) \
             FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.objid \
             JOIN pg_catalog.pg_class c ON c.oid = d.refobjid \
             WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass \
             AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass LIMIT {columns}"
        ),
        format!(
            "SELECT 'f', p.proname, f.proname FROM pg_catalog.pg_aggregate a \
             JOIN pg_catalog.pg_proc p ON p.oid = a.aggfnoid \
             JOIN pg_catalog.pg_proc f ON f.oid IN (a.aggtransfn, a.aggfinalfn) \
             WHERE p.oid >= 16384 LIMIT {columns}"
        ),
    ];
    parts.join("; ")
}

/// What a second message asks for. On its own: it may have to wait for somebody who changes a view, and then fails.
pub fn definitions(limits: &Limits) -> String {
    let relations = limits.relations;
    format!(
        "{SETTINGS}; SELECT 'v', c.oid, pg_catalog.left(pg_catalog.pg_get_viewdef(c.oid), 65000) {RELATIONS} \
         AND c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
         ORDER BY c.oid LIMIT {relations}"
    )
}
