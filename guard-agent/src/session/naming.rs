//! The server's own logs and `pg_stat_activity` name the real workload: its name is added to `application_name`.
//!
//! A startup packet enters and leaves with one parameter more; nothing of it is taken away. What the server then reports
//! of `application_name` goes to the client as it is, so that it and `SHOW` agree.

use crate::wire::postgres::{MAX_STARTUP_BYTES, Startup};

/// Longest name in bytes (`NAMEDATALEN` less one).
const MAX_NAME: usize = 63;

/// Adds `label` to the application name in `packet`, the startup packet that `startup` was read from.
pub(super) fn add_workload(packet: &mut Vec<u8>, startup: &Startup, label: &str) {
    // Standbys are told apart by their names; options may hold a name as well, which is the client's choice.
    let set_elsewhere = startup
        .parameter("options")
        .is_some_and(|options| options.to_ascii_lowercase().contains("application"));
    if startup.replication() || set_elsewhere {
        return;
    }
    let name = application_name(startup.parameter("application_name").unwrap_or_default(), label);
    let added = ["application_name", &name].join("\0");
    let length = packet.len() + added.len() + 1;
    let (Ok(total), true) = (u32::try_from(length), length <= MAX_STARTUP_BYTES) else { return };
    // The last parameter of a name counts; the packet's own end moves behind it.
    packet.pop();
    packet.extend_from_slice(added.as_bytes());
    packet.extend_from_slice(b"\0\0");
    packet[..4].copy_from_slice(&total.to_be_bytes());
}

/// The client's own name and the workload's, within what the server keeps.
fn application_name(own: &str, label: &str) -> String {
    let plain = |text: &str| -> String {
        text.chars()
            .map(|letter| if letter == ' ' || letter.is_ascii_graphic() { letter } else { '?' })
            .collect()
    };
    let (mut own, mut label) = (plain(own), plain(label));
    if own.is_empty() {
        label.truncate(MAX_NAME);
        return label;
    }
    // The client's name gives way first, but not altogether.
    label.truncate(MAX_NAME - 3 - own.len().min(20));
    own.truncate(MAX_NAME - 3 - label.len());
    format!("{own} ({label})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::postgres::StartupPacket;

    fn named(body: &[u8], label: &str) -> (Startup, usize) {
        let length = u32::try_from(body.len() + 8).unwrap();
        let mut packet = [&length.to_be_bytes()[..], b"\0\x03\0\0", body].concat();
        let Ok(StartupPacket::Start(startup)) = StartupPacket::read(&packet) else { panic!("a startup") };
        add_workload(&mut packet, &startup, label);
        assert_eq!(StartupPacket::length(&packet).unwrap(), Some(packet.len()));
        let Ok(StartupPacket::Start(startup)) = StartupPacket::read(&packet) else { panic!("a startup") };
        (startup, packet.len())
    }

    #[test]
    fn the_workload_stands_behind_the_clients_own_name() {
        let (startup, _) = named(b"user\0ana\0application_name\0psql\0\0", "orders.service");
        assert_eq!(startup.parameter("application_name"), Some("psql (orders.service)"));
        assert_eq!(startup.user(), "ana");
        let (startup, _) = named(b"user\0ana\0\0", "orders.service");
        assert_eq!(startup.parameter("application_name"), Some("orders.service"));
    }

    #[test]
    fn names_are_bounded_and_plain() {
        for (own, label) in [("x".repeat(80), "y".repeat(80)), ("ü\n".repeat(40), "spiffe://ä/b".repeat(9))]
        {
            let name = application_name(&own, &label);
            assert_eq!(name.len(), MAX_NAME, "{name}");
            assert!(name.is_ascii() && !name.contains('\n') && name.ends_with(')'));
        }
        assert_eq!(application_name("", &"y".repeat(80)).len(), MAX_NAME);
    }

    #[test]
    fn what_must_keep_its_name_keeps_it() {
        let (startup, _) = named(b"user\0ana\0replication\0true\0application_name\0standby\0\0", "x");
        assert_eq!(startup.parameter("application_name"), Some("standby"));
        let (startup, _) = named(b"user\0ana\0options\0-c application_name=me\0\0", "x");
        assert_eq!(startup.parameter("application_name"), None);
        let long = format!("user\0ana\0options\0{}\0\0", "x".repeat(9_970));
        assert!(named(long.as_bytes(), "label").1 <= MAX_STARTUP_BYTES);
    }
}
