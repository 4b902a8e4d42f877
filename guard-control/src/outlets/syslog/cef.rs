//! The Common Event Format, version 0: a row enters, one bounded line leaves.
//!
//! Keys are those of its dictionary; what it has no key for stands in labelled strings. In the header `|` and `\` are escaped, in
//! values `=` and `\`, line ends become `\n` and `\r`, and whatever else a terminal would act on becomes readable.

use std::net::SocketAddr;

use guard_common::audit::{display::visible, flat::Flat};

/// Says that something was left out or cut.
const CUT: &str = " guardCut=true";

/// The event, in at most `room` bytes: 1,000 or more.
pub(super) fn event(flat: &Flat, room: usize) -> String {
    let kind = flat.kind.as_deref().unwrap_or("unknown");
    let (what, severity) = rank(flat);
    let name = what.map_or(kind.to_owned(), |what| format!("{kind} {what}"));
    let version = env!("CARGO_PKG_VERSION");
    let (id, name) = (in_header(kind), in_header(&name));
    let mut line = Line {
        text: format!("CEF:0|guard|guard|{version}|{id}|{name}|{severity}|"),
        room: room.saturating_sub(CUT.len()),
        first: true,
        cut: false,
    };
    extension(flat, &mut line);
    if line.cut {
        line.text.push_str(CUT);
    }
    line.text
}

/// What was decided, for the name; and how grave it is, from 0 to 10.
fn rank(flat: &Flat) -> (Option<&str>, u8) {
    let verdict = flat.verdict.as_deref();
    let severity = match (verdict, flat.kind.as_deref()) {
        (Some("refused"), _) => 7,
        (_, Some("gap" | "unknown")) => 6,
        (Some("would-refuse" | "held" | "would-hold"), _) => 5,
        (_, Some("control-event")) => 5,
        _ if flat.access.as_deref() == Some("non-proxied") => 5,
        (_, Some("approval" | "policy-change" | "key-change" | "tombstone" | "agent-stopped")) => 4,
        _ => 2,
    };
    (verdict, severity)
}

/// The fields, the most important first: what does not fit is left out.
fn extension(flat: &Flat, line: &mut Line) {
    line.number("rt", flat.occurred_at.map(|micros| micros / 1_000));
    line.text("externalId", &flat.key, 100);
    line.text("dvchost", &flat.host, 100);
    line.text("cat", &flat.kind, 63);
    line.text("act", &flat.verdict, 63);
    line.text("duser", &flat.db_user, 128);
    line.text("suser", &flat.login_user.clone().or(flat.os_user.clone()).or(flat.person.clone()), 128);
    line.labelled("cs2", "policy", &flat.policy, 128);
    line.labelled("cs3", "workload", &flat.workload, 128);
    line.labelled("cs4", "database", &flat.database, 128);
    line.text("destinationServiceName", &flat.server, 128);
    for (keys, address) in [(("src", "spt"), &flat.client_address), (("dst", "dpt"), &flat.server_address)] {
        match address.as_deref().map(str::parse::<SocketAddr>) {
            Some(Ok(address)) => {
                line.text(keys.0, &Some(address.ip().to_canonical().to_string()), 63);
                line.number(keys.1, Some(address.port().into()));
            }
            // A person's address has no port; a unix socket is none.
            _ => line.text(
                keys.0,
                &address.clone().filter(|text| text.parse::<std::net::IpAddr>().is_ok()),
                63,
            ),
        }
    }
    line.number("spid", flat.pid);
    line.number("suid", flat.uid);
    line.text("sproc", &flat.executable, 256);
    line.text("sourceServiceName", &flat.unit.clone().or(flat.pod.clone()).or(flat.container.clone()), 128);
    line.text("requestClientApplication", &flat.application_name, 128);
    line.labelled("cs5", "actions", &flat.actions, 256);
    line.labelled("cs6", "objects", &flat.objects, 512);
    line.labelled("flexString1", "connection", &flat.connection_id, 63);
    line.labelled("flexString2", "access", &flat.access, 63);
    line.number("cnt", flat.executions);
    line.number("in", flat.bytes_from_client);
    line.number("out", flat.bytes_to_client);
    line.labelled("cn1", "rows", &flat.rows.map(|number| number.to_string()), 32);
    line.labelled("cn2", "lost", &flat.lost.map(|number| number.to_string()), 32);
    line.labelled("cn3", "microseconds", &flat.duration_us.map(|number| number.to_string()), 32);
    line.text("outcome", &flat.event, 128);
    line.text("reason", &flat.reason, 512);
    line.text("msg", &flat.detail.clone().or(flat.decision_subject.clone()), 512);
    // The longest goes last, into what is left.
    line.labelled("cs1", "statement", &flat.statement, 4_000);
}

struct Line {
    text: String,
    room: usize,
    first: bool,
    cut: bool,
}

impl Line {
    fn number(&mut self, key: &str, number: Option<i64>) {
        self.text(key, &number.map(|number| number.to_string()), 32);
    }

    /// Two fields: what it means, and what it is.
    fn labelled(&mut self, key: &str, label: &str, value: &Option<String>, limit: usize) {
        if value.is_some() {
            // The label fits: it is guard's own, and short. Where its value does not, it says what was left out.
            self.text(&format!("{key}Label"), &Some(label.to_owned()), 63);
            self.text(key, value, limit);
        }
    }

    /// One field; its value at most `limit` bytes long, or what is left.
    fn text(&mut self, key: &str, value: &Option<String>, limit: usize) {
        let Some(value) = value else { return };
        let head = format!("{}{key}=", if self.first { "" } else { " " });
        let Some(left) = self.room.checked_sub(self.text.len() + head.len()).filter(|left| *left > 0) else {
            self.cut = true;
            return;
        };
        let (value, cut) = in_value(value, limit.min(left));
        self.cut |= cut;
        if !value.is_empty() {
            self.first = false;
            self.text.push_str(&head);
            self.text.push_str(&value);
        }
    }
}

fn in_header(text: &str) -> String {
    visible(text).replace('\\', "\\\\").replace('|', "\\|")
}

/// A value, and whether it was cut to `limit` bytes. No escape is cut in two.
fn in_value(text: &str, limit: usize) -> (String, bool) {
    let mut value = String::with_capacity(text.len().min(limit));
    for letter in text.chars() {
        let mut bytes = [0; 4];
        let piece = match letter {
            '\n' => "\\n".into(),
            '\r' => "\\r".into(),
            '\\' => "\\\\".into(),
            '=' => "\\=".into(),
            other => visible(other.encode_utf8(&mut bytes)).replace('\\', "\\\\"),
        };
        if value.len() + piece.len() > limit {
            return (value, true);
        }
        value.push_str(&piece);
    }
    (value, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_cut_between_letters() {
        assert_eq!(in_value("a=b|c\\d\ne\u{1b}ä", 100), ("a\\=b|c\\\\d\\ne\\\\u{1b}ä".to_owned(), false));
        assert_eq!(in_value("ab=", 3), ("ab".to_owned(), true));
        assert_eq!(in_value("aä", 2), ("a".to_owned(), true));
        assert_eq!(in_header("a|b\\c\n"), "a\\|b\\\\c\\\\n");
    }

    #[test]
    fn a_refusal_is_an_event_of_its_dictionary() {
        let flat = Flat {
            key: Some("a:7".to_owned()),
            kind: Some("statement".to_owned()),
            verdict: Some("refused".to_owned()),
            db_user: Some("app act=allowed".to_owned()),
            statement: Some("drop table t -- x=1".to_owned()),
            client_address: Some("192.0.2.7:5000".to_owned()),
            occurred_at: Some(1_000_000),
            ..Flat::default()
        };
        let event = event(&flat, 4_000);
        let version = env!("CARGO_PKG_VERSION");
        assert!(
            event.starts_with(&format!("CEF:0|guard|guard|{version}|statement|statement refused|7|rt=1000 ")),
            "{event}"
        );
        for part in [
            " duser=app act\\=allowed ",
            " src=192.0.2.7 spt=5000 ",
            " cs1Label=statement cs1=drop table t -- x\\=1",
        ] {
            assert!(event.contains(part), "{part}: {event}");
        }
        assert!(!event.contains("guardCut"));
    }
}
