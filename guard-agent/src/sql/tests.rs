//! Whole statements against expected effects, and properties that hold for any input.

use super::*;

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
fn corpus_of_utilities() {
    check("utilities.txt", include_str!("testdata/utilities.txt"), 100);
}

#[test]
fn corpus_of_disguises() {
    check("disguises.txt", include_str!("testdata/disguises.txt"), 50);
}

/// A small generator of its own: the same inputs in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

const SOUP: &[&str] = &[
    "select",
    "insert",
    "into",
    "update",
    "delete",
    "from",
    "where",
    "set",
    "values",
    "with",
    "as",
    "recursive",
    "table",
    "drop",
    "create",
    "alter",
    "truncate",
    "grant",
    "revoke",
    "to",
    "on",
    "do",
    "call",
    "explain",
    "analyze",
    "prepare",
    "execute",
    "copy",
    "stdin",
    "program",
    "merge",
    "using",
    "when",
    "matched",
    "then",
    "not",
    "null",
    "and",
    "or",
    "in",
    "exists",
    "any",
    "array",
    "case",
    "end",
    "else",
    "between",
    "like",
    "is",
    "distinct",
    "union",
    "all",
    "except",
    "join",
    "left",
    "lateral",
    "only",
    "for",
    "order",
    "by",
    "group",
    "having",
    "limit",
    "over",
    "partition",
    "cast",
    "interval",
    "time",
    "zone",
    "at",
    "collate",
    "row",
    "default",
    "returning",
    "conflict",
    "nothing",
    "function",
    "language",
    "begin",
    "commit",
    "role",
    "schema",
    "view",
    "index",
    "a",
    "b",
    "t",
    "f",
    "lower",
    "set_config",
    "x",
    "(",
    ")",
    "(",
    ")",
    ",",
    ";",
    ".",
    "*",
    "=",
    "<>",
    "+",
    "-",
    "::",
    "||",
    "[",
    "]",
    "'x'",
    "'%'",
    "E'\\''",
    "$$x$$",
    "$1",
    "1",
    "1.5",
    "\"Q\"",
    "/* c */",
    "-- c\n",
    "U&\"\\0061\"",
    "'\\'",
];

#[test]
fn any_soup_of_tokens_is_read_without_panic_and_alike_when_spelled_again() {
    on_session_stack(|| {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut classifier = Classifier::new(Limits { cache_entries: 0, ..Limits::default() });
        for _ in 0..20_000 {
            let length = 1 + random.below(30);
            let mut text = String::new();
            for _ in 0..length {
                text += random.pick(SOUP);
                text += random.pick(&[" ", " ", "\n", ""]);
            }
            for standard_conforming_strings in [true, false] {
                let modes = Modes { standard_conforming_strings, ..Modes::default() };
                let first = classifier.classify(text.as_bytes(), &modes);
                assert!(first.parts == 0 || !first.effects.is_empty(), "{text}");
                spelled_again(&text, &modes, &first);
            }
        }
    });
}

/// The canonical spelling of a text is its own canonical spelling, and means the same.
fn spelled_again(text: &str, modes: &Modes, first: &Statement) {
    let limits = Limits::default();
    let mut scratch = postgres::Scratch::default();
    if scratch.lex(text, modes, &limits).is_err() || scratch.is_ambiguous() {
        return;
    }
    let (mut once, mut twice) = (String::new(), String::new());
    scratch.spell(&mut once);
    scratch.lex(&once, &Modes::default(), &limits).unwrap();
    assert!(!scratch.is_ambiguous(), "{text}");
    scratch.spell(&mut twice);
    assert_eq!(once, twice, "{text}");
    let (findings, parts) = scratch.read(&limits);
    assert_eq!((findings.parse, parts), (first.parse, first.parts), "{text}");
    assert_eq!(findings.into_effects(), first.effects, "{text}");
}

#[test]
fn any_bytes_are_read_without_panic() {
    on_session_stack(|| {
        let mut random = Random(0x0123_4567_89ab_cdef);
        let mut classifier = Classifier::new(Limits::default());
        let alphabet: &[u8] = b"'\"$\\-/*;()aE \nU&x0.:=<>!@\xc3\xa9\xff\x00[]";
        for _ in 0..50_000 {
            let text: Vec<u8> =
                (0..random.below(40)).map(|_| alphabet[random.below(alphabet.len())]).collect();
            for client_encoding in [Encoding::Utf8, Encoding::SingleByteAsciiSafe, Encoding::Other] {
                let modes = Modes { standard_conforming_strings: random.below(2) == 0, client_encoding };
                let statement = classifier.classify(&text, &modes);
                assert!(statement.parts == 0 || !statement.effects.is_empty(), "{text:?}");
            }
        }
    });
}

#[test]
fn no_chain_or_nesting_overflows_the_stack() {
    // head, repeated middle, repeated tail, end
    const SHAPES: &[(&str, &str, &str, &str)] = &[
        ("select 1", " + 1", "", ""),
        ("select 1", " ^ 1", "", ""),
        ("select a", " || a", "", ""),
        ("select a", " and a", "", ""),
        ("select a", " or not a", "", ""),
        ("delete from t where a", " and a", "", ""),
        ("delete from t where a = 1", " or a = 1", "", ""),
        ("select 1", "::int", "", ""),
        ("select 1", " union select 1", "", ""),
        ("select 1", " union all select 1 intersect select 1", "", ""),
        ("select ", "not ", "", "a"),
        ("select ", "- ", "", "a"),
        ("select ", "@ ", "", "a"),
        ("select ", "~ ", "", "a"),
        ("select ", "(", ")", "1"),
        ("select ", "((", "))", "1"),
        ("select ", "(select ", ")", "1"),
        ("", "(", ")", "select 1"),
        ("select * from ", "(", ")", "t"),
        ("select * from ", "(select * from ", ") x", "t"),
        ("select * from ", "(t join ", " on true)", "t"),
        ("select ", "case when a then ", " else 1 end", "1"),
        ("select ", "case ", " when 1 then 1 end", "1"),
        ("select ", "f(", ")", "1"),
        ("select ", "array[", "]", "1"),
        ("select a", "[1]", "", ""),
        ("select a", ".a", "", ""),
        ("select (a)", ".a", "", ""),
        ("select a", " is null", "", ""),
        ("select a", " at time zone a", "", ""),
        ("select a", " collate \"C\"", "", ""),
        ("select a", " between a and a", "", ""),
        ("select a", " like a", "", ""),
        ("select * from t", " join t on true", "", ""),
        ("select * from t", " join t", " on true", ""),
        ("select * from t", " join (select distinct on (a) 1) x", " on true", ""),
        ("select * from t", " join (select 1 from a join b on true) x", " on true", ""),
        ("select * from t", " join (t", ") on true", ""),
        ("select * from t", " natural join (t", ")", ""),
        ("select * from t", " left join t", " using (a)", ""),
        ("select * from ", "on join ", "", "t"),
        ("select * from t", " join t as on", "", ""),
        ("select * from t", ", lateral (select * from t", ")", ""),
        ("with ", "x as (with ", ") select 1", "y as (select 1) select 1"),
        ("explain ", "explain ", "", "select 1"),
        ("select a in ", "(select a in ", ")", "(1)"),
        ("select cast(", "cast(", " as int)", "1 as int)"),
        ("select interval ", "interval ", "", "'1'"),
    ];
    on_session_stack(|| {
        // Half of the cap as a margin.
        let limits =
            Limits { max_parse_tokens: Limits::default().max_parse_tokens * 3 / 2, ..Limits::default() };
        let mut classifier = Classifier::new(limits);
        for (head, middle, tail, end) in SHAPES.iter().copied() {
            for times in [10, 30, 60, 95, 500, 1000, 1300, 2000, 4000, 20_000] {
                let text = format!("{head}{}{end}{}", middle.repeat(times), tail.repeat(times));
                let started = std::time::Instant::now();
                let statement = classifier.classify(text.as_bytes(), &Modes::default());
                assert!(statement.parse == Parse::Full || times > 5, "{head}{middle}");
                assert!(started.elapsed().as_secs() < 5, "{head}{middle} x {times}");
            }
        }
    });
}

#[test]
fn no_repeated_phrase_overflows_the_stack_or_takes_long() {
    on_session_stack(|| {
        let rounds =
            std::env::var("GUARD_TEST_ROUNDS").ok().and_then(|value| value.parse().ok()).unwrap_or(1_500);
        let mut random = Random(0x5555_1234_9876_abcd);
        let mut classifier = Classifier::new(Limits { cache_entries: 0, ..Limits::default() });
        let starts =
            ["select ", "select * from ", "select * from t where ", "delete from t where ", "with ", ""];
        for _ in 0..rounds {
            let mut phrase = |most: usize| -> String {
                (0..=random.below(most)).map(|_| random.pick(SOUP).to_owned() + " ").collect()
            };
            let (middle, end) = (phrase(4), phrase(3));
            // The tail closes what the middle opens, so that the nesting is real.
            let tail = ") ".repeat(middle.matches('(').count()) + &phrase(2);
            let start = starts[random.below(starts.len())];
            for times in [20, 90, 1000] {
                let text = format!("{start}{}{end}{}", middle.repeat(times), tail.repeat(times));
                let started = std::time::Instant::now();
                classifier.classify(text.as_bytes(), &Modes::default());
                let took = started.elapsed();
                assert!(took.as_secs() < 5, "{took:?}: {start}({middle})* {end} ({tail})* {times} times");
            }
        }
    });
}

#[test]
fn all_ways_to_nest_at_once_fit_the_stack() {
    on_session_stack(|| {
        let mut classifier = Classifier::new(Limits::default());
        for levels in [20, 40, 60, 94] {
            let joins = " join t".repeat(120) + &" on true".repeat(120);
            let chain = " and a".repeat(1400);
            let text = format!(
                "{}select * from t {joins} where a {chain}{}",
                "select * from (with x as (select case when a then ".repeat(levels / 2),
                " end from t) select 1) q".repeat(levels / 2),
            );
            classifier.classify(text.as_bytes(), &Modes::default());
            let text = format!(
                "{}select * from t {joins} where a {chain}{}",
                "select * from (".repeat(levels),
                ") q".repeat(levels)
            );
            let statement = classifier.classify(text.as_bytes(), &Modes::default());
            assert!(levels > 40 || statement.parse == Parse::Full, "{levels}");
        }
    });
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
    let columns = "a, ".repeat(5000);
    let statement = classify(&format!("SELECT {columns} b FROM t; DELETE FROM s.u WHERE id = 1"));
    assert_eq!(describe(&statement), "tokens, select table:*, delete table:s.u where");
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
    assert_eq!(read(b"select '\xff' from t", Encoding::Other), "none, unreadable unknown:*");
    assert_eq!(read(b"select '\xe9' from t", Encoding::SingleByteAsciiSafe), "select table:t");
    assert_eq!(read(b"select '\xe9' from \xe9", Encoding::SingleByteAsciiSafe), "none, unreadable unknown:*");
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
