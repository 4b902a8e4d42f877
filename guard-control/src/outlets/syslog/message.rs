//! One message of RFC 5424: a row enters, bounded text leaves.
//!
//! What people chose cannot end a field, begin another or move a terminal's cursor: header fields are printable ASCII without
//! blanks, parameter values are escaped, and nothing holds a control character.

use guard_common::audit::{
    display::visible,
    flat::{Flat, time},
};

use super::{
    super::{config, config::Format, json},
    cef,
};

/// Longest host name (RFC 5424, 6).
const MAX_HOST: usize = 255;
/// Longest value of structured data in bytes, before it is escaped.
const MAX_PARAM: usize = 64;

/// A message for this receiver.
pub(super) fn message(settings: &config::Syslog, flat: &Flat) -> String {
    let mut message = header(settings, flat);
    let room = settings.max_bytes.saturating_sub(message.len());
    message.push_str(&match settings.format {
        Format::Cef => cef::event(flat, room),
        Format::Json => json::bounded(flat, room, false),
    });
    message
}

fn header(settings: &config::Syslog, flat: &Flat) -> String {
    let priority = u16::from(settings.facility) * 8 + u16::from(severity(flat));
    let time = flat.occurred_at.map_or("-".to_owned(), time);
    let host = printable(flat.host.as_deref().unwrap_or_default());
    let kind = flat.kind.as_deref().unwrap_or("unknown");
    let mut header = format!("<{priority}>1 {time} {host} guard - {kind} [guard@{}", settings.enterprise);
    let sequence = flat.sequence.map(|sequence| sequence.to_string());
    for (name, value) in [
        ("agent", flat.agent_id.as_deref()),
        ("sequence", sequence.as_deref()),
        ("verdict", flat.verdict.as_deref()),
        ("policy", flat.policy.as_deref()),
        ("user", flat.db_user.as_deref()),
    ] {
        if let Some(value) = value {
            header.push_str(&format!(" {name}=\"{}\"", param(value)));
        }
    }
    header.push_str("] ");
    header
}

/// As RFC 5424 numbers them: error, warning, notice, informational.
fn severity(flat: &Flat) -> u8 {
    match (flat.verdict.as_deref(), flat.kind.as_deref()) {
        (_, Some("gap" | "unknown")) => 3,
        (Some("refused"), _) => 4,
        (Some("would-refuse" | "held" | "would-hold"), _) => 5,
        (
            _,
            Some(
                "control-event" | "approval" | "policy-change" | "key-change" | "tombstone" | "agent-stopped",
            ),
        ) => 5,
        _ if flat.access.as_deref() == Some("non-proxied") => 5,
        _ => 6,
    }
}

/// A field of the header.
fn printable(text: &str) -> String {
    let text: String = text
        .chars()
        .take(MAX_HOST)
        .map(|letter| if letter.is_ascii_graphic() { letter } else { '?' })
        .collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// A value of structured data (RFC 5424, 6.3.3).
fn param(value: &str) -> String {
    let value = visible(&value[..value.floor_char_boundary(MAX_PARAM)]).into_owned();
    value.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(format: &str, max_bytes: usize) -> config::Syslog {
        let text = format!("name = \"x\"\naddress = \"h:1\"\nformat = \"{format}\"\nmax_bytes = {max_bytes}");
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn fields_stand_where_the_rfc_has_them() {
        let flat = Flat {
            agent_id: Some("a1".to_owned()),
            sequence: Some(7),
            host: Some("db 1".to_owned()),
            occurred_at: Some(0),
            kind: Some("statement".to_owned()),
            verdict: Some("refused".to_owned()),
            ..Flat::default()
        };
        let message = message(&settings("json", 2_048), &flat);
        let begin = "<108>1 1970-01-01T00:00:00.000000Z db?1 guard - statement \
            [guard@32473 agent=\"a1\" sequence=\"7\" verdict=\"refused\"] {";
        assert!(message.starts_with(begin), "{message}");
    }

    #[test]
    fn what_people_chose_neither_ends_a_field_nor_outgrows_a_message() {
        let evil = "a\"] ]\\\n<13>1 - evil - - - -\r\u{1b}[2J\u{202e}|=".repeat(2_000);
        let mut flat = Flat { kind: Some("statement".to_owned()), ..Flat::default() };
        for name in [
            &mut flat.host,
            &mut flat.db_user,
            &mut flat.policy,
            &mut flat.statement,
            &mut flat.workload,
            &mut flat.database,
            &mut flat.executable,
            &mut flat.command_line,
            &mut flat.detail,
            &mut flat.reason,
            &mut flat.application_name,
        ] {
            *name = Some(evil.clone());
        }
        for format in ["cef", "json"] {
            for max_bytes in [2_048, 8_192, 65_536] {
                let message = message(&settings(format, max_bytes), &flat);
                assert!(message.len() <= max_bytes, "{format} {max_bytes}: {}", message.len());
                assert!(!message.chars().any(char::is_control), "{message}");
                // The structured data ends once: where guard ends it.
                let data = message.split_once(" [guard@32473").unwrap().1;
                let mut escaped = false;
                let end = data.char_indices().find(|(_, letter)| {
                    let found = !escaped && *letter == ']';
                    escaped = !escaped && *letter == '\\';
                    found
                });
                let rest = &data[end.unwrap().0 + 1..];
                assert!(rest.starts_with(if format == "cef" { " CEF:0|" } else { " {" }), "{rest}");
            }
        }
    }
}
