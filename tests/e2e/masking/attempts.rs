//! The attempts of `attempts.txt`, each in three forms: as a simple query, and by the extended protocol in text and in
//! binary. Each is tried on the server itself first: one that shows nothing there would prove nothing here.

use std::{fmt::Write, net::SocketAddr};

use anyhow::{Result, ensure};
use guard_tests::{
    site::USER,
    skip::{self, Need},
    wire::{self, Message, RawClient},
};

use super::{DATABASE, House, REVEAL_ALL};

const ATTEMPTS: &str = include_str!("attempts.txt");

/// What `{c}` stands for.
const COLUMNS: [&str; 1] = ["full_name"];

/// Parts of the values, in lower case, that stand nowhere else.
const NEEDLES: [&str; 31] = [
    "zebulon",
    "quackenb",
    "wobblewo",
    "philippa",
    "feathers",
    "grimblef",
    "90284417",
    "7911 123",
    "79111234",
    "de893704",
    "gb82west",
    "gb82 wes",
    "4111111111111111",
    "4111 1111",
    "5500005555555559",
    "536-90-4",
    "078-05-1",
    "83411.57",
    "41277.03",
    "203.0.113.77",
    "198.51.100.201",
    "2b$12$q9dy",
    "2b$12$abcd",
    "fibromya",
    "sarcoido",
    "akiaiosf",
    "akiai44q",
    // base64 of names and addresses.
    "wmvidwxvbibrdwfj",
    "emvidwxvbi5xdwfj",
    "ughpbglwcgegrmvh",
    "cghpbglwcgeuzmvh",
];

/// The card numbers as binary int8 and numeric.
const BINARY_NEEDLES: [[u8; 8]; 4] = [
    4_111_111_111_111_111_i64.to_be_bytes(),
    5_500_005_555_555_559_i64.to_be_bytes(),
    [0x10, 0x0f, 0x04, 0x57, 0x04, 0x57, 0x04, 0x57],
    [0x15, 0x7c, 0x00, 0x37, 0x15, 0xb3, 0x15, 0xb7],
];

/// How statements are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Simple,
    /// Parse, Bind, Execute: nobody asks what the rows look like.
    Extended,
    /// With a description of the portal, and results in binary.
    Binary,
}

const FORMS: [Form; 3] = [Form::Simple, Form::Extended, Form::Binary];

/// Every attempt: what it is called, and its statements.
fn attempts() -> Vec<Vec<String>> {
    let lines = ATTEMPTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .flat_map(|line| {
            let columns: &[&str] = if line.contains("{c}") { &COLUMNS } else { &[""] };
            columns.iter().map(move |column| line.replace("{c}", column))
        })
        .map(|line| line.split(" ;; ").map(str::to_owned).collect())
        .collect()
}

fn send(client: &mut RawClient, sql: &str, form: Form) -> Result<Vec<Message>> {
    if form == Form::Simple {
        return client.query(sql);
    }
    let text = |value: &str| [value.as_bytes(), b"\0"].concat();
    let mut bytes = wire::message(b'P', &[text(""), text(sql), vec![0, 0]].concat());
    let formats: &[u8] = if form == Form::Binary { &[0, 1, 0, 1] } else { &[0, 0] };
    bytes.extend(wire::message(b'B', &[text(""), text(""), vec![0; 4], formats.to_vec()].concat()));
    if form == Form::Binary {
        bytes.extend(wire::message(b'D', b"P\0"));
    }
    bytes.extend(wire::message(b'E', &[0; 5]));
    bytes.extend(wire::message(b'S', b""));
    client.send(&bytes)?;
    client.until_ready()
}

/// Everything that comes back.
fn answers(address: SocketAddr, statements: &[String], form: Form) -> Result<Vec<Message>> {
    let mut client = RawClient::log_in(address, USER, DATABASE)?;
    let mut all = Vec::new();
    for statement in statements {
        match send(&mut client, statement, form) {
            Ok(messages) => all.extend(messages),
            // What cannot be masked ends the session: nothing has come.
            Err(_) => break,
        }
    }
    Ok(all)
}

fn leaks(messages: &[Message]) -> Vec<String> {
    let bytes: Vec<u8> = messages.iter().flat_map(|message| message.body.iter().copied()).collect();
    let lower = bytes.to_ascii_lowercase();
    let holds =
        |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).any(|window| window == needle);
    let mut found = Vec::new();
    for needle in NEEDLES {
        let reversed: String = needle.chars().rev().collect();
        let hex = |text: &str| {
            text.bytes().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            })
        };
        let capital = needle[..1].to_ascii_uppercase() + &needle[1..];
        for form in [needle.to_owned(), reversed, hex(needle), hex(&capital)] {
            if holds(&lower, form.as_bytes()) {
                found.push(form);
            }
        }
    }
    for needle in BINARY_NEEDLES {
        if holds(&bytes, &needle) {
            found.push(format!("{needle:02x?}"));
        }
    }
    found
}

#[test]
fn nothing_gets_round() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let house = House::new("enforce", "", "")?;
    let (mut telling, mut silent, mut leaking, mut tried) = (0, Vec::new(), Vec::new(), 0);
    // `GUARD_ATTEMPTS=text`: only those with this text.
    let only = std::env::var("GUARD_ATTEMPTS").ok();
    for statements in attempts() {
        if only.as_ref().is_some_and(|only| !statements.join(" ;; ").contains(only)) {
            continue;
        }
        let shown = answers(house.postgres.address(), &statements, Form::Simple)?;
        if leaks(&shown).is_empty() {
            silent.push(statements.join(" ;; "));
        } else {
            telling += 1;
        }
        for form in FORMS {
            tried += 1;
            let masked = answers(house.agent.proxy(), &statements, form)?;
            let found = leaks(&masked);
            if !found.is_empty() {
                println!("LEAK {form:?}: {}: {found:?}", statements.join(" ;; "));
                leaking.push(format!("{form:?}: {}: {found:?}", statements.join(" ;; ")));
            }
        }
    }
    println!("{telling} attempts show values on the server itself, {} do not; {tried} tried", silent.len());
    for line in &silent {
        println!("shows nothing anyway: {line}");
    }
    ensure!(leaking.is_empty(), "{} of {tried} show values:\n{}", leaking.len(), leaking.join("\n"));
    ensure!(only.is_some() || telling >= 300, "only {telling} attempts would show values");
    Ok(())
}

/// Rows and COPY data, and how it ended.
fn data(messages: &[Message]) -> Vec<(u8, Vec<u8>)> {
    let told = messages.iter().filter(|message| b"DdCE".contains(&message.tag));
    told.map(|message| {
        let body = if message.tag == b'E' {
            message.sqlstate().unwrap_or_default().into_bytes()
        } else {
            message.body.clone()
        };
        (message.tag, body)
    })
    .collect()
}

#[test]
fn who_may_see_it_sees_it_as_it_is() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let house = House::new("enforce", REVEAL_ALL, "")?;
    let reads =
        |sql: &str| ["SELECT", "TABLE", "WITH", "VALUES", "COPY"].iter().any(|word| sql.starts_with(word));
    let mut differing = Vec::new();
    for statements in attempts() {
        let [statement] = statements.as_slice() else { continue };
        // Its order, or its moment, is another each time.
        let unsteady = ["TABLESAMPLE", "pg_stats", "set_config", "told(", "FOR UPDATE"];
        if !reads(statement) || unsteady.iter().any(|word| statement.contains(word)) {
            continue;
        }
        for form in FORMS {
            let direct = answers(house.postgres.address(), &statements, form)?;
            let proxied = answers(house.agent.proxy(), &statements, form)?;
            if data(&direct) != data(&proxied) {
                differing.push(format!("{form:?}: {statement}"));
            }
        }
    }
    ensure!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
    Ok(())
}
