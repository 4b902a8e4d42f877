//! Comments say what columns hold: for every role, and nobody takes a mask off by one who does not see what is behind it.

use anyhow::Result;
use guard_tests::{
    postgres,
    site::USER,
    skip::{self, Need},
};

use super::{DATABASE, House, REVEAL_ALL};

const TABLES: &str = "CREATE TABLE parcels (id int, remark text, shelf text); \
    INSERT INTO parcels VALUES (1, 'asthma', 'Ada Kaminski'); \
    COMMENT ON COLUMN parcels.remark IS 'What they told us. guard: health'; \
    COMMENT ON COLUMN customers.email IS 'guard: none'; \
    GRANT SELECT ON parcels, customers TO reader;";

fn house(policies: &str) -> Result<House> {
    let house = House::new("enforce", policies, "")?;
    house
        .postgres
        .psql(postgres::OWNER, "postgres")
        .query("CREATE ROLE reader LOGIN")?
        .expect_ok("the role")?;
    house.postgres.psql(USER, DATABASE).query(TABLES)?.expect_ok("tables and comments")?;
    Ok(house)
}

#[test]
fn what_owners_say_counts_for_every_role() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let house = house("")?;
    for user in [USER, "reader"] {
        let psql = house.agent.psql(user, DATABASE);
        let shown = psql.query("SELECT remark FROM parcels")?.expect_ok(user)?.stdout;
        assert_eq!(shown.trim(), "***", "{user}");
        let shown = psql.query("SELECT email FROM customers")?.expect_ok(user)?.stdout;
        assert!(shown.contains('@'), "{user} sees what somebody has cleared: {shown}");
    }
    Ok(())
}

#[test]
fn nobody_takes_a_mask_off_by_a_comment() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let house = house("")?;
    let psql = house.agent.psql(USER, DATABASE);
    psql.query("CREATE VIEW own AS SELECT full_name AS f FROM customers")?.expect_ok("the view")?;
    for sql in [
        "COMMENT ON COLUMN customers.full_name IS 'guard: none'",
        "COMMENT ON COLUMN public.customers.full_name IS E'gu\\x61rd: none'",
        "COMMENT ON COLUMN customers.full_name IS 'gua'\n'rd: none'",
        "COMMENT ON COLUMN customers.full_name IS 'guard: ip_address'",
        "COMMENT ON COLUMN customers.full_name IS 'guard: person_name, public'",
        "COMMENT ON TABLE customers IS 'guard: none'",
        "COMMENT ON COLUMN own.f IS 'guard: none'",
        "COMMENT ON COLUMN parcels.remark IS NULL",
        "COMMENT ON COLUMN parcels.remark IS 'a note'",
        "COMMENT ON COLUMN parcels.shelf IS 'guard: none'",
        "SELECT 1; COMMENT ON COLUMN parcels.remark IS NULL",
        "DO $$ BEGIN COMMENT ON COLUMN parcels.remark IS NULL; END $$",
        "CREATE TABLE copied AS SELECT full_name AS f FROM customers; COMMENT ON TABLE copied IS 'guard: none'",
    ] {
        let told = psql.query(sql)?;
        assert!(told.stderr.contains("refused by guard"), "{sql}: {told:?}");
    }
    let shown = psql.query("SELECT remark, f FROM parcels, own LIMIT 1")?.expect_ok("still masked")?.stdout;
    assert!(shown.contains("***") && !shown.contains("asthma"), "{shown}");
    // What adds protection, or has nothing to do with it, goes on; the server says who may.
    for sql in [
        "COMMENT ON COLUMN customers.id IS 'the number'",
        "COMMENT ON COLUMN customers.full_name IS 'as in the passport'",
        "COMMENT ON COLUMN customers.full_name IS 'guard: person_name'",
        "COMMENT ON COLUMN parcels.shelf IS 'guard: person_name'",
    ] {
        psql.query(sql)?.expect_ok(sql)?;
    }
    let shown = psql.query("SELECT shelf FROM parcels")?.expect_ok("tagged")?.stdout;
    assert_eq!(shown.trim(), "***");
    let told =
        house.agent.psql("reader", DATABASE).query("COMMENT ON COLUMN parcels.id IS 'guard: email'")?;
    assert!(told.stderr.contains("must be owner"), "{told:?}");
    Ok(())
}

#[test]
fn who_sees_a_column_may_say_that_it_is_nothing() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let house = house(REVEAL_ALL)?;
    let psql = house.agent.psql(USER, DATABASE);
    psql.query("COMMENT ON COLUMN customers.full_name IS 'guard: none'")?.expect_ok("the comment")?;
    psql.query("COMMENT ON COLUMN parcels.remark IS NULL")?.expect_ok("the comment")?;
    Ok(())
}
