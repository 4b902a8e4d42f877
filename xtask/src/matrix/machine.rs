//! A virtual machine: an image and the work enter, what the guest wrote leaves.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    home,
    image::{Images, KernelImage},
    initrd,
    progress::{self, Patience, Verdict},
};
use crate::shell;

const QEMU: &str = "qemu-system-x86_64";
/// A machine with KVM starts within a second or two, or never.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// How often a machine is started whose kernel does not say a word.
const STARTS: usize = 3;
/// Room for what a guest writes.
const ANSWER: u64 = 4 * 1024 * 1024;

/// What runs the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// A translation of its instructions.
    Emulated,
}

impl Accelerator {
    /// KVM where a machine starts with it: there are hosts on which it is there and hangs.
    pub fn probe(image: &KernelImage) -> Self {
        if File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return Self::Emulated;
        }
        let mut command = Self::Kvm.machine(image, "guard.probe", 256);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else { return Self::Emulated };
        let stdout = child.stdout.take();
        let ended = wait(&mut child, PROBE_LIMIT);
        let mut said = String::new();
        let heard = stdout.map(|mut stdout| stdout.read_to_string(&mut said));
        let alive = ended && matches!(heard, Some(Ok(_))) && said.contains(initrd::ALIVE);
        if alive { Self::Kvm } else { Self::Emulated }
    }

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Kvm => "with KVM",
            Self::Emulated => "emulated (no KVM that works here)",
        }
    }

    fn machine(self, image: &KernelImage, options: &str, memory_mib: u32) -> Command {
        let mut command = Command::new(QEMU);
        match self {
            Self::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
            // By one thread: emulated CPUs that run at a time can run into each other's half-patched kernel code (an
            // `Oops: int3` where a kernel has just changed a jump label).
            Self::Emulated => command.args(["-accel", "tcg,thread=single", "-cpu", "max"]),
        };
        let memory = memory_mib.to_string();
        command.args(["-m", &memory, "-smp", "2", "-nographic", "-no-reboot", "-nodefaults"]);
        command.args(["-serial", "stdio", "-device", "virtio-rng-pci"]);
        // BPF LSM is there to be tried as well.
        let line = format!("console=ttyS0 panic=1 lsm=lockdown,yama,bpf random.trust_cpu=on {options}");
        command.arg("-kernel").arg(&image.vmlinuz).arg("-initrd").arg(&image.initrd).args(["-append", &line]);
        command.stdin(Stdio::null());
        command
    }
}

/// Boots a kernel on the system's disk with the work, and gives what the guest wrote. A machine whose kernel does not say
/// a word is started again: that is the machine's fault, not guard's.
pub fn run(image: &KernelImage, images: &Images, how: How) -> Result<String> {
    for _ in 1..STARTS {
        match attempt(image, images, how)? {
            Attempt::Answer(output) => return Ok(output),
            Attempt::Mute => {}
        }
    }
    match attempt(image, images, how)? {
        Attempt::Answer(output) => Ok(output),
        Attempt::Mute => bail!("the machine was started {STARTS} times, and its kernel never said a word"),
    }
}

/// How machines run.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// On what.
    pub accelerator: Accelerator,
    /// Only what a run of all tests takes.
    pub short: bool,
}

/// What came of a start.
enum Attempt {
    /// What the guest wrote.
    Answer(String),
    /// Nothing, not even the kernel's first line.
    Mute,
}

fn attempt(image: &KernelImage, images: &Images, how: How) -> Result<Attempt> {
    let name = image.kernel.name;
    let logs = home().join("logs");
    fs::create_dir_all(&logs)?;
    let (console, answer) = (logs.join(format!("{name}.log")), logs.join(format!("{name}.answer")));
    let _ = fs::remove_file(&answer);
    File::create(&answer)?.set_len(ANSWER)?;
    let short = if how.short { "guard.short" } else { "" };
    let options =
        format!("root=/dev/vda rw systemd.show_status=0 net.ifnames=0 {short} {}", image.kernel.options);
    let mut command = how.accelerator.machine(image, &options, 1024);
    for (disk, how) in [
        (&images.system, "snapshot=on"),
        (&image.modules, "readonly=on"),
        (&images.work, "readonly=on"),
        (&answer, "cache=unsafe"),
    ] {
        command.arg("-drive").arg(format!("file={},format=raw,if=virtio,{how}", disk.display()));
    }
    let log = File::create(&console)?;
    command.stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn().with_context(|| format!("cannot run {QEMU}"))?;
    let verdict = progress::watch(&mut child, &console, Patience::of(how.accelerator));
    let mut output = fs::read(&answer)?;
    output.truncate(output.iter().position(|byte| *byte == 0).unwrap_or(output.len()));
    let output = String::from_utf8_lossy(&output).into_owned();
    fs::remove_file(&answer)?;
    match verdict {
        Verdict::Mute => Ok(Attempt::Mute),
        _ if output.is_empty() => {
            bail!("the machine {}; its console: {}", verdict.describe(), console.display())
        }
        _ => Ok(Attempt::Answer(output)),
    }
}

/// Waits for the end, and brings it about in the end.
fn wait(child: &mut Child, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(Some(_)) => return true,
            Ok(None) => thread::sleep(Duration::from_millis(100)),
            Err(_) => break,
        }
    }
    // It may have ended in this moment.
    let _ = child.kill();
    let _ = child.wait();
    false
}

/// Packs this build: the programs without what debuggers need, and the unit.
pub fn pack_work(home: &Path, short: bool) -> Result<PathBuf> {
    let folder = tempfile::tempdir_in(home)?;
    let mut programs = vec![
        (guard_tests::binaries::path("guard-agent")?, "guard-agent"),
        (guard_tests::binaries::path("guard-guest")?, "guard-guest"),
        (guard_tests::binaries::path("guard-short-client")?, "guard-short-client"),
        (tests("guard-agent", "kernel")?, "kernel-tests"),
    ];
    if !short {
        programs.push((tests("guard-tests", "e2e")?, "end-to-end-tests"));
    }
    for (program, name) in programs {
        let mut command = shell::command("strip", &["--strip-debug", "-o"]);
        command.arg(folder.path().join(name)).arg(program);
        shell::quietly(command, "making a program small")?;
    }
    for shipped in ["policies", "deploy"] {
        let mut command = shell::command("cp", &["--recursive", shipped]);
        command.arg(folder.path());
        shell::quietly(command, "copying what is shipped")?;
    }
    let unit = "guard-agent.service";
    fs::copy(shell::root().join("deploy/systemd").join(unit), folder.path().join(unit))?;
    let work = home.join("work.tar");
    let mut command = shell::command("tar", &["--create", "--file"]);
    command.arg(&work).arg("--directory").arg(folder.path()).arg(".");
    shell::quietly(command, "packing this build")?;
    Ok(work)
}

/// The program with a package's tests, as cargo names it.
fn tests(package: &str, name: &str) -> Result<PathBuf> {
    let words =
        ["test", "--locked", "--package", package, "--test", name, "--no-run", "--message-format=json"];
    let output = shell::output(shell::cargo(&words));
    let output = output.with_context(|| format!("the tests `{name}` of {package} cannot be built"))?;
    let found = output.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_it = message.pointer("/target/name")? == name;
        is_it.then(|| message.get("executable")?.as_str().map(PathBuf::from)).flatten()
    });
    found.with_context(|| format!("cargo names no program with the tests `{name}`"))
}
