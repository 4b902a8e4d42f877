//! Loads and attaches what this kernel offers, program by program, and says what is missing and what it costs.
//!
//! Probes, never version numbers: a program works when the kernel has taken and attached it.

use std::{fs::File, path::PathBuf};

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        CgroupAttachMode, CgroupSockAddr, Program, ProgramError, RawTracePoint, SockOps, TracePoint, UProbe,
    },
};
use guard_common::{
    audit::v1::{SensorState, sensor_state},
    kernel::{layout::Layout, maps},
};

use super::{
    aligned, btf, host,
    kernel::{Hooks, Kernel},
    statements::StatementReader,
    unix_hook,
};
use crate::config::SensorConfig;

/// What a program hangs on.
#[derive(Clone, Copy, Debug)]
enum Hook {
    CgroupAddress,
    CgroupSockets,
    Raw(&'static str),
    Syscall(&'static str),
    /// Attached later, to the programs of servers.
    Function,
}

/// Which part of the sensor needs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Connections,
    Processes,
    Unix,
    UnixBytes,
    Statements,
}

const PROGRAMS: [(&str, Hook, Part); 15] = [
    ("process_exec", Hook::Raw("sched_process_exec"), Part::Processes),
    ("process_fork", Hook::Raw("sched_process_fork"), Part::Processes),
    ("process_exit", Hook::Raw("sched_process_exit"), Part::Processes),
    ("cgroup_mkdir", Hook::Raw("cgroup_mkdir"), Part::Processes),
    ("connect4", Hook::CgroupAddress, Part::Connections),
    ("connect6", Hook::CgroupAddress, Part::Connections),
    ("socket_ops", Hook::CgroupSockets, Part::Connections),
    ("accept", Hook::Syscall("sys_exit_accept"), Part::Unix),
    ("accept4", Hook::Syscall("sys_exit_accept4"), Part::Unix),
    ("sock_sent", Hook::Raw("sock_send_length"), Part::UnixBytes),
    ("sock_received", Hook::Raw("sock_recv_length"), Part::UnixBytes),
    ("statement_executor", Hook::Function, Part::Statements),
    ("statement_utility", Hook::Function, Part::Statements),
    ("statement_function", Hook::Function, Part::Statements),
    ("statement_replication", Hook::Function, Part::Statements),
];

/// What came of loading.
#[derive(Debug)]
pub struct Loaded {
    /// The running kernel side, where TCP connections can be seen.
    pub kernel: Option<Kernel>,
    /// What works, for records and people.
    pub state: SensorState,
    /// Where statements arrive, where they can be seen.
    pub statements: Option<StatementReader>,
}

impl Loaded {
    /// Why the kernel side does not do its main job; nothing where it does.
    pub fn essential_failure(&self) -> Option<String> {
        if self.kernel.is_some() {
            return None;
        }
        let failed = self.state.programs.iter().find(|program| !program.attached);
        let reason = failed.map(|program| format!("{}: {}", program.name, program.error));
        Some(reason.or_else(|| self.state.missing.first().cloned()).unwrap_or_default())
    }
}

/// What this host can do, as `guard-agent doctor` shows it.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// As a running sensor would report it.
    pub state: SensorState,
    /// Where the cgroup v2 hierarchy is.
    pub cgroup_root: Option<PathBuf>,
    /// Where tracefs is.
    pub tracefs: Option<PathBuf>,
    /// Why offsets of kernel structures are not known.
    pub btf_error: Option<String>,
    /// Members of kernel structures that this kernel does not have.
    pub absent: Vec<&'static str>,
}

/// Loads and attaches everything, and takes it down again.
pub fn probe(config: &SensorConfig) -> Capabilities {
    let layout = btf::kernel_layout();
    let state = load(config).state;
    Capabilities {
        state,
        cgroup_root: host::cgroup_root(),
        tracefs: host::tracefs(),
        absent: layout.as_ref().map(|layout| layout.absent().collect()).unwrap_or_default(),
        btf_error: layout.err().map(|error| error.to_string()),
    }
}

/// Loads and attaches what this kernel takes.
pub fn load(config: &SensorConfig) -> Loaded {
    let mut state = SensorState { rung: "procfs".to_owned(), ..SensorState::default() };
    if !config.ebpf {
        state.missing.push("eBPF is switched off (`sensor.ebpf = false`): ".to_owned() + WITHOUT_KERNEL);
        return Loaded { kernel: None, state, statements: None };
    }
    let layout = btf::kernel_layout().unwrap_or_else(|error| {
        state.missing.push(format!(
            "no offsets of kernel structures ({error}): processes that end quickly and unix sockets are not \
             attested; a kernel with CONFIG_DEBUG_INFO_BTF brings them"
        ));
        Layout::UNKNOWN
    });
    host::lift_memory_limit();
    let ring = config.ring_kib.saturating_mul(1024);
    let mut ebpf = match EbpfLoader::new()
        .override_global("LAYOUT", &layout, true)
        .override_global("LOGGING", &u32::from(config.kernel_log), true)
        .map_max_entries(maps::EVENTS, ring)
        .map_max_entries(maps::STATEMENTS, config.statement_ring_kib.saturating_mul(1024))
        .load(aligned::object())
    {
        Ok(ebpf) => ebpf,
        Err(error) => {
            state.missing.push(format!("the eBPF maps cannot be made ({}): {WITHOUT_KERNEL}", chain(&error)));
            return Loaded { kernel: None, state, statements: None };
        }
    };
    let cgroup = host::cgroup_root().and_then(|root| File::open(root).ok());
    if host::tracefs().is_none()
        && let Err(error) = host::mount_tracefs()
    {
        tracing::warn!(%error, "tracefs cannot be mounted at /sys/kernel/tracing");
    }
    state.programs = PROGRAMS
        .iter()
        .map(|(name, hook, part)| {
            let result =
                supported(*part, &layout).and_then(|()| attach(&mut ebpf, name, *hook, cgroup.as_ref()));
            let error = result.err().unwrap_or_default();
            sensor_state::Program {
                name: (*name).to_owned(),
                attached: error.is_empty(),
                error,
                ..sensor_state::Program::default()
            }
        })
        .collect();
    explain(&mut state);
    let hooks = refusal_hooks(&ebpf, &layout, cgroup.as_ref(), &mut state);
    let statements = works(&state, Part::Statements)
        .then(|| Kernel::statements(&mut ebpf))
        .transpose()
        .unwrap_or_else(|error| {
            state.missing.push(format!("statements cannot be read from the kernel: {error}"));
            None
        });
    let kernel = works(&state, Part::Connections)
        .then(|| Kernel::new(ebpf, config, works(&state, Part::UnixBytes), hooks));
    match kernel.transpose() {
        Ok(Some(kernel)) => {
            state.rung = "kernel".to_owned();
            Loaded { kernel: Some(kernel), state, statements }
        }
        Ok(None) => Loaded { kernel: None, state, statements: None },
        Err(error) => {
            state.missing.push(format!("the eBPF maps cannot be used ({error}): {WITHOUT_KERNEL}"));
            Loaded { kernel: None, state, statements: None }
        }
    }
}

const WITHOUT_KERNEL: &str = "connections come from /proc every 250 ms, shorter ones are missed, as are all on unix \
                              sockets round the proxy, and identities are reported, not attested";

/// What it takes to refuse connections before they exist.
fn refusal_hooks(
    ebpf: &Ebpf,
    layout: &Layout,
    cgroup: Option<&File>,
    state: &mut SensorState,
) -> Option<Hooks> {
    if !works(state, Part::Connections) {
        return None;
    }
    if !layout.has_refusal() {
        state.missing.push(
            "connects round the proxy are not refused in the kernel, whose BTF does not tell the offsets for it: they \
             are cut after the server has accepted"
                .to_owned(),
        );
        return None;
    }
    let attached = match (layout.has_unix_refusal(), cgroup) {
        (true, Some(cgroup)) => unix_hook::attach(ebpf, cgroup).map_err(|error| error.to_string()),
        _ => Err("its BTF does not tell the offsets for it".to_owned()),
    };
    let unix = attached.map_err(|error| {
        state.missing.push(format!(
            "connects to unix sockets round the proxy are not refused in the kernel: they are cut after the server has \
             accepted ({error})"
        ));
    });
    Some(Hooks { unix: unix.ok() })
}

fn supported(part: Part, layout: &Layout) -> Result<(), String> {
    let there = match part {
        Part::Connections => true,
        Part::Processes => layout.has_tasks(),
        Part::Unix | Part::UnixBytes => layout.has_unix(),
        Part::Statements => layout.has_sockets(),
    };
    if there { Ok(()) } else { Err("this kernel's BTF does not tell the offsets that it needs".to_owned()) }
}

fn attach(ebpf: &mut Ebpf, name: &str, hook: Hook, cgroup: Option<&File>) -> Result<(), String> {
    let program = ebpf.program_mut(name).ok_or_else(|| "not in the eBPF object".to_owned())?;
    let root = || cgroup.ok_or_else(|| "no cgroup v2 hierarchy is mounted".to_owned());
    let result = match hook {
        Hook::CgroupAddress => attach_address(program, root()?),
        Hook::CgroupSockets => attach_sockets(program, root()?),
        Hook::Raw(tracepoint) => attach_raw(program, tracepoint),
        Hook::Syscall(tracepoint) => attach_syscall(program, tracepoint),
        Hook::Function => load_probe(program),
    };
    result.map_err(|error| {
        tracing::debug!(program = name, %error, "not attached");
        chain(&error)
    })
}

// With bpf_link, `Single` is the mode that coexists with other programs: links are always shared.
fn attach_address(program: &mut Program, cgroup: &File) -> Result<(), ProgramError> {
    let program: &mut CgroupSockAddr = program.try_into()?;
    program.load()?;
    program.attach(cgroup, CgroupAttachMode::Single).map(|_| ())
}

fn attach_sockets(program: &mut Program, cgroup: &File) -> Result<(), ProgramError> {
    let program: &mut SockOps = program.try_into()?;
    program.load()?;
    program.attach(cgroup, CgroupAttachMode::Single).map(|_| ())
}

fn attach_raw(program: &mut Program, tracepoint: &str) -> Result<(), ProgramError> {
    let program: &mut RawTracePoint = program.try_into()?;
    program.load()?;
    program.attach(tracepoint).map(|_| ())
}

fn attach_syscall(program: &mut Program, tracepoint: &str) -> Result<(), ProgramError> {
    let program: &mut TracePoint = program.try_into()?;
    program.load()?;
    program.attach("syscalls", tracepoint).map(|_| ())
}

fn load_probe(program: &mut Program) -> Result<(), ProgramError> {
    let program: &mut UProbe = program.try_into()?;
    program.load()
}

fn works(state: &SensorState, part: Part) -> bool {
    PROGRAMS
        .iter()
        .filter(|(_, _, of)| *of == part)
        .all(|(name, _, _)| state.programs.iter().any(|program| program.name == *name && program.attached))
}

/// Says what each missing part costs.
fn explain(state: &mut SensorState) {
    let costs = [
        (Part::Connections, WITHOUT_KERNEL.to_owned()),
        (
            Part::Processes,
            "processes are looked up in /proc: those that end quickly have no executable, arguments or ancestry"
                .to_owned(),
        ),
        (
            Part::Unix,
            "connections on unix sockets round the proxy are not seen; tracefs at /sys/kernel/tracing and BTF \
             bring them"
                .to_owned(),
        ),
        (
            Part::UnixBytes,
            "bytes on unix sockets round the proxy are not counted; Linux 6.3 brings the tracepoints".to_owned(),
        ),
        (
            Part::Statements,
            "statements round the proxy, and those inside of functions, are not seen; uprobes (CONFIG_UPROBE_EVENTS) \
             and BTF bring them"
                .to_owned(),
        ),
    ];
    for (part, cost) in costs {
        if !works(state, part) {
            let failed: Vec<&str> = PROGRAMS
                .iter()
                .filter(|(name, _, of)| {
                    *of == part
                        && state.programs.iter().any(|program| program.name == *name && !program.attached)
                })
                .map(|(name, _, _)| *name)
                .collect();
            state.missing.push(format!("{} cannot be attached: {cost}", failed.join(", ")));
        }
    }
}

/// An error with its causes in one line; of the verifier's log, which can fill pages, the line with the reason.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    let (what, log) = text.split_once(". Verifier output:").unwrap_or((&text, ""));
    let statistics = ["processed ", "verification time", "stack depth"];
    let reason = log
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start)));
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{}{reason}", what.lines().next().unwrap_or_default()).chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::chain;

    #[derive(Debug, thiserror::Error)]
    #[error(
        "it failed: {0}. Verifier output: 1: (61) r1 = r2\ninvalid access\nstack depth 8\nprocessed 9 insns\n"
    )]
    struct Refused(#[source] std::io::Error);

    #[test]
    fn shows_the_reason_of_the_verifier_alone() {
        let error = Refused(std::io::Error::other("denied"));
        assert_eq!(chain(&error), "it failed: denied: invalid access");
    }
}
