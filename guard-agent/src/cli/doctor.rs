//! `guard-agent doctor`: what this host can do, what is missing, what that costs and what would bring it.
//!
//! It does what the agent does at its start: mounts tracefs where that is missing, loads and attaches every
//! program. The programs go again when it ends. The servers of this host are asked for their certificates.

mod steering;
mod tls;

use std::{io::Write, process::ExitCode};

use serde::Serialize;

use crate::{
    config::{Config, SensorConfig},
    sensor,
};

/// Arguments of `guard-agent doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Checks this host. Succeeds where everything can be attached.
pub fn run(args: &DoctorArgs, config: &Config) -> ExitCode {
    let mut report = Report::of(&sensor::probe(&SensorConfig { ring_kib: 64, ..SensorConfig::default() }));
    report.tls = tls::checks(config);
    report.steering = steering::checks();
    let text = if args.json {
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    } else {
        report.to_text()
    };
    // A closed pipe is no failure of the host.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if report.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
struct Report {
    /// Everything can be attached.
    complete: bool,
    /// kernel | procfs
    rung: String,
    /// What the programs need from the host.
    host: Vec<Check>,
    /// The programs.
    programs: Vec<Check>,
    /// What is missing, and what it costs.
    missing: Vec<String>,
    /// What TLS the proxies offer; ok where channel binding holds. The host is complete without it.
    tls: Vec<Check>,
    /// What steering takes. The host is complete without it.
    steering: Vec<Check>,
}

#[derive(Clone, Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    /// What was found, or what would bring it.
    detail: String,
}

impl Check {
    fn new(name: &str, ok: bool, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), ok, detail: detail.into() }
    }
}

impl Report {
    fn of(found: &sensor::Capabilities) -> Self {
        let programs: Vec<Check> = found
            .state
            .programs
            .iter()
            .map(|program| Check::new(&program.name, program.attached, program.error.clone()))
            .collect();
        let mut missing = found.state.missing.clone();
        if found.absent.contains(&"task_login_uid") {
            missing.push(
                "this kernel keeps no login uid (no CONFIG_AUDIT): the person behind sudo is not known"
                    .to_owned(),
            );
        }
        Self {
            complete: !programs.is_empty() && programs.iter().all(|program| program.ok),
            rung: found.state.rung.clone(),
            host: host(found),
            programs,
            missing,
            tls: Vec::new(),
            steering: Vec::new(),
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::from("host\n");
        self.host.iter().for_each(|check| line(&mut text, check));
        text.push_str("\neBPF programs\n");
        self.programs.iter().for_each(|check| line(&mut text, check));
        if self.missing.is_empty() {
            text.push_str("\nNothing is missing: every access is seen and attested by the kernel.\n");
        } else {
            text.push_str("\nmissing\n");
            for missing in &self.missing {
                text.push_str(&format!("  - {missing}\n"));
            }
        }
        if !self.tls.is_empty() {
            text.push_str("\nTLS towards clients\n");
            self.tls.iter().for_each(|check| line(&mut text, check));
        }
        if !self.steering.is_empty() {
            text.push_str("\nsteering (`steer = \"on\"`): sk_lookup or nftables, and the rest\n");
            self.steering.iter().for_each(|check| line(&mut text, check));
        }
        text.push_str(&format!("\nevidence comes from: {}\n", self.rung));
        text
    }
}

fn line(text: &mut String, check: &Check) {
    let mark = if check.ok { "ok  " } else { "MISS" };
    let end = format!("  {mark} {:<16} {}", check.name, check.detail);
    text.push_str(end.trim_end());
    text.push('\n');
}

fn host(found: &sensor::Capabilities) -> Vec<Check> {
    let place = |path: &Option<std::path::PathBuf>, otherwise: &str| {
        path.as_ref().map_or_else(|| otherwise.to_owned(), |path| path.display().to_string())
    };
    let btf = found.btf_error.clone();
    vec![
        privileges(),
        Check::new("kernel BTF", btf.is_none(), btf.unwrap_or_else(|| "/sys/kernel/btf/vmlinux".to_owned())),
        Check::new(
            "cgroup v2",
            found.cgroup_root.is_some(),
            place(&found.cgroup_root, "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified"),
        ),
        Check::new(
            "tracefs",
            found.tracefs.is_some(),
            place(&found.tracefs, "mount it: mount -t tracefs tracefs /sys/kernel/tracing"),
        ),
    ]
}

/// Capabilities that loading and attaching need: `CAP_BPF`, `CAP_PERFMON` and `CAP_NET_ADMIN`, or all of them in
/// `CAP_SYS_ADMIN`; and those that look into other users' processes.
fn privileges() -> Check {
    const NEEDED: [(&str, u32); 4] =
        [("CAP_BPF", 39), ("CAP_PERFMON", 38), ("CAP_NET_ADMIN", 12), ("CAP_SYS_PTRACE", 19)];
    let effective = procfs::process::Process::myself()
        .and_then(|process| process.status())
        .map(|status| status.capeff)
        .unwrap_or_default();
    let has = |bit: u32| effective & (1 << bit) != 0;
    let sys_admin = has(21);
    let lacking: Vec<&str> = NEEDED
        .into_iter()
        .filter(|(_, bit)| !(has(*bit) || sys_admin && matches!(bit, 38 | 39)))
        .map(|(name, _)| name)
        .collect();
    if lacking.is_empty() {
        Check::new("privileges", true, "all that are needed")
    } else {
        let detail = format!("run as root, or with {} as well (AmbientCapabilities=)", lacking.join(", "));
        Check::new("privileges", false, detail)
    }
}

#[cfg(test)]
mod tests {
    use guard_common::audit::v1::{SensorState, sensor_state::Program};

    use super::{Report, sensor::Capabilities};

    fn found(attached: bool) -> Capabilities {
        let error = if attached { String::new() } else { "refused".to_owned() };
        Capabilities {
            state: SensorState {
                rung: "kernel".to_owned(),
                programs: vec![Program {
                    name: "connect4".to_owned(),
                    attached,
                    error,
                    ..Program::default()
                }],
                missing: if attached { Vec::new() } else { vec!["connect4: it costs".to_owned()] },
            },
            cgroup_root: Some("/sys/fs/cgroup".into()),
            tracefs: None,
            btf_error: None,
            absent: Vec::new(),
        }
    }

    #[test]
    fn complete_where_everything_attaches() {
        let report = Report::of(&found(true));
        assert!(report.complete);
        assert!(report.to_text().contains("Nothing is missing"));
    }

    #[test]
    fn says_what_is_missing_and_what_it_costs() {
        let text = Report::of(&found(false)).to_text();
        for part in ["MISS connect4", "refused", "it costs", "mount -t tracefs"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!Report::of(&found(false)).complete);
    }

    #[test]
    fn no_programs_at_all_is_not_complete() {
        let mut nothing = found(true);
        nothing.state.programs.clear();
        assert!(!Report::of(&nothing).complete);
    }

    #[test]
    fn a_kernel_without_audit_is_told() {
        let found = Capabilities { absent: vec!["task_login_uid"], ..found(true) };
        assert!(Report::of(&found).to_text().contains("CONFIG_AUDIT"));
    }
}
