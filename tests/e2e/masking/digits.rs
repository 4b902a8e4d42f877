//! Columns of bare digits whose names say nothing: many values tell what one does not.

use anyhow::Result;
use guard_tests::{
    site::USER,
    skip::{self, Need},
};

use super::{DATABASE, House};

/// Rows of the table.
const ROWS: u64 = 200;

/// A telephone number of Germany and a number of a person of the Netherlands, both as digits alone.
fn person(at: u64) -> (String, String) {
    let mixed = |salt: u64| (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ salt) >> 20;
    let checked = |body: u64| {
        let weights = [9, 8, 7, 6, 5, 4, 3, 2];
        let sum: u64 =
            body.to_string().bytes().zip(weights).map(|(byte, weight)| u64::from(byte - b'0') * weight).sum();
        (sum % 11 < 10).then(|| format!("{body}{}", sum % 11))
    };
    let number = (0..).find_map(|more| checked(10_000_000 + (mixed(7) + more) % 90_000_000));
    (format!("49176{:07}", mixed(0) % 10_000_000), number.unwrap_or_default())
}

#[test]
fn they_are_masked_from_the_first_row_on_and_harmless_ones_stay() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let house = House::new("enforce", "", "")?;
    let direct = house.postgres.psql(USER, DATABASE);
    let rows: Vec<_> = (0..ROWS)
        .map(|at| {
            let (phone, number) = person(at);
            format!("({phone}, '{number}', {}, '{:09}')", 1_700_000_000 + at * 977, 5_551_000 + at)
        })
        .collect();
    direct
        .query(&format!(
            "CREATE TABLE w (k bigint, l text, m bigint, n text); INSERT INTO w VALUES {}",
            rows.join(",")
        ))?
        .expect_ok("filling the table")?;
    let psql = house.agent.psql(USER, DATABASE);
    let clear = |text: &str| {
        (0..ROWS)
            .filter(|at| {
                let (phone, number) = person(*at);
                text.contains(&phone) || text.contains(&number)
            })
            .count()
    };
    let all = "SELECT k, l, m, n FROM w ORDER BY m";
    let first = psql.query(all)?.expect_ok("the first result")?.stdout;
    assert_eq!(clear(&first), 0, "{}", &first[..400]);
    let harmless = "SELECT m, n FROM w ORDER BY m";
    assert_eq!(
        psql.query(harmless)?.expect_ok("psql")?.stdout,
        direct.query(harmless)?.expect_ok("psql")?.stdout
    );
    // From now on the columns are known, whatever is done with them.
    for sql in [
        "SELECT k FROM w ORDER BY m LIMIT 1",
        "SELECT 'a' || l || 'b' FROM w",
        "SELECT (k + 0)::text FROM w",
        "SELECT row_to_json(w) FROM w",
        "COPY w TO STDOUT",
    ] {
        let shown = psql.query(sql)?.expect_ok(sql)?.stdout;
        assert_eq!(clear(&shown), 0, "{sql}: {}", &shown[..shown.len().min(400)]);
    }
    // A result of one row after the other tells as much; of a table, too, that the catalog does not know yet.
    direct.query("CREATE TABLE v AS SELECT m AS id, k AS x FROM w")?.expect_ok("a copy of it")?;
    let fresh = house.agent.psql(USER, DATABASE);
    let one_by_one: Vec<_> =
        (0..60).map(|at| format!("SELECT x FROM v WHERE id = {}", 1_700_000_000 + at * 977)).collect();
    let shown = fresh.query(&one_by_one.join(";\n"))?.expect_ok("one by one")?.stdout;
    assert!((1..40).contains(&clear(&shown)), "{} of 60 in clear", clear(&shown));
    Ok(())
}
