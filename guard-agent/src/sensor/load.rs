//! Loads and attaches what this kernel offers, program by program, and says what is missing and what it costs.
//!
//! Probes, never version numbers: a program works when the kernel has taken and attached it.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    programs::{CgroupAttachMode, Program, ProgramError, RawTracePoint, TracePoint, UProbe},
};
use guard_common::{
    audit::v1::{SensorState, sensor_state},
    kernel::{layout::Layout, maps},
};

use super::{
    aligned, btf,
    cgroup_attach::{self, Attached, Place},
    features::Features,
    host,
    kernel::{Hooks, Kernel, Means},
    rung::{Feature, Rung},
    statements::StatementReader,
    stream::EventStream,
    unix_bytes, unix_hook,
};
use crate::config::SensorConfig;

/// The verifier's reason for a refusal without each step on the way there: where it has taken a million of them, writing
/// them down takes minutes.
pub(crate) const VERIFIER_LOG: VerifierLogLevel = VerifierLogLevel::STATS;

/// What a program hangs on.
#[derive(Clone, Copy, Debug)]
enum Hook {
    Cgroup(Place),
    Raw(&'static str),
    Trace(&'static str, &'static str),
    /// Attached as long as it is needed: [`unix_bytes`].
    Counting,
    /// Attached later, to the programs of servers.
    Function,
}

/// Which part of the sensor needs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Connections,
    /// In place of the part before, where that does not work.
    States,
    Processes,
    Unix,
    UnixBytes,
    Statements,
}

const PROGRAMS: [(&str, Hook, Part); 16] = [
    ("process_exec", Hook::Raw("sched_process_exec"), Part::Processes),
    ("process_fork", Hook::Raw("sched_process_fork"), Part::Processes),
    ("process_exit", Hook::Raw("sched_process_exit"), Part::Processes),
    ("cgroup_mkdir", Hook::Raw("cgroup_mkdir"), Part::Processes),
    ("connect4", Hook::Cgroup(Place::Connect4), Part::Connections),
    ("connect6", Hook::Cgroup(Place::Connect6), Part::Connections),
    ("socket_ops", Hook::Cgroup(Place::SockOps), Part::Connections),
    ("socket_state", Hook::Trace("sock", "inet_sock_set_state"), Part::States),
    ("accept", Hook::Trace("syscalls", "sys_exit_accept"), Part::Unix),
    ("accept4", Hook::Trace("syscalls", "sys_exit_accept4"), Part::Unix),
    (unix_bytes::SENT, Hook::Counting, Part::UnixBytes),
    (unix_bytes::RECEIVED, Hook::Counting, Part::UnixBytes),
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
    /// Connections on unix sockets are told of; where not, they have to be looked for.
    pub unix: bool,
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
#[derive(Debug)]
pub struct Capabilities {
    /// As a running sensor would report it.
    pub state: SensorState,
    /// What was probed for.
    pub features: Features,
    /// Where the cgroup v2 hierarchy is.
    pub cgroup_root: Option<PathBuf>,
    /// Where tracefs is.
    pub tracefs: Option<PathBuf>,
    /// Members of kernel structures that this kernel does not have.
    pub absent: Vec<&'static str>,
}

/// Loads and attaches everything, and takes it down again.
pub fn probe(config: &SensorConfig) -> Capabilities {
    // First: it mounts tracefs, where features are described.
    let state = load(config).state;
    let absent = btf::kernel_layout().map(|layout| layout.absent().collect()).unwrap_or_default();
    Capabilities {
        state,
        features: Features::probe(&config.without),
        cgroup_root: host::cgroup_root(),
        tracefs: host::tracefs(),
        absent,
    }
}

/// Loads and attaches what this kernel takes.
pub fn load(config: &SensorConfig) -> Loaded {
    if !config.ebpf || config.without.contains(&Feature::Bpf) {
        let key = if config.ebpf { "sensor.without" } else { "sensor.ebpf = false" };
        return on_the_ground(SensorState::default(), &format!("eBPF is switched off (`{key}`)"));
    }
    if host::tracefs().is_none()
        && let Err(error) = host::mount_tracefs()
    {
        tracing::warn!(%error, "tracefs cannot be mounted at /sys/kernel/tracing");
    }
    host::lift_memory_limit();
    let features = Features::probe(&config.without);
    let mut state = SensorState::default();
    if let Err(error) = &features.layout {
        state.missing.push(format!(
            "no offsets of kernel structures ({error}): processes that end quickly are not attested; a kernel with \
             CONFIG_DEBUG_INFO_BTF brings them"
        ));
    }
    let mut ebpf = match open(config, &features) {
        Ok(ebpf) => ebpf,
        Err(error) => {
            return on_the_ground(state, &format!("the eBPF maps cannot be made ({})", chain(&error)));
        }
    };
    // Before the programs run: what they hand over from the first moment is kept.
    let stream = match EventStream::of(&mut ebpf, config.ring_kib) {
        Ok(stream) => stream,
        Err(error) => return on_the_ground(state, &format!("the eBPF events cannot be read ({error})")),
    };
    // Links go with whoever held them.
    if let (false, Some(cgroup)) = (features.bpf_link, &features.cgroup) {
        let cleared = cgroup_attach::clear_left_behind(cgroup.as_fd());
        if cleared > 0 {
            tracing::info!(programs = cleared, "took away what an earlier run had left attached");
        }
    }
    let attached = attach_all(&mut ebpf, &features, &mut state);
    let by_state = !works(&state, Part::Connections);
    if by_state && !works(&state, Part::States) {
        explain(&mut state, &features);
        let failed = failed(&state, &[Part::Connections, Part::States]);
        return on_the_ground(state, &format!("{failed} cannot be attached"));
    }
    explain(&mut state, &features);
    state.rung = rung(&state, &features, !attached.is_empty()).name().to_owned();
    let unix = works(&state, Part::Unix);
    let counts_unix = works(&state, Part::UnixBytes);
    let means = Means { attached, by_state, helpers: features.helpers, counts_unix };
    // Before the maps of others are taken out.
    let hooks = refusal_hooks((&ebpf, &stream), config, &features, &mut state);
    let statements = works(&state, Part::Statements)
        .then(|| Kernel::statements(&mut ebpf))
        .transpose()
        .unwrap_or_else(|error| {
            state.missing.push(format!("statements cannot be read from the kernel: {error}"));
            None
        });
    match Kernel::new(ebpf, stream, means, config, hooks) {
        Ok(kernel) => Loaded { kernel: Some(kernel), state, unix, statements },
        Err(error) => on_the_ground(state, &format!("the eBPF maps cannot be used ({error})")),
    }
}

/// Without eBPF.
fn on_the_ground(mut state: SensorState, why: &str) -> Loaded {
    state.rung = Rung::NoBpf.name().to_owned();
    state.missing.push(format!("{why}: {}", Rung::NoBpf.means()));
    Loaded { kernel: None, state, unix: false, statements: None }
}

/// What it takes to refuse connections before they exist.
fn refusal_hooks(
    (ebpf, stream): (&Ebpf, &EventStream),
    config: &SensorConfig,
    features: &Features,
    state: &mut SensorState,
) -> Option<Hooks> {
    if !works(state, Part::Connections) {
        return None;
    }
    let layout = features.layout.as_ref().copied().unwrap_or(Layout::UNKNOWN);
    if !layout.has_refusal() {
        state.missing.push(
            "connects round the proxy are not refused in the kernel, whose BTF does not tell the offsets for it: they \
             are cut after the server has accepted"
                .to_owned(),
        );
        return None;
    }
    let attached = match stream {
        EventStream::Ring(ring) => {
            let hooks = unix_hook::hooks(config.security_hooks, features.cgroup.as_ref());
            unix_hook::attach(ebpf, ring.as_fd(), hooks, &layout).map_err(|error| error.to_string())
        }
        EventStream::Perf(_) => {
            Err("its hooks are younger than the ring buffer, which this kernel has not".to_owned())
        }
    };
    let unix = attached.map_err(|error| {
        state.missing.push(format!(
            "connects to unix sockets round the proxy are not refused in the kernel: they are cut after the server has \
             accepted ({error})"
        ));
    });
    let unix = unix.ok().map(|(link, hook)| {
        tracing::debug!(%hook, "connects to unix sockets can be refused");
        link
    });
    Some(Hooks { unix })
}

/// Makes the maps of the object for this kernel, and fills in what the programs have to know.
fn open(config: &SensorConfig, features: &Features) -> Result<Ebpf, EbpfError> {
    let mut loader = EbpfLoader::new();
    let layout = features.layout.as_ref().copied().unwrap_or(Layout::UNKNOWN);
    let key = host::random_key()
        .map_err(|error| EbpfError::FileError { path: PathBuf::from("/dev/urandom"), error })?;
    let (state, logging) = (features.state.unwrap_or_default(), u32::from(config.kernel_log));
    loader
        .verifier_log_level(VERIFIER_LOG)
        .override_global("LAYOUT", &layout, true)
        .override_global("HELPERS", &features.helpers, true)
        .override_global("STATE", &state, true)
        .override_global("LOGGING", &logging, features.ring_buffer)
        .override_global("HASH_KEY", &key, features.ring_buffer);
    if features.ring_buffer {
        loader.map_max_entries(maps::EVENTS, config.ring_kib.saturating_mul(1024));
        loader.map_max_entries(maps::STATEMENTS, config.statement_ring_kib.saturating_mul(1024));
    }
    loader.load(aligned::object(features.ring_buffer))
}

/// Attaches program by program; gives what has to be held of those that are attached by flags.
fn attach_all(ebpf: &mut Ebpf, features: &Features, state: &mut SensorState) -> Vec<Attached> {
    let mut attached = Vec::new();
    for (name, hook, part) in PROGRAMS {
        // INVARIANT: the programs of `Connections` come before.
        if part == Part::States && works(state, Part::Connections) {
            continue;
        }
        let result =
            supported(part, features).and_then(|()| attach(ebpf, name, hook, features, &mut attached));
        let error = result.err().unwrap_or_default();
        state.programs.push(sensor_state::Program {
            name: name.to_owned(),
            attached: error.is_empty(),
            error,
            ..Default::default()
        });
    }
    attached
}

/// The lowest thing that is missing.
fn rung(state: &SensorState, features: &Features, by_flags: bool) -> Rung {
    if !works(state, Part::Connections) {
        Rung::CgroupV1
    } else if by_flags {
        Rung::NoBpfLink
    } else if !works(state, Part::Processes) || !works(state, Part::Unix) {
        Rung::NoBtf
    } else if !features.ring_buffer {
        Rung::NoRingBuffer
    } else {
        Rung::Full
    }
}

fn supported(part: Part, features: &Features) -> Result<(), String> {
    let knows = |enough: fn(&Layout) -> bool| features.layout.as_ref().is_ok_and(enough);
    let there = match part {
        Part::Connections => return Ok(()),
        Part::States => {
            let described = features.state.map(|_| ());
            return described.ok_or_else(|| "tracefs does not describe sock:inet_sock_set_state".to_owned());
        }
        Part::Processes => knows(Layout::has_tasks),
        Part::Unix | Part::UnixBytes => knows(Layout::has_unix),
        Part::Statements if !features.ring_buffer => return Err("it takes a ring buffer".to_owned()),
        Part::Statements => knows(Layout::has_sockets),
    };
    if there { Ok(()) } else { Err("this kernel's BTF does not tell the offsets that it needs".to_owned()) }
}

fn attach(
    ebpf: &mut Ebpf,
    name: &str,
    hook: Hook,
    features: &Features,
    attached: &mut Vec<Attached>,
) -> Result<(), String> {
    let program = ebpf.program_mut(name).ok_or_else(|| "not in the eBPF object".to_owned())?;
    let result = match hook {
        Hook::Cgroup(place) => {
            let cgroup = features.cgroup.as_ref().ok_or("no cgroup v2 hierarchy can be used")?;
            let by_flags = attach_to_cgroup(program, cgroup, place, features.bpf_link);
            by_flags.map(|by_flags| attached.extend(by_flags))
        }
        Hook::Raw(tracepoint) => attach_raw(program, tracepoint),
        // To see that it can be.
        Hook::Counting => unix_bytes::probe(program, name),
        Hook::Trace(category, tracepoint) => attach_tracepoint(program, category, tracepoint),
        Hook::Function => load_probe(program),
    };
    result.map_err(|error| {
        tracing::debug!(program = name, %error, "not attached");
        chain(&error)
    })
}

/// By a link, which needs nothing to be held; else by flags.
fn attach_to_cgroup(
    program: &mut Program,
    cgroup: &File,
    place: Place,
    links: bool,
) -> Result<Option<Attached>, ProgramError> {
    // With a link, `Single` is the mode that coexists with other programs: links are always shared.
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    let linked = match program {
        Program::CgroupSockAddr(program) => {
            program.load()?;
            links.then(|| program.attach(cgroup, MODE).map(|_| ()))
        }
        Program::SockOps(program) => {
            program.load()?;
            links.then(|| program.attach(cgroup, MODE).map(|_| ()))
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    if let Some(Ok(())) = linked {
        return Ok(None);
    }
    let by_flags = program_fd(program)
        .and_then(|program| Attached::new(program, cgroup.as_fd(), place).map_err(ProgramError::IOError));
    // Where links were refused for another reason than their absence, that reason is told.
    match (linked, by_flags) {
        (_, Ok(attached)) => Ok(Some(attached)),
        (Some(Err(error)), Err(_)) | (_, Err(error)) => Err(error),
    }
}

fn program_fd(program: &Program) -> Result<BorrowedFd<'_>, ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => program.fd().map(AsFd::as_fd),
        Program::SockOps(program) => program.fd().map(AsFd::as_fd),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn attach_raw(program: &mut Program, tracepoint: &str) -> Result<(), ProgramError> {
    let program: &mut RawTracePoint = program.try_into()?;
    program.load()?;
    program.attach(tracepoint).map(|_| ())
}

fn attach_tracepoint(program: &mut Program, category: &str, tracepoint: &str) -> Result<(), ProgramError> {
    let program: &mut TracePoint = program.try_into()?;
    program.load()?;
    program.attach(category, tracepoint).map(|_| ())
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

/// Names of the programs of these parts that are not attached.
fn failed(state: &SensorState, parts: &[Part]) -> String {
    let failed: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(name, _, of)| {
            let missing = |program: &sensor_state::Program| program.name == *name && !program.attached;
            parts.contains(of) && state.programs.iter().any(missing)
        })
        .map(|(name, _, _)| *name)
        .collect();
    failed.join(", ")
}

/// Says what each missing part costs.
fn explain(state: &mut SensorState, features: &Features) {
    let costs = [
        (Part::Connections, Rung::CgroupV1.means()),
        (
            Part::Processes,
            "processes are looked up in /proc: those that end quickly have no executable, arguments or ancestry",
        ),
        (
            Part::Unix,
            "connections on unix sockets round the proxy are looked for four times a second, shorter ones are \
             missed; tracefs at /sys/kernel/tracing and BTF bring them",
        ),
        (
            Part::UnixBytes,
            "bytes on unix sockets round the proxy are not counted; Linux 6.3 brings the tracepoints",
        ),
        (
            Part::Statements,
            "statements round the proxy, and those inside of functions, are not seen; uprobes (CONFIG_UPROBE_EVENTS) \
             and BTF bring them",
        ),
    ];
    for (part, cost) in costs {
        if !works(state, part) {
            let failed = failed(state, &[part]);
            state.missing.push(format!("{failed} cannot be attached: {cost}"));
        }
    }
    if !works(state, Part::Unix)
        && let Some(refused) = host::perf_events_refused()
    {
        state.missing.push(format!("neither tracepoints nor probes can be attached: {refused}"));
    }
    if works(state, Part::Connections) && host::cgroup_root().is_none() {
        state.missing.push(
            "no cgroup v2 hierarchy is mounted: units of processes that end quickly are not known; a host on the \
             unified or hybrid hierarchy knows them"
                .to_owned(),
        );
    }
    if !features.bpf_link {
        state.missing.push(format!("no links for cgroups: {}", Rung::NoBpfLink.means()));
    }
    if !features.ring_buffer {
        state.missing.push(format!("no ring buffer: {}", Rung::NoRingBuffer.means()));
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
