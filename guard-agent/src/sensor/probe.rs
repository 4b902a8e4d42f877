//! Attaches the statement programs to server programs, one file at a time however many servers run it, and tells the
//! kernel side which servers are observed. What is gone is detached.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
};

use aya::{
    Ebpf,
    maps::{HashMap as KernelMap, MapData},
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeLinkId, UProbeScope},
    },
};
use guard_common::kernel::statement::Target;

use crate::probes::FileId;

/// A server whose statements are to be seen.
#[derive(Clone, Debug)]
pub struct ObservedServer {
    /// Its first process.
    pub pid: u32,
    /// Its program file, by a path that the kernel can open: `/proc/PID/exe`.
    pub program: PathBuf,
    /// Which file that is.
    pub file: FileId,
    /// Names of the programs and the offsets in the file to which they go.
    pub places: Vec<(&'static str, u64)>,
    /// Where things are in its processes.
    pub target: Target,
}

/// What is attached and observed.
pub struct Probes {
    observed: KernelMap<MapData, u32, Target>,
    attached: HashMap<FileId, Vec<(&'static str, UProbeLinkId)>>,
}

impl Probes {
    /// Nothing is attached yet.
    pub fn new(observed: KernelMap<MapData, u32, Target>) -> Self {
        Self { observed, attached: HashMap::new() }
    }

    /// Observes exactly these servers from now on; tells for each why not.
    pub fn observe(&mut self, ebpf: &mut Ebpf, servers: &[ObservedServer]) -> Vec<Result<(), String>> {
        let files: BTreeSet<FileId> = servers.iter().map(|server| server.file).collect();
        let gone: Vec<FileId> = self.attached.keys().filter(|file| !files.contains(file)).copied().collect();
        for file in gone {
            self.detach(ebpf, file);
        }
        let stale: Vec<u32> = self
            .observed
            .keys()
            .flatten()
            .filter(|pid| !servers.iter().any(|server| server.pid == *pid))
            .collect();
        for pid in stale {
            let _ = self.observed.remove(&pid);
        }
        servers
            .iter()
            .map(|server| {
                self.attach(ebpf, server)?;
                self.observed
                    .insert(server.pid, server.target, 0)
                    .map_err(|error| format!("more servers than can be observed: {error}"))
            })
            .collect()
    }

    fn attach(&mut self, ebpf: &mut Ebpf, server: &ObservedServer) -> Result<(), String> {
        if self.attached.contains_key(&server.file) {
            return Ok(());
        }
        let mut links = Vec::new();
        let mut failure = None;
        for (name, offset) in &server.places {
            match attach(ebpf, name, *offset, server) {
                Ok(link) => links.push((*name, link)),
                Err(error) => {
                    failure =
                        Some(format!("{name} cannot be attached to {}: {error}", server.program.display()));
                    break;
                }
            }
        }
        self.attached.insert(server.file, links);
        match failure {
            // All of them, or none: half of what runs would look like all of it.
            Some(failure) => {
                self.detach(ebpf, server.file);
                Err(failure)
            }
            None => Ok(()),
        }
    }

    fn detach(&mut self, ebpf: &mut Ebpf, file: FileId) {
        for (name, link) in self.attached.remove(&file).unwrap_or_default() {
            let Some(program) = ebpf.program_mut(name) else { continue };
            let detached = <&mut UProbe>::try_from(program).and_then(|program| program.detach(link));
            if let Err(error) = detached {
                tracing::warn!(program = name, %error, "a probe cannot be detached");
            }
        }
    }
}

fn attach(ebpf: &mut Ebpf, name: &str, offset: u64, server: &ObservedServer) -> Result<UProbeLinkId, String> {
    let program = ebpf.program_mut(name).ok_or_else(|| "not in the eBPF object".to_owned())?;
    let mut attach = || -> Result<UProbeLinkId, ProgramError> {
        let program: &mut UProbe = program.try_into()?;
        program.attach(offset, &server.program, UProbeScope::AllProcesses)
    };
    attach().map_err(|error| {
        let refused = super::host::perf_events_refused().map(|refused| format!("; {refused}"));
        super::load::chain(&error) + &refused.unwrap_or_default()
    })
}
