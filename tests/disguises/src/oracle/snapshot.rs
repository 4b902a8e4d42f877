//! What a database holds: the catalogue and the rows of every table enter as one query, named facts leave.
//!
//! Two snapshots give the changes between them.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::client::Client;

/// Settings that a statement may have changed and that would blind the query; its own functions are spelled out.
const CLEAR: &str = "RESET SESSION AUTHORIZATION; RESET ROLE; SET search_path = ''; RESET statement_timeout; \
                     SET standard_conforming_strings = on; SET client_encoding = 'UTF8'; SET row_security = off";

/// Kind, name, state of everything that a statement could change.
const QUERY: &str = "
SELECT 'rows', n.nspname || '.' || c.relname,
       pg_catalog.unnest(pg_catalog.xpath('//n/text()', x))::text || ' ' || pg_catalog.unnest(pg_catalog.xpath('//h/text()', x))::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
     LATERAL pg_catalog.query_to_xml(pg_catalog.format(
       'SELECT pg_catalog.count(*) AS n, pg_catalog.md5(coalesce(pg_catalog.string_agg(t::text, chr(10) ORDER BY t::text), '''')) AS h FROM ONLY %s t',
       c.oid::regclass), false, true, '') x
WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
UNION ALL
SELECT CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'f' THEN 'table' WHEN 'v' THEN 'view'
         WHEN 'm' THEN 'materialized_view' WHEN 'S' THEN 'sequence' WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' WHEN 'c' THEN 'type' ELSE 'other' END,
       n.nspname || '.' || c.relname,
       pg_catalog.md5(pg_catalog.concat_ws('|', c.relowner, c.relrowsecurity, c.relforcerowsecurity, c.relpersistence,
         c.reloptions, c.reltablespace,
         (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', a.attname, a.atttypid, a.attnotnull, a.attnum, a.attacl,
            (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = c.oid AND d.adnum = a.attnum)), ';' ORDER BY a.attnum)
          FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
         (SELECT pg_catalog.string_agg(k.conname || pg_catalog.pg_get_constraintdef(k.oid), ';' ORDER BY k.conname)
          FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid)))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S', 'i', 'I', 'c')
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
UNION ALL
SELECT 'privileges', n.nspname || '.' || c.relname, c.relacl::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relacl IS NOT NULL AND n.nspname <> 'information_schema' AND n.nspname <> 'pg_catalog'
UNION ALL SELECT 'sequence', schemaname || '.' || sequencename, 'at ' || last_value::text FROM pg_catalog.pg_sequences
UNION ALL SELECT 'schema', nspname, pg_catalog.concat_ws('|', nspowner, nspacl) FROM pg_catalog.pg_namespace
UNION ALL SELECT 'function', n.nspname || '.' || p.proname, pg_catalog.md5(pg_catalog.concat_ws('|', p.oid, p.proowner, p.prosecdef, p.proacl, p.proconfig, p.prosrc))
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid >= 16384 OR p.proacl IS NOT NULL
UNION ALL SELECT 'type', n.nspname || '.' || t.typname, t.typowner::text FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  WHERE t.oid >= 16384 AND t.typrelid = 0 AND t.typelem = 0
UNION ALL SELECT 'cast', c.oid::text, '' FROM pg_catalog.pg_cast c WHERE c.oid >= 16384
UNION ALL SELECT 'operator', n.nspname || '.' || o.oprname, o.oprcode::text FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid >= 16384
UNION ALL SELECT 'trigger', t.tgname, t.tgenabled::text || t.tgrelid FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal
UNION ALL SELECT 'trigger', e.evtname, e.evtenabled::text FROM pg_catalog.pg_event_trigger e
UNION ALL SELECT 'trigger', r.rulename || ' on ' || r.ev_class::regclass::text, r.ev_enabled::text FROM pg_catalog.pg_rewrite r WHERE r.oid >= 16384 AND r.rulename <> '_RETURN'
UNION ALL SELECT 'trigger', p.polname, p.polcmd::text || p.polroles::text FROM pg_catalog.pg_policy p
UNION ALL SELECT 'role', a.rolname, pg_catalog.md5(a::text) FROM pg_catalog.pg_authid a
UNION ALL SELECT 'membership', m.roleid::text || ' ' || m.member, m.admin_option::text FROM pg_catalog.pg_auth_members m
UNION ALL SELECT 'default', s.setdatabase::text || ' ' || s.setrole, s.setconfig::text FROM pg_catalog.pg_db_role_setting s
UNION ALL SELECT 'default privileges', d.oid::text, d.defaclacl::text FROM pg_catalog.pg_default_acl d
UNION ALL SELECT 'extension', x.extname, x.extversion FROM pg_catalog.pg_extension x
UNION ALL SELECT 'language', l.lanname, l.lanacl::text FROM pg_catalog.pg_language l
UNION ALL SELECT 'foreign', s.srvname, s.srvoptions::text FROM pg_catalog.pg_foreign_server s
UNION ALL SELECT 'foreign', f.fdwname, f.fdwacl::text FROM pg_catalog.pg_foreign_data_wrapper f
UNION ALL SELECT 'foreign', u.oid::text, u.umoptions::text FROM pg_catalog.pg_user_mapping u
UNION ALL SELECT 'publication', p.pubname, p.oid::text FROM pg_catalog.pg_publication p
UNION ALL SELECT 'slot', s.slot_name, s.slot_type FROM pg_catalog.pg_replication_slots s
UNION ALL SELECT 'database', d.datname, pg_catalog.concat_ws('|', d.datdba, d.datallowconn, d.datconnlimit, d.datacl) FROM pg_catalog.pg_database d
UNION ALL SELECT 'tablespace', t.spcname, t.spcoptions::text FROM pg_catalog.pg_tablespace t
UNION ALL SELECT 'comment', d.objoid::text || ' ' || d.objsubid, d.description FROM pg_catalog.pg_description d WHERE d.objoid >= 16384
UNION ALL SELECT 'large object', l.oid::text, pg_catalog.concat_ws('|', l.lomowner, l.lomacl, (SELECT pg_catalog.md5(pg_catalog.string_agg(b.data, '' ORDER BY b.pageno)) FROM pg_catalog.pg_largeobject b WHERE b.loid = l.oid))
  FROM pg_catalog.pg_largeobject_metadata l
UNION ALL SELECT 'prepared transaction', p.gid, '' FROM pg_catalog.pg_prepared_xacts p
UNION ALL SELECT 'file setting', f.name, f.setting FROM pg_catalog.pg_file_settings f WHERE f.sourcefile LIKE '%auto.conf'
UNION ALL SELECT 'statistics', s.stxname, '' FROM pg_catalog.pg_statistic_ext s
UNION ALL SELECT 'catalog rows', 'pg_proc', pg_catalog.count(*)::text FROM pg_catalog.pg_proc p WHERE p.oid < 16384
";

/// Every fact by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<(String, String), String>);

/// A difference between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What kind of thing: `rows`, `table`, `role`, ..
    pub kind: String,
    /// Its name, with its schema.
    pub name: String,
    /// What happened to it.
    pub how: How,
}

/// What happened to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is new.
    New,
    /// It is gone.
    Gone,
    /// It is another.
    Changed,
    /// A table has fewer rows.
    Fewer,
    /// A table has no rows any more.
    Emptied,
    /// A table has more rows.
    More,
}

impl Snapshot {
    /// Takes one in the transaction of `client`.
    pub fn take(client: &mut Client) -> Result<Self> {
        client.expect(CLEAR)?;
        let answer = client.expect(QUERY)?;
        let facts = answer.rows.into_iter().map(|row| {
            let mut texts = row.into_iter().map(Option::unwrap_or_default);
            let mut next = || texts.next().unwrap_or_default();
            ((next(), next()), next())
        });
        // Several facts of one name, such as functions that share theirs, count together.
        let mut all = BTreeMap::<_, Vec<String>>::new();
        facts.for_each(|(key, state)| all.entry(key).or_default().push(state));
        let joined = all.into_iter().map(|(key, mut states)| {
            states.sort();
            (key, states.join(" & "))
        });
        Ok(Self(joined.collect()))
    }

    /// What has to happen to `self` to become `after`.
    pub fn changes(&self, after: &Self) -> Vec<Change> {
        let change = |key: &(String, String), how| Change { kind: key.0.clone(), name: key.1.clone(), how };
        let lost = self.0.iter().filter_map(|(key, state)| match after.0.get(key) {
            None => Some(change(key, How::Gone)),
            Some(other) if other == state => None,
            Some(other) if key.0 == "rows" => Some(change(key, rows(state, other))),
            Some(_) => Some(change(key, How::Changed)),
        });
        let new = after.0.keys().filter(|key| !self.0.contains_key(key)).map(|key| change(key, How::New));
        lost.chain(new).collect()
    }

    /// Of facts: kind, name, state.
    #[cfg(test)]
    pub fn of(facts: &[(&str, &str, &str)]) -> Self {
        let key = |(kind, name, state): &(&str, &str, &str)| {
            ((str::to_owned(kind), str::to_owned(name)), str::to_owned(state))
        };
        Self(facts.iter().map(key).collect())
    }
}

fn rows(before: &str, after: &str) -> How {
    let count =
        |state: &str| state.split(' ').next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    match (count(before), count(after)) {
        (before, 0) if before > 0 => How::Emptied,
        (before, after) if after < before => How::Fewer,
        (before, after) if after > before => How::More,
        _ => How::Changed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_apart() {
        let before = Snapshot::of(&[
            ("rows", "public.a", "3 x"),
            ("rows", "public.b", "3 x"),
            ("table", "public.a", "1"),
            ("role", "r", "1"),
        ]);
        let after = Snapshot::of(&[
            ("rows", "public.a", "0 y"),
            ("rows", "public.b", "3 y"),
            ("table", "public.a", "2"),
            ("role", "s", "1"),
        ]);
        let changes: Vec<_> =
            before.changes(&after).into_iter().map(|change| (change.name, change.how)).collect();
        let expected = [
            ("r", How::Gone),
            ("public.a", How::Emptied),
            ("public.b", How::Changed),
            ("public.a", How::Changed),
            ("s", How::New),
        ];
        assert_eq!(changes, expected.map(|(name, how)| (name.to_owned(), how)));
    }
}
