//! COPY in encodings whose letters hold backslashes, bars and other delimiters.

use anyhow::{Context, Result};
use guard_tests::{
    site::USER,
    skip::{self, Need},
};

use super::{DATABASE, House};

const NAME: &str = "Zebulon Quackenbush";

#[test]
fn letters_that_hold_delimiters_are_copied_whole_and_names_are_masked() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let house = House::new("enforce", "", "")?;
    for (encoding, letter, options) in [
        ("SJIS", "955c", "DELIMITER '|'"),
        ("SJIS", "837c", "DELIMITER '|'"),
        ("SJIS", "837c", "FORMAT csv, QUOTE '|', FORCE_QUOTE *"),
        ("SJIS", "b6955c", "FORMAT text"),
        ("SHIFT_JIS_2004", "955c", "FORMAT csv, DELIMITER '\\'"),
        ("BIG5", "a55c", "FORMAT text"),
        ("BIG5", "b35c", "FORMAT csv, DELIMITER '\\'"),
        ("GBK", "815c", "DELIMITER '|'"),
        ("GBK", "817c", "FORMAT csv, DELIMITER '|'"),
        ("UHC", "8141", "DELIMITER 'A'"),
        ("GB18030", "81308130", "FORMAT csv, DELIMITER '0'"),
    ] {
        let query = format!(
            "SELECT convert_from('\\x{letter}', '{encoding}') AS a, full_name, \
             E'x\\ty' || convert_from('\\x{letter}', '{encoding}') AS b FROM customers WHERE id = 1"
        );
        let script =
            format!("SET client_encoding = '{encoding}';\nCOPY ({query}) TO STDOUT WITH ({options});\n");
        let direct = house.postgres.psql(USER, DATABASE).script(&script)?.expect_ok(encoding)?.stdout;
        assert!(direct.contains(NAME), "{encoding}: {direct}");
        let told = house.agent.psql(USER, DATABASE).script(&script)?;
        let through = told.expect_ok(encoding).with_context(|| options.to_owned())?.stdout;
        assert_eq!(through, direct.replace(NAME, "***"), "{encoding} {letter} {options}");
    }
    Ok(())
}
