//! SQL to begin with: the texts that the reading of statements is tested on, and the words that they are made of.

use std::{collections::BTreeSet, fmt::Write};

/// Tests of guard-agent: statements, each with a line `=> ..` that says how it is read.
const TESTDATA: [&str; 4] = [
    include_str!("../../src/sql/testdata/queries.txt"),
    include_str!("../../src/sql/testdata/utilities.txt"),
    include_str!("../../src/sql/testdata/applications.txt"),
    include_str!("../../src/sql/testdata/disguises.txt"),
];

/// What makes a statement another one: words that no test of the reading needs, but a search for holes does.
const MARKS: [&str; 30] = [
    "--", "/*", "*/", "$$", "$a$", "'", "''", "E'", "U&'", "U&\"", "B'", "X'", "\\'", "\\\\", "\"", ";",
    "::", "||", "(", ")", "[", "]", ",", ".", ":=", "=>", "\r", "\n", "\u{a0}", "\u{feff}",
];

/// The statements.
pub fn statements() -> Vec<String> {
    let mut statements = Vec::new();
    let mut text = String::new();
    for line in TESTDATA.iter().flat_map(|file| file.lines()) {
        if line.starts_with("=> ") {
            statements.push(std::mem::take(&mut text).replace("{CR}", "\r"));
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
    }
    statements
}

/// A dictionary in libFuzzer's form: every word of the statements, and what separates words.
pub fn dictionary() -> String {
    let statements = statements();
    let words: BTreeSet<String> = statements
        .iter()
        .flat_map(|text| text.split(|letter: char| !letter.is_ascii_alphabetic() && letter != '_'))
        .filter(|word| (2..24).contains(&word.len()))
        .map(str::to_ascii_uppercase)
        .chain(MARKS.map(str::to_owned))
        .collect();
    let mut dictionary = String::new();
    for word in words {
        dictionary.push('"');
        for byte in word.bytes() {
            // Writing to a string cannot fail.
            let _ = write!(dictionary, "\\x{byte:02x}");
        }
        dictionary.push_str("\"\n");
    }
    dictionary
}
