//! Records as people read them. Everything that a client has written passes [`text`] on its way.

use guard_common::{
    api::control::{RemoteClient, StoredDecision, stored_decision::Subject},
    audit::{
        display,
        v1::{
            ConnectionOpened, Decision, Statement, Workload,
            connection_opened::{Access, Transport},
            decision::Verdict,
        },
    },
};
use jiff::{Timestamp, tz::TimeZone};
use maud::{Markup, html};

use super::reported;

/// Letters of a statement in a list.
const SHORT: usize = 240;

/// A client's words: at most `limit` letters, with everything visible that would hide or turn around other text.
pub fn text(words: &str, limit: usize) -> String {
    display::short(words, limit)
}

/// A statement in one line. Where a line ended is still seen: a comment may have ended with it.
fn one_line(statement: &str) -> String {
    let lines = statement.lines().map(str::trim).filter(|line| !line.is_empty());
    // No more than is shown: statements may be long.
    text(&lines.take(SHORT).collect::<Vec<_>>().join(" \u{21b5} "), SHORT)
}

/// A client's words over several lines, as in a statement; lines stay lines.
pub fn lines(words: &str) -> String {
    let lines: Vec<_> = words.split('\n').map(|line| display::visible(line.trim_end_matches('\r'))).collect();
    lines.join("\n")
}

/// A verdict in a word, and the class of its colour.
pub fn verdict(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Allowed => ("allowed", "allowed"),
        Verdict::Refused => ("refused", "refused"),
        Verdict::WouldRefuse => ("would refuse", "would"),
        Verdict::Held => ("held", "held"),
        Verdict::WouldHold => ("would hold", "would"),
        Verdict::Unspecified => ("unknown", "unknown"),
    }
}

/// The same as a small label.
pub fn pill(of: Verdict) -> Markup {
    let (name, class) = verdict(of);
    html! { span class={ "pill " (class) } { (name) } }
}

/// Seconds and nanoseconds since 1970 as a time.
pub fn stamp(at: Option<&pbjson_types::Timestamp>) -> Option<Timestamp> {
    at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok())
}

/// Seconds since 1970 as a time.
pub fn seconds(at: i64) -> Option<Timestamp> {
    Timestamp::from_second(at).ok()
}

/// Date and time of day, UTC.
pub fn full_time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A time as in `14:03:22`, with its date where that is not today; all of it when one asks.
pub fn time(at: Option<Timestamp>) -> Markup {
    let Some(at) = at else { return html! { span.faint { "—" } } };
    let (then, now) = (at.to_zoned(TimeZone::UTC), Timestamp::now().to_zoned(TimeZone::UTC));
    let form = if then.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" };
    html! {
        time datetime=(at.to_string()) title={ (full_time(at)) " UTC" } { (then.strftime(form).to_string()) }
    }
}

/// How long ago.
pub fn ago(at: Option<Timestamp>) -> Markup {
    let Some(at) = at else { return html! { span.faint { "never" } } };
    let seconds = Timestamp::now().as_second() - at.as_second();
    let words = match seconds {
        i64::MIN..-5 => "in the future".to_owned(),
        -5..5 => "just now".to_owned(),
        5..90 => format!("{seconds} s ago"),
        90..5_400 => format!("{} min ago", seconds / 60),
        5_400..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    };
    html! { time datetime=(at.to_string()) title={ (full_time(at)) " UTC" } { (words) } }
}

/// A number with its thousands apart.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

/// A number with its noun.
pub fn counted(number_of: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(number_of), if number_of == 1 { one } else { many })
}

/// Bytes in a unit that fits.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{} B", number(bytes)),
        10_000..10_000_000 => format!("{} KiB", bytes / 1_024),
        10_000_000..10_000_000_000 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{} GiB", bytes / 1_073_741_824),
    }
}

/// A time span.
pub fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000_000 => format!("{} ms", micros / 1_000),
        10_000_000..600_000_000 => format!("{} s", micros / 1_000_000),
        _ => format!("{} min", micros / 60_000_000),
    }
}

/// The first digits of a hash.
pub fn hash(hash: &str) -> Markup {
    html! {
        @if hash.is_empty() { span.faint { "—" } }
        @else { code title=(text(hash, 80)) { (text(hash, 12).trim_end_matches('…')) } }
    }
}

/// Who is behind a workload, in a line.
pub fn who(workload: Option<&Workload>) -> String {
    workload.map_or_else(|| "nobody known".to_owned(), |workload| text(&workload.label(), 80))
}

/// Where a connection goes to.
pub fn server(connection: &ConnectionOpened) -> String {
    let name = connection.server.as_ref().map_or("a database", |server| &server.name);
    let place = match connection.transport() {
        Transport::Unix => &connection.unix_path,
        Transport::Tcp | Transport::Unspecified => &connection.server_address,
    };
    format!("{} at {}", text(name, 40), text(place, 80))
}

/// The address of a connection's own page.
pub fn connection_address(agent_id: &str, connection_id: &str) -> Option<String> {
    let (agent, connection) =
        (uuid::Uuid::try_parse(agent_id).ok()?, uuid::Uuid::try_parse(connection_id).ok()?);
    Some(format!("/connections/{agent}/{connection}"))
}

/// One decision of a list.
pub fn event(stored: &StoredDecision) -> Markup {
    let nothing = Decision::default();
    match &stored.subject {
        Some(Subject::Connection(connection)) => {
            let decision = connection.decision.as_ref().unwrap_or(&nothing);
            row(stored, decision, &connection.connection_id, &connected(connection, stored.remote.as_ref()))
        }
        Some(Subject::Statement(statement)) => {
            let decision = statement.decision.as_ref().unwrap_or(&nothing);
            row(stored, decision, &statement.connection_id, &ran(statement))
        }
        None => html! {},
    }
}

/// What happened, and the words around it.
struct Told {
    title: Markup,
    who: Markup,
    round: bool,
}

fn connected(connection: &ConnectionOpened, remote: Option<&RemoteClient>) -> Told {
    let round = connection.access() == Access::NonProxied;
    Told {
        title: html! {
            @if round { "went round the proxy to " } @else { "connected to " }
            (server(connection))
        },
        who: html! {
            b { (who(connection.workload.as_ref())) }
            @if let Some(workload) = &connection.workload {
                @if workload.pid != 0 { " · pid " (workload.pid) }
                @if !workload.user.is_empty() { " · user " (text(&workload.user, 40)) }
            }
            @if let Some(remote) = remote { " " (reported::tag(remote)) }
        },
        round,
    }
}

fn ran(statement: &Statement) -> Told {
    Told {
        title: html! { code { (one_line(&statement.text)) } },
        who: html! {
            b { (text(&statement.workload, 80)) }
            " as " (text(&statement.db_user, 40)) "@" (text(&statement.database, 40))
        },
        round: !statement.evidence.is_empty(),
    }
}

fn row(stored: &StoredDecision, decision: &Decision, connection_id: &str, told: &Told) -> Markup {
    let address = connection_address(&stored.agent_id, connection_id);
    html! {
        li class={ "event " (verdict(decision.verdict()).1) } {
            (time(stamp(stored.at.as_ref())))
            (pill(decision.verdict()))
            div.told {
                div.title {
                    @match &address {
                        Some(address) => a href={ (address) "#r" (stored.sequence) } { (told.title) },
                        None => (told.title),
                    }
                }
                div.meta {
                    (told.who) " · " span.host { (text(&stored.host, 40)) }
                    @if told.round { " · " span.tag.round { "round the proxy" } }
                    @if !decision.policy.is_empty() { " · policy " span.policy { (text(&decision.policy, 60)) } }
                    @if !decision.subject.is_empty() { " · " (text(&decision.subject, 120)) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client would write to be seen as something else.
    const HOSTILE: [&str; 5] = [
        "<script>alert(1)</script>",
        "\" onmouseover=\"alert(1)",
        "'><img src=x onerror=alert(1)>",
        "</code></a><form action=//evil>",
        "\u{202e}elbat pord\u{2066}\u{0}\u{1b}[2J",
    ];

    fn assert_harmless(page: &str) {
        for part in ["<script", "<img", "<form", "onmouseover=\"", "\u{202e}", "\u{2066}", "\u{0}", "\u{1b}"]
        {
            assert!(!page.contains(part), "{part:?} in {page}");
        }
    }

    #[test]
    fn what_clients_write_stays_text_in_every_field_of_a_list() {
        for words in HOSTILE {
            let own = words.to_owned();
            let decision = Some(Decision {
                policy: own.clone(),
                subject: own.clone(),
                reason: own.clone(),
                ..Decision::default()
            });
            let workload =
                Workload { executable: own.clone(), user: own.clone(), pid: 1, ..Workload::default() };
            let connection = ConnectionOpened {
                connection_id: own.clone(),
                unix_path: own.clone(),
                transport: Transport::Unix.into(),
                workload: Some(workload),
                decision: decision.clone(),
                ..ConnectionOpened::default()
            };
            let statement = Statement {
                connection_id: own.clone(),
                text: own.clone(),
                workload: own.clone(),
                db_user: own.clone(),
                database: own.clone(),
                decision,
                ..Statement::default()
            };
            for subject in [Subject::Connection(connection), Subject::Statement(statement)] {
                let stored = StoredDecision {
                    agent_id: own.clone(),
                    host: own.clone(),
                    subject: Some(subject),
                    ..StoredDecision::default()
                };
                assert_harmless(&event(&stored).into_string());
            }
        }
    }

    #[test]
    fn lines_of_a_statement_stay_lines_and_nothing_hides_in_them() {
        assert_eq!(lines("select 1;\r\n\u{202e}select 2"), "select 1;\n\\u{202e}select 2");
    }

    #[test]
    fn a_statement_in_one_line_shows_where_lines_ended() {
        assert_eq!(
            one_line("select 1 -- it\r\n\n  from t\u{202e}"),
            "select 1 -- it \u{21b5} from t\\u{202e}"
        );
    }

    #[test]
    fn numbers_are_read_at_a_glance() {
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!((number(0).as_str(), number(999).as_str()), ("0", "999"));
        assert_eq!(counted(1, "agent", "agents"), "1 agent");
    }
}
