//! What a machine boots: a kernel with the modules that its disks need, a disk of modules, and the disk of the guests'
//! system. Made once, and kept; a machine never writes to them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{
    debian::Apt,
    home, initrd,
    kernels::{ALL, Kernel},
};
use crate::shell;

/// The package that stands for Debian's newest kernel of a suite, without drivers for hardware.
const KERNEL: &str = "linux-image-cloud-amd64";
/// What the system has beyond the least.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,postgresql,iproute2,procps,python3-minimal,libpython3-stdlib,kmod,\
                        nftables,socat,runc,util-linux";
/// Of ext4, what the oldest kernel knows; no journal, since no machine writes to a disk that is kept.
const FEATURES: &str = "none,extent,filetype,sparse_super,large_file,huge_file,dir_index,extra_isize";
/// Raised when what is made here changes.
const EDITION: &str = "2";

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub struct KernelImage {
    /// What it is of.
    pub kernel: &'static Kernel,
    /// The kernel.
    pub vmlinuz: PathBuf,
    /// The first file system.
    pub initrd: PathBuf,
    /// A disk with `/usr/lib/modules`.
    pub modules: PathBuf,
}

/// Everything that is ready to boot.
#[derive(Debug)]
pub struct Images {
    kernels: Vec<KernelImage>,
    /// The disk of the system.
    pub system: PathBuf,
    /// What is to be tested, as a disk with a tar archive.
    pub work: PathBuf,
}

impl Images {
    /// Makes what is missing for these kernels.
    pub fn ready(wanted: &[&'static Kernel], say: impl Fn(String)) -> Result<Self> {
        fs::create_dir_all(home())?;
        let system_suite = system_suite()?;
        // All of them, whatever is wanted now: other lists would have to be read anew.
        let mut suites: Vec<&str> = ALL.iter().map(|kernel| kernel.suite).collect();
        suites.push(&system_suite);
        suites.sort_unstable();
        suites.dedup();
        let apt = Apt::ready(&home(), &suites)?;
        let busybox = busybox(&apt, &system_suite)?;
        let mut kernels = Vec::new();
        for kernel in wanted {
            kernels.push(ready_kernel(&apt, kernel, &busybox, &say)?);
        }
        let system = ready_system(&apt, &system_suite, &say)?;
        Ok(Self { kernels, system, work: PathBuf::new() })
    }

    /// With what is to be tested.
    pub fn with(self, work: PathBuf) -> Self {
        Self { work, ..self }
    }

    /// Of one kernel.
    pub fn of(&self, kernel: &Kernel) -> Result<&KernelImage> {
        let found = self.kernels.iter().find(|image| image.kernel == kernel);
        found.with_context(|| format!("no image of the kernel {}", kernel.name))
    }
}

/// The guests' system is of this host's release where that is Debian: the programs of this build run on no older one.
fn system_suite() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        release.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_matches('"').to_owned()))
    };
    match (field("ID=").as_deref(), field("VERSION_CODENAME=")) {
        (Some("debian"), Some(codename)) => Ok(codename),
        (Some("debian"), None) => Ok("sid".to_owned()),
        (Some("ubuntu"), _) => Ok("sid".to_owned()),
        _ => bail!(
            "the kernel matrix takes a host with Debian or one of its relatives: guests run what is built here"
        ),
    }
}

fn busybox(apt: &Apt, suite: &str) -> Result<PathBuf> {
    let folder = home().join("busybox");
    let find = || {
        ["bin/busybox", "usr/bin/busybox"]
            .map(|place| folder.join(place))
            .into_iter()
            .find(|file| file.is_file())
    };
    if find().is_none() {
        let package = ("busybox-static".to_owned(), apt.version("busybox-static", suite)?);
        apt.unpack(&[package], &folder)?;
    }
    find().context("Debian's busybox-static has no busybox")
}

fn ready_kernel(
    apt: &Apt,
    kernel: &'static Kernel,
    busybox: &Path,
    say: &impl Fn(String),
) -> Result<KernelImage> {
    let version = apt.version(KERNEL, kernel.suite)?;
    let folder = home().join("kernels").join(format!("{}-{version}", kernel.suite));
    let image = KernelImage {
        kernel,
        vmlinuz: folder.join("vmlinuz"),
        initrd: folder.join("initrd-1"),
        modules: folder.join("modules.img"),
    };
    if image.initrd.exists() {
        return Ok(image);
    }
    say(format!("getting the kernel {version} from Debian's {}", kernel.suite));
    let tree = folder.join("tree");
    let _ = fs::remove_dir_all(&tree);
    let mut packages = Vec::new();
    for (name, version) in apt.exact_dependencies(KERNEL, &version)? {
        // Of newer kernels the image's package is empty, and depends on what has its parts.
        let parts = apt.exact_dependencies(&name, &version)?;
        let part = |(name, _): &(String, String)| name.starts_with("linux-");
        packages.push((name, version));
        packages.extend(parts.into_iter().filter(part));
    }
    packages.sort();
    packages.dedup();
    apt.unpack(&packages, &tree)?;
    let (modules, release) = modules_of(&tree)?;
    let vmlinuz = [tree.join(format!("boot/vmlinuz-{release}")), modules.join(&release).join("vmlinuz")];
    let vmlinuz = vmlinuz.into_iter().find(|file| file.is_file()).context("the package has no kernel")?;
    fs::rename(vmlinuz, &image.vmlinuz)?;
    // depmod looks for lib/modules.
    if !tree.join("lib/modules").exists() {
        fs::create_dir_all(tree.join("lib"))?;
        std::os::unix::fs::symlink("../usr/lib/modules", tree.join("lib/modules"))?;
    }
    let depmod = shell::command("depmod", &["--basedir", &tree.to_string_lossy(), &release]);
    shell::quietly(depmod, "sorting the kernel's modules")?;
    make_disk(&modules, &image.modules, 64)?;
    initrd::write(&modules.join(&release), busybox, &image.initrd)?;
    fs::remove_dir_all(&tree)?;
    remove_others(&folder, &format!("{}-", kernel.suite))?;
    Ok(image)
}

/// Of each suite, the newest is kept.
fn remove_others(current: &Path, prefix: &str) -> Result<()> {
    for entry in fs::read_dir(current.parent().context("a folder for kernels")?)? {
        let entry = entry?;
        if entry.path() != current && entry.file_name().to_string_lossy().starts_with(prefix) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The folder of modules, and the release of the kernel that is in it.
fn modules_of(tree: &Path) -> Result<(PathBuf, String)> {
    for place in ["lib/modules", "usr/lib/modules"] {
        let folder = tree.join(place);
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.path().join("kernel").is_dir() {
                return Ok((folder, entry.file_name().to_string_lossy().into_owned()));
            }
        }
    }
    bail!("the kernel's packages have no modules")
}

/// An ext4 file system with what is in `folder`, and this much room in MiB.
fn make_disk(folder: &Path, disk: &Path, room: u64) -> Result<()> {
    let used =
        shell::output(shell::command("du", &["--summarize", "--block-size=1M", &folder.to_string_lossy()]));
    let used = used
        .as_deref()
        .and_then(|used| used.split_whitespace().next())
        .and_then(|used| used.parse::<u64>().ok());
    let size = used.context("the size of a disk cannot be told")? * 5 / 4 + room;
    // Beside its place and moved there: what is there is whole.
    let unfinished = disk.with_extension("new");
    let _ = fs::remove_file(&unfinished);
    let mut command = shell::command("mke2fs", &["-q", "-t", "ext4", "-O", FEATURES, "-d"]);
    command.arg(folder).arg(&unfinished).arg(format!("{size}M"));
    shell::quietly(command, "making a disk")?;
    fs::rename(unfinished, disk)?;
    Ok(())
}

fn ready_system(apt: &Apt, suite: &str, say: &impl Fn(String)) -> Result<PathBuf> {
    let disk = home().join(format!("system-{suite}-{EDITION}.img"));
    if disk.exists() {
        return Ok(disk);
    }
    let tree = home().join(format!("system-{suite}"));
    if !tree.join("etc/guard-complete").exists() {
        say(format!("installing Debian's {suite} with systemd and PostgreSQL for the guests"));
        remove_tree(&tree)?;
        let archive = format!("{}/debian", apt.mirror);
        let include = format!("--include={PACKAGES}");
        let mut command = shell::command("debootstrap", &["--variant=minbase", &include, suite]);
        command.arg(&tree).arg(archive);
        shell::quietly(command, "installing the guests' system")?;
        prepare(&tree)?;
        fs::write(tree.join("etc/guard-complete"), "")?;
    }
    make_disk(&tree, &disk, 256)?;
    remove_tree(&tree)?;
    for entry in fs::read_dir(home())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("system-") && name.ends_with(".img") && entry.path() != disk {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(disk)
}

/// Nothing of this host may be mounted in there when it goes.
fn remove_tree(tree: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let inside = format!(" {}/", tree.display());
    if mounts.contains(&inside) {
        bail!("something is mounted below {}: unmount it first", tree.display());
    }
    match fs::remove_dir_all(tree) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The service that does the work in a guest: after PostgreSQL, and then the machine goes off.
const SERVICE: &str = "[Unit]
Description=guard's tests
After=postgresql.service systemd-user-sessions.service
Wants=postgresql.service

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mkdir -p /opt/guard; tar -xf /dev/vdc -C /opt/guard && exec /opt/guard/guard-guest >/dev/vdd'
ExecStopPost=/bin/sh -c 'sync; systemctl poweroff --force --force'
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=infinity

[Install]
WantedBy=multi-user.target
";

/// Whoever connects as anybody is let in: what is tested is who guard says it was.
const HBA: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\nhost all all ::1/128 trust\n";

fn prepare(tree: &Path) -> Result<()> {
    let etc = tree.join("etc");
    fs::write(etc.join("systemd/system/guard-tests.service"), SERVICE)?;
    let wants = etc.join("systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    let link = |target: &str, name: PathBuf| match std::os::unix::fs::symlink(target, name) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    link("/etc/systemd/system/guard-tests.service", wants.join("guard-tests.service"))?;
    // Nobody logs in there, no package is kept up to date, and what an emulated machine does takes long.
    for unit in [
        "getty.target",
        "systemd-logind.service",
        "systemd-update-utmp.service",
        "systemd-binfmt.service",
        "e2scrub_reap.service",
        "fstrim.timer",
        "modprobe@.service",
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "systemd-resolved.service",
    ] {
        link("/dev/null", etc.join("systemd/system").join(unit))?;
    }
    fs::write(etc.join("fstab"), "")?;
    fs::write(etc.join("hostname"), "guard-guest\n")?;
    let clusters = fs::read_dir(etc.join("postgresql"))?.flatten();
    let mut found = false;
    for version in clusters {
        fs::write(version.path().join("main/pg_hba.conf"), HBA)?;
        found = true;
    }
    if !found {
        bail!("the guests' system has no PostgreSQL cluster");
    }
    for waste in ["var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"]
    {
        let _ = fs::remove_dir_all(tree.join(waste));
    }
    Ok(())
}
