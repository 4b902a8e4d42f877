//! Values of every kind as people of a country write them, and what is not sensitive and looks like it.

use guard_policy::vocabulary::DataKind;

use crate::{locales::Locale, numbers, random::Random};

/// Kinds that a value says by itself, without a column that speaks of it.
pub const TELLING: &[DataKind] = &[
    DataKind::Email,
    DataKind::Phone,
    DataKind::PaymentCard,
    DataKind::Iban,
    DataKind::NationalId,
    DataKind::IpAddress,
    DataKind::Device,
    DataKind::Jwt,
    DataKind::CloudKey,
    DataKind::PrivateKey,
    DataKind::PasswordHash,
    DataKind::AccessToken,
    DataKind::Password,
];

/// A value of this kind.
pub fn value(kind: DataKind, locale: &Locale, random: &mut Random) -> String {
    use DataKind as K;
    match kind {
        K::Email => email(random),
        K::Phone => {
            let pattern = *random.pick(locale.phones);
            random.fill(pattern)
        }
        K::PersonName => format!("{} {}", random.pick(locale.first), random.pick(locale.last)),
        K::Address => (*random.pick(locale.streets)).to_owned(),
        K::BirthDate => {
            let (year, month, day) = numbers::day(random);
            format!("{year}-{month:02}-{day:02}")
        }
        K::NationalId => (locale.national)(random),
        K::PaymentCard => numbers::card(random),
        K::Iban => numbers::iban(random, locale.iban.0, locale.iban.1),
        K::BankAccount => random.fill("%########"),
        K::Income => random.fill("%####.##"),
        K::IpAddress => ip(random),
        K::Device => {
            let pattern = *random.pick(&["~~:~~:~~:~~:~~:~~", "~~-~~-~~-~~-~~-~~"]);
            random.fill(pattern)
        }
        _ => secret(kind, random),
    }
}

fn email(random: &mut Random) -> String {
    let user = *random.pick(&["anna.schmidt", "j_doe", "marie-claire", "o'neil", "user+news", "x"]);
    let host = *random.pick(&[
        "example.com",
        "mail.example.org",
        "example.co.uk",
        "firma.example",
        "xn--bcher-kva.example",
    ]);
    format!("{user}{}@{host}", random.fill("##"))
}

fn ip(random: &mut Random) -> String {
    match random.range(0, 3) {
        0 => random.fill("2001:db8:~~~%:~~~%::~~~%"),
        1 => random.fill("fe80::~~~%:~~ff:fe~~:~~~%"),
        _ => format!(
            "{}.{}.{}.{}",
            random.pick(&[10, 81, 172, 192, 203]),
            random.range(100, 254),
            random.range(0, 254),
            random.range(1, 254)
        ),
    }
}

fn secret(kind: DataKind, random: &mut Random) -> String {
    use DataKind as K;
    let pattern = match kind {
        K::Jwt => {
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&"
        }
        K::CloudKey if random.range(0, 1) == 0 => "AKIA@@@@#@@@@#@@@@#@",
        K::CloudKey => "AIzaSy&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&",
        K::PrivateKey => {
            "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&\n-----END PRIVATE KEY-----"
        }
        K::PasswordHash => match random.range(0, 3) {
            0 => "$2b$12$&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&",
            1 => {
                "$argon2id$v=19$m=65536,t=3,p=4$&&&&&&&&&&&&&&&&&&&&&&$&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&"
            }
            2 => "pbkdf2_sha256$260000$&&&&&&&&&&&&$&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&=",
            _ => {
                "SCRAM-SHA-256$4096:&&&&&&&&&&&&&&&&&&&&&&==$&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&=:&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&="
            }
        },
        K::AccessToken => match random.range(0, 3) {
            0 => "ghp_&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&",
            1 => "glpat-&&&&&&&&&&&&&&&&&&&&",
            2 => "sk_live_&&&&&&&&&&&&&&&&&&&&&&&&",
            _ => "xoxb-%###########-%###########-&&&&&&&&&&&&&&&&&&&&&&&&",
        },
        _ => "Tr0ub&&&&&#",
    };
    random.fill(pattern)
}

/// A value as it stands in a cell where nothing speaks of it, and where in the cell.
pub fn cell(kind: DataKind, locale: &Locale, random: &mut Random) -> (String, usize, usize) {
    let value = value(kind, locale, random);
    let (before, behind) = match kind {
        DataKind::Password => match random.range(0, 1) {
            0 => ("postgres://app:", "@db.example.com:5432/shop"),
            _ => ("host=db user=app password=", " dbname=shop"),
        },
        DataKind::NationalId if !locale.before_national.is_empty() => (locale.before_national, ""),
        DataKind::Phone if random.range(0, 3) == 0 => (locale.call, " "),
        _ => *random.pick(&[
            ("", ""),
            ("", ""),
            ("Received from ", ", please check."),
            ("{\"id\": 7, \"v\": \"", "\"}"),
            ("note;", ";done"),
        ]),
    };
    let gap = if before == locale.call { " " } else { "" };
    let start = before.len() + gap.len();
    let escaped = if before.starts_with('{') { value.replace('\n', "\\n") } else { value };
    (format!("{before}{gap}{escaped}{behind}"), start, start + escaped.len())
}

/// What looks sensitive and is not: what it is, and how it looks.
#[rustfmt::skip]
pub const DECOYS: &[(&str, &[&str])] = &[
    ("random digits", &["%#####", "%#######", "%########", "%#########", "%##########", "%###########", "%###############"]),
    ("uuid", &["~~~~~~~~-~~~~-4~~~-a~~~-~~~~~~~~~~~~"]),
    ("hash", &["~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~", "~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~", "~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~"]),
    ("timestamp", &["2024-0%-1# 1#:0#:2#", "2023-1%-0%T0#:3#:4#.###Z", "0%.1%.2024 1#:2#", "202#0%1#1#3#4#"]),
    ("epoch", &["17########", "17###########", "16##########.###"]),
    ("price", &["%##.##", "$%,###.##", "€ %.###,##", "%## ###,## Kč", "-%#.##"]),
    ("part number", &["AB-%###-XZ", "SKU-00%#####", "%##-@@##-%", "@@@-%####", "PN %###.%##"]),
    ("article", &["978-3-16-%#####-#", "40%##########", "ISBN 978%#########"]),
    ("order", &["ORD-2024-%######", "INV/2024/%####", "#%######-A", "RE-20240%-%###"]),
    ("version", &["%.#.1#", "v1.%.0", "%#.0.%#.1", "1.2.3-rc.%", "2.%.#+build.%##"]),
    ("base64", &["&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&==", "iVBORw0KGgo&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&"]),
    ("commit", &["~~~~~~~", "commit ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~"]),
    ("text", &["%# of %# items left", "Room %##, floor %", "%#% off until 31.12.", "size %#x%#x%# cm", "chapter %.#.%", "@see section %.%"]),
    ("file", &["/var/log/app-20240%1#.log", "IMG_20240%1#_1###%#.jpg", "report_%###.pdf", "https://example.com/p/%#####?page=%"]),
    ("colour", &["#~~~~~~", "rgb(%#, 1##, %)"]),
];

/// Columns that speak of something else, and what stands in them.
#[rustfmt::skip]
pub const OTHER_COLUMNS: &[(&str, &str, &str)] = &[
    ("products", "name", "Chair @%#"), ("products", "sku", "SKU-00%#####"), ("products", "ean", "40%##########"),
    ("products", "price", "%##.##"), ("products", "title", "Lamp @%#"), ("films", "title", "The @@@@"),
    ("categories", "name", "Category %"), ("orders", "order_number", "%#########"), ("orders", "store_id", "%##"),
    ("orders", "status", "shipped"), ("orders", "total", "%##.##"), ("orders", "created_at", "2024-0%-1# 1#:0#:2#"),
    ("users", "id", "%####"), ("users", "email_verified", "true"), ("users", "login_count", "%#"),
    ("users", "locale", "de_DE"), ("users", "phone_type", "mobile"), ("users", "address_id", "%###"),
    ("hotels", "hotel_name", "Hotel @%#"), ("files", "file_name", "report_%###.pdf"), ("files", "checksum", "~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~"),
    ("servers", "host_name", "db%#"), ("servers", "os_version", "%#.0.%#.1"), ("packages", "version", "1.%.##"),
    ("commits", "sha", "~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~"), ("events", "request_id", "~~~~~~~~-~~~~-4~~~-a~~~-~~~~~~~~~~~~"),
    ("books", "isbn", "978%#########"), ("metrics", "value", "%##.###"), ("jobs", "token_count", "%###"),
    ("produkte", "bezeichnung", "Stuhl @%#"), ("bestellungen", "bestellnummer", "%########"), ("produits", "nom", "Chaise @%#"),
    ("productos", "nombre", "Silla @%#"), ("商品", "価格", "%###"), ("товары", "название", "@@@@ %#"),
    ("cards", "card_type", "visa"), ("rates", "pass_rate", "0.%#"), ("shipments", "weight", "%.##"),
];
