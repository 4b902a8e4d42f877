//! The record says which columns were masked or shown, how many rows and values, and by which policy: never a value.

use anyhow::{Context, Result};
use guard_tests::{
    records, run,
    site::{EVENT_LIMIT, USER},
    skip::{self, Need},
};
use serde_json::Value;

use super::{DATABASE, House, REVEAL_ALL};

/// What the record of some outcome says of masking.
pub(super) fn masking(house: &House, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut found = None;
    run::eventually("what was masked on record", EVENT_LIMIT, || {
        let all = house.agent.records()?;
        let outcomes = records::bodies(&all, "outcomes").into_iter();
        let lists = outcomes.filter_map(|body| body["outcomes"].as_array());
        found = lists
            .flatten()
            .map(|outcome| &outcome["masking"])
            .find(|masking| masking.is_object() && wanted(masking))
            .cloned();
        Ok(found.is_some())
    })?;
    found.context("no masking on record")
}

#[test]
fn what_was_masked_is_on_record_without_a_value() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let house = House::new("enforce", "", "\n[masking]\nnotice = true\n")?;
    let sql = "SELECT full_name, upper(email) AS e, id FROM customers";
    let told = house.agent.psql(USER, DATABASE).query(sql)?.expect_ok("psql")?;
    assert!(
        told.stderr.contains("guard: masked in this result: full_name (full), e (full)"),
        "{}",
        told.stderr
    );
    let masking = masking(&house, |masking| masking["rows"] == "2")?;
    let column = |name: &str| {
        let columns = masking["columns"].as_array().into_iter().flatten();
        columns
            .into_iter()
            .find(|column| column["column"] == name)
            .cloned()
            .with_context(|| format!("{name}: {masking}"))
    };
    let name = column("public.customers.full_name")?;
    assert_eq!(
        (&name["kind"], &name["rule"], &name["values"]),
        (&"person_name".into(), &"full".into(), &"2".into())
    );
    assert_eq!(column("public.customers.email")?["result"], "e");
    let text = house.agent.run(&["audit", "search", "--kind", "outcome"])?.expect_ok("audit search")?.stdout;
    assert!(text.contains("public.customers.email (email, full, 2 values)"), "{text}");
    let all =
        house.agent.run(&["audit", "search", "--json"])?.expect_ok("audit search")?.stdout.to_lowercase();
    assert!(!all.contains("zebulon") && !all.contains("wobbleworth"));
    Ok(())
}

#[test]
fn what_was_shown_in_clear_is_on_record() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let house = House::new("enforce", REVEAL_ALL, "")?;
    let sql = "SELECT email FROM customers WHERE id = 1";
    let shown = house.agent.psql(USER, DATABASE).query(sql)?.expect_ok("psql")?;
    assert_eq!(shown.stdout.trim(), "zebulon.quackenbush@wobbleworth.example");
    let masking = masking(&house, |masking| masking["revealed"].is_array())?;
    let revealed = &masking["revealed"][0];
    assert_eq!(revealed["column"], "public.customers.email");
    assert_eq!(revealed["policy"], "all-see-all");
    Ok(())
}
