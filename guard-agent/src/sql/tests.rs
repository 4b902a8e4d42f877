//! Whole statements against expected effects, and properties that hold for any input.

use super::*;

mod properties;

/// Sessions run on threads with this much stack; so do these tests, in a debug build.
const STACK: usize = 32 * 1024 * 1024;

fn on_session_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(STACK).spawn(test).unwrap().join().unwrap();
}

fn classify(text: &str) -> Arc<Statement> {
    let text = text.to_owned();
    let read = move || Classifier::new(Limits::default()).classify(text.as_bytes(), &Modes::default());
    std::thread::Builder::new().stack_size(STACK).spawn(read).unwrap().join().unwrap()
}

/// `delete table:public.t all`: as the corpus spells effects.
fn describe(statement: &Statement) -> String {
    let effects = statement.effects.iter().map(|effect| {
        let filter = match effect.has_where {
            None => "",
            Some(true) => " where",
            Some(false) => " all",
        };
        format!("{} {}:{}{filter}", effect.action, effect.object.kind, effect.object)
    });
    let mut parts: Vec<String> = effects.collect();
    if statement.parse != Parse::Full {
        parts.insert(0, statement.parse.as_str().to_owned());
    }
    parts.join(", ")
}

/// One entry of the corpus: lines up to `=> effects`.
struct Case {
    text: String,
    expected: String,
    modes: Modes,
    line: usize,
}

fn corpus(source: &str) -> Vec<Case> {
    const ESCAPES: [(&str, &str); 6] = [
        ("{CR}", "\r"),
        ("{FF}", "\u{c}"),
        ("{VT}", "\u{b}"),
        ("{NBSP}", "\u{a0}"),
        ("{NUL}", "\0"),
        ("{EM}", "\u{2003}"),
    ];
    let mut cases = Vec::new();
    let mut lines: Vec<&str> = Vec::new();
    for (number, line) in source.lines().enumerate() {
        if let Some(expected) = line.strip_prefix("=>") {
            let mut modes = Modes::default();
            if lines.first() == Some(&"@backslashes") {
                modes.standard_conforming_strings = false;
                lines.remove(0);
            }
            let text = ESCAPES.iter().fold(lines.join("\n"), |text, (name, c)| text.replace(name, c));
            cases.push(Case { text, expected: expected.trim().to_owned(), modes, line: number + 1 });
            lines.clear();
        } else if !lines.is_empty() || !(line.is_empty() || line.starts_with('#')) {
            lines.push(line);
        }
    }
    cases
}

fn check(name: &'static str, source: &'static str, at_least: usize) {
    on_session_stack(move || {
        let cases = corpus(source);
        let mut classifier = Classifier::new(Limits::default());
        let mut failures = String::new();
        for case in &cases {
            let found = describe(&classifier.classify(case.text.as_bytes(), &case.modes));
            let cached = describe(&classifier.classify(case.text.as_bytes(), &case.modes));
            if found != case.expected || cached != found {
                failures += &format!(
                    "{name}:{}\n  {}\n  expected {}\n  found    {found}\n",
                    case.line, case.text, case.expected
                );
            }
        }
        assert!(failures.is_empty(), "\n{failures}");
        assert!(cases.len() >= at_least, "{} cases", cases.len());
    });
}

#[test]
fn corpus_of_queries() {
    check("queries.txt", include_str!("testdata/queries.txt"), 100);
}

#[test]
fn corpus_of_applications() {
    check("applications.txt", include_str!("testdata/applications.txt"), 20);
}

#[test]
fn corpus_of_utilities() {
    check("utilities.txt", include_str!("testdata/utilities.txt"), 100);
}

#[test]
fn corpus_of_disguises() {
    check("disguises.txt", include_str!("testdata/disguises.txt"), 50);
}

#[test]
fn what_is_beyond_the_caps_is_not_read() {
    let limits = Limits { max_statement_bytes: 100, max_tokens: 20, max_depth: 5, ..Limits::default() };
    let mut classifier = Classifier::new(limits);
    for text in [
        "x".repeat(101),
        "a ".repeat(21),
        "select ((((((1))))))".to_owned(),
        "/*".repeat(6) + &"*/".repeat(6),
    ] {
        let statement = classifier.classify(text.as_bytes(), &Modes::default());
        assert_eq!(describe(&statement), "none, unreadable unknown:*", "{text}");
        assert_eq!(statement.parts, 1);
    }
}

#[test]
fn long_statements_are_classified_by_their_tokens() {
    let query = |columns: &str| classify(&format!("SELECT {columns} b FROM t; DELETE FROM s.u WHERE id = 1"));
    assert_eq!(describe(&query(&"a, ".repeat(5000))), "select table:t, delete table:s.u where");
    assert_eq!(describe(&query(&"a, ".repeat(50_000))), "tokens, select table:*, delete table:s.u where");
    let rows = "(1, 'a', NULL), ".repeat(10_000);
    let statement = classify(&format!("INSERT INTO t VALUES {rows} (1, 'b', NULL)"));
    assert_eq!(describe(&statement), "insert table:t");
    assert_eq!(statement.text, "insert into t values (?)");
}

#[test]
fn encodings_decide_what_can_be_read() {
    let mut classifier = Classifier::new(Limits::default());
    let mut read = |text: &[u8], client_encoding| {
        describe(&classifier.classify(text, &Modes { client_encoding, ..Modes::default() }))
    };
    assert_eq!(read(b"select '\xc3(' from t", Encoding::Utf8), "none, unreadable unknown:*");
    assert_eq!(read("select 'é' from t".as_bytes(), Encoding::Utf8), "select table:t");
    assert_eq!(read(b"select '\xff' from t", Encoding::Other), "select table:t");
    assert_eq!(read(b"select '\xff' from \xff", Encoding::Other), "none, unreadable unknown:*");
    assert_eq!(read(b"select E'\xff\\'; drop table t; --'", Encoding::Other), "none, unreadable unknown:*");
    assert_eq!(read(b"select E'\x83\x5c' from t", Encoding::named("SJIS")), "select table:t");
    assert_eq!(read(b"select '\xe9' from caf\xe9", Encoding::Latin1), "select table:caf\u{e9}");
    assert_eq!(read(b"select '\xe9' from t", Encoding::AsciiSafe), "select table:t");
    assert_eq!(read(b"select '\xe9' from \xe9", Encoding::AsciiSafe), "none, unreadable unknown:*");
    assert_eq!(read(b"select 1 from t", Encoding::Other), "select table:t");
}

#[test]
fn statements_that_differ_in_literals_share_a_fingerprint_and_a_reading() {
    let mut classifier = Classifier::new(Limits::default());
    let mut read = |text: &str| classifier.classify(text.as_bytes(), &Modes::default());
    let first = read("SELECT * FROM t WHERE id = 1 AND name IN ('a', 'b')");
    let second = read("select *\nfrom T where ID=22 and name in ('c') -- comment");
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.text, "select * from t where id = ? and name in (?)");
    assert_eq!(first.fingerprint.len(), 16);
    assert_ne!(first.fingerprint, read("SELECT * FROM u WHERE id = 1").fingerprint);
    assert_eq!(read(" ; ; ").parts, 0);
    assert!(read("").effects.is_empty());
}

#[test]
fn prepared_statements_are_named() {
    let prepared = |text| classify(text).prepared.clone();
    assert_eq!(prepared("PREPARE \"P\" AS SELECT 1"), [Prepared::Prepare("P".to_owned())]);
    assert_eq!(prepared("EXPLAIN ANALYZE EXECUTE p(1); DEALLOCATE p"), {
        [Prepared::Execute("p".to_owned()), Prepared::Deallocate("p".to_owned())]
    });
    assert_eq!(prepared("DEALLOCATE ALL; DISCARD ALL"), [Prepared::DeallocateAll, Prepared::DeallocateAll]);
}

#[test]
fn a_classifier_can_move_to_its_thread() {
    fn assert_send<T: Send>() {}
    assert_send::<Classifier>();
}

/// With `GUARD_TEST_PG` set to a connection string and `psql` at hand: the server itself is asked.
#[test]
#[ignore = "needs a PostgreSQL server: set GUARD_TEST_PG"]
fn what_only_reads_runs_in_a_read_only_transaction() {
    use guard_policy::vocabulary::Action;
    let server = std::env::var("GUARD_TEST_PG").expect("GUARD_TEST_PG: a connection string");
    let sources = [
        include_str!("testdata/queries.txt"),
        include_str!("testdata/utilities.txt"),
        include_str!("testdata/disguises.txt"),
    ];
    let mut asked = 0;
    for case in sources.iter().flat_map(|source| corpus(source)) {
        let statement = classify(&case.text);
        let reads = |action| matches!(action, Action::Select | Action::Explain | Action::Show);
        if case.modes != Modes::default()
            || statement.parse == Parse::None
            || !statement.effects.iter().all(|effect| reads(effect.action))
        {
            continue;
        }
        let output = std::process::Command::new("psql")
            .args([
                "-X",
                "-q",
                "-v",
                "VERBOSITY=sqlstate",
                "-d",
                &server,
                "-c",
                "BEGIN READ ONLY",
                "-c",
                &case.text,
            ])
            .output()
            .expect("psql runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("25006"), "refused in a read-only transaction: {}", case.text);
        asked += 1;
    }
    assert!(asked > 80, "{asked}");
}

#[test]
fn code_of_very_many_verbs_is_unreadable_and_code_of_many_is_read() {
    use guard_policy::vocabulary::Action;
    let unreadable = |verbs: usize, between: &str| {
        let statement = classify(&format!("DO $$ BEGIN {} END $$", format!("drop {between}").repeat(verbs)));
        let has = |action| statement.effects.iter().any(|effect| effect.action == action);
        assert!(has(Action::Drop) && has(Action::Do), "{between:?}: {}", describe(&statement));
        has(Action::Unreadable)
    };
    assert!(!unreadable(2_000, "table t;"));
    assert!(unreadable(8_000, ""), "each verb would be read to the end of all");
}
