//! The corpus and generated statements against the reading, and the reading against the real server.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use guard_agent::sql::{Modes, Statement};
use guard_policy::vocabulary::Effect;

use crate::{
    client::Answer,
    corpus::{Case, Oracle},
    generator::Generated,
    oracle::{Finding, Outcome, READ_ONLY, Scratch, judge},
    reading::{Judge, Reader},
    report::Report,
    truth::{Admits, Truth, reading},
};

/// What the server says to text that it cannot parse: wrong syntax, wrong escapes, wrong bytes.
pub const NO_STATEMENT: &[&str] = &["42601", "22025", "22019", "22021", "22P05", "22P06"];

/// Checks every case of the corpus that applies to the server's version.
pub fn corpus(cases: &[Case], scratch: &mut Scratch, report: &mut Report) -> Result<()> {
    let version = scratch.version()?;
    let shipped = Judge::new(None, "")?;
    let mut reader = Reader::new();
    let (mut admits, mut rejected, mut destructive) = (BTreeMap::<_, usize>::new(), 0, 0);
    let applying: Vec<_> = cases.iter().filter(|case| case.is_for(version)).collect();
    for case in &applying {
        let readings = reader.read_case(case);
        let mut problems = truths(case, &readings, &mut admits);
        problems.extend(server(case, &readings, scratch)?);
        rejected += usize::from(case.oracle == Oracle::Reject);
        if case.is_destructive() && case.oracle != Oracle::Reject {
            destructive += 1;
            if readings.iter().all(|statement| shipped.refuses(statement).is_none()) {
                problems.push("no shipped policy refuses it".to_owned());
            }
        }
        note(case, &readings, problems, report);
    }
    let of = |how| admits.get(&how).copied().unwrap_or_default();
    report.figure("corpus: cases for this server, of all", format!("{} of {}", applying.len(), cases.len()));
    report.figure("corpus: refused by the server's own parser", rejected);
    report.figure("corpus: loses data, refused by shipped policies", destructive);
    report.figure(
        "corpus: truths named, unreadable, opaque, missed",
        format!(
            "{}, {}, {}, {}",
            of(Admits::Named),
            of(Admits::Unreadable),
            of(Admits::Opaque),
            of(Admits::Missed)
        ),
    );
    report.figure("corpus: read", reader.levels());
    Ok(())
}

fn note(case: &Case, readings: &[Arc<Statement>], problems: Vec<String>, report: &mut Report) {
    let read: Vec<String> = readings.iter().map(|statement| reading(statement)).collect();
    let note = if case.note.is_empty() { String::new() } else { format!(" ({})", case.note) };
    let text = format!("{}{note}\n         read as {}", case.shown(), read.join(" ⏎ "));
    match (&case.known_gap, problems.is_empty()) {
        (None, true) => report.pass(1),
        (None, false) => report.problem(format!("{text}\n         {}", problems.join("; "))),
        (Some(why), false) => report.gap(format!("{}: {why}", case.shown())),
        (Some(_), true) => {
            report.problem(format!("{text}\n         is read well now: take `known_gap` away"))
        }
    }
}

/// Truths that no message's reading admits as it has to.
fn truths(case: &Case, readings: &[Arc<Statement>], counts: &mut BTreeMap<Admits, usize>) -> Vec<String> {
    let check = |truth: &Truth| {
        let best = readings.iter().map(|statement| truth.admitted_by(statement)).min();
        let best = best.unwrap_or(Admits::Missed);
        *counts.entry(best).or_default() += 1;
        match best {
            Admits::Missed => Some(format!("`{truth}` is missed")),
            Admits::Opaque if !case.opaque => {
                Some(format!("`{truth}` is not seen in the code that it holds"))
            }
            Admits::Named | Admits::Unreadable | Admits::Opaque => None,
        }
    };
    case.truth.iter().filter_map(check).collect()
}

/// What the server thinks of the case and of the reading.
fn server(case: &Case, readings: &[Arc<Statement>], scratch: &mut Scratch) -> Result<Vec<String>> {
    let (preamble, messages) = (case.preamble(), case.messages());
    let mut problems = Vec::new();
    if case.oracle == Oracle::Parse {
        for message in &messages {
            let answer = scratch.parse(&preamble, message)?;
            let several = answer.error.as_ref().is_some_and(|(_, text)| text.contains("multiple commands"));
            if NO_STATEMENT.contains(&answer.sqlstate()) && !several {
                problems.push(format!("corpus: the server cannot parse it: {:?}", answer.error));
            }
        }
        return Ok(problems);
    }
    let outcome = scratch.run(&preamble, &messages)?;
    let failed = outcome.answer.error.is_some() || outcome.answer.closed;
    match case.oracle {
        Oracle::Reject if !failed => problems.push("corpus: the server does not reject it".to_owned()),
        Oracle::Run | Oracle::Runs if failed => {
            problems.push(format!("corpus: it fails on the server: {:?}", outcome.answer.error));
        }
        Oracle::Run if outcome.changes.is_empty() => problems.push("corpus: it changes nothing".to_owned()),
        _ => {}
    }
    let effects: Vec<Effect> = readings.iter().flat_map(|statement| statement.effects.clone()).collect();
    if !case.opaque {
        problems.extend(findings(&effects, &outcome, &case.truth));
    }
    Ok(problems)
}

fn findings(effects: &[Effect], outcome: &Outcome, truth: &[Truth]) -> Vec<String> {
    let selects_all = truth.iter().any(|truth| truth.to_string().ends_with(" where"));
    let findings = judge(effects, &outcome.changes).into_iter();
    let worth = findings.filter(|finding| !(selects_all && matches!(finding, Finding::EmptiedWithWhere(_))));
    worth.map(|finding| format!("the server says otherwise: {finding:?}")).collect()
}

/// Checks generated statements: all against the reading, the first `on_server` against the server.
pub fn generated(
    all: &[Generated],
    on_server: usize,
    scratch: &mut Scratch,
    report: &mut Report,
) -> Result<()> {
    let mut reader = Reader::new();
    let shipped = Judge::new(None, "")?;
    let (mut rejected, mut ran, mut opaque) = (0, 0, 0);
    for (number, one) in all.iter().enumerate() {
        let statement = reader.read(one.text.as_bytes(), &Modes::default());
        let mut problems = Vec::new();
        for truth in &one.truth {
            match truth.admitted_by(&statement) {
                Admits::Missed => problems.push(format!("`{truth}` is missed")),
                Admits::Opaque if !one.opaque => problems.push(format!("`{truth}` is not seen in its code")),
                Admits::Opaque => opaque += 1,
                Admits::Named | Admits::Unreadable => {}
            }
        }
        let destructive = !one.opaque && one.truth.iter().any(Truth::is_destructive);
        if destructive && shipped.refuses(&statement).is_none() {
            problems.push("no shipped policy refuses it".to_owned());
        }
        let mut valid = true;
        if number < on_server {
            let outcome = scratch.run(&[], &[one.text.clone().into_bytes()])?;
            valid = outcome.answer.error.is_none();
            ran += usize::from(valid);
            rejected += usize::from(!valid);
            problems.extend(findings(&statement.effects, &outcome, &one.truth));
        }
        if problems.is_empty() {
            report.pass(1);
        } else if valid {
            let shown = one.text.escape_debug();
            let problems = problems.join("; ");
            report.problem(format!(
                "generated: {shown}\n         read as {}\n         {problems}",
                reading(&statement)
            ));
        }
    }
    report.figure("generated: distinct statements", all.len());
    report.figure("generated: run on the server, rejected by it", format!("{ran}, {rejected}"));
    report.figure("generated: truths seen only as opaque code", opaque);
    report.figure("generated: read", reader.levels());
    Ok(())
}

/// What is called read-only ran in a READ ONLY transaction, or failed for another reason than writing.
///
/// # Errors
/// The statement, its reading and what the server said.
pub fn is_read_only(statement: &Statement, text: &str, answer: &Answer) -> Result<(), String> {
    if answer.sqlstate() != READ_ONLY {
        return Ok(());
    }
    let read = reading(statement);
    Err(format!(
        "{}\n         read as {read}\n         is not read-only: {:?}",
        text.escape_debug(),
        answer.error
    ))
}
