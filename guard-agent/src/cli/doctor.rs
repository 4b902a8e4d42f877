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
    hold,
    sensor::{self, Rung},
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
    let probed = SensorConfig { ring_kib: 64, ..config.sensor.clone() };
    let mut report = Report::of(&sensor::probe(&probed));
    report.tls = tls::checks(config);
    report.steering = steering::checks();
    report.hold = vec![holding(&config.sensor)];
    let text = if args.json {
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    } else {
        report.to_text()
    };
    // A closed pipe is no failure of the host.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if report.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What was found. `docs/kernels.md` tells its shape to those who read it by program.
#[derive(Clone, Debug, Serialize)]
struct Report {
    /// Everything can be attached.
    complete: bool,
    /// How far up the ladder this host is: the name of one of `rungs`.
    rung: String,
    /// The whole ladder, from the top.
    rungs: Vec<RungShown>,
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
    /// What holding statements without the proxy takes. The host is complete without it.
    hold: Vec<Check>,
}

#[derive(Clone, Debug, Serialize)]
struct RungShown {
    name: &'static str,
    /// This host is here, or above.
    reached: bool,
    /// What guard does there.
    means: &'static str,
    /// What lifts a host from there.
    brings: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    /// What was found.
    detail: String,
    /// What would bring it; empty where it is there, or where nothing would.
    brings: String,
}

impl Check {
    fn new(name: &str, ok: bool, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), ok, detail: detail.into(), brings: String::new() }
    }

    /// Something that is there, or can be brought.
    fn needed(name: &str, found: Result<String, String>, brings: &str) -> Self {
        match found {
            Ok(detail) => Self::new(name, true, detail),
            Err(detail) => Self { brings: brings.to_owned(), ..Self::new(name, false, detail) },
        }
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
            rungs: ladder(&found.state.rung),
            host: host(found),
            programs,
            missing,
            tls: Vec::new(),
            steering: Vec::new(),
            hold: Vec::new(),
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
        if !self.hold.is_empty() {
            text.push_str("\nholding statements without the proxy (`hold = true`)\n");
            self.hold.iter().for_each(|check| line(&mut text, check));
        }
        if let Some(rung) = self.rungs.iter().find(|rung| rung.name == self.rung) {
            text.push_str(&format!("\nrung: {}\n  {}\n", rung.name, rung.means));
            if rung.name != Rung::Full.name() {
                text.push_str(&format!("  the next one takes: {}\n", rung.brings));
            }
        }
        text
    }
}

/// The ladder as seen from the rung of that name.
fn ladder(reached: &str) -> Vec<RungShown> {
    let own = Rung::named(reached);
    Rung::ALL
        .into_iter()
        .map(|rung| RungShown {
            name: rung.name(),
            reached: own.is_some_and(|own| own <= rung),
            means: rung.means(),
            brings: rung.brings(),
        })
        .collect()
}

fn line(text: &mut String, check: &Check) {
    let mark = if check.ok { "ok  " } else { "MISS" };
    let end = format!("  {mark} {:<16} {}", check.name, check.detail);
    text.push_str(end.trim_end());
    text.push('\n');
    if !check.brings.is_empty() {
        text.push_str(&format!("       {:<16} brought by: {}\n", "", check.brings));
    }
}

fn host(found: &sensor::Capabilities) -> Vec<Check> {
    let there = |there: bool, without: &str| if there { Ok(String::new()) } else { Err(without.to_owned()) };
    let at = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map(|path| path.display().to_string()).ok_or_else(|| "not mounted".to_owned())
    };
    let features = &found.features;
    let layout = features.layout.as_ref().map(|_| "/sys/kernel/btf/vmlinux".to_owned());
    let mut checks = vec![
        privileges(),
        Check::needed(
            "ring buffer",
            there(features.ring_buffer, "events go by one buffer for each CPU"),
            Rung::NoRingBuffer.brings(),
        ),
        Check::needed("kernel BTF", layout.map_err(Clone::clone), "a kernel with CONFIG_DEBUG_INFO_BTF"),
        Check::needed(
            "cgroup links",
            there(features.bpf_link, "programs are attached by flags"),
            Rung::NoBpfLink.brings(),
        ),
        Check::needed("cgroup v2", at(&found.cgroup_root), Rung::CgroupV1.brings()),
        Check::needed("tracefs", at(&found.tracefs), "mount -t tracefs tracefs /sys/kernel/tracing"),
    ];
    for (what, result) in sensor::probe_tables() {
        let (name, module) = match what {
            "unix" => ("unix_diag", "the kernel's module unix_diag"),
            "TCP" => ("tcp_diag", "the kernel's module tcp_diag"),
            _ => ("ends of sockets", "the kernel's module tcp_diag"),
        };
        let detail = result.map(|()| String::new()).map_err(|error| error.to_string());
        checks.push(Check::needed(name, detail, module));
    }
    checks
}

/// Whether PostgreSQL's backends can be stopped before they run a statement.
fn holding(sensor: &SensorConfig) -> Check {
    let found = hold::try_out(sensor).map(|()| String::new()).map_err(|error| error.to_string());
    Check::needed(
        "probes that hold",
        found,
        "Linux 5.8 or later with eBPF, BTF and uprobes (CONFIG_UPROBE_EVENTS)",
    )
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
        let lacking = lacking.join(", ");
        let brings = format!("run as root, or with {lacking} as well (AmbientCapabilities=)");
        Check::needed("privileges", Err(format!("without {lacking}")), &brings)
    }
}

#[cfg(test)]
mod tests {
    use guard_common::audit::v1::{SensorState, sensor_state::Program};

    use super::{
        Report, ladder,
        sensor::{Capabilities, Features},
    };

    fn found(attached: bool) -> Capabilities {
        let error = if attached { String::new() } else { "refused".to_owned() };
        Capabilities {
            state: SensorState {
                rung: if attached { "full" } else { "no-btf" }.to_owned(),
                programs: vec![Program {
                    name: "connect4".to_owned(),
                    attached,
                    error,
                    ..Program::default()
                }],
                missing: if attached { Vec::new() } else { vec!["connect4: it costs".to_owned()] },
            },
            features: Features {
                ring_buffer: attached,
                layout: Err("no BTF here".to_owned()),
                bpf_link: true,
                cgroup: None,
                helpers: 0,
                state: None,
            },
            cgroup_root: Some("/sys/fs/cgroup".into()),
            tracefs: None,
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
        for part in [
            "MISS connect4",
            "refused",
            "it costs",
            "mount -t tracefs",
            "no BTF here",
            "brought by: Linux 5.8",
            "rung: no-btf",
            "the next one takes: a kernel with CONFIG_DEBUG_INFO_BTF",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!Report::of(&found(false)).complete);
    }

    #[test]
    fn the_ladder_is_reached_from_below() {
        let reached = |name| ladder(name).iter().filter(|rung| rung.reached).count();
        assert_eq!((reached("full"), reached("no-btf"), reached("no-bpf"), reached("?")), (6, 4, 1, 0));
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
