//! Errors and notices as servers write them, in several languages.

use super::*;

fn body(fields: &[(u8, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (tag, text) in fields {
        body.push(*tag);
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    body
}

/// The fields after scrubbing, as `M=.. D=..`.
fn scrubbed(fields: &[(u8, &str)], about: About<'_>) -> String {
    let body = body(fields);
    let mut scrubber = Scrubber::new(partial(), Settings::default(), Simple);
    let mut out = Vec::new();
    let left = match scrubber.message(b'E', &body, about, &mut out).unwrap() {
        Rewritten::Untouched => {
            assert!(out.is_empty());
            body
        }
        Rewritten::Changed => {
            assert_eq!(u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize, out.len() - 1);
            out[5..].to_vec()
        }
    };
    let shown = left
        .split(|byte| *byte == 0)
        .filter(|field| matches!(field.first(), Some(b'M' | b'D' | b'W' | b'q')));
    let shown =
        shown.map(|field| format!("{}={}", char::from(field[0]), String::from_utf8_lossy(&field[1..])));
    shown.collect::<Vec<_>>().join(" ")
}

const STRICT: About<'_> = About { sent: &[], strict: true, plain_table: false };
const OPEN: About<'_> = About { sent: &[], strict: false, plain_table: false };

#[test]
fn what_is_quoted_goes_where_a_hidden_column_is_read() {
    for (fields, expected) in [
        (
            &[(b'C', "22P02"), (b'M', "invalid input syntax for type integer: \"john doe\"")][..],
            "M=invalid input syntax for type integer: ***",
        ),
        (
            &[(b'C', "22P02"), (b'M', "ungültige Eingabesyntax für Typ integer: »john«")],
            "M=ungültige Eingabesyntax für Typ integer: ***",
        ),
        (
            &[(b'C', "22P02"), (b'M', "syntaxe invalide pour « integer » : « a » b »")],
            "M=syntaxe invalide pour «***» : ***",
        ),
        (
            &[(b'C', "22P02"), (b'M', "malformed array literal: \"{a\""), (b'D', "Unexpected \"a\".")],
            "M=malformed array literal: *** D=***",
        ),
        (
            &[(b'C', "22008"), (b'M', "date/time field value out of range: \"1985-13-13\"")],
            "M=date/time field value out of range: ***",
        ),
        (
            &[(b'C', "XX000"), (b'M', "value \"a \"b\" c\" is odd, can't be")],
            "M=value \"***\" is odd, can't be",
        ),
        (&[(b'C', "P0001"), (b'F', "pl_exec.c"), (b'M', "user john exists")], "M=***"),
        (&[(b'C', "01000"), (b'F', "plpy_plpymodule.c"), (b'M', "john")], "M=***"),
        (
            &[(b'C', "22P04"), (b'M', "x"), (b'W', "COPY t, line 3, column x: \"value\"")],
            "M=x W=COPY t, line 3, column x: ***",
        ),
        (
            &[
                (b'C', "22P02"),
                (b'M', "x"),
                (b'W', "JSON data, line 1: {\"a\": john\nunnamed portal parameter $1 = 'john'"),
            ],
            "M=x W=JSON data, line 1: ***\nunnamed portal parameter $1 = '***'",
        ),
        (
            &[(b'C', "42601"), (b'M', "syntax error at or near \"john\""), (b'q', "john doe")],
            "M=syntax error at or near \"***\" q=***",
        ),
    ] {
        assert_eq!(scrubbed(fields, STRICT), expected);
    }
}

#[test]
fn names_of_objects_stay() {
    for fields in [
        &[(b'C', "42P01"), (b'P', "15"), (b'M', "relation \"people\" does not exist")][..],
        &[(b'C', "42703"), (b'P', "8"), (b'M', "Spalte »x« existiert nicht")],
        &[
            (b'C', "23502"),
            (b't', "people"),
            (b'c', "name"),
            (b'M', "null value in column \"name\" of relation \"people\" violates not-null constraint"),
        ],
        &[(b'C', "22012"), (b'M', "division by zero")],
    ] {
        let unchanged = scrubbed(fields, OPEN);
        assert_eq!(scrubbed(fields, STRICT), unchanged, "{fields:?}");
        assert!(!unchanged.contains('*'));
    }
    let fields = [
        (b'C', "23503"),
        (b't', "people"),
        (b'M', "x"),
        (b'D', "Key (mail, n)=(a \"b\", 1) is not present in table \"people\"."),
    ];
    assert_eq!(scrubbed(&fields, STRICT), "M=x D=Key (mail, n)=(***) is not present in table \"people\".");
}

#[test]
fn names_made_of_values_are_values() {
    let error = [(b'C', "42P01"), (b'M', "relation \"Ada Lovelace\" does not exist")];
    assert_eq!(scrubbed(&error, STRICT), "M=relation \"***\" does not exist");
    let dropping = About { sent: &[b"DROP TABLE people"], ..STRICT };
    let error = [(b'C', "42P01"), (b'M', "table \"people\" does not exist")];
    assert_eq!(scrubbed(&error, dropping), "M=table \"people\" does not exist");
}

#[test]
fn numbers_that_were_not_sent_are_values() {
    let error = [(b'C', "54000"), (b'M', "requested character too large for encoding: 1166452")];
    assert_eq!(scrubbed(&error, STRICT), "M=requested character too large for encoding: ***");
    let sent = About { sent: &[b"SELECT chr(1166452)"], ..STRICT };
    assert_eq!(scrubbed(&error, sent), "M=requested character too large for encoding: 1166452");
    let of_type = [(b'C', "22001"), (b'M', "value too long for type character varying(255)")];
    assert_eq!(scrubbed(&of_type, STRICT), "M=value too long for type character varying(255)");
}

#[test]
fn keys_and_rows_are_hidden_by_what_they_hold() {
    let key = |names: &str, about| {
        let detail = format!("Schlüssel »({names})=(x, (y))« existiert bereits.");
        scrubbed(&[(b'C', "23505"), (b'M', "m"), (b'D', &detail)], about)
    };
    assert_eq!(key("id", OPEN), "M=m D=Schlüssel »(id)=(x, (y))« existiert bereits.");
    assert_eq!(key("id, password", OPEN), "M=m D=Schlüssel »(id, password)=(***)« existiert bereits.");
    assert_eq!(key("lower(name)", OPEN), "M=m D=Schlüssel »(lower(name))=(***)« existiert bereits.");
    let sent = About { sent: &[b"INSERT INTO t VALUES ('x, (y)')"], strict: false, plain_table: false };
    assert_eq!(key("password", sent), "M=m D=Schlüssel »(password)=(x, (y))« existiert bereits.");
    let row = [(b'C', "23502"), (b'M', "m"), (b'D', "Failing row contains (1, null, (a), Ana).")];
    assert_eq!(scrubbed(&row, OPEN), "M=m D=Failing row contains (***).");
    let detail = [(b'C', "23505"), (b'M', "m"), (b'D', "Key (m)=(ana@example.com) already exists.")];
    assert_eq!(scrubbed(&detail, OPEN), "M=m D=Key (m)=(a***@example.com) already exists.");
    let sent = About { sent: &[b"..", b"ana@example.com"], strict: false, plain_table: false };
    assert_eq!(scrubbed(&detail, sent), "M=m D=Key (m)=(ana@example.com) already exists.");
}

#[test]
fn who_sees_all_reads_all_and_lies_are_errors() {
    let clear = Arc::new(Rules::new(|_| None));
    let mut scrubber = Scrubber::new(clear, Settings::default(), Simple);
    let body = body(&[(b'C', "23505"), (b'D', "Key (m)=(ana@example.com) already exists.")]);
    let mut out = Vec::new();
    assert_eq!(scrubber.message(b'N', &body, OPEN, &mut out), Ok(Rewritten::Untouched));
    for end in 0..body.len() {
        assert!(scrubber.message(b'N', &body[..end], OPEN, &mut out).is_err(), "{end}");
    }
    assert!(scrubber.message(b'N', &[&body[..], b"x"].concat(), OPEN, &mut out).is_err());
    assert!(out.is_empty());
}

#[test]
fn notifications_are_read() {
    let mut scrubber = Scrubber::new(partial(), Settings::default(), Simple);
    let mut out = Vec::new();
    let body = b"\0\0\0\x07news\0from ana@example.com\0";
    assert_eq!(scrubber.notification(body, false, &mut out), Ok(Rewritten::Changed));
    assert_eq!(out, b"A\0\0\0\x23\0\0\0\x07news\0from a***@example.com\0");
    assert_eq!(scrubber.notification(b"\0\0\0\x07news\0\0", true, &mut out), Ok(Rewritten::Untouched));
    assert!(scrubber.notification(b"\0\0\0\x07news", false, &mut out).is_err());
    out.clear();
    let plain = b"\0\0\0\x07news\0Ada Lovelace\0";
    assert_eq!(scrubber.notification(plain, false, &mut out), Ok(Rewritten::Untouched));
    assert_eq!(scrubber.notification(plain, true, &mut out), Ok(Rewritten::Changed));
    assert_eq!(out[5..], *b"\0\0\0\x07news\0***\0");
}

#[test]
fn no_text_panics() {
    let mut random = hostile::Random(3);
    let mut scrubber = Scrubber::new(partial(), Settings::default(), Simple);
    for _ in 0..5_000 {
        let letters = ['"', '\'', '«', '»', '(', ')', '=', ':', ' ', 'a', '\n', '„', '“'];
        let text: String = (0..random.below(24)).map(|_| letters[random.below(letters.len())]).collect();
        let code = ["23505", "23502", "22P02", "42601", "P0001"][random.below(5)];
        let body = body(&[(b'C', code), (b'M', &text), (b'D', &text), (b'W', &text), (b't', "a")]);
        for about in [STRICT, OPEN] {
            scrubber.message(b'E', &body, about, &mut Vec::new()).unwrap();
        }
    }
}
