//! How well a server is protected: what stands before it and what is seen of it enters, a level and its reasons leave.

use guard_common::audit::v1::SensorState;

use super::{Agent, fleet::Member};
use crate::{config::Mode, sensor::Rung, servers::Server};

/// What the level follows from.
#[derive(Clone, Copy, Debug)]
struct Facts<'a> {
    running: Option<bool>,
    proxied: bool,
    mode: Mode,
    sensor: &'a SensorState,
    has_unix: bool,
    lost: u64,
}

/// The level: `enforced`, `monitored`, `watched`, `proxy-only`, `unprotected`, `gone`; and what it means here.
pub(super) fn of(agent: &Agent, member: &Member, server: &Server) -> (&'static str, Vec<String>) {
    let configured = agent.config.servers.iter().find(|configured| configured.name == server.name);
    let sensor = agent.sensor.state();
    level(&Facts {
        running: member.running,
        proxied: !member.proxy.is_empty() || !member.steering.is_empty(),
        mode: configured.and_then(|configured| configured.mode).unwrap_or(agent.config.mode),
        sensor: &sensor,
        has_unix: !server.unix_sockets.is_empty(),
        lost: agent.connections.losses().1,
    })
}

fn level(facts: &Facts<'_>) -> (&'static str, Vec<String>) {
    let mut says: Vec<&str> = Vec::new();
    if facts.running == Some(false) {
        return ("gone", vec!["its process has ended; it will be found again when it starts".to_owned()]);
    }
    let kernel = facts.sensor.rung != Rung::NoBpf.name();
    says.push(match (facts.proxied, facts.mode) {
        (true, Mode::Enforce) => "statements through the proxy are decided on before they run",
        (true, Mode::Monitor) => {
            "statements through the proxy are recorded with what would have been decided"
        }
        (false, _) => "no proxy stands before it: its statements are not decided on",
    });
    says.push(if kernel {
        "the kernel tells of every TCP connection round the proxy"
    } else {
        "TCP connections round the proxy come from the kernel's tables and by their ends; who made them is read from /proc"
    });
    let unix =
        |name: &str| facts.sensor.programs.iter().any(|program| program.name == name && program.attached);
    if facts.has_unix {
        says.push(if unix("accept") && unix("accept4") {
            "the kernel tells of every connection on its unix sockets"
        } else {
            "connections on its unix sockets round the proxy are looked for in the kernel's tables: short ones are missed"
        });
    }
    if facts.lost > 0 {
        says.push("events were lost since the agent started: the gap records say how many, and when");
    }
    let level = match (facts.proxied, facts.mode, kernel) {
        (true, Mode::Enforce, true) => "enforced",
        (true, Mode::Monitor, true) => "monitored",
        (true, _, false) => "proxy-only",
        (false, _, true) => "watched",
        (false, _, false) => "unprotected",
    };
    (level, says.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use guard_common::audit::v1::{SensorState, sensor_state::Program};

    use super::{Facts, Mode, level};

    fn sensor(rung: &str, unix: bool) -> SensorState {
        let program = |name: &str| Program { name: name.to_owned(), attached: unix, ..Program::default() };
        SensorState {
            rung: rung.to_owned(),
            programs: vec![program("accept"), program("accept4")],
            ..SensorState::default()
        }
    }

    #[test]
    fn the_level_follows_from_proxy_mode_and_kernel() {
        let of = |running, proxied, mode, rung| {
            let sensor = sensor(rung, true);
            level(&Facts { running, proxied, mode, sensor: &sensor, has_unix: false, lost: 0 }).0
        };
        assert_eq!(of(Some(true), true, Mode::Enforce, "full"), "enforced");
        assert_eq!(of(None, true, Mode::Monitor, "full"), "monitored");
        assert_eq!(of(None, true, Mode::Enforce, "no-bpf"), "proxy-only");
        assert_eq!(of(None, false, Mode::Enforce, "full"), "watched");
        assert_eq!(of(None, false, Mode::Enforce, "no-bpf"), "unprotected");
        assert_eq!(of(Some(false), true, Mode::Enforce, "full"), "gone");
    }

    #[test]
    fn what_is_not_seen_is_said() {
        let sensor = sensor("full", false);
        let facts = Facts {
            running: None,
            proxied: true,
            mode: Mode::Enforce,
            sensor: &sensor,
            has_unix: true,
            lost: 3,
        };
        let (_, says) = level(&facts);
        assert!(says.iter().any(|line| line.contains("unix sockets") && line.contains("missed")), "{says:?}");
        assert!(says.iter().any(|line| line.contains("lost")), "{says:?}");
    }
}
