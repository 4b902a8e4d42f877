//! In monitor mode nothing is altered; inference is refused where policy says so; rules keep what they should.

use anyhow::Result;
use guard_tests::{
    site::USER,
    skip::{self, Need},
};

use super::{DATABASE, House};

#[test]
fn monitoring_alters_nothing_and_says_what_it_would() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let house = House::new("monitor", "", "")?;
    let sql = "SELECT id, full_name, email, card_number, preferences FROM customers ORDER BY id";
    let direct = house.postgres.psql(USER, DATABASE).query(sql)?.expect_ok("psql")?;
    let proxied = house.agent.psql(USER, DATABASE).query(sql)?.expect_ok("psql")?;
    assert_eq!(direct.stdout, proxied.stdout);
    let masking = super::records::masking(&house, |masking| masking["only_recorded"] == true)?;
    let columns: Vec<_> = masking["columns"].as_array().into_iter().flatten().collect();
    assert!(columns.iter().any(|column| column["column"] == "public.customers.email"), "{masking}");
    assert_eq!(masking["rows"], "2", "{masking}");
    Ok(())
}

#[test]
fn rules_of_policies_apply() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let reveal = |id: &str, mask: &str, kind: &str| {
        format!(
            "@id(\"{id}\") @mask(\"{mask}\") permit (principal, action == Guard::Action::\"reveal\", resource)\n\
             when {{ resource.kind == \"{kind}\" }};\n"
        )
    };
    let policies = [
        reveal("a", "partial", "email"),
        reveal("b", "hash", "payment_card"),
        reveal("c", "null", "health"),
        reveal("d", "fixed:somebody", "person_name"),
    ];
    let house = House::new("enforce", &policies.concat(), "")?;
    let query = |sql: &str| -> Result<String> {
        Ok(house.agent.psql(USER, DATABASE).query(sql)?.expect_ok(sql)?.stdout.trim().to_owned())
    };
    let email = query("SELECT email FROM customers WHERE id = 1")?;
    assert!(email.starts_with('z') && email.ends_with("example") && !email.contains("ebulon"), "{email}");
    assert!(!query("SELECT upper(email) FROM customers WHERE id = 1")?.contains("EBULON"));
    // A part of it may be all that somebody wants to know.
    assert!(!query("SELECT split_part(email, '@', 2) FROM customers WHERE id = 1")?.contains("wobble"));
    assert_eq!(query("SELECT full_name FROM customers WHERE id = 1")?, "somebody");
    assert_eq!(query("SELECT diagnosis FROM customers WHERE id = 1")?, "");
    let card = query("SELECT card_number FROM customers WHERE id = 1")?;
    assert!(card.parse::<i64>().is_ok() && card != "4111111111111111", "{card}");
    assert_eq!(
        card,
        query("SELECT c.card_number FROM customers c WHERE id = 1")?,
        "the same value, the same hash"
    );
    Ok(())
}

#[test]
fn inference_is_refused_where_policy_forbids_it() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let forbid = "@id(\"no-guessing\") @reason(\"it tells\") @hint(\"use the id\")\n\
        forbid (principal, action == Guard::Action::\"infer\", resource) unless { context.equality };";
    let house = House::new("enforce", forbid, "")?;
    let psql = house.agent.psql(USER, DATABASE);
    for sql in [
        "SELECT id FROM customers WHERE full_name LIKE 'Z%'",
        "SELECT id FROM customers ORDER BY email",
        "SELECT count(*) FROM customers GROUP BY full_name",
        "SELECT DISTINCT phone FROM customers",
        "SELECT a.id FROM customers a JOIN customers b ON a.email = b.email",
        "SELECT id FROM people WHERE a > 'M'",
        "UPDATE customers SET id = id WHERE full_name < 'M'",
        "SELECT email > 'm' FROM customers",
    ] {
        let refused = psql.query(sql)?;
        assert!(refused.has_sqlstate("42501"), "{sql}: {} {}", refused.stdout, refused.stderr);
        assert!(
            refused.stderr.contains("no-guessing") && refused.stderr.contains("by column public."),
            "{}",
            refused.stderr
        );
    }
    for sql in [
        "SELECT id FROM customers WHERE email = 'zebulon.quackenbush@wobbleworth.example'",
        "SELECT id FROM customers WHERE id > 0 ORDER BY id",
        "SELECT count(*) FROM customers",
    ] {
        psql.query(sql)?.expect_ok(sql)?;
    }
    Ok(())
}
