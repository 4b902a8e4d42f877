//! The first file system of a guest: busybox, the modules that its disks need, and a script that finds the real one.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// What the disks need, where it is not built in.
const WANTED: [&str; 4] = ["virtio_pci", "virtio_blk", "ext4", "virtio_rng"];

/// What a machine prints when it is only asked whether it starts.
pub const ALIVE: &str = "guard: the machine runs";

const INIT: &str = "#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /dev /root
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
if $b grep -q guard.probe /proc/cmdline; then
    echo 'guard: the machine runs'
    $b poweroff -f
fi
for module in $($b cat /modules); do $b insmod /$module; done
for try in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vdb ] && break; $b sleep 0.2; done
$b mount -t ext4 /dev/vda /root || { echo 'guard: no system disk'; $b poweroff -f; }
$b mkdir -p /root/usr/lib/modules
$b mount -t ext4 -o ro /dev/vdb /root/usr/lib/modules
$b umount /proc /sys
$b mount --move /dev /root/dev
exec $b switch_root /root /sbin/init
";

/// Writes it for the modules of one kernel, which depmod has sorted.
pub fn write(modules: &Path, busybox: &Path, to: &Path) -> Result<()> {
    let mut archive = Archive::default();
    archive.folder("bin");
    archive.file("bin/busybox", &fs::read(busybox)?, 0o755);
    archive.file("init", INIT.as_bytes(), 0o755);
    let dependencies = fs::read_to_string(modules.join("modules.dep"))?;
    let mut order: Vec<String> = Vec::new();
    for wanted in WANTED {
        for path in needed(&dependencies, wanted) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    let mut list = String::new();
    for path in &order {
        let name = path.rsplit('/').next().unwrap_or(path).split(".ko").next().unwrap_or(path);
        archive.file(&format!("{name}.ko"), &plain(&modules.join(path))?, 0o644);
        list.push_str(&format!("{name}.ko\n"));
    }
    archive.file("modules", list.as_bytes(), 0o644);
    let unfinished = to.with_extension("new");
    fs::write(&unfinished, archive.finished())?;
    fs::rename(unfinished, to)?;
    Ok(())
}

/// A module and those before it, in the order in which they go in; nothing for one that is built in.
fn needed(dependencies: &str, module: &str) -> Vec<String> {
    for line in dependencies.lines() {
        let Some((path, before)) = line.split_once(':') else { continue };
        let name = path.rsplit('/').next().unwrap_or(path).split(".ko").next().unwrap_or(path);
        if name.replace('-', "_") == module {
            let before = before.split_whitespace().rev().map(str::to_owned);
            return before.chain([path.to_owned()]).collect();
        }
    }
    Vec::new()
}

/// busybox loads no compressed ones.
fn plain(module: &Path) -> Result<Vec<u8>> {
    let program = match module.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return Ok(fs::read(module)?),
    };
    let mut command = Command::new(program);
    let output = command.args(["--decompress", "--stdout"]).arg(module).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} cannot unpack {}", module.display());
    }
    Ok(output.stdout)
}

/// An archive in the form that kernels unpack: `newc` of cpio.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn folder(&mut self, name: &str) {
        self.entry(name, &[], 0o040_755);
    }

    fn file(&mut self, name: &str, content: &[u8], mode: u32) {
        self.entry(name, content, 0o100_000 | mode);
    }

    fn entry(&mut self, name: &str, content: &[u8], mode: u32) {
        self.entries += 1;
        let (length, name_length) = (content.len(), name.len() + 1);
        // Inode, mode, user, group, links, time, size, device (2), device of a special file (2), name, check sum.
        let fields: [usize; 13] =
            [self.entries as usize, mode as usize, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            // Writing to memory does not fail.
            let _ = write!(self.bytes, "{field:08x}");
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finished(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", &[], 0);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{ALIVE, Archive, INIT, needed};

    #[test]
    fn modules_come_after_what_they_need() {
        let dependencies =
            "kernel/a/virtio.ko:\nkernel/a/virtio-pci.ko.xz: kernel/a/ring.ko kernel/a/virtio.ko\n";
        assert_eq!(
            needed(dependencies, "virtio_pci"),
            ["kernel/a/virtio.ko", "kernel/a/ring.ko", "kernel/a/virtio-pci.ko.xz"]
        );
        assert!(needed(dependencies, "ext4").is_empty());
    }

    #[test]
    fn an_archive_is_aligned_and_ends() {
        let mut archive = Archive::default();
        archive.file("abc", b"12345", 0o644);
        let bytes = archive.finished();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }

    #[test]
    fn the_script_says_what_is_waited_for() {
        assert!(INIT.contains(ALIVE));
    }
}
