//! The dangerous corpus through the real proxy in enforce mode: every case must be refused, and nothing may change.

use std::{net::SocketAddr, path::Path};

use anyhow::Result;
use guard_tests::{Agent, AgentConfig, Postgres, postgres::OWNER};

use crate::{
    client::{Answer, Client},
    corpus::{Case, Oracle},
    generator::Generated,
    oracle::{DATABASE, Scratch},
    report::Report,
};

/// What guard refuses with. The session's own role may do everything: the server never says it.
pub const REFUSED: &str = "42501";

/// Starts guard in enforce mode before `postgres`; without a folder with the policies that it ships.
pub fn agent(postgres: &Postgres, policies: Option<&Path>) -> Result<Agent> {
    let policies = policies.map(Path::to_owned);
    Agent::start(&AgentConfig { policies, ebpf: false, required: false, ..AgentConfig::default() }, postgres)
}

/// Through which guard the corpus goes.
#[derive(Clone, Copy, Debug)]
pub struct Door<'a> {
    /// What its policies are called.
    pub who: &'a str,
    /// Where it listens.
    pub proxy: SocketAddr,
    /// Every message that changes anything is refused, not only the last one of a case.
    pub strict: bool,
}

/// After how many cases the database is looked at, if each was refused.
const BATCH: usize = 50;

/// The corpus, by the simple protocol, by the extended one with and without a name.
pub fn corpus(cases: &[Case], door: Door<'_>, scratch: &mut Scratch, report: &mut Report) -> Result<()> {
    let version = scratch.version()?;
    let who = door.who;
    let (mut refused, mut missed, mut drifted) = (0, 0, 0);
    let mut session = None;
    let cases: Vec<_> =
        cases.iter().filter(|case| case.is_for(version) && case.oracle != Oracle::Reject).collect();
    for (number, case) in cases.iter().enumerate() {
        let mut problems = Vec::new();
        let several = case.messages().len() > 1 || !case.preamble().is_empty();
        for way in if several { &[Way::Simple][..] } else { &[Way::Simple, Way::Unnamed, Way::Named][..] } {
            match attempt(case, *way, door.proxy, &mut session)? {
                None => refused += 1,
                Some(problem) => problems.push(problem),
            }
        }
        let lenient = !door.strict && several;
        if lenient || !problems.is_empty() || number % BATCH == 0 || number + 1 == cases.len() {
            let changes = scratch.drift()?;
            if !changes.is_empty() {
                scratch.restore()?;
                if !lenient {
                    drifted += 1;
                    problems.push(format!("it, or one of the {BATCH} before it, changed {changes:?}"));
                }
            }
        }
        match (&case.known_gap, problems.is_empty()) {
            (_, true) => report.pass(1),
            (Some(_), false) => missed += 1,
            (None, false) => {
                missed += 1;
                report.problem(format!("{who}: {}\n         {}", case.shown(), problems.join("; ")));
            }
        }
    }
    report.figure(&format!("{who}: cases, attempts refused"), format!("{}, {refused}", cases.len()));
    report.figure(&format!("{who}: cases missed, that changed something"), format!("{missed}, {drifted}"));
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Simple,
    Unnamed,
    Named,
}

/// Sends a case. `None`: it was refused and the session goes on, as `session` where nothing was set in it.
fn attempt(case: &Case, way: Way, proxy: SocketAddr, session: &mut Option<Client>) -> Result<Option<String>> {
    let alone = case.messages().len() == 1 && case.preamble().is_empty();
    let mut client = match session.take().filter(|_| alone) {
        Some(client) => client,
        None => Client::log_in(proxy, OWNER, DATABASE)?,
    };
    for text in case.preamble() {
        client.expect(&text)?;
    }
    let mut refused = false;
    let mut last = Answer::default();
    for message in case.messages() {
        last = match way {
            Way::Simple => client.query(message)?,
            Way::Unnamed => client.execute("", message)?,
            Way::Named => client.execute("s1", message)?,
        };
        if last.closed {
            return Ok(Some(format!("{way:?}: the session ended")));
        }
        refused |= last.sqlstate() == REFUSED;
    }
    if !refused {
        return Ok(Some(format!("{way:?}: not refused: {:?}", last.error)));
    }
    if !goes_on(&mut client)? {
        return Ok(Some(format!("{way:?}: the session cannot be used any more")));
    }
    *session = alone.then_some(client);
    Ok(None)
}

/// Whether the session can still be used after a refusal.
fn goes_on(client: &mut Client) -> Result<bool> {
    if client.status != 'I' {
        client.query("ROLLBACK")?;
    }
    Ok(client.query("SELECT 'goes on'")?.value() == Some("goes on") && client.status == 'I')
}

/// Generated statements in one session: each is refused, and nothing changes.
pub fn generated(
    all: &[Generated],
    proxy: SocketAddr,
    scratch: &mut Scratch,
    report: &mut Report,
) -> Result<()> {
    let mut client = Client::log_in(proxy, OWNER, DATABASE)?;
    let mut refused = 0;
    for (number, one) in all.iter().enumerate() {
        let answer = match number % 2 {
            0 => client.query(&one.text)?,
            _ => client.execute("", &one.text)?,
        };
        if answer.sqlstate() == REFUSED && !answer.closed {
            refused += 1;
            continue;
        }
        report.problem(format!(
            "through the proxy: {}\n         not refused: {:?}",
            one.text.escape_debug(),
            answer.error
        ));
        client = Client::log_in(proxy, OWNER, DATABASE)?;
    }
    let good = goes_on(&mut client)?;
    let changes = scratch.drift()?;
    if !good || !changes.is_empty() {
        report.problem(format!("after all generated statements: goes on {good}, changed {changes:?}"));
        scratch.restore()?;
    }
    report.pass(refused);
    report.figure("generated: through the proxy, refused", format!("{}, {refused}", all.len()));
    Ok(())
}
