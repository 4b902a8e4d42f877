//! A record in one line, for people.

use guard_common::audit::{
    display::{short, visible},
    v1::{
        Approval, ConnectionOpened, Decision, Enforcement, Gap, Masking, Outcomes, Record, SessionStarted,
        Statement, Workload, approval::Event, connection_opened::Access, decision::Verdict,
        enforcement::Action, record::Body,
    },
};
use jiff::{Timestamp, tz::TimeZone};

/// Number, time, and what happened.
pub fn of(sequence: u64, record: &Record, colours: bool) -> String {
    let what = record.body.as_ref().map_or_else(|| "a record that this version cannot read".to_owned(), body);
    let verdict = match record.body.as_ref().and_then(decision).map(Decision::verdict) {
        None => "",
        Some(Verdict::Allowed) => "allowed ",
        Some(Verdict::Refused) => "REFUSED ",
        Some(Verdict::WouldRefuse) => "WOULD REFUSE ",
        Some(Verdict::Held) => "HELD ",
        Some(Verdict::WouldHold) => "WOULD HOLD ",
        Some(Verdict::Unspecified) => "undecided ",
    };
    let colour = match verdict {
        "allowed " => "\x1b[32m",
        "REFUSED " => "\x1b[31m",
        "WOULD REFUSE " | "HELD " | "WOULD HOLD " => "\x1b[33m",
        _ => "",
    };
    let (on, off) = if colours && !colour.is_empty() { (colour, "\x1b[0m") } else { ("", "") };
    format!("{sequence:>8}  {}  {on}{verdict}{off}{what}", time(record))
}

/// The decision that a record holds.
pub fn decision(body: &Body) -> Option<&Decision> {
    match body {
        Body::ConnectionOpened(connection) => connection.decision.as_ref(),
        Body::Statement(statement) => statement.decision.as_ref(),
        _ => None,
    }
}

fn time(record: &Record) -> String {
    let at = record.at.as_ref().and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
    at.map_or_else(
        || "-".to_owned(),
        |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
    )
}

fn body(body: &Body) -> String {
    match body {
        Body::AgentStarted(started) => {
            format!("agent {} started, mode {}", visible(&started.agent_version), visible(&started.mode))
        }
        Body::AgentStopped(stopped) => format!("agent stopped: {}", short(&stopped.reason, 200)),
        Body::PolicyChange(change) if change.error.is_empty() => {
            format!("policy set {} with {} policies", short(&change.policy_hash, 12), change.policies)
        }
        Body::PolicyChange(change) => format!("policy set not taken: {}", short(&change.error, 200)),
        Body::SensorState(sensor) => format!(
            "sensor on rung {}, {} of {} programs attached",
            visible(&sensor.rung),
            sensor.programs.iter().filter(|program| program.attached).count(),
            sensor.programs.len()
        ),
        Body::Gap(gap) => lost(gap),
        Body::ConnectionOpened(connection) => connected(connection),
        Body::ConnectionClosed(closed) => format!(
            "connection closed after {} ms, {} bytes in, {} out",
            closed.duration_us / 1_000,
            closed.bytes_from_client,
            closed.bytes_to_client
        ),
        Body::SessionStarted(session) => logged_in(session),
        Body::ClientConnected(connected) => format!(
            "connect from this host to {} by {}",
            short(&connected.server_address, 110),
            connected.workload.as_ref().map_or_else(|| "nobody known".to_owned(), workload)
        ),
        Body::Statement(statement) => ran(statement),
        Body::Outcomes(outcomes) => ended(outcomes),
        Body::Approval(approval) => asked(approval),
        Body::KeyChange(change) if change.previous_key_id.is_empty() => {
            format!("key {} signs from here on ({})", visible(&change.key_id), visible(&change.reason))
        }
        Body::KeyChange(change) => format!(
            "key {} hands over to key {} ({})",
            visible(&change.previous_key_id),
            visible(&change.key_id),
            visible(&change.reason)
        ),
        Body::Checkpoint(checkpoint) => {
            format!("records up to {} signed by key {}", checkpoint.sequence, visible(&checkpoint.key_id))
        }
        Body::Tombstone(tombstone) => format!(
            "records {} to {} were deleted ({})",
            tombstone.first,
            tombstone.last,
            visible(&tombstone.reason)
        ),
        Body::PersonAction(action) => format!(
            "{} at the control plane: {} {}",
            short(&action.person, 60),
            visible(&action.action),
            short(&action.subject, 200)
        ),
        Body::ControlEvent(event) => format!("{}: {}", visible(&event.event), short(&event.detail, 200)),
    }
}

fn lost(gap: &Gap) -> String {
    format!("GAP: {} records lost ({}): {}", gap.lost, visible(&gap.source), short(&gap.detail, 200))
}

fn connected(connection: &ConnectionOpened) -> String {
    let how = match connection.access() {
        Access::Proxied => "connect",
        Access::NonProxied => "NON-PROXIED connect",
        Access::Unspecified => "connect (way unknown)",
    };
    let server = connection.server.as_ref().map_or("a database", |server| &server.name);
    let place =
        [&connection.server_address, &connection.unix_path].into_iter().find(|place| !place.is_empty());
    format!(
        "{how} to {} at {} by {}{}",
        short(server, 60),
        short(place.map_or("-", |place| place), 110),
        connection.workload.as_ref().map_or_else(|| "nobody known".to_owned(), workload),
        connection.enforcement.as_ref().map(acted).unwrap_or_default()
    )
}

/// What was done about a connection round the proxy.
fn acted(enforcement: &Enforcement) -> String {
    let what = match enforcement.action() {
        Action::RefusedInKernel => "refused in the kernel",
        Action::Dropped => "its SYN was refused",
        Action::Cut => "cut",
        Action::Failed => return format!("; NOT STOPPED: {}", short(&enforcement.detail, 200)),
        Action::Unspecified => return String::new(),
    };
    match enforcement.attempts {
        0 | 1 => format!("; {what}"),
        attempts => format!("; {what}, {attempts} attempts"),
    }
}

fn workload(workload: &Workload) -> String {
    if workload.executable.is_empty() && !workload.remote_address.is_empty() {
        return short(&workload.remote_address, 60);
    }
    let mut text = format!("{} [{}]", short(&workload.executable, 100), workload.pid);
    let container = workload.container.as_ref().map_or("", |container| container.id.as_str());
    let names = [
        ("user", workload.user.as_str()),
        ("unit", &workload.unit),
        ("container", container),
        ("AI agent", &workload.ai_agent),
    ];
    for (label, name) in names.into_iter().filter(|(_, name)| !name.is_empty()) {
        text.push_str(&format!(", {label} {}", short(name, 40)));
    }
    text
}

fn logged_in(session: &SessionStarted) -> String {
    let who = format!("{}@{}", short(&session.db_user, 60), short(&session.database, 60));
    match session.failure.as_str() {
        "" => format!("login of {who}"),
        sqlstate => format!("login of {who} failed with {}", visible(sqlstate)),
    }
}

fn ran(statement: &Statement) -> String {
    let policy = statement.decision.as_ref().map_or("", |decision| &decision.policy);
    let by = if policy.is_empty() { String::new() } else { format!(" by {}", short(policy, 60)) };
    format!(
        "{} as {}@{}{by}{}: {}",
        short(&statement.workload, 60),
        short(&statement.db_user, 60),
        short(&statement.database, 60),
        seen(statement),
        short(&statement.text, 400)
    )
}

/// How a statement that did not come through the proxy is known.
fn seen(statement: &Statement) -> String {
    if statement.evidence.is_empty() {
        return String::new();
    }
    let inside = if statement.nested { ", inside of another" } else { "" };
    let times =
        if statement.executions > 1 { format!(", {} times", statement.executions) } else { String::new() };
    format!(" (seen in the server{inside}{times})")
}

fn ended(outcomes: &Outcomes) -> String {
    let failed = outcomes.outcomes.iter().filter(|outcome| !outcome.sqlstate.is_empty()).count();
    let mut text = match &outcomes.outcomes[..] {
        [one] if one.sqlstate.is_empty() => format!("outcome: {}", short(&one.command_tag, 60)),
        [one] => format!("outcome: failed with {}", short(&one.sqlstate, 5)),
        many => format!("outcomes of {} statements, {failed} failed", many.len()),
    };
    let masking = outcomes.outcomes.iter().filter_map(|outcome| outcome.masking.as_ref());
    masking.for_each(|masking| text.push_str(&masked(masking)));
    text
}

/// What was masked of a statement's results, and what was shown.
fn masked(masking: &Masking) -> String {
    /// Columns that are named; of more there is only their number.
    const NAMED: usize = 6;
    let list = |columns: Vec<String>| {
        let more = columns.len().saturating_sub(NAMED);
        let mut list = columns.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
        if more > 0 {
            list.push_str(&format!(" and {more} more"));
        }
        list
    };
    let mut text = String::new();
    if !masking.columns.is_empty() {
        let columns = masking.columns.iter().map(|column| {
            let rule = if column.rule.is_empty() { "found in values" } else { &column.rule };
            format!(
                "{} ({}, {}, {} values)",
                short(&column.column, 60),
                short(&column.kind, 20),
                short(rule, 20),
                column.values
            )
        });
        let word = if masking.only_recorded { "would mask" } else { "masked" };
        text.push_str(&format!("; {word} {} in {} rows", list(columns.collect()), masking.rows));
    }
    if !masking.revealed.is_empty() {
        let columns = masking
            .revealed
            .iter()
            .map(|column| format!("{} by {}", short(&column.column, 60), short(&column.policy, 40)));
        text.push_str(&format!("; shown in clear {}", list(columns.collect())));
    }
    if masking.in_messages > 0 {
        text.push_str(&format!("; {} values masked in messages", masking.in_messages));
    }
    if !masking.care.is_empty() {
        text.push_str(&format!("; with care: {}", short(&masking.care, 80)));
    }
    text
}

fn asked(approval: &Approval) -> String {
    let what = match approval.event() {
        Event::Unspecified => "something",
        Event::Requested => "asked for",
        Event::Approved if approval.complete => "approved",
        Event::Approved => "approved by one of several",
        Event::Denied => "denied",
        Event::Expired => "expired",
        Event::Withdrawn => "withdrawn",
        Event::Ran => "ran",
        Event::BreakGlass => "BREAK-GLASS",
        Event::Refused => "refused after all",
    };
    let by = approval.person.as_ref().map_or_else(String::new, |person| {
        let user = if person.login_user.is_empty() { &person.user } else { &person.login_user };
        format!(" by {}", short(user, 40))
    });
    let note = [&approval.note, &approval.justification].into_iter().find(|note| !note.is_empty());
    let note = note.map_or_else(String::new, |note| format!(" ({})", short(note, 80)));
    format!("approval {} {what}{by}{note}: {}", visible(&approval.request_id), short(&approval.text, 120))
}
