mod clean;
mod effort;

use super::*;
use std::fmt::Write as _;

fn found(text: &str) -> Vec<(DataKind, &str)> {
    hinted(text, Hint::default())
}

fn hinted(text: &str, hint: Hint) -> Vec<(DataKind, &str)> {
    let mut hits = Hits::new();
    scan(text.as_bytes(), hint, &mut hits);
    hits.into_iter().map(|hit| (hit.kind, &text[hit.start..hit.end])).collect()
}

#[test]
fn whole_cells_of_every_kind_are_found() {
    use DataKind as K;
    for (kind, text) in [
        (K::Email, "john.doe@example.com"),
        (K::PaymentCard, "4111 1111 1111 1111"),
        (K::PaymentCard, "4111-1111-1111-1111"),
        (K::PaymentCard, "378282246310005"),
        (K::PaymentCard, "3782 822463 10005"),
        (K::Iban, "DE89 3704 0044 0532 0130 00"),
        (K::Iban, "de89370400440532013000"),
        (K::Iban, "GB29 NWBK 6016 1331 9268 19"),
        (K::Iban, "FR14 2004 1010 0505 0001 3M02 606"),
        (K::IpAddress, "203.0.113.77"),
        (K::IpAddress, "2001:db8::ff00:42:8329"),
        (K::Device, "00:1A:2B:3C:4D:5E"),
        (
            K::Jwt,
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        ),
        (K::CloudKey, "AKIAIOSFODNN7EXAMPLE"),
        (K::CloudKey, "AIzaSyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe"),
        (K::AccessToken, "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
        (K::AccessToken, "glpat-zs1X2y3W4v5U6t7S8r9Q"),
        (K::AccessToken, "sk_live_4eC39HqLyjWDarjtT1zdp7dc"),
        (K::PasswordHash, "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW"),
    ] {
        assert_eq!(found(text), [(kind, text)]);
    }
}

#[test]
fn telephone_numbers_of_many_countries_are_found() {
    for number in [
        "+49 30 901820",
        "+49 (0)30 901820-12",
        "+4930901820",
        "0049 30 901820",
        "030/901820-12",
        "(030) 901820",
        "0171 2345678",
        "+1 (212) 555-0123",
        "(212) 555-0123",
        "212-555-0123",
        "212.555.0123",
        "1-800-555-0199",
        "001-212-555-0123",
        "212-555-0123x456",
        "(212) 555-0123 ext. 45",
        "01 23 45 67 89",
        "+33 6 12 34 56 78",
        "06.12.34.56.78",
        "020 7946 0958",
        "+44 20 7946 0958",
        "07700 900123",
        "06-12345678",
        "+31 6 12345678",
        "08-123 456 78",
        "22 34 56 78",
        "+47 123 45 678",
        "612 345 678",
        "+34 612 345 678",
        "333 1234567",
        "+39 06 1234 5678",
        "0532 123 45 67",
        "+90 532 123 45 67",
        "8 (495) 123-45-67",
        "+7 495 123-45-67",
        "090-1234-5678",
        "03-1234-5678",
        "+81 90-1234-5678",
        "138 1234 5678",
        "+86 138 1234 5678",
        "010-1234-5678",
        "+82 10-1234-5678",
        "(11) 91234-5678",
        "+55 11 91234-5678",
        "98765 43210",
        "+91 98765 43210",
        "0412 345 678",
        "+61 412 345 678",
        "+420 777 123 456",
        "+48 512 345 678",
        "+358 40 1234567",
        "040 1234567",
        "050 855 7062",
        "+73 (6) 512 4149306",
        "5271 6017",
        "306 385 78 49",
        "0800 46 17",
        "2710 512041",
        "079 123 45 67",
        "+41 79 123 45 67",
    ] {
        assert_eq!(found(number), [(DataKind::Phone, number)]);
        let text = format!("you reach me at {number}, thanks");
        assert_eq!(found(&text), [(DataKind::Phone, number)], "{text}");
    }
}

#[test]
fn decoys_are_left_alone() {
    for text in [
        "123456789",
        "1234567890123456",
        "f47ac10b-58cc-4372-a567-0e02b2c3d479",
        "550e8400-e29b-41d4-a716-446655440000",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "d41d8cd98f00b204e9800998ecf8427e",
        "2024-05-12 10:23:45.123456+02",
        "2024-05-12T10:23:45Z",
        "12.05.2024 10:23",
        "05/12/2024 11:59 PM",
        "1715505825123",
        "1715505825",
        "20240512102345",
        "1,234.56",
        "$1,299.00",
        "1 234 567,89",
        "978-3-16-148410-0",
        "9783161484100",
        "4006381333931",
        "0-306-40615-2",
        "AB-1234-5678-XZ",
        "SKU-00123456",
        "ORD-2024-0012345",
        "123-4567890-1234567",
        "v1.2.3",
        "10.15.7.1-beta",
        "1.2.3.4",
        "version 10.2.30.40",
        "96.0.34.1",
        "Safari/6535.27.5",
        "Mobile/8B113 Safari/6531.36.4",
        "0-02-754263-7",
        "978-13--5042017-5",
        "476716808.579681",
        "0064390065865",
        "v203.0.113.77",
        "aGVsbG8gd29ybGQgdGhpcyBpcyBiYXNlNjQgdGV4dA==",
        "#ff8800",
        "25b7680a8cd9d6ae81b5d6a3ca537bb199b1c16f",
        "52.5200, 13.4050",
        "52.5200066,13.404954",
        "48.858222 2.2945",
        "a@2x.png",
        "12:30:45",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "100 200 300 400 500 600 700 800",
        "0.123456789",
        "3.14159265358979",
        "ISBN 0306406152",
        "tracking 1Z999AA10123456784",
        "https://example.com/a/b/c?id=123456789&page=2",
        "SELECT * FROM t WHERE id = 123456789",
        "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "192.168.0.0.1",
        "password: required",
        "token=true",
        "eyJhIjoxfQ.no.token",
    ] {
        assert_eq!(found(text), [], "{text}");
    }
}

#[test]
fn values_inside_of_text_are_found() {
    let text = "Hi, mail john@example.com or call +49 30 901820; card 4111 1111 1111 1111 12/27, \
                SSN 078-05-1120, born on 12 March 1980. password: hunter2! from 203.0.113.77:5432.";
    use DataKind as K;
    assert_eq!(
        found(text),
        [
            (K::Email, "john@example.com"),
            (K::Phone, "+49 30 901820"),
            (K::PaymentCard, "4111 1111 1111 1111"),
            (K::NationalId, "078-05-1120"),
            (K::BirthDate, "12 March 1980"),
            (K::Password, "hunter2!"),
            (K::IpAddress, "203.0.113.77"),
        ]
    );
}

#[test]
fn secrets_are_found_by_what_surrounds_them() {
    use DataKind as K;
    for (text, kind, secret) in [
        ("postgres://app:s3cr3t@db.example.com:5432/x", K::Password, "s3cr3t"),
        ("https://u:p@ss@host/path", K::Password, "p@ss"),
        ("host=db user=app password=s3cr3t dbname=x", K::Password, "s3cr3t"),
        ("Server=db;User Id=sa;Pwd=Geheim1!;", K::Password, "Geheim1!"),
        ("Authorization: Bearer abcdef0123456789abcdef", K::AccessToken, "abcdef0123456789abcdef"),
        ("api_key=\"0123456789abcdef0123\"", K::AccessToken, "0123456789abcdef0123"),
        (
            "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq==;X=1",
            K::CloudKey,
            "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq==",
        ),
        ("passwort: geheim123", K::Password, "geheim123"),
    ] {
        assert_eq!(found(text), [(kind, secret)], "{text}");
    }
    let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----";
    assert_eq!(found(&format!("x {key} y")), [(K::PrivateKey, key)]);
    let cut = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA";
    assert_eq!(found(cut), [(K::PrivateKey, cut)]);
    assert_eq!(found("-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0\n-----END PUBLIC KEY-----"), []);
}

#[test]
fn keys_of_documents_are_names_of_columns() {
    use DataKind as K;
    let text = r#"{"id": 7, "first_name": "Ada", "e-mail":"x", "address":{"street":"Main 1","city":"Ulm"},
        "ssn": 78051120, "product": {"name": "Chair"}, "customer": {"name": "Eve \"E\" X"}, "tags": ["a", "b"], "password": "p\"w"}"#;
    assert_eq!(
        found(text),
        [
            (K::PersonName, "Ada"),
            (K::Email, "x"),
            (K::Address, "Main 1"),
            (K::Address, "Ulm"),
            (K::NationalId, "78051120"),
            (K::PersonName, "Eve \\\"E\\\" X"),
            (K::Password, "p\\\"w"),
        ]
    );
    assert_eq!(found(r#""phone"=>"12345", "x"=>"y""#), [(K::Phone, "12345")]);
    assert_eq!(
        found(r#"{"note":"mail a@b.de","email_verified":true,"email_count":3}"#),
        [(K::Email, "a@b.de")]
    );
}

#[test]
fn hints_make_weak_forms_enough() {
    assert_eq!(hinted("5551234", Hint::of(DataKind::Phone)), [(DataKind::Phone, "5551234")]);
    assert_eq!(hinted("123456789", Hint::of(DataKind::NationalId)), [(DataKind::NationalId, "123456789")]);
    assert_eq!(hinted("1.2.3.4", Hint::of(DataKind::IpAddress)), [(DataKind::IpAddress, "1.2.3.4")]);
    assert_eq!(hinted("12.03.1980", Hint::of(DataKind::BirthDate)), [(DataKind::BirthDate, "12.03.1980")]);
    assert_eq!(hinted("203.0.113.77", Hint::of_numbers()), []);
    assert_eq!(hinted("4111111111111111", Hint::of_numbers()), []);
    assert_eq!(hinted("a@b.de", Hint::of_numbers()), [(DataKind::Email, "a@b.de")]);
}

#[test]
fn integers_are_cards_or_what_their_column_says() {
    assert_eq!(scan_integer(4_111_111_111_111_111, Hint::default()), Some(DataKind::PaymentCard));
    assert_eq!(scan_integer(4_111_111_111_111_112, Hint::default()), None);
    assert_eq!(scan_integer(1_715_505_825_123, Hint::default()), None);
    assert_eq!(scan_integer(-4_111_111_111_111_111, Hint::default()), None);
    assert_eq!(scan_integer(i64::MIN, Hint::default()), None);
    assert_eq!(scan_integer(0, Hint::of(DataKind::NationalId)), None);
    assert_eq!(scan_integer(4_930_901_820, Hint::of(DataKind::Phone)), Some(DataKind::Phone));
    assert_eq!(scan_integer(4_111_111_111_111_111, Hint::of_numbers()), None);
}

/// Texts that begin with something sensitive, or hide it.
pub(crate) fn telling() -> impl Iterator<Item = &'static [u8]> {
    let more = [
        "5551234",
        "12.03.1980",
        "SSN 078-05-1120 and more",
        "[\"a\\u0040b.de\"]",
        "mail a%40b.de?",
        "x 4111 1111 1111 1111 y",
        "AKIAIOSFODNN7EXAMPLE",
        "bearer abcdefghij0klmnopqrst",
        "{SSHA}abcdefghijabcdefghijabcdefghij",
        "nothing at all is in this one, though it is long",
    ];
    PIECES.iter().copied().chain(more).map(str::as_bytes)
}

/// What detectors start from.
const PIECES: &[&str] = &[
    "4111111111111111",
    "@",
    "a.b",
    "+49",
    " ",
    "-",
    "(",
    ")",
    ".",
    "/",
    ":",
    "::",
    "é",
    "電話",
    "\u{a0}",
    "{\"",
    "\":\"",
    "\"",
    "}",
    "[",
    "\\",
    "eyJ",
    "eyJhbGciOiJIUzI1NiJ9",
    "$2b$12$",
    "AKIA",
    "password=",
    "://",
    "SSN: ",
    "078-05-1120",
    "DE89",
    "3704 0044",
    "1",
    "23",
    "0",
    "😀",
    "%40",
    "=",
    "-----BEGIN RSA PRIVATE KEY-----",
    "---END ",
    "x",
    "\n",
    "ghp_",
    "2001:db8",
    "born 1.2.",
    "1980",
    ",",
    "\u{feff}",
    "𝟙",
];

/// Letters that detectors start from, in any order: what is found is in bounds, sorted, and whole characters.
#[test]
fn hits_are_sorted_and_whole_characters_for_any_text() {
    let mut seed = 7u64;
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let mut hits = Hits::new();
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..next(30) {
            text.push_str(PIECES[next(PIECES.len())]);
        }
        let hint = if next(2) == 0 {
            Hint::default()
        } else {
            Hint {
                kind: Some(DataKind::ALL[next(DataKind::ALL.len())]),
                numbers: next(2) == 0,
                people: next(2) == 0,
            }
        };
        scan(text.as_bytes(), hint, &mut hits);
        let mut last = 0;
        for hit in &hits {
            assert!(hit.start >= last && hit.start < hit.end && hit.end <= text.len(), "{text:?} {hit:?}");
            assert!(text.is_char_boundary(hit.start) && text.is_char_boundary(hit.end), "{text:?} {hit:?}");
            last = hit.end;
        }
        // Any bytes at all: it only must not panic.
        let mut bytes = text.into_bytes();
        for _ in 0..3 {
            let len = bytes.len();
            if len > 0 {
                bytes[next(len)] = u8::try_from(next(256)).unwrap();
            }
        }
        scan(&bytes, hint, &mut hits);
    }
}

/// Another key of an object says whose name it is, before it or behind it.
#[test]
fn keys_beside_it_say_whose_a_name_is() {
    use DataKind as K;
    let text = r#"{"name": "Jo Doe", "company": "Smith LLC", "ssn": "078-05-1120", "city": "Bonn"}"#;
    assert_eq!(
        found(text),
        [(K::PersonName, "Jo Doe"), (K::NationalId, "078-05-1120"), (K::Address, "Bonn")]
    );
    assert_eq!(found(r#"{"name": "Smith LLC", "phone": "+49 30 901820"}"#), [(K::Phone, "+49 30 901820")]);
    let nested = r#"{"a": {"sex": "f"}, "item": {"name": "Chair"}}"#;
    assert_eq!(found(nested), [(K::Special, "f")]);
    assert_eq!(found("SSN: 078051120, DOB 01/02/1980")[1], (K::BirthDate, "01/02/1980"));
}

/// A key `v` is no version, `v` before a number is.
#[test]
fn short_keys_say_nothing() {
    assert_eq!(found(r#"{"id": 7, "v": "203.174.209.136"}"#), [(DataKind::IpAddress, "203.174.209.136")]);
    assert_eq!(found(r#"{"id": 7, "v": "5135362616882685"}"#), [(DataKind::PaymentCard, "5135362616882685")]);
    assert_eq!(found("agent v 203.174.209.136"), []);
}

#[test]
fn evidence_has_words() {
    let mut words = String::new();
    for evidence in [
        Evidence::Luhn,
        Evidence::Checksum,
        Evidence::Format,
        Evidence::Decoded,
        Evidence::Context,
        Evidence::Key,
        Evidence::ColumnName,
    ] {
        write!(words, "{} ", evidence.as_str()).unwrap();
    }
    assert_eq!(words, "luhn checksum format decoded context key column name ");
}

/// What a cell is as a whole is what looking for everything in it finds.
#[test]
fn whole_cells_are_what_all_detectors_find_in_them() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |limit: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) % limit
    };
    let heads = ["4111", "5018", "6304", "6759", "0604", "5600", "3704", "1234", "0049", "9792"];
    let (mut found, mut wholes) = (0, 0);
    for round in 0..20_000 {
        let text = match round % 4 {
            0 | 1 => {
                let separator = if next(2) == 0 { ' ' } else { '-' };
                let head = heads[next(10) as usize];
                let mut groups = [0; 3].map(|_| format!("{:04}", next(10_000)));
                if next(3) == 0 {
                    groups[0] = heads[next(10) as usize].to_owned();
                }
                let [a, b, c] = groups;
                format!("{head}{separator}{a}{separator}{b}{separator}{c}")
            }
            2 => {
                let mut text = format!("+{}", 1 + next(99));
                for _ in 0..1 + next(4) {
                    text.push([' ', '-'][next(2) as usize]);
                    let limit = 10_u64.pow(1 + next(6) as u32);
                    text.push_str(&next(limit).to_string());
                }
                text
            }
            _ => {
                let part = |next: &mut dyn FnMut(u64) -> u64| {
                    (0..1 + next(7)).map(|_| b"ab.C1gith"[next(9) as usize] as char).collect::<String>()
                };
                let (local, domain) = (part(&mut next), part(&mut next));
                let top = ["com", "png", "d", "de", "x1", "XN--a", "io."][next(7) as usize];
                format!("{local}@{domain}.{top}")
            }
        };
        let cell = text.as_bytes();
        let expected = {
            let mut hits = Hits::new();
            super::scan_parts(cell, Hint::default(), super::Seen::in_cell(cell, 0), &mut hits);
            hits.as_slice().to_vec()
        };
        match super::look(cell, 0) {
            super::Look::Closer => continue,
            super::Look::Nothing => assert_eq!(expected, [], "{text}"),
            super::Look::Whole(kind) => {
                found += 1;
                let all: Vec<_> = expected.iter().map(|hit| (hit.kind, hit.start, hit.end)).collect();
                assert_eq!(all, [(kind, 0, cell.len())], "{text}");
            }
        }
        wholes += 1;
    }
    assert!(wholes > 5_000 && found > 1_000, "{wholes} {found}");
}
