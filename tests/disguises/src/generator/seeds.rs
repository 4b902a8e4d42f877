//! What is dangerous, bare.

use super::Form;
use crate::truth::Truth;

/// A dangerous text.
#[derive(Clone, Debug)]
pub struct Seed {
    /// What it is.
    pub form: Form,
    /// The text.
    pub text: &'static str,
    /// What it does.
    pub truth: Vec<Truth>,
    /// It does so in code that no text shows.
    pub opaque: bool,
}

/// Form, text, truths.
const SEEDS: &[(Form, &str, &[&str])] = &[
    (Form::Change, "DELETE FROM orders", &["delete table:orders all"]),
    (Form::Change, "DELETE FROM ONLY orders", &["delete table:orders all"]),
    (Form::Change, "DELETE FROM orders AS o WHERE true", &["delete table:orders all"]),
    (Form::Change, "DELETE FROM orders WHERE 1 = 1", &["delete table:orders all"]),
    (Form::Change, "DELETE FROM orders WHERE NOT false OR id = 1", &["delete table:orders all"]),
    (Form::Change, "DELETE FROM orders USING customers", &["delete table:orders all"]),
    (Form::Change, "DELETE FROM archive.orders WHERE 'a' = 'a'", &["delete table:archive.orders all"]),
    (Form::Change, "DELETE FROM orders WHERE id = 7", &["delete table:orders where"]),
    (Form::Change, "UPDATE orders SET total = 0", &["update table:orders all"]),
    (
        Form::Change,
        "UPDATE ONLY orders SET total = 0, customer = NULL WHERE true",
        &["update table:orders all"],
    ),
    (Form::Change, "UPDATE orders SET total = 0 FROM customers", &["update table:orders all"]),
    (Form::Change, "UPDATE \"Odd Name\" SET \"select\" = 'x'", &["update table:Odd Name all"]),
    (Form::Change, "UPDATE customers SET name = 'x' WHERE id = 2", &["update table:customers where"]),
    (Form::Change, "INSERT INTO log (what) VALUES ('x')", &["insert table:log"]),
    (Form::Change, "INSERT INTO log (what) SELECT name FROM customers", &["insert table:log"]),
    (
        Form::Change,
        "INSERT INTO customers VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = 'y'",
        &["insert table:customers", "update table:customers where"],
    ),
    (Form::Expression, "lo_unlink(4711)", &["write_object unknown:*"]),
    (Form::Expression, "pg_catalog.lo_unlink(4711)", &["write_object unknown:*"]),
    (Form::Expression, "lo_put(4711, 0, 'x')::text::xml IS NULL", &["write_object unknown:*"]),
    (Form::Expression, "setval('counter', 40)", &["write_object unknown:*"]),
    (Form::Expression, "length(pg_read_file('/etc/hostname'))", &["file unknown:*"]),
    (Form::Expression, "lo_export(4711, '/dev/null')", &["file unknown:*"]),
    (Form::Expression, "wipe()", &["function function:wipe"]),
    (Form::Expression, "public.wipe(1)", &["function function:wipe"]),
    (Form::Expression, "length(set_config('role', 'boss', true))", &["assume unknown:*"]),
    (Form::Statement, "DROP TABLE orders", &["drop table:orders"]),
    (
        Form::Statement,
        "DROP TABLE IF EXISTS customers, orders CASCADE",
        &["drop table:customers", "drop table:orders"],
    ),
    (Form::Statement, "DROP SCHEMA archive CASCADE", &["drop schema:archive"]),
    (Form::Statement, "DROP OWNED BY intern", &["drop unknown:*"]),
    (Form::Statement, "TRUNCATE orders", &["truncate table:orders"]),
    (
        Form::Statement,
        "TRUNCATE TABLE ONLY customers, log CASCADE",
        &["truncate table:customers", "truncate table:log"],
    ),
    (
        Form::Statement,
        "ALTER TABLE customers DROP COLUMN email",
        &["alter table:customers", "drop column:customers.email"],
    ),
    (Form::Statement, "ALTER TABLE orders RENAME TO harmless", &["alter table:orders"]),
    (Form::Statement, "ALTER ROLE app SUPERUSER", &["change_role role:app"]),
    (Form::Statement, "GRANT SELECT ON customers TO PUBLIC", &["grant_privilege table:customers"]),
    (Form::Statement, "GRANT boss TO app", &["grant_privilege role:boss"]),
    (Form::Statement, "CREATE TABLE n (a int)", &["create table:n"]),
    (Form::Statement, "CREATE ROLE r", &["change_role role:r"]),
    (Form::Statement, "CREATE RULE r AS ON INSERT TO log DO ALSO DELETE FROM orders", &["create trigger:r"]),
    (Form::Statement, "COPY orders TO PROGRAM 'true'", &["program unknown:*"]),
    (Form::Statement, "COPY log (what) FROM '/etc/hostname'", &["file unknown:*", "copy_in table:log"]),
    (Form::Statement, "COMMENT ON TABLE orders IS 'x'", &["comment table:orders"]),
    (Form::Statement, "REFRESH MATERIALIZED VIEW totals WITH NO DATA", &["maintain unknown:*"]),
    (Form::Statement, "LOCK TABLE orders", &["lock table:orders"]),
    (Form::Statement, "SET ROLE boss", &["assume role:boss"]),
    (
        Form::Statement,
        "MERGE INTO orders USING (SELECT 1 AS one) s ON true WHEN MATCHED THEN DELETE",
        &["merge table:orders", "delete table:orders all"],
    ),
];

/// All of them.
pub fn all() -> Vec<Seed> {
    let seed = |(form, text, truth): &(Form, &'static str, &[&str])| Seed {
        form: *form,
        text,
        // A seed whose truth is misspelled is of no use to anybody: the test below finds it.
        truth: truth.iter().filter_map(|truth| truth.parse().ok()).collect(),
        opaque: truth.iter().any(|truth| truth.starts_with("function ")),
    };
    SEEDS.iter().map(seed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truths_are_well_formed() {
        for (seed, (_, text, truth)) in all().iter().zip(SEEDS) {
            assert_eq!(seed.truth.len(), truth.len(), "{text}");
        }
    }
}
