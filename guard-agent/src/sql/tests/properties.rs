//! Properties that hold for any input: no panic, no overflow, one meaning per canonical spelling.

use super::*;

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
    let again =
        Classifier::new(Limits { cache_entries: 0, ..limits }).classify(once.as_bytes(), &Modes::default());
    assert_eq!((again.parse, again.parts), (first.parse, first.parts), "{text}");
    assert_eq!(again.effects, first.effects, "{text}");
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
            for client_encoding in [Encoding::Utf8, Encoding::AsciiSafe, Encoding::Other] {
                let standard_conforming_strings = random.below(2) == 0;
                let modes = Modes { standard_conforming_strings, client_encoding, ..Modes::default() };
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
        for &(head, middle, tail, end) in SHAPES {
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
