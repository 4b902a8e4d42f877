//! Harmless statements enter: PostgreSQL's own regression SQL, and what applications send. None may be refused by
//! policies that permit them, and what is called read-only must be.

use std::{collections::HashSet, fs, net::SocketAddr, path::Path};

use anyhow::{Context, Result};
use guard_agent::sql::Modes;
use guard_policy::vocabulary::Parse;
use guard_tests::postgres::OWNER;

use crate::{
    client::Client,
    enforcement::REFUSED,
    oracle::{DATABASE, Scratch},
    psql,
    reading::{Judge, Reader},
    report::Report,
    truth::{is_opaque, only_reads, reading},
    truths::{NO_STATEMENT, is_read_only},
};

/// Where the scripts run whose statements lean on one another.
const REGRESSION: &str = "regression";

/// A script's statements.
#[derive(Debug)]
pub struct Script {
    name: String,
    statements: Vec<String>,
    /// What applications send: shipped policies must let it pass as a whole.
    application: bool,
    /// It is part of the suite that builds on itself.
    ordered: bool,
}

/// All scripts: the regression suite in its order, then the other suites below `source`, then those of this folder.
pub fn load(own: &Path, source: &Path) -> Result<Vec<Script>> {
    let suite = source.join("src/test/regress");
    let schedule = fs::read_to_string(suite.join("parallel_schedule")).with_context(|| {
        format!("no regression suite in {}; `cargo xtask setup` gets it", source.display())
    })?;
    let tests = schedule.lines().filter_map(|line| line.strip_prefix("test:"));
    let mut scripts = Vec::new();
    for name in tests.flat_map(str::split_whitespace) {
        scripts.extend(script(&suite.join("sql").join(format!("{name}.sql")), false, true));
    }
    let mut others = Vec::new();
    for folder in ["contrib", "src/pl", "src/test/modules"] {
        find(&source.join(folder), 0, &mut others);
    }
    others.sort();
    scripts.extend(others.iter().filter_map(|path| script(path, false, false)));
    let mut applications = Vec::new();
    find(own, 0, &mut applications);
    applications.sort();
    scripts.extend(applications.iter().filter_map(|path| script(path, true, false)));
    Ok(scripts)
}

/// `None`: it is not UTF-8, and psql would send it in another encoding.
fn script(path: &Path, application: bool, ordered: bool) -> Option<Script> {
    let text = fs::read_to_string(path).ok()?;
    let name = path.file_stem()?.to_string_lossy().into_owned();
    Some(Script { name, statements: psql::statements(&text), application, ordered })
}

/// SQL files below a folder.
fn find(folder: &Path, depth: usize, found: &mut Vec<std::path::PathBuf>) {
    const DEEPEST: usize = 6;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && depth < DEEPEST {
            find(&path, depth + 1, found);
        } else if path.extension().is_some_and(|extension| extension == "sql") {
            found.push(path);
        }
    }
}

/// Of the regression SQL one statement in so many goes through the proxy.
const SAMPLE: usize = 4;

/// Every distinct statement is read and decided on here and parsed by the server; what applications send, what is
/// hard to read and a sample of the rest go through the proxy at `proxy`, whose policies in `open` permit everything
/// that can be read.
pub fn refusals(
    scripts: &[Script],
    (open, proxy): (&Path, SocketAddr),
    scratch: &mut Scratch,
    report: &mut Report,
) -> Result<()> {
    let shipped = Judge::new(None, "")?;
    let open = Judge::new(Some(open), "")?;
    let mut reader = Reader::new();
    let mut seen = HashSet::new();
    let (mut accepted, mut rejected, mut refused, mut reads, mut proxied) = (0, 0, 0, 0, 0);
    let mut server = Client::log_in(scratch.address(), OWNER, DATABASE)?;
    let mut client = Client::log_in(proxy, OWNER, DATABASE)?;
    for script in scripts {
        for text in &script.statements {
            if !seen.insert(text.as_str()) {
                continue;
            }
            // Only prepared, by the protocol's own means: decided as if it ran, but nothing happens.
            let statement = reader.read(text.as_bytes(), &Modes::default());
            let refuses = open.refuses(&statement).is_some();
            let hard = refuses || statement.parse != Parse::Full;
            let through = hard || script.application || seen.len() % SAMPLE == 0;
            proxied += usize::from(through);
            let answer = if through { client.parse(text)? } else { server.parse(text)? };
            let guard = refuses || answer.sqlstate() == REFUSED;
            let answer = if guard { scratch.parse(&[], text.as_bytes())? } else { answer };
            if rejects(&answer) {
                rejected += 1;
                continue;
            }
            accepted += 1;
            let must_pass = script.application || only_reads(&statement);
            let complaint = if guard {
                Some("refused although everything is permitted".to_owned())
            } else {
                let policy = must_pass.then(|| shipped.refuses(&statement)).flatten();
                policy.map(|policy| format!("refused by the shipped policy {policy}"))
            };
            reads += usize::from(only_reads(&statement));
            match complaint {
                None => report.pass(1),
                Some(complaint) => {
                    refused += 1;
                    let read = reading(&statement);
                    let text = text.escape_debug();
                    report.problem(format!(
                        "{}: {complaint}: {text:.300}\n         read as {read}",
                        script.name
                    ));
                }
            }
        }
    }
    report.figure("harmless: distinct statements that the server takes", accepted);
    report.figure("harmless: rejected by the server's own parser", rejected);
    report.figure("harmless: parsed through the proxy", proxied);
    report.figure("harmless: of these called read-only", reads);
    report.figure("harmless: false refusals", refused);
    report.figure("harmless: read", reader.levels());
    if accepted < 20_000 {
        report.problem(format!("only {accepted} distinct harmless statements: is the source complete?"));
    }
    Ok(())
}

/// The server cannot parse it. Several commands in one message it only takes as a simple query.
fn rejects(answer: &crate::client::Answer) -> bool {
    let several = answer.error.as_ref().is_some_and(|(_, text)| text.contains("multiple commands"));
    NO_STATEMENT.contains(&answer.sqlstate()) && !several
}

/// Runs the regression suite on the server itself: before each statement that is called read-only runs, it runs in a
/// READ ONLY transaction.
pub fn read_only(scripts: &[Script], scratch: &Scratch, report: &mut Report) -> Result<()> {
    Client::log_in(scratch.address(), OWNER, "postgres")?
        .query(format!("CREATE DATABASE {REGRESSION} TEMPLATE template0"))?;
    let assistant = Judge::new(None, "claude")?;
    let mut reader = Reader::new();
    let (mut called, mut succeeded, mut wrong, mut opaque) = (0, 0, 0, 0);
    for script in scripts.iter().filter(|script| script.ordered) {
        let mut client = session(scratch)?;
        for text in &script.statements {
            if client.status == 'E' {
                client.query("ROLLBACK")?;
            }
            let statement = reader.read(text.as_bytes(), &Modes::default());
            let calls_code = statement.effects.iter().any(is_opaque);
            if client.status == 'I' && (only_reads(&statement) || calls_code && is_query(text)) {
                client.expect("BEGIN READ ONLY")?;
                let answer = client.query(text)?;
                if answer.closed {
                    client = session(scratch)?;
                    continue;
                }
                client.query("ROLLBACK")?;
                let good = answer.error.is_none();
                if calls_code {
                    // What an assistant may not do although it would only have read.
                    opaque += usize::from(good && assistant.refuses(&statement).is_some());
                } else {
                    called += 1;
                    succeeded += usize::from(good);
                    match is_read_only(&statement, text, &answer) {
                        Ok(()) => {
                            report.pass(1);
                            if good {
                                // It left nothing behind that the next statements need.
                                continue;
                            }
                        }
                        Err(problem) => {
                            wrong += 1;
                            report.problem(format!("{}: {problem}", script.name));
                        }
                    }
                }
            }
            // What hangs or ends the session is left behind: the next script has a new one.
            match client.query(text) {
                Ok(answer) if !answer.closed => {}
                _ => client = session(scratch)?,
            }
        }
    }
    report.figure("read-only: statements called so and tried", called);
    report.figure("read-only: succeeded, wrongly called so", format!("{succeeded}, {wrong}"));
    report.figure("read-only: reads that an AI agent could not do", opaque);
    Ok(())
}

fn is_query(text: &str) -> bool {
    let first = text.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    ["select", "with", "values", "table"].iter().any(|word| first.eq_ignore_ascii_case(word))
}

fn session(scratch: &Scratch) -> Result<Client> {
    let mut client = Client::log_in(scratch.address(), OWNER, REGRESSION)?;
    client.expect("SET statement_timeout = '2s'; SET lock_timeout = '1s'")?;
    Ok(client)
}
